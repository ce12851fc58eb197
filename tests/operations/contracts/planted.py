"""Changes of contracts that break somebody, each an edit of one proto file, with what the gate must say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ORDER = "retail/ordering/v1/order.proto"
STOCK = "retail/fulfilment/v1/stock.proto"
RECEIPT = "retail/fulfilment/v1/receipt.proto"
PRICE = "retail/ordering/v1/price.proto"
PAYMENT = "retail/payments/v1/payment.proto"
EFFECTS = "retail/payments/effects/v1/payment.proto"
RISK = "retail/payments/views/v1/risk.proto"
ROWS = "retail/ordering/views/v1/rows.proto"
REQUEST = "retail/gateway/v1/order_request.proto"
API = "retail/gateway/v1/order_service.proto"
META = "backbone/v1/meta.proto"


@dataclass(frozen=True)
class Edit:
    """Text of a proto file and what stands in its place; the first place only."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Planted:
    """A breach.

    Attributes:
        edits: what is done to the released contracts.
        finding: name of the finding that must be there.
        breaks: some of those it must name.
        before: edits of the released contracts themselves, for what they do not have yet.
    """

    name: str
    edits: Sequence[Edit]
    finding: str
    breaks: Sequence[str] = ()
    before: Sequence[Edit] = ()


ORDERING, F, P, G = "retail.ordering.v1", "retail.fulfilment.v1", "retail.payments.v1", "retail.gateway.v1"
CLIENTS = f"clients of {G}.OrderService"
QUANTITY = """  int32 quantity = 2 [(buf.validate.field).int32 = {
    gte: 1
    lte: 1000
  }];
  // What one costs."""
REASON = """  RejectionReason reason = 4 [(buf.validate.field).enum = {
    defined_only: true
    not_in: [0]
  }];"""
OPTION = """  option (backbone.v1.topic) = {{
    name: "{}"
    key: "{}"
    writer: "{}"
  }};
"""
PRICES_OPTION = OPTION.format("retail.ordering.prices.v1", "sku", "ordering.pricing")
RAMP_OPTION = OPTION.format("retail.fulfilment.stock.v1", "pool_id", "fulfilment.receiving")
SEALED = Edit(ORDER, "  reserved 5;\n", "  // Where it goes.\n  backbone.v1.Sealed deliver_to = 5;\n")

PLANTED = [
    # Wire.
    Planted(
        "a field of another type",
        [Edit(ORDER, QUANTITY, QUANTITY.replace("int32 quantity = 2", "int64 quantity = 2").replace(".int32", ".int64"))],
        f"FIELD_WIRE_JSON_COMPATIBLE_TYPE:{ORDERING}.OrderLine.quantity",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "a field of another number",
        [Edit(PRICE, "google.type.Money unit_price = 2", "google.type.Money unit_price = 3")],
        f"FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED:{ORDERING}.PriceListed.unit_price",
        ["ordering.orders"],
    ),
    Planted(
        "a field of another name",
        [Edit(PAYMENT, "int32 score = 2", "int32 points = 2")],
        f"FIELD_SAME_JSON_NAME:{P}.PaymentAssessed.points",
    ),
    Planted(
        "a deleted field whose number and name are not reserved",
        [Edit(PAYMENT, "  // Whether we ask the provider.\n  bool accepted = 3;\n", "")],
        f"FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED:{P}.PaymentAssessed.accepted",
    ),
    Planted(
        "a deleted field whose name is not reserved",
        [Edit(PAYMENT, "  // Whether we ask the provider.\n  bool accepted = 3;\n", "  reserved 3;\n")],
        f"FIELD_NO_DELETE_UNLESS_NAME_RESERVED:{P}.PaymentAssessed.accepted",
    ),
    Planted(
        "a reservation taken back",
        [Edit(ORDER, "  // deliver_to: a Sealed address, once there are customers with addresses.\n  reserved 5;\n", "")],
        f"RESERVED_MESSAGE_NO_DELETE:{ORDERING}.OrderValidated",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "one that becomes many",
        [
            Edit(
                STOCK,
                "  // The receipt it came with.\n  string receipt_id = 4 [(buf.validate.field).string.max_bytes = 256];",
                "  // The receipts it came with.\n  repeated string receipt_id = 4;",
            )
        ],
        f"FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY:{F}.StockReceived.receipt_id",
    ),
    Planted(
        "a deleted enum value",
        [Edit(ORDER, "  // Stock or payment did not answer in time.\n  REJECTION_REASON_OVERDUE = 5;\n", "")],
        f"ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED:{ORDERING}.RejectionReason.5",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "an event under the number of another",
        [
            Edit(
                ORDER,
                "OrderReserved order_reserved = 2;\n    // The money is authorised.\n    OrderPaid order_paid = 3;",
                "OrderPaid order_paid = 2;\n    // Stock holds all of it.\n    OrderReserved order_reserved = 3;",
            )
        ],
        f"FIELD_WIRE_JSON_COMPATIBLE_TYPE:{ORDERING}.OrderEvent.order_paid",
        ["gateway.door"],
    ),
    Planted(
        "a field of the runtime's own records of another type",
        [Edit(META, "int64 sequence = 4", "string sequence = 4")],
        "FIELD_WIRE_JSON_COMPATIBLE_TYPE:backbone.v1.Meta.sequence",
    ),
    Planted(
        "a command of another type on the wire",
        [Edit(EFFECTS, "int32 authorized = 2;", "string authorized = 2;")],
        "FIELD_WIRE_COMPATIBLE_TYPE:retail.payments.effects.v1.RiskAssessed.authorized",
        ["payments.payments"],
    ),
    # The public API.
    Planted(
        "a method of the API that is gone",
        [Edit(API, "  // GetOrder tells where an order stands.\n  rpc GetOrder(GetOrderRequest) returns (GetOrderResponse);\n", "")],
        f"RPC_NO_DELETE:{G}.OrderService/GetOrder",
        [CLIENTS],
    ),
    Planted(
        "a method that streams",
        [Edit(API, "returns (GetOrderResponse);", "returns (stream GetOrderResponse);")],
        f"RPC_SAME_SERVER_STREAMING:{G}.OrderService/GetOrder",
        [CLIENTS],
    ),
    Planted(
        "a method with another answer",
        [
            Edit(
                API,
                "rpc GetOrder(GetOrderRequest) returns (GetOrderResponse);",
                "rpc GetOrder(GetOrderRequest) returns (AwaitOrderResponse);",
            )
        ],
        f"RPC_CHANGED:{G}.OrderService/GetOrder",
        [CLIENTS],
    ),
    Planted(
        "a field of the API of another name",
        [Edit(API, "bool undecided = 3;", "bool open = 3;")],
        f"FIELD_SAME_NAME:{G}.CancelOrderResponse.open",
        [CLIENTS],
    ),
    Planted(
        "a stricter rule for requests",
        [Edit(API, "gte: 1\n    lte: 1000", "gte: 1\n    lte: 10")],
        f"REQUEST_RULE_TIGHTENED:{G}.OrderLine.quantity",
        [CLIENTS],
    ),
    # Value rules.
    Planted(
        "a lower upper bound",
        [Edit(ORDER, QUANTITY, QUANTITY.replace("lte: 1000", "lte: 999"))],
        f"VALUE_RULE_TIGHTENED:{ORDERING}.OrderLine.quantity",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "a higher upper bound",
        [Edit(ORDER, QUANTITY, QUANTITY.replace("lte: 1000", "lt: 1002"))],
        f"VALUE_RULE_LOOSENED:{ORDERING}.OrderLine.quantity",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "a rule that is gone",
        [Edit(ORDER, REASON, "  RejectionReason reason = 4;")],
        f"VALUE_RULE_LOOSENED:{ORDERING}.OrderRejected.reason",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "a value that is no longer allowed",
        [Edit(ORDER, REASON, REASON.replace("[0]", "[0, 2]"))],
        f"VALUE_RULE_TIGHTENED:{ORDERING}.OrderRejected.reason",
        ["gateway.door"],
    ),
    Planted(
        "a rule over the whole event that says something else",
        [Edit(STOCK, '"this.reserved <= this.on_hand"', '"this.reserved < this.on_hand"')],
        f"VALUE_RULE_TIGHTENED:{F}.StockLevelChanged",
        ["ordering.orders"],
    ),
    Planted(
        "a new field that must be there",
        [
            Edit(
                PRICE,
                "  google.type.Money unit_price = 2 [(buf.validate.field).required = true];",
                "  google.type.Money unit_price = 2 [(buf.validate.field).required = true];\n"
                "  // Since when.\n  string since = 3 [(buf.validate.field).string.min_len = 1];",
            )
        ],
        f"VALUE_RULE_TIGHTENED:{ORDERING}.PriceListed.since",
        ["ordering.orders"],
    ),
    Planted(
        "a field that had to be there, deleted in all form",
        [
            Edit(
                PRICE,
                "  // What one costs.\n  google.type.Money unit_price = 2 [(buf.validate.field).required = true];",
                '  reserved 2;\n  reserved "unit_price";',
            )
        ],
        f"VALUE_RULE_LOOSENED:{ORDERING}.PriceListed.unit_price",
        ["ordering.orders"],
    ),
    # Topics.
    Planted(
        "another key",
        [Edit(RECEIPT, 'key: "pool_id"', 'key: "receipt_id"')],
        f"KEY_CHANGED:{F}.ReceiptEvent",
        ["fulfilment.stock"],
    ),
    Planted(
        "another topic name",
        [Edit(PRICE, 'name: "retail.ordering.prices.v1"', 'name: "retail.ordering.price-list.v1"')],
        f"TOPIC_RENAMED:{ORDERING}.PriceEvent",
        ["ordering.orders"],
    ),
    Planted(
        "a topic without a wrapper",
        [
            Edit(
                PRICE,
                PRICES_OPTION,
                "",
            )
        ],
        f"TOPIC_GONE:{ORDERING}.PriceEvent",
        ["ordering.orders", "ordering.pricing"],
    ),
    Planted(
        "another writer",
        [Edit(RECEIPT, 'writer: "fulfilment.receiving"', 'writer: "fulfilment.stock"')],
        f"WRITER_CHANGED:{F}.ReceiptEvent",
        ["fulfilment.receiving", "fulfilment.stock"],
    ),
    Planted(
        "a second writer",
        [
            Edit(
                RECEIPT,
                "// Goods came in.\nmessage GoodsReceived",
                "// RampEvent is what topic retail.fulfilment.stock.v1 holds.\nmessage RampEvent {\n"
                + RAMP_OPTION
                + "  // What happened.\n  oneof event {\n    // Goods came in.\n    GoodsReceived goods_received = 6;\n  }\n"
                "  // Who, when, why.\n  backbone.v1.Meta meta = 15;\n}\n\n// Goods came in.\nmessage GoodsReceived",
            )
        ],
        f"TOPIC_TWO_WRITERS:{F}.StockEvent",
    ),
    Planted(
        "a copy that becomes a primary",
        [Edit(STOCK, '    copy_of: "retail.fulfilment.stock.v1"\n', "")],
        f"COPY_CHANGED:{F}.StockByOrderEvent",
        ["ordering.orders"],
    ),
    Planted(
        "an event in two primaries",
        [Edit(STOCK, '    copy_of: "retail.fulfilment.stock.v1"\n', "")],
        f"EVENT_TWO_PRIMARIES:{F}.ItemsReserved",
        ["ordering.orders"],
    ),
    Planted(
        "a copy that no longer holds an event",
        [
            Edit(
                ORDER,
                "    // What is held is free again.\n    OrderCancelled order_cancelled = 6;\n  }",
                '  }\n  reserved 6;\n  reserved "order_cancelled";',
            )
        ],
        f"COPY_EVENT_LOST:{ORDERING}.OrderByZoneEvent.OrderCancelled",
        ["fulfilment.stock"],
    ),
    Planted(
        "an event that is gone from its topic",
        [
            Edit(PAYMENT, "    // The order ended before the payment did.\n    PaymentAbandoned payment_abandoned = 5;\n  ", "  "),
            Edit(PAYMENT, "  // Who, when, why.\n", '  reserved 5;\n  reserved "payment_abandoned";\n  // Who, when, why.\n'),
        ],
        f"EVENT_DROPPED:{P}.PaymentEvent.PaymentAbandoned",
    ),
    # Meaning.
    Planted(
        "personal data in clear under its number",
        [Edit(ORDER, "backbone.v1.Sealed deliver_to = 5", "string deliver_to = 5")],
        f"SEALED_OPENED:{ORDERING}.OrderValidated.deliver_to",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
        before=[SEALED],
    ),
    Planted(
        "personal data in clear under its name",
        [
            Edit(
                ORDER,
                "  // Where it goes.\n  backbone.v1.Sealed deliver_to = 5;\n",
                "  reserved 5;\n  // Where it goes.\n  string deliver_to = 9;\n",
            )
        ],
        f"SEALED_OPENED:{ORDERING}.OrderValidated.deliver_to",
        ["gateway.door"],
        before=[SEALED],
    ),
    Planted(
        "a reason that nobody knows yet",
        [
            Edit(
                ORDER,
                "REJECTION_REASON_OVERDUE = 5;\n",
                "REJECTION_REASON_OVERDUE = 5;\n  // We do not deliver there.\n  REJECTION_REASON_NO_ROAD = 6;\n",
            )
        ],
        f"ENUM_VALUE_ADDED:{ORDERING}.RejectionReason.REJECTION_REASON_NO_ROAD",
        ["fulfilment.stock", "gateway.door", "payments.payments"],
    ),
    Planted(
        "a row with another field, still of the same version",
        [Edit(RISK, "int32 voided = 5;", "int32 voided = 5;\n  // How many were given up.\n  int32 given_up = 6;")],
        "ROW_CHANGED:retail.payments.views.v1.CustomerHistory",
        ["payments.payments", "payments.risk"],
    ),
    Planted(
        "a row whose field has another type, still of the same version",
        [Edit(ROWS, "map<string, int64> available = 2;", "map<string, string> available = 2;")],
        "ROW_CHANGED:retail.ordering.views.v1.Availability",
        ["ordering.orders"],
    ),
    Planted(
        "a row under another key",
        [
            Edit(RISK, "  int32 voided = 5;", "  int32 voided = 5;\n  // Whose, as the provider says.\n  string account = 6;"),
            Edit(RISK, '{key: "customer_id"}', '{key: "account"}'),
        ],
        "ROW_KEY_CHANGED:retail.payments.views.v1.CustomerHistory",
        ["payments.risk"],
    ),
]

NOTICED = [
    Planted(
        "a new event",
        [
            Edit(
                PRICE,
                "    PriceListed price_listed = 1;\n",
                "    PriceListed price_listed = 1;\n    // Gone.\n    PriceForgotten price_forgotten = 14;\n",
            ),
            Edit(
                PRICE,
                "// From now on one costs",
                "// It is no longer sold.\nmessage PriceForgotten {\n  // What.\n  string sku = 1;\n}\n\n// From now on one costs",
            ),
        ],
        f"EVENT_ADDED:{ORDERING}.PriceEvent.PriceForgotten",
        ["ordering.orders"],
    ),
    Planted(
        "an answer that clients do not know",
        [Edit(API, "ORDER_STATUS_CANCELLED = 4;\n", "ORDER_STATUS_CANCELLED = 4;\n  // It left the house.\n  ORDER_STATUS_SHIPPED = 5;\n")],
        f"ENUM_VALUE_ADDED_TO_API:{G}.OrderStatus.ORDER_STATUS_SHIPPED",
        [CLIENTS],
    ),
]

HARMLESS = [
    Planted("a comment", [Edit(ORDER, "// The answer: yes.\n", "// The answer: yes, at last.\n")], ""),
    Planted(
        "a new field that may be missing",
        [
            Edit(
                PRICE,
                "  google.type.Money unit_price = 2 [(buf.validate.field).required = true];",
                "  google.type.Money unit_price = 2 [(buf.validate.field).required = true];\n  // Why.\n  string because = 3;",
            )
        ],
        "",
    ),
    Planted("a looser rule for requests", [Edit(API, "gte: 1\n    lte: 1000", "gte: 1\n    lte: 2000")], ""),
    Planted("the same bound in other words", [Edit(ORDER, QUANTITY, QUANTITY.replace("gte: 1\n    lte: 1000", "gt: 0\n    lt: 1001"))], ""),
    Planted(
        "a deleted field without a rule, in all form",
        [Edit(PAYMENT, "  // Whether we ask the provider.\n  bool accepted = 3;\n", '  reserved 3;\n  reserved "accepted";\n')],
        "",
    ),
    Planted(
        "a new method",
        [
            Edit(
                API,
                "  // AwaitOrder waits",
                "  // Again gives an order.\n  rpc Again(GetOrderRequest) returns (GetOrderResponse);\n  // AwaitOrder waits",
            )
        ],
        "",
    ),
]

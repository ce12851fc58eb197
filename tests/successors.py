"""What may be said after what: held against decisions, against stored records, and against the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backbone.testing.machine import FIRST, Successors

REFUSED = "OrderCancellationRefused"
ANSWERS = frozenset({"OrderConfirmed", "OrderRejected", "OrderCancelled"})
AFTER_ANSWER = frozenset({REFUSED})
GIVING_BACK = frozenset({"PaymentVoided"})

OF_ORDERS = Successors(
    "order_id",
    {
        FIRST: frozenset({"OrderValidated", "OrderRejected", REFUSED}),
        "OrderValidated": frozenset({"OrderReserved", "OrderPaid", "OrderRejected", "OrderCancelled", REFUSED}),
        "OrderReserved": frozenset({"OrderPaid", "OrderConfirmed", "OrderRejected", "OrderCancelled", REFUSED}),
        "OrderPaid": frozenset({"OrderReserved", "OrderConfirmed", "OrderRejected", "OrderCancelled", REFUSED}),
        **dict.fromkeys(ANSWERS, AFTER_ANSWER),
        # A wish that was refused changes nothing: what could come before it can come after it.
        REFUSED: frozenset({"OrderValidated", "OrderReserved", "OrderPaid", REFUSED}) | ANSWERS,
    },
)

OF_PAYMENTS = Successors(
    "order_id",
    {
        FIRST: frozenset({"PaymentStarted"}),
        "PaymentStarted": frozenset({"PaymentAssessed", "PaymentAuthorized", "PaymentDeclined", "PaymentAbandoned"}),
        "PaymentAssessed": frozenset({"PaymentAuthorized", "PaymentDeclined", "PaymentAbandoned"}),
        "PaymentAuthorized": frozenset({"PaymentCaptured", "PaymentVoided"}),
        "PaymentDeclined": GIVING_BACK,
        "PaymentAbandoned": GIVING_BACK,
        "PaymentCaptured": frozenset(),
        "PaymentVoided": frozenset(),
    },
)

OF_RESERVATIONS = Successors(
    "order_id",
    {
        FIRST: frozenset({"ItemsReserved", "ReservationRefused"}),
        "ItemsReserved": frozenset({"ReservationReleased"}),
        "ReservationRefused": frozenset(),
        "ReservationReleased": frozenset(),
    },
)

OF_RECEIPTS = Successors("receipt_id", {FIRST: frozenset({"StockReceived"})})

OF_PRICES = Successors("sku", {FIRST: frozenset({"PriceListed"}), "PriceListed": frozenset({"PriceListed"})})

SUCCESSORS: Mapping[str, Sequence[Successors]] = {
    "ordering.orders": [OF_ORDERS],
    "ordering.pricing": [OF_PRICES],
    "payments.payments": [OF_PAYMENTS],
    "fulfilment.stock": [OF_RESERVATIONS, OF_RECEIPTS],
}
"""By decider."""

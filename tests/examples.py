"""One builder per event, command and outcome: a valid one by default, any field by keyword."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.type.money_pb2 import Money
from retail.fulfilment.v1.receipt_pb2 import GoodsReceived
from retail.fulfilment.v1.stock_pb2 import (
    ItemsReserved,
    ReservationRefused,
    ReservationReleased,
    StockLevelChanged,
    StockLine,
    StockReceived,
)
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested, RequestedLine
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.order_pb2 import (
    CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED,
    REJECTION_REASON_OUT_OF_STOCK,
    CancellationRefusalReason,
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
    RejectionReason,
)
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.effects.v1.payment_pb2 import (
    AssessRisk,
    AuthorizeCard,
    CaptureCard,
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    CommandGaveUp,
    GivenUpCommand,
    RiskAssessed,
    VoidCard,
)
from retail.payments.v1.payment_pb2 import (
    DECLINE_REASON_PROVIDER_REFUSED,
    DeclineReason,
    PaymentAbandoned,
    PaymentAssessed,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentStarted,
    PaymentVoided,
)

from backbone.moments import stamp
from backbone.money import money_of
from backbone.v1.meta_pb2 import Position

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""When a customer asks."""

ANSWER_BY = NOON + timedelta(minutes=15)
"""When a customer no longer waits."""

LATER = ANSWER_BY + timedelta(minutes=1)
"""When a customer has stopped waiting."""

ORDER = "order-1"
CUSTOMER = "customer-1"
ZONE = "north"
FINGERPRINT = "f1"

Lines = Sequence[tuple[str, int, int]]
"""SKU, quantity and unit price in cents of each line."""

LINES: Lines = [("CD-1", 2, 1234), ("CD-2", 1, 999)]
"""Two CDs of one sort and one of another: 34.67 USD."""

TOTAL = 3467


def usd(cents: int) -> Money:
    """So many cents."""
    return money_of(cents, "USD")


def total_of(lines: Lines) -> Money:
    """What lines cost."""
    return usd(sum(quantity * cents for _, quantity, cents in lines))


def order_lines(lines: Lines) -> list[OrderLine]:
    """Lines as orders write them."""
    return [OrderLine(sku=sku, quantity=quantity, unit_price=usd(cents)) for sku, quantity, cents in lines]


def stock_lines(lines: Mapping[str, int]) -> list[StockLine]:
    """Lines as stock writes them, from quantities by SKU."""
    return [StockLine(sku=sku, quantity=quantity) for sku, quantity in lines.items()]


HELD: Mapping[str, int] = {"CD-1": 2, "CD-2": 1}
"""What stock holds for LINES."""

SHORT: Mapping[str, int] = {"CD-1": 1}
"""What a pool may lack."""


def order_requested(
    order_id: str = ORDER,
    customer_id: str = CUSTOMER,
    lines: Lines = LINES,
    delivery_zone: str = ZONE,
    expires_at: datetime = ANSWER_BY,
    fingerprint: str = FINGERPRINT,
) -> OrderRequested:
    """A customer asked for an order."""
    return OrderRequested(
        order_id=order_id,
        customer_id=customer_id,
        lines=[RequestedLine(sku=sku, quantity=quantity, unit_price=usd(cents)) for sku, quantity, cents in lines],
        delivery_zone=delivery_zone,
        expires_at=stamp(expires_at),
        fingerprint=fingerprint,
    )


def order_cancellation_requested(order_id: str = ORDER, customer_id: str = CUSTOMER) -> OrderCancellationRequested:
    """A customer asked to take an order back."""
    return OrderCancellationRequested(order_id=order_id, customer_id=customer_id)


def item_catalogued(sku: str = "CD-1", title: str = "A CD", list_price: Money | None = None) -> ItemCatalogued:
    """Something is on offer."""
    return ItemCatalogued(sku=sku, title=title, list_price=list_price or usd(1234))


def price_listed(sku: str = "CD-1", unit_price: Money | None = None) -> PriceListed:
    """There is a price."""
    return PriceListed(sku=sku, unit_price=unit_price or usd(1234))


def order_validated(
    order_id: str = ORDER,
    customer_id: str = CUSTOMER,
    lines: Lines = LINES,
    delivery_zone: str = ZONE,
    answer_by: datetime = ANSWER_BY,
    fingerprint: str = FINGERPRINT,
) -> OrderValidated:
    """It passed every check of ours."""
    return OrderValidated(
        order_id=order_id,
        customer_id=customer_id,
        lines=order_lines(lines),
        delivery_zone=delivery_zone,
        total=total_of(lines),
        answer_by=stamp(answer_by),
        fingerprint=fingerprint,
    )


def order_reserved(order_id: str = ORDER) -> OrderReserved:
    """Stock holds all of it."""
    return OrderReserved(order_id=order_id)


def order_paid(order_id: str = ORDER) -> OrderPaid:
    """The money is authorised."""
    return OrderPaid(order_id=order_id)


def order_confirmed(
    order_id: str = ORDER,
    customer_id: str = CUSTOMER,
    lines: Lines = LINES,
    delivery_zone: str = ZONE,
    fingerprint: str = FINGERPRINT,
) -> OrderConfirmed:
    """The answer: yes."""
    return OrderConfirmed(
        order_id=order_id,
        customer_id=customer_id,
        lines=order_lines(lines),
        delivery_zone=delivery_zone,
        total=total_of(lines),
        fingerprint=fingerprint,
    )


def order_rejected(
    order_id: str = ORDER,
    customer_id: str = CUSTOMER,
    delivery_zone: str = ZONE,
    reason: RejectionReason.ValueType = REJECTION_REASON_OUT_OF_STOCK,
    skus: Sequence[str] = (),
    fingerprint: str = FINGERPRINT,
) -> OrderRejected:
    """The answer: no."""
    return OrderRejected(
        order_id=order_id,
        customer_id=customer_id,
        delivery_zone=delivery_zone,
        reason=reason,
        skus=skus,
        fingerprint=fingerprint,
    )


def order_cancelled(
    order_id: str = ORDER, customer_id: str = CUSTOMER, delivery_zone: str = ZONE, fingerprint: str = FINGERPRINT
) -> OrderCancelled:
    """The answer: taken back by the customer."""
    return OrderCancelled(order_id=order_id, customer_id=customer_id, delivery_zone=delivery_zone, fingerprint=fingerprint)


def order_cancellation_refused(
    order_id: str = ORDER,
    customer_id: str = CUSTOMER,
    reason: CancellationRefusalReason.ValueType = CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED,
) -> OrderCancellationRefused:
    """It is too late to take it back."""
    return OrderCancellationRefused(order_id=order_id, customer_id=customer_id, reason=reason)


def availability(sku: str = "CD-1", **available: int) -> Availability:
    """A row of our own copy of stock, from what each pool can promise."""
    return Availability(sku=sku, available=available)


def price(sku: str = "CD-1", unit_price: Money | None = None) -> Price:
    """A row of prices."""
    return Price(sku=sku, unit_price=unit_price or usd(1234))


def goods_received(receipt_id: str = "note-1/1", pool_id: str = ZONE, sku: str = "CD-1", quantity: int = 5) -> GoodsReceived:
    """Goods came in."""
    return GoodsReceived(receipt_id=receipt_id, pool_id=pool_id, sku=sku, quantity=quantity)


def stock_received(pool_id: str = ZONE, sku: str = "CD-1", quantity: int = 5, receipt_id: str = "note-1/1") -> StockReceived:
    """More lies in the pool."""
    return StockReceived(pool_id=pool_id, sku=sku, quantity=quantity, receipt_id=receipt_id)


def items_reserved(pool_id: str = ZONE, order_id: str = ORDER, lines: Mapping[str, int] = HELD) -> ItemsReserved:
    """An order's lines are held, all of them."""
    return ItemsReserved(pool_id=pool_id, order_id=order_id, lines=stock_lines(lines))


def reservation_refused(pool_id: str = ZONE, order_id: str = ORDER, short: Mapping[str, int] = SHORT) -> ReservationRefused:
    """An order cannot be served."""
    return ReservationRefused(pool_id=pool_id, order_id=order_id, short=stock_lines(short))


def reservation_released(pool_id: str = ZONE, order_id: str = ORDER, lines: Mapping[str, int] = HELD) -> ReservationReleased:
    """What was held is free again."""
    return ReservationReleased(pool_id=pool_id, order_id=order_id, lines=stock_lines(lines))


def stock_level_changed(pool_id: str = ZONE, sku: str = "CD-1", on_hand: int = 5, reserved: int = 0) -> StockLevelChanged:
    """How much of a SKU lies in a pool now."""
    return StockLevelChanged(pool_id=pool_id, sku=sku, on_hand=on_hand, reserved=reserved)


def payment_started(
    order_id: str = ORDER, customer_id: str = CUSTOMER, total: int = TOTAL, answer_by: datetime = ANSWER_BY
) -> PaymentStarted:
    """We know what is to be paid."""
    return PaymentStarted(order_id=order_id, customer_id=customer_id, total=usd(total), answer_by=stamp(answer_by))


def payment_assessed(order_id: str = ORDER, score: int = 0, accepted: bool = True) -> PaymentAssessed:
    """The risk was taken or not."""
    return PaymentAssessed(order_id=order_id, score=score, accepted=accepted)


def payment_authorized(
    order_id: str = ORDER, customer_id: str = CUSTOMER, total: Money | None = None, authorization_id: str = "a-1"
) -> PaymentAuthorized:
    """The money is held for us."""
    return PaymentAuthorized(order_id=order_id, customer_id=customer_id, total=total or usd(TOTAL), authorization_id=authorization_id)


def payment_declined(
    order_id: str = ORDER, customer_id: str = CUSTOMER, reason: DeclineReason.ValueType = DECLINE_REASON_PROVIDER_REFUSED
) -> PaymentDeclined:
    """There will be no money."""
    return PaymentDeclined(order_id=order_id, customer_id=customer_id, reason=reason)


def payment_abandoned(order_id: str = ORDER) -> PaymentAbandoned:
    """The order ended before the payment did."""
    return PaymentAbandoned(order_id=order_id)


def payment_captured(order_id: str = ORDER, customer_id: str = CUSTOMER, total: int = TOTAL) -> PaymentCaptured:
    """The money is ours."""
    return PaymentCaptured(order_id=order_id, customer_id=customer_id, total=usd(total))


def payment_voided(order_id: str = ORDER, customer_id: str = CUSTOMER) -> PaymentVoided:
    """The money is the customer's again."""
    return PaymentVoided(order_id=order_id, customer_id=customer_id)


def assess_risk(order_id: str = ORDER, customer_id: str = CUSTOMER, answer_by: datetime = ANSWER_BY) -> AssessRisk:
    """Ask our sibling what is known of the customer."""
    return AssessRisk(order_id=order_id, customer_id=customer_id, answer_by=stamp(answer_by))


def authorize_card(
    order_id: str = ORDER, customer_id: str = CUSTOMER, total: int = TOTAL, answer_by: datetime = ANSWER_BY
) -> AuthorizeCard:
    """Ask the provider to hold the money."""
    return AuthorizeCard(order_id=order_id, customer_id=customer_id, total=usd(total), answer_by=stamp(answer_by))


def capture_card(order_id: str = ORDER, total: int = TOTAL, answer_by: datetime = NOON + timedelta(days=7)) -> CaptureCard:
    """Ask the provider for the money."""
    return CaptureCard(order_id=order_id, total=usd(total), answer_by=stamp(answer_by))


def void_card(order_id: str = ORDER, answer_by: datetime = NOON + timedelta(days=7)) -> VoidCard:
    """Tell the provider that there is nothing to pay."""
    return VoidCard(order_id=order_id, answer_by=stamp(answer_by))


def risk_assessed(order_id: str = ORDER, authorized: int = 0, declined: int = 0, read_at: Sequence[Position] = ()) -> RiskAssessed:
    """What is known of the customer."""
    return RiskAssessed(order_id=order_id, authorized=authorized, declined=declined, read_at=read_at)


def card_authorized(order_id: str = ORDER, authorization_id: str = "a-1") -> CardAuthorized:
    """The provider holds the money."""
    return CardAuthorized(order_id=order_id, authorization_id=authorization_id)


def card_refused(order_id: str = ORDER, reason: str = "insufficient_funds") -> CardRefused:
    """The provider refused."""
    return CardRefused(order_id=order_id, reason=reason)


def card_captured(order_id: str = ORDER) -> CardCaptured:
    """The money is ours."""
    return CardCaptured(order_id=order_id)


def card_voided(order_id: str = ORDER) -> CardVoided:
    """Nothing is held."""
    return CardVoided(order_id=order_id)


def command_gave_up(command: GivenUpCommand.ValueType, order_id: str = ORDER, last_error: str = "503") -> CommandGaveUp:
    """Nobody waits any longer."""
    return CommandGaveUp(order_id=order_id, command=command, last_error=last_error)

"""What orders says to what it hears. An answer is final: what comes after it is silence, and who still holds something for the order
hears the answer and gives it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from retail.fulfilment.v1.stock_pb2 import ItemsReserved, ReservationRefused
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.ordering.v1.order_pb2 import (
    CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED,
    CANCELLATION_REFUSAL_REASON_UNKNOWN_ORDER,
    REJECTION_REASON_OUT_OF_STOCK,
    REJECTION_REASON_OVERDUE,
    REJECTION_REASON_PAYMENT_DECLINED,
    REJECTION_REASON_PRICE_CHANGED,
    REJECTION_REASON_UNKNOWN_SKU,
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
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.v1.payment_pb2 import PaymentAuthorized, PaymentDeclined

from backbone.declare import Tick
from backbone.moments import moment
from backbone.money import minor_units, money_of
from contexts.ordering.orders.state import Event, Order, Status, due


def skus_of(request: OrderRequested) -> list[str]:
    """Every SKU of a request, once, in the order of its lines."""
    return list(dict.fromkeys(line.sku for line in request.lines))


def validate(
    order: Order, request: OrderRequested, stock: Mapping[str, Availability], prices: Mapping[str, Price], now: datetime
) -> Iterator[Event]:
    """Pass a request on to stock and payment, or say at once why not."""
    if order.status is not Status.NEW:
        return
    if found := objection(request, stock, prices, now):
        reason, skus = found
        yield rejected(request, reason, skus)
        return
    yield OrderValidated(
        order_id=request.order_id,
        customer_id=request.customer_id,
        lines=[OrderLine(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price) for line in request.lines],
        delivery_zone=request.delivery_zone,
        total=money_of(
            sum(line.quantity * minor_units(line.unit_price) for line in request.lines), request.lines[0].unit_price.currency_code
        ),
        answer_by=request.expires_at,
        fingerprint=request.fingerprint,
    )


def objection(
    request: OrderRequested, stock: Mapping[str, Availability], prices: Mapping[str, Price], now: datetime
) -> tuple[RejectionReason.ValueType, list[str]] | None:
    """The first thing that speaks against a request, and the SKUs it is about; None if nothing does."""
    if now >= moment(request.expires_at):
        return REJECTION_REASON_OVERDUE, []
    if unknown := [sku for sku in skus_of(request) if sku not in prices]:
        return REJECTION_REASON_UNKNOWN_SKU, unknown
    if changed := [line.sku for line in request.lines if line.unit_price != prices[line.sku].unit_price]:
        return REJECTION_REASON_PRICE_CHANGED, list(dict.fromkeys(changed))
    if short := [sku for sku, quantity in quantities(request).items() if available(stock, sku, request.delivery_zone) < quantity]:
        return REJECTION_REASON_OUT_OF_STOCK, short
    return None


def quantities(request: OrderRequested) -> dict[str, int]:
    """How many of each SKU a request wants in all its lines."""
    wanted: dict[str, int] = {}
    for line in request.lines:
        wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
    return wanted


def available(stock: Mapping[str, Availability], sku: str, pool_id: str) -> int:
    """How many of a SKU a pool can still promise, as far as we have heard."""
    return stock[sku].available.get(pool_id, 0) if sku in stock else 0


def reserved(order: Order, _: ItemsReserved) -> Iterator[Event]:
    """Remember that stock holds the lines; confirm if the money is there too."""
    if order.status is Status.VALIDATED and not order.reserved:
        yield OrderReserved(order_id=order.order_id)
        if order.paid:
            yield confirmed(order)


def refused(order: Order, refusal: ReservationRefused) -> Iterator[Event]:
    """Reject what stock cannot serve."""
    if order.status is Status.VALIDATED:
        yield rejected(order, REJECTION_REASON_OUT_OF_STOCK, [line.sku for line in refusal.short])


def paid(order: Order, payment: PaymentAuthorized) -> Iterator[Event]:
    """Remember that the money is there; confirm if stock holds the lines too."""
    if order.status is Status.VALIDATED and not order.paid:
        if payment.total != money_of(order.total, order.currency):
            raise ValueError(f"order {order.order_id} costs {order.total} minor units of {order.currency}, authorised is {payment.total}")
        yield OrderPaid(order_id=order.order_id)
        if order.reserved:
            yield confirmed(order)


def declined(order: Order, _: PaymentDeclined) -> Iterator[Event]:
    """Reject what nobody pays."""
    if order.status is Status.VALIDATED:
        yield rejected(order, REJECTION_REASON_PAYMENT_DECLINED)


def cancel(order: Order, request: OrderCancellationRequested) -> Iterator[Event]:
    """Take an order back for its customer, as long as it has no answer."""
    asked = {"order_id": request.order_id, "customer_id": request.customer_id}
    if order.status is Status.NEW or order.customer_id != request.customer_id:
        yield OrderCancellationRefused(**asked, reason=CANCELLATION_REFUSAL_REASON_UNKNOWN_ORDER)
    elif order.status is Status.VALIDATED:
        yield OrderCancelled(**asked, delivery_zone=order.delivery_zone, fingerprint=order.fingerprint)
    else:
        yield OrderCancellationRefused(**asked, reason=CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED)


def expire(order: Order, tick: Tick) -> Iterator[Event]:
    """Reject what has waited long enough; a tick for an order that no longer waits is harmless."""
    answer_by = due(order)
    if answer_by is not None and answer_by <= tick.due:
        yield rejected(order, REJECTION_REASON_OVERDUE)


def confirmed(order: Order) -> OrderConfirmed:
    """The answer: yes."""
    return OrderConfirmed(
        order_id=order.order_id,
        customer_id=order.customer_id,
        lines=[
            OrderLine(sku=line.sku, quantity=line.quantity, unit_price=money_of(line.unit_price, order.currency)) for line in order.lines
        ],
        delivery_zone=order.delivery_zone,
        total=money_of(order.total, order.currency),
        fingerprint=order.fingerprint,
    )


def rejected(asked: OrderRequested | Order, reason: RejectionReason.ValueType, skus: list[str] | None = None) -> OrderRejected:
    """The answer: no."""
    return OrderRejected(
        order_id=asked.order_id,
        customer_id=asked.customer_id,
        delivery_zone=asked.delivery_zone,
        reason=reason,
        skus=skus,
        fingerprint=asked.fingerprint,
    )

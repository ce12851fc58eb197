"""What the gateway knows by listening: what was asked under an order id, and where the order stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from retail.gateway.v1.order_request_pb2 import OrderRequested, RequestedLine
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow
from retail.ordering.v1.order_pb2 import (
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
)

from backbone.declare import Table
from backbone.money import minor_units, money_of

NEWEST = "newest"


def total(lines: Sequence[RequestedLine]) -> Money:
    """Sum of the lines; their contract bounds them so that it fits, and has one currency in all of them."""
    return money_of(sum(line.quantity * minor_units(line.unit_price) for line in lines), lines[0].unit_price.currency_code)


def requested(rows: Table[RequestRow], event: OrderRequested, at: datetime) -> None:
    """The first request under an id is the order, here as for its decider, who reads them in the same sequence."""
    if event.order_id in rows:
        return
    row = rows[event.order_id]
    row.customer_id = event.customer_id
    row.fingerprint = event.fingerprint
    row.delivery_zone = event.delivery_zone
    row.expires_at.CopyFrom(event.expires_at)
    row.lines.extend(event.lines)
    row.total.CopyFrom(total(event.lines))
    row.requested_at.FromDatetime(at)


def newest(row: RequestRow) -> tuple[str, float]:
    """Every customer's requests, by time."""
    return row.customer_id, row.requested_at.ToNanoseconds() / 1e9


def answered(row: OrderRow) -> bool:
    """Whether the order has its answer."""
    return row.standing >= OrderStanding.ORDER_STANDING_CONFIRMED


def validated(rows: Table[OrderRow], event: OrderValidated) -> None:
    row = rows[event.order_id]
    row.customer_id = event.customer_id
    row.fingerprint = event.fingerprint
    row.standing = max(row.standing, OrderStanding.ORDER_STANDING_VALIDATED)


def reserved(rows: Table[OrderRow], event: OrderReserved) -> None:
    row = rows[event.order_id]
    row.reserved = True


def paid(rows: Table[OrderRow], event: OrderPaid) -> None:
    row = rows[event.order_id]
    row.paid = True


def confirmed(rows: Table[OrderRow], event: OrderConfirmed, at: datetime) -> None:
    row = _answer(rows, event, OrderStanding.ORDER_STANDING_CONFIRMED, at)
    row.reserved = row.paid = True


def rejected(rows: Table[OrderRow], event: OrderRejected, at: datetime) -> None:
    row = _answer(rows, event, OrderStanding.ORDER_STANDING_REJECTED, at)
    row.reserved = row.paid = False
    row.rejection_reason = event.reason
    row.skus[:] = event.skus


def cancelled(rows: Table[OrderRow], event: OrderCancelled, at: datetime) -> None:
    row = _answer(rows, event, OrderStanding.ORDER_STANDING_CANCELLED, at)
    row.reserved = row.paid = False


def cancellation_refused(rows: Table[OrderRow], event: OrderCancellationRefused) -> None:
    row = rows[event.order_id]
    row.cancellation_refusal = event.reason


def _answer(
    rows: Table[OrderRow],
    event: OrderConfirmed | OrderRejected | OrderCancelled,
    standing: OrderStanding.ValueType,
    at: datetime,
) -> OrderRow:
    row = rows[event.order_id]
    row.customer_id = event.customer_id
    row.fingerprint = event.fingerprint
    row.standing = standing
    row.answered_at.FromDatetime(at)
    return row


class _One:
    """A table of one row."""

    def __init__(self, row: OrderRow | None) -> None:
        self.row = row

    def __getitem__(self, key: str) -> OrderRow:
        if self.row is None:
            self.row = OrderRow(order_id=key)
        return self.row

    def __contains__(self, key: object) -> bool:
        return self.row is not None

    def __delitem__(self, key: str) -> None:
        self.row = None


_UNTIMED: Mapping[type[Message], Callable[[Table[OrderRow], Any], None]] = {
    OrderValidated: validated,
    OrderReserved: reserved,
    OrderPaid: paid,
    OrderCancellationRefused: cancellation_refused,
}
_TIMED: Mapping[type[Message], Callable[[Table[OrderRow], Any, datetime], None]] = {
    OrderConfirmed: confirmed,
    OrderRejected: rejected,
    OrderCancelled: cancelled,
}


def after(row: OrderRow | None, event: Any, at: datetime) -> OrderRow:
    """The row after an event heard live, by the same folds as the view's."""
    rows = _One(row)
    if untimed := _UNTIMED.get(type(event)):
        untimed(rows, event)
    else:
        _TIMED[type(event)](rows, event, at)
    return rows[event.order_id]


def merged(looked: OrderRow, heard: OrderRow) -> OrderRow:
    """What is known from the view and from listening, each of which may be ahead of the other: both read the same history."""
    if answered(looked):
        later, other = looked, heard
    elif answered(heard):
        later, other = heard, looked
    else:
        looked.MergeFrom(heard)
        return looked
    if other.cancellation_refusal:
        later.cancellation_refusal = other.cancellation_refusal
    return later

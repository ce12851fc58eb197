"""What orders holds of one order: a process that waits for stock and payment until it has its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Literal, TypeAlias, assert_never

from retail.ordering.v1.order_pb2 import (
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
)

from backbone.moments import EPOCH, moment
from backbone.money import minor_units

Event: TypeAlias = OrderValidated | OrderReserved | OrderPaid | OrderConfirmed | OrderRejected | OrderCancelled | OrderCancellationRefused

NextAction: TypeAlias = Literal["validate", "await stock and payment", "await stock", "await payment", "nothing"]


class Status(StrEnum):
    """Where an order stands; the last three are answers."""

    NEW = auto()
    VALIDATED = auto()
    CONFIRMED = auto()
    REJECTED = auto()
    CANCELLED = auto()


ANSWERS = (Status.CONFIRMED, Status.REJECTED, Status.CANCELLED)

KEPT = timedelta(days=365)
"""How long an answer is remembered after the last word about the order. What may come late comes sooner: a provider is asked for a week
after the answer, and who wants to take an order back after a year is told by the gateway's rows, which are kept for ever."""


@dataclass(frozen=True)
class Line:
    """One line of an order; `unit_price` in minor units of the order's currency."""

    sku: str
    quantity: int
    unit_price: int


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes:
        total: minor units of `currency`.
        answer_by: when the customer no longer waits.
        reserved: stock holds every line.
        paid: the money is authorised.
    """

    status: Status = Status.NEW
    order_id: str = ""
    customer_id: str = ""
    delivery_zone: str = ""
    fingerprint: str = ""
    lines: tuple[Line, ...] = ()
    total: int = 0
    currency: str = ""
    answer_by: datetime = EPOCH
    reserved: bool = False
    paid: bool = False


def evolve(order: Order, event: Event) -> Order:
    """The order after an event of its own."""
    match event:
        case OrderValidated():
            return Order(
                status=Status.VALIDATED,
                order_id=event.order_id,
                customer_id=event.customer_id,
                delivery_zone=event.delivery_zone,
                fingerprint=event.fingerprint,
                lines=tuple(Line(line.sku, line.quantity, minor_units(line.unit_price)) for line in event.lines),
                total=minor_units(event.total),
                currency=event.total.currency_code,
                answer_by=moment(event.answer_by),
            )
        case OrderReserved():
            return replace(order, reserved=True)
        case OrderPaid():
            return replace(order, paid=True)
        case OrderConfirmed():
            return replace(order, status=Status.CONFIRMED)
        case OrderRejected():
            return replace(order, status=Status.REJECTED, order_id=event.order_id, customer_id=event.customer_id)
        case OrderCancelled():
            return replace(order, status=Status.CANCELLED)
        case OrderCancellationRefused():
            return order
        case _:
            assert_never(event)


def answer(order: Order) -> Order | None:
    """What is kept of an order that has its answer: that and whose it was. None while it has none."""
    return Order(order.status, order.order_id, order.customer_id) if order.status in ANSWERS else None


def next_action(order: Order) -> NextAction:
    """What the order needs next: read by deadlines, boards and tests."""
    match order:
        case Order(status=Status.NEW):
            return "validate"
        case Order(status=Status.VALIDATED, reserved=False, paid=False):
            return "await stock and payment"
        case Order(status=Status.VALIDATED, reserved=False):
            return "await stock"
        case Order(status=Status.VALIDATED, paid=False):
            return "await payment"
        case _:
            return "nothing"


def due(order: Order) -> datetime | None:
    """When the order is answered no for want of other answers; None if it waits for none."""
    return order.answer_by if next_action(order).startswith("await") else None

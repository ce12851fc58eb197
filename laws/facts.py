"""What is known of one order, and money in minor units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from laws.entries import Place

NANOS_PER_MINOR = 10_000_000

ANSWERS = ("OrderConfirmed", "OrderRejected", "OrderCancelled")
"""Events that answer an order."""
OF_AN_ORDER = frozenset(
    {
        *("OrderRequested", "OrderCancellationRequested"),
        *("OrderValidated", "OrderReserved", "OrderPaid", *ANSWERS, "OrderCancellationRefused"),
        *("ItemsReserved", "ReservationRefused", "ReservationReleased"),
        *("PaymentStarted", "PaymentAuthorized", "PaymentDeclined", "PaymentAbandoned", "PaymentCaptured", "PaymentVoided"),
    }
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of an order: where it lies, who it is and what it says."""

    place: Place
    id: str
    cause: str
    sequence: int
    name: str
    event: Any


@dataclass(slots=True)
class OrderBook:
    """All that was said about one order, by name of the event, in the order of its topic."""

    said: dict[str, list[Fact]] = field(default_factory=dict)

    def of(self, *names: str) -> list[Fact]:
        """All facts of these names."""
        return [fact for name in names for fact in self.said.get(name, ())]

    def first(self, *names: str) -> Fact | None:
        """The first fact of these names, if there is one."""
        return next(iter(self.of(*names)), None)


class NotExact(ValueError):
    """An amount that is no whole number of minor units."""


def minor(money: Money) -> int:
    """An amount in minor units.

    Raises:
        NotExact: it has fractions of them.
    """
    whole, rest = divmod(money.nanos, NANOS_PER_MINOR)
    if rest:
        raise NotExact(f"{money.units} units and {money.nanos} nanos")
    return int(money.units) * 100 + whole


def inexact(message: Message) -> str:
    """What is wrong with the amounts of a message, if one of them is no whole number of minor units; else nothing."""
    if isinstance(message, Money):
        return f"{message.units} units and {message.nanos} nanos are no amount" if message.nanos % NANOS_PER_MINOR else ""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        for one in value if descriptor.is_repeated else (value,):
            if wrong := inexact(one):
                return f"{descriptor.name}: {wrong}"
    return ""


def places_of(*facts: list[Fact]) -> list[Place]:
    """Where some facts lie."""
    return [fact.place for some in facts for fact in some]


def lines_of(lines: Iterable[Any]) -> list[tuple[str, int, int, str]]:
    """SKU, quantity, price in minor units and currency of each line."""
    return [(line.sku, line.quantity, minor(line.unit_price), line.unit_price.currency_code) for line in lines]


def quantities_of(fact: Fact) -> dict[str, int]:
    """How many of each SKU a reservation or its release names."""
    return {line.sku: line.quantity for line in fact.event.lines}

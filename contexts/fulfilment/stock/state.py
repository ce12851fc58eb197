"""What stock holds of one pool: levels, reservations, and what it must never do twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from retail.fulfilment.v1.stock_pb2 import (
    ItemsReserved,
    ReservationRefused,
    ReservationReleased,
    StockLevelChanged,
    StockReceived,
)

from backbone.parts import Part

Event: TypeAlias = StockReceived | ItemsReserved | ReservationRefused | ReservationReleased | StockLevelChanged

Reservation: TypeAlias = tuple[tuple[str, int], ...]
"""SKU and quantity of every line that is held, each SKU once."""


@dataclass(frozen=True)
class Level:
    """How many of one SKU lie in the pool, and how many of them are held."""

    on_hand: int = 0
    reserved: int = 0

    @property
    def available(self) -> int:
        """How many can still be promised."""
        return self.on_hand - self.reserved


@dataclass(frozen=True)
class Pool:
    """One pool. All of it is kept entry by entry, so an order of two lines writes four small entries, however large the pool.

    `held` is as large as what lies on the shelves for somebody. `closed` and `receipts` grow by one short entry per order that was
    refused or released and per delivery note line: nothing else stops a late or repeated request from holding stock that nobody will
    ever release, or a repeated delivery note from counting goods twice.

    Attributes:
        levels: by SKU.
        held: reservation by order.
        closed: orders that were refused or released.
        receipts: receipts that were counted.
    """

    levels: Part[str, Level] = field(default_factory=Part)
    held: Part[str, Reservation] = field(default_factory=Part)
    closed: Part[str, bool] = field(default_factory=Part)
    receipts: Part[str, bool] = field(default_factory=Part)

    def level(self, sku: str) -> Level:
        """The level of a SKU; nothing of what never came in."""
        return self.levels.get(sku) or Level()


def evolve(pool: Pool, event: Event) -> Pool:
    """The pool after an event of its own."""
    match event:
        case StockReceived():
            return replace(pool, levels=moved(pool, [(event.sku, event.quantity, 0)]), receipts=pool.receipts.set(event.receipt_id, True))
        case ItemsReserved():
            return replace(
                pool,
                levels=moved(pool, [(line.sku, 0, line.quantity) for line in event.lines]),
                held=pool.held.set(event.order_id, tuple((line.sku, line.quantity) for line in event.lines)),
            )
        case ReservationReleased():
            return replace(
                pool,
                levels=moved(pool, [(line.sku, 0, -line.quantity) for line in event.lines]),
                held=pool.held.without(event.order_id),
                closed=pool.closed.set(event.order_id, True),
            )
        case ReservationRefused():
            return replace(pool, closed=pool.closed.set(event.order_id, True))
        case StockLevelChanged():
            return pool
        case _:
            assert_never(event)


def moved(pool: Pool, changes: Iterable[tuple[str, int, int]]) -> Part[str, Level]:
    """The levels after changes of (SKU, on hand, reserved)."""
    levels = pool.levels
    for sku, on_hand, reserved in changes:
        level = levels.get(sku) or Level()
        levels = levels.set(sku, Level(level.on_hand + on_hand, level.reserved + reserved))
    return levels

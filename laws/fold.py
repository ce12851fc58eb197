"""A fold over the log that finds what breaks the laws of safety, and keeps what the laws of rest will ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from laws.entries import WRAPPERS, Entry, Place
from laws.facts import ANSWERS, OF_AN_ORDER, Fact, OrderBook, inexact, minor
from laws.verdict import Totals, Violation

SEQUENCED = ("OrderEvent", "PaymentEvent", "StockEvent", "PriceEvent")
"""Wrappers whose events a decider says."""

REQUESTS = "retail.gateway.order-requests.v1"


@dataclass(slots=True)
class Level:
    """One SKU in one pool: what the events add up to, and what was told last."""

    place: Place
    on_hand: int = 0
    reserved: int = 0
    told: tuple[int, int] | None = None


class Fold:
    """What is kept of the log: a digest per record, a book per order, a level per SKU and pool.

    Attributes:
        violations: what breaks a law, as far as it was heard.
        checked: how many things each law looked at.
        primaries: place, digest and name of every event, by id.
        copies: place and digest of every copy, by topic and id.
        causes: places of what each id caused.
        private: ids of commands, outcomes and ticks.
        orders: what was said about each order.
        levels: by pool and SKU.
        receipts: what came in at the ramp, by receipt; `received`: what was put away for it.
        prices: every price a SKU ever had.
        commands: place and order of every open command.
    """

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.violations: list[Violation] = []
        self.checked: Counter[str] = Counter()
        self.totals = Totals()
        self.primaries: dict[str, tuple[Place, bytes, str]] = {}
        self.copies: dict[str, dict[str, tuple[Place, bytes]]] = {topic: {} for topic, wrapper in WRAPPERS.items() if wrapper.copy_of}
        self.causes: dict[str, list[Place]] = {}
        self.private: set[str] = set()
        self.sequences: dict[tuple[str, str], int] = {}
        self.copied_sequences: dict[tuple[str, str], int] = {}
        self.orders: dict[str, OrderBook] = {}
        self.levels: dict[tuple[str, str], Level] = {}
        self.receipts: dict[str, Fact] = {}
        self.received: dict[str, list[Fact]] = {}
        self.prices: dict[str, set[tuple[int, str]]] = {}
        self.commands: dict[tuple[str, bytes], tuple[Place, str]] = {}
        self.heard: dict[str, Callable[[Fact], None]] = {
            "GoodsReceived": self._goods_received,
            "StockReceived": self._stock_received,
            "ItemsReserved": self._items_reserved,
            "ReservationReleased": self._reservation_released,
            "StockLevelChanged": self._stock_level_changed,
            "PriceListed": self._price_listed,
        }

    def violated(self, law: str, text: str, *witnesses: Place) -> None:
        """A law is broken."""
        self.violations.append(Violation(law, text, witnesses))

    def hear(self, entry: Entry) -> None:
        """Take one record in."""
        self.totals.records += 1
        wrapper = WRAPPERS.get(entry.place.topic)
        if wrapper is None:
            self._private(entry)
            return
        self.checked["readable"] += 1
        if entry.wrong:
            self.violated("readable", entry.wrong, entry.place)
            return
        if wrong := inexact(entry.event):
            self.violated("readable", wrong, entry.place)
            return
        meta, place = entry.meta, entry.place
        self.checked["one writer"] += 1
        if meta.writer != wrapper.writer:
            self.violated("one writer", f"{entry.name} was written by {meta.writer or 'nobody'}, not by {wrapper.writer}", place)
        digest = _digest(entry)
        if wrapper.copy_of:
            self._copy(entry, digest)
            return
        self.checked["unique ids"] += 1
        other = self.primaries.get(meta.id)
        if not meta.id:
            self.violated("unique ids", f"{entry.name} has no id", place)
        elif other is not None:
            if place.topic != REQUESTS or other[1] != digest:
                self.violated("unique ids", f"{entry.name} has the id {meta.id} of another {other[2]}", place, other[0])
        else:
            self.primaries[meta.id] = (place, digest, entry.name)
        if meta.causation_id:
            self.causes.setdefault(meta.causation_id, []).append(place)
        if wrapper.message.DESCRIPTOR.name in SEQUENCED:
            self._sequence(entry, getattr(entry.event, wrapper.key))
        fact = Fact(place, meta.id, meta.causation_id, meta.sequence, entry.name, entry.event)
        if entry.name in OF_AN_ORDER:
            self._of_an_order(fact, meta.correlation_id)
        if heard := self.heard.get(entry.name):
            heard(fact)

    def _private(self, entry: Entry) -> None:
        topic = entry.place.topic
        if topic.endswith(".commands") and entry.key is not None:
            if entry.value is None:
                self.commands.pop((topic, entry.key), None)
                return
            self.checked["done"] += 1
            self.commands[topic, entry.key] = (entry.place, entry.meta.correlation_id)
        elif topic.endswith(".quarantine"):
            self.totals.quarantined += 1
        if entry.meta.id:
            self.private.add(entry.meta.id)

    def _copy(self, entry: Entry, digest: bytes) -> None:
        self.checked["copies"] += 1
        meta, place = entry.meta, entry.place
        seen = self.copies[place.topic]
        if meta.id in seen:
            self.violated("copies", f"{entry.name} {meta.id} is copied twice", place, seen[meta.id][0])
            return
        seen[meta.id] = (place, digest)
        primary = WRAPPERS[WRAPPERS[place.topic].copy_of]
        of = (f"{place.topic}/{place.partition}", getattr(entry.event, primary.key))
        if meta.sequence <= self.copied_sequences.get(of, 0):
            self.violated("sequence", f"{entry.name} {meta.sequence} of {of[1]} lies behind {self.copied_sequences[of]} in a copy", place)
        self.copied_sequences[of] = max(meta.sequence, self.copied_sequences.get(of, 0))

    def _sequence(self, entry: Entry, aggregate: str) -> None:
        self.checked["sequence"] += 1
        of = (entry.place.topic, aggregate)
        expected = self.sequences.get(of, 0) + 1
        if entry.meta.sequence != expected:
            self.violated("sequence", f"{entry.name} of {aggregate} has sequence {entry.meta.sequence}, not {expected}", entry.place)
        self.sequences[of] = max(expected, entry.meta.sequence)

    def _of_an_order(self, fact: Fact, correlation_id: str) -> None:
        order_id = fact.event.order_id
        self.checked["conversation"] += 1
        if correlation_id != order_id:
            self.violated("conversation", f"{fact.name} of order {order_id} belongs to the conversation {correlation_id!r}", fact.place)
        book = self.orders.setdefault(order_id, OrderBook())
        if fact.place.topic == "retail.ordering.orders.v1" and fact.name != "OrderCancellationRefused":
            self.checked["one answer"] += 1
            if answer := book.first(*ANSWERS):
                self.violated("one answer", f"order {order_id} has {fact.name} after {answer.name}", answer.place, fact.place)
        book.said.setdefault(fact.name, []).append(fact)

    def _goods_received(self, fact: Fact) -> None:
        self.receipts.setdefault(fact.event.receipt_id, fact)

    def _stock_received(self, fact: Fact) -> None:
        self.received.setdefault(fact.event.receipt_id, []).append(fact)
        self._moved(fact, fact.event.sku, on_hand=fact.event.quantity)

    def _items_reserved(self, fact: Fact) -> None:
        for line in fact.event.lines:
            self._moved(fact, line.sku, reserved=line.quantity)

    def _reservation_released(self, fact: Fact) -> None:
        for line in fact.event.lines:
            self._moved(fact, line.sku, reserved=-line.quantity)

    def _moved(self, fact: Fact, sku: str, on_hand: int = 0, reserved: int = 0) -> None:
        self.checked["stock"] += 1
        level = self.levels.setdefault((fact.event.pool_id, sku), Level(fact.place))
        level.place = fact.place
        level.on_hand += on_hand
        level.reserved += reserved
        if not 0 <= level.reserved <= level.on_hand:
            where = f"pool {fact.event.pool_id} holds {level.on_hand} of {sku} and {level.reserved} of them are reserved"
            self.violated("stock", f"after {fact.name}, {where}", fact.place)

    def _stock_level_changed(self, fact: Fact) -> None:
        event = fact.event
        self.checked["levels"] += 1
        level = self.levels.setdefault((event.pool_id, event.sku), Level(fact.place))
        level.told = (event.on_hand, event.reserved)
        if level.told != (level.on_hand, level.reserved):
            said = f"pool {event.pool_id} was said to hold {event.on_hand} of {event.sku}, {event.reserved} of them reserved"
            self.violated("levels", f"{said}; it is {level.on_hand} and {level.reserved}", fact.place, level.place)

    def _price_listed(self, fact: Fact) -> None:
        price = fact.event.unit_price
        self.prices.setdefault(fact.event.sku, set()).add((minor(price), price.currency_code))


def _digest(entry: Entry) -> bytes:
    """What a record is compared by: its bytes; of a request, all but its times, since asking again is the same request."""
    value = entry.value or b""
    if entry.place.topic == REQUESTS:
        event = type(entry.event)()
        event.CopyFrom(entry.event)
        if "expires_at" in event.DESCRIPTOR.fields_by_name:
            event.ClearField("expires_at")
        value = entry.name.encode() + event.SerializeToString(deterministic=True)
    return blake2b(value, digest_size=16).digest()

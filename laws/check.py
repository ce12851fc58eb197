"""The laws of the shop, and a fold that finds what breaks them. Pure: entries and books in, verdict out.

Safety laws hold at every prefix of the log. The others hold at rest, when every accepted order has its answer and what follows from it
is done; of a shop at work they would say too much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from google.type.money_pb2 import Money
from retail.ordering.v1.order_pb2 import RejectionReason

from laws.books import BookEntry
from laws.entries import WRAPPERS, Entry, Place

NANOS_PER_MINOR = 10_000_000

LAWS: Mapping[str, str] = {
    "readable": "every record is what its topic holds, under its own key",
    "one writer": "a topic is written by the one service its contract names",
    "unique ids": "no two facts have one identity",
    "cause": "what was caused names a cause that exists",
    "conversation": "what concerns an order belongs to the order's conversation",
    "sequence": "the facts of an aggregate are numbered 1, 2, 3, ...",
    "copies": "copies are their primaries, byte for byte, all of them and once",
    "stock": "in no pool is anything ever negative, or more reserved than there is",
    "levels": "the levels that were told are what was received, held and released",
    "told": "the last level told of everything in every pool is the true one",
    "receipts": "what came in at the ramp lies in its pool, once",
    "one answer": "an order has at most one answer, and nothing but refusals to cancel come after it",
    "answered": "every accepted order and every wish to cancel has its answer",
    "as requested": "an order is what was asked for, at the price that was shown and listed",
    "confirmed": "confirmed means: held once, authorised once for the exact total, both before the answer, and still so",
    "given back": "rejected or cancelled means: nothing is held, authorised or captured any more",
    "captured": "captured is the total of the confirmed orders, order by order and to the cent",
    "provider": "the provider's own books say the same, entry by entry",
    "done": "every command is done",
}
"""Every law by name, in one sentence."""

AT_REST = ("cause", "copies", "told", "receipts", "answered", "as requested", "confirmed", "given back", "captured", "provider", "done")
"""Laws that only hold once nothing is under way: they compare topics, or the shop with the provider."""

SEQUENCED = ("OrderEvent", "PaymentEvent", "StockEvent", "PriceEvent")
"""Wrappers whose events a decider says."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken law, and where to see it.

    Attributes:
        law: its name in LAWS.
        text: what is wrong, in one line.
        witnesses: coordinates of the records that show it.
    """

    law: str
    text: str
    witnesses: tuple[Place, ...] = ()


@dataclass(slots=True)
class Totals:
    """What happened in the shop, counted; money in minor units.

    Attributes:
        rejected: orders by the name of the reason.
        authorized_minor, captured_minor: of payments.
        books_captured_minor: what the provider says it gave us.
    """

    records: int = 0
    placed: int = 0
    confirmed: int = 0
    cancelled: int = 0
    unanswered: int = 0
    free: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    placed_minor: int = 0
    confirmed_minor: int = 0
    rejected_minor: int = 0
    cancelled_minor: int = 0
    authorized_minor: int = 0
    captured_minor: int = 0
    books_captured_minor: int = 0
    books_entries: int = 0
    open_commands: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the laws say of a log.

    Attributes:
        checked: how many things each law looked at; laws that were not asked are missing.
    """

    violations: tuple[Violation, ...]
    checked: Mapping[str, int]
    totals: Totals

    @property
    def holds(self) -> bool:
        """Whether every law that was asked holds."""
        return not self.violations


@dataclass(frozen=True, slots=True)
class _Fact:
    """One event of an order: where it lies, who it is and what it says."""

    place: Place
    id: str
    cause: str
    sequence: int
    name: str
    event: Any


@dataclass(slots=True)
class _OrderBook:
    """All that was said about one order, by name of the event, in the order of its topic."""

    said: dict[str, list[_Fact]] = field(default_factory=dict)

    def of(self, *names: str) -> list[_Fact]:
        return [fact for name in names for fact in self.said.get(name, ())]

    def first(self, *names: str) -> _Fact | None:
        return next(iter(self.of(*names)), None)


@dataclass(slots=True)
class _Level:
    """One SKU in one pool: what the events add up to, and what was told last."""

    place: Place
    on_hand: int = 0
    reserved: int = 0
    told: tuple[int, int] | None = None


REQUESTS = "retail.gateway.order-requests.v1"
ANSWERS = ("OrderConfirmed", "OrderRejected", "OrderCancelled")
OF_AN_ORDER = frozenset(
    {
        *("OrderRequested", "OrderCancellationRequested"),
        *("OrderValidated", "OrderReserved", "OrderPaid", *ANSWERS, "OrderCancellationRefused"),
        *("ItemsReserved", "ReservationRefused", "ReservationReleased"),
        *("PaymentStarted", "PaymentAuthorized", "PaymentDeclined", "PaymentAbandoned", "PaymentCaptured", "PaymentVoided"),
    }
)


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


def check(entries: Iterable[Entry], books: Iterable[BookEntry], *, at_rest: bool = True) -> Verdict:
    """Fold a log and judge it.

    Args:
        entries: records of all topics, each partition in its order, topics in any order.
        books: the provider's lines.
        at_rest: whether nothing is under way; if not, only the safety laws are asked.
    """
    fold = _Fold()
    for entry in entries:
        fold.hear(entry)
    return fold.verdict(list(books), at_rest)


class _Fold:
    """What is kept of the log: a digest per record, a book per order, a level per SKU and pool."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.checked: Counter[str] = Counter()
        self.totals = Totals()
        self.primaries: dict[str, tuple[Place, bytes, str]] = {}
        self.copies: dict[str, dict[str, tuple[Place, bytes]]] = {topic: {} for topic, wrapper in WRAPPERS.items() if wrapper.copy_of}
        self.causes: dict[str, list[Place]] = {}
        self.private: set[str] = set()
        self.sequences: dict[tuple[str, str], int] = {}
        self.copied_sequences: dict[tuple[str, str], int] = {}
        self.orders: dict[str, _OrderBook] = {}
        self.levels: dict[tuple[str, str], _Level] = {}
        self.receipts: dict[str, _Fact] = {}
        self.received: dict[str, list[_Fact]] = {}
        self.prices: dict[str, set[tuple[int, str]]] = {}
        self.commands: dict[tuple[str, bytes], tuple[Place, str]] = {}
        self.heard: dict[str, Callable[[_Fact], None]] = {
            "GoodsReceived": self._goods_received,
            "StockReceived": self._stock_received,
            "ItemsReserved": self._items_reserved,
            "ReservationReleased": self._reservation_released,
            "StockLevelChanged": self._stock_level_changed,
            "PriceListed": self._price_listed,
        }

    def violated(self, law: str, text: str, *witnesses: Place) -> None:
        self.violations.append(Violation(law, text, witnesses))

    # One record.

    def hear(self, entry: Entry) -> None:
        self.totals.records += 1
        wrapper = WRAPPERS.get(entry.place.topic)
        if wrapper is None:
            self._private(entry)
            return
        self.checked["readable"] += 1
        if entry.wrong:
            self.violated("readable", entry.wrong, entry.place)
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
        fact = _Fact(place, meta.id, meta.causation_id, meta.sequence, entry.name, entry.event)
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

    def _of_an_order(self, fact: _Fact, correlation_id: str) -> None:
        order_id = fact.event.order_id
        self.checked["conversation"] += 1
        if correlation_id != order_id:
            self.violated("conversation", f"{fact.name} of order {order_id} belongs to the conversation {correlation_id!r}", fact.place)
        book = self.orders.setdefault(order_id, _OrderBook())
        if fact.place.topic == "retail.ordering.orders.v1" and fact.name != "OrderCancellationRefused":
            self.checked["one answer"] += 1
            if answer := book.first(*ANSWERS):
                self.violated("one answer", f"order {order_id} has {fact.name} after {answer.name}", answer.place, fact.place)
        book.said.setdefault(fact.name, []).append(fact)

    # Stock and prices.

    def _goods_received(self, fact: _Fact) -> None:
        self.receipts.setdefault(fact.event.receipt_id, fact)

    def _stock_received(self, fact: _Fact) -> None:
        self.received.setdefault(fact.event.receipt_id, []).append(fact)
        self._moved(fact, fact.event.sku, on_hand=fact.event.quantity)

    def _items_reserved(self, fact: _Fact) -> None:
        for line in fact.event.lines:
            self._moved(fact, line.sku, reserved=line.quantity)

    def _reservation_released(self, fact: _Fact) -> None:
        for line in fact.event.lines:
            self._moved(fact, line.sku, reserved=-line.quantity)

    def _moved(self, fact: _Fact, sku: str, on_hand: int = 0, reserved: int = 0) -> None:
        self.checked["stock"] += 1
        level = self.levels.setdefault((fact.event.pool_id, sku), _Level(fact.place))
        level.place = fact.place
        level.on_hand += on_hand
        level.reserved += reserved
        if not 0 <= level.reserved <= level.on_hand:
            where = f"pool {fact.event.pool_id} holds {level.on_hand} of {sku} and {level.reserved} of them are reserved"
            self.violated("stock", f"after {fact.name}, {where}", fact.place)

    def _stock_level_changed(self, fact: _Fact) -> None:
        event = fact.event
        self.checked["levels"] += 1
        level = self.levels.setdefault((event.pool_id, event.sku), _Level(fact.place))
        level.told = (event.on_hand, event.reserved)
        if level.told != (level.on_hand, level.reserved):
            said = f"pool {event.pool_id} was said to hold {event.on_hand} of {event.sku}, {event.reserved} of them reserved"
            self.violated("levels", f"{said}; it is {level.on_hand} and {level.reserved}", fact.place, level.place)

    def _price_listed(self, fact: _Fact) -> None:
        price = fact.event.unit_price
        self.prices.setdefault(fact.event.sku, set()).add((minor(price), price.currency_code))

    # The end.

    def verdict(self, books: list[BookEntry], at_rest: bool) -> Verdict:
        self._count(books)
        if at_rest:
            self._settle(books)
        asked = [law for law in LAWS if at_rest or law not in AT_REST]
        self.violations.sort(key=lambda violation: list(LAWS).index(violation.law))
        return Verdict(
            tuple(violation for violation in self.violations if violation.law in asked),
            {law: self.checked[law] for law in asked},
            self.totals,
        )

    def _count(self, books: list[BookEntry]) -> None:
        totals = self.totals
        for book in self.orders.values():
            request = book.first("OrderRequested")
            if request is None:
                continue
            total = sum(line.quantity * minor(line.unit_price) for line in request.event.lines)
            answer = book.first(*ANSWERS)
            totals.placed += 1
            totals.placed_minor += total
            totals.free += total == 0
            if answer is None:
                totals.unanswered += 1
            elif answer.name == "OrderConfirmed":
                totals.confirmed += 1
                totals.confirmed_minor += minor(answer.event.total)
            elif answer.name == "OrderCancelled":
                totals.cancelled += 1
                totals.cancelled_minor += total
            else:
                reason = RejectionReason.Name(answer.event.reason).removeprefix("REJECTION_REASON_").lower()
                totals.rejected[reason] = totals.rejected.get(reason, 0) + 1
                totals.rejected_minor += total
            totals.authorized_minor += sum(minor(fact.event.total) for fact in book.of("PaymentAuthorized"))
            totals.captured_minor += sum(minor(fact.event.total) for fact in book.of("PaymentCaptured"))
        totals.books_entries = len(books)
        totals.books_captured_minor = sum(entry.minor for entry in books if entry.kind == "captured")
        totals.open_commands = len(self.commands)

    def _settle(self, books: list[BookEntry]) -> None:
        self._settle_causes()
        self._settle_copies()
        self._settle_stock()
        by_reference: dict[str, list[BookEntry]] = {}
        for entry in books:
            by_reference.setdefault(entry.reference, []).append(entry)
        for order_id, book in self.orders.items():
            self._settle_order(order_id, book, by_reference.get(order_id, []))
        for reference in sorted(by_reference.keys() - self.orders.keys()):
            self.violated("provider", f"the provider knows {reference}, which is no order")
        totals = self.totals
        if totals.captured_minor != totals.confirmed_minor:
            self.violated("captured", f"{totals.captured_minor} cents are captured, confirmed are {totals.confirmed_minor}")
        if totals.books_captured_minor != totals.captured_minor:
            self.violated("provider", f"the provider gave {totals.books_captured_minor} cents, captured are {totals.captured_minor}")
        for place, order_id in self.commands.values():
            self.violated("done", f"a command of order {order_id} is open", place)

    def _settle_causes(self) -> None:
        for cause, places in self.causes.items():
            self.checked["cause"] += len(places)
            if cause not in self.primaries and cause not in self.private:
                self.violated("cause", f"{cause} caused {len(places)} facts and does not exist", *places[:3])

    def _settle_copies(self) -> None:
        for topic, copies in self.copies.items():
            wrapper = WRAPPERS[topic]
            expected = {
                id_: (place, digest)
                for id_, (place, digest, name) in self.primaries.items()
                if place.topic == wrapper.copy_of and name in wrapper.events
            }
            for id_ in expected.keys() - copies.keys():
                self.violated("copies", f"{id_} is missing in {topic}", expected[id_][0])
            for id_, (place, digest) in copies.items():
                if id_ not in expected:
                    self.violated("copies", f"{id_} is in no primary", place)
                elif expected[id_][1] != digest:
                    self.violated("copies", f"{id_} differs from its primary", place, expected[id_][0])

    def _settle_stock(self) -> None:
        for (pool, sku), level in self.levels.items():
            self.checked["told"] += 1
            if level.told != (level.on_hand, level.reserved):
                told = "nothing" if level.told is None else f"{level.told[0]} and {level.told[1]}"
                what = f"pool {pool} holds {level.on_hand} of {sku}, {level.reserved} of them reserved; told was {told}"
                self.violated("told", what, level.place)
        for receipt_id in self.receipts.keys() | self.received.keys():
            self.checked["receipts"] += 1
            came, lies = self.receipts.get(receipt_id), self.received.get(receipt_id, [])
            places = [fact.place for fact in ((came, *lies) if came else lies)]
            if came is None or len(lies) != 1:
                self.violated(
                    "receipts", f"receipt {receipt_id} came {int(came is not None)} times and was put away {len(lies)} times", *places
                )
            elif (came.event.pool_id, came.event.sku, came.event.quantity) != (
                lies[0].event.pool_id,
                lies[0].event.sku,
                lies[0].event.quantity,
            ):
                self.violated("receipts", f"receipt {receipt_id} was not put away as it came", *places)

    # One order at rest.

    def _settle_order(self, order_id: str, book: _OrderBook, lines: list[BookEntry]) -> None:
        request, answer = book.first("OrderRequested"), book.first(*ANSWERS)
        wish, refusal = book.first("OrderCancellationRequested"), book.first("OrderCancellationRefused")
        if wish is not None:
            self.checked["answered"] += 1
            if refusal is None and (answer is None or answer.name != "OrderCancelled"):
                self.violated("answered", f"the wish to cancel order {order_id} has no answer", wish.place)
        if request is None:
            for fact in [fact for name, facts in book.said.items() if not name.startswith("OrderCancellation") for fact in facts][:1]:
                self.violated("as requested", f"nobody asked for order {order_id}, which has {fact.name}", fact.place)
            return
        self.checked["answered"] += 1
        if answer is None:
            self.violated("answered", f"order {order_id} has no answer", request.place)
            return
        self._settle_request(order_id, book, request, answer)
        if answer.name == "OrderConfirmed":
            self._settle_confirmed(order_id, book, answer, lines)
        else:
            self._settle_refused(order_id, book, answer, lines)

    def _settle_request(self, order_id: str, book: _OrderBook, request: _Fact, answer: _Fact) -> None:
        self.checked["as requested"] += 1
        asked = request.event
        lines = _lines(asked.lines)
        total = sum(quantity * cents for _, quantity, cents, _ in lines)
        for fact in (*book.of("OrderValidated"), answer):
            event = fact.event
            if (event.customer_id, event.delivery_zone, event.fingerprint) != (asked.customer_id, asked.delivery_zone, asked.fingerprint):
                what = f"{fact.name} of order {order_id} has another customer, zone or fingerprint than its request"
                self.violated("as requested", what, request.place, fact.place)
            if fact.name in ("OrderValidated", "OrderConfirmed"):
                if _lines(event.lines) != lines:
                    self.violated(
                        "as requested", f"{fact.name} of order {order_id} has other lines than its request", request.place, fact.place
                    )
                if minor(event.total) != total or event.total.currency_code != asked.lines[0].unit_price.currency_code:
                    what = f"{fact.name} of order {order_id} costs {minor(event.total)}, its lines cost {total}"
                    self.violated("as requested", what, request.place, fact.place)
        if answer.name == "OrderConfirmed":
            for sku, _, cents, currency in lines:
                if (cents, currency) not in self.prices.get(sku, set()):
                    what = f"order {order_id} is confirmed with {sku} at {cents} cents, which was never its price"
                    self.violated("as requested", what, answer.place)

    def _settle_confirmed(self, order_id: str, book: _OrderBook, answer: _Fact, lines: list[BookEntry]) -> None:
        self.checked["confirmed"] += 1
        total, currency = minor(answer.event.total), answer.event.total.currency_code
        held, released = book.of("ItemsReserved"), book.of("ReservationReleased")
        paid, voided = book.of("PaymentAuthorized"), book.of("PaymentVoided")
        wanted: Counter[str] = Counter()
        for line in answer.event.lines:
            wanted[line.sku] += line.quantity
        if len(held) != 1 or released:
            what = f"confirmed order {order_id} was held {len(held)} times and released {len(released)} times"
            self.violated("confirmed", what, answer.place, *_places(held, released))
        elif {line.sku: line.quantity for line in held[0].event.lines} != wanted:
            self.violated("confirmed", f"of confirmed order {order_id} other lines are held", answer.place, held[0].place)
        elif held[0].event.pool_id != answer.event.delivery_zone:
            self.violated("confirmed", f"confirmed order {order_id} is held in another zone's pool", answer.place, held[0].place)
        if len(paid) != 1 or voided:
            what = f"confirmed order {order_id} was authorised {len(paid)} times and voided {len(voided)} times"
            self.violated("confirmed", what, answer.place, *_places(paid, voided))
        elif (minor(paid[0].event.total), paid[0].event.total.currency_code) != (total, currency):
            what = f"confirmed order {order_id} costs {total}, authorised are {minor(paid[0].event.total)}"
            self.violated("confirmed", what, answer.place, paid[0].place)
        for step, causes in (("OrderReserved", held), ("OrderPaid", paid)):
            before = [fact for fact in book.of(step) if fact.sequence < answer.sequence]
            if len(before) != 1 or before[0].cause not in {fact.id for fact in causes}:
                heard = " or ".join(sorted({fact.name for fact in causes})) or "nothing"
                what = f"order {order_id} is confirmed without an {step} before it that {heard} caused"
                self.violated("confirmed", what, answer.place, *_places(before, causes))
        self.checked["captured"] += 1
        captured = book.of("PaymentCaptured")
        if len(captured) != 1 or (minor(captured[0].event.total), captured[0].event.total.currency_code) != (total, currency):
            what = f"of confirmed order {order_id}, {total} are due and {[minor(fact.event.total) for fact in captured]} were captured"
            self.violated("captured", what, answer.place, *_places(captured))
        self.checked["provider"] += max(1, len(lines))
        authorization = paid[0].event.authorization_id if paid else ""
        moved = (answer.event.customer_id, authorization, currency, total)
        expected = [("authorized", *moved), ("captured", *moved)] if total else []
        found = [(e.kind, e.customer, e.authorization_id, e.currency, e.minor) for e in lines if total == 0 or e.kind != "declined"]
        if found != expected:
            said = ", ".join(f"{entry.kind} {entry.minor} ({entry.authorization_id})" for entry in lines) or "nothing"
            self.violated(
                "provider", f"of confirmed order {order_id} ({total}, {authorization or 'free'}) the books say: {said}", answer.place
            )

    def _settle_refused(self, order_id: str, book: _OrderBook, answer: _Fact, lines: list[BookEntry]) -> None:
        self.checked["given back"] += 1
        how = "rejected" if answer.name == "OrderRejected" else "cancelled"
        held, released = book.of("ItemsReserved"), book.of("ReservationReleased")
        if len(held) > 1 or len(held) != len(released):
            what = f"{how} order {order_id} was held {len(held)} times and released {len(released)} times"
            self.violated("given back", what, answer.place, *_places(held, released))
        elif held and _quantities(held[0]) != _quantities(released[0]):
            self.violated("given back", f"of {how} order {order_id} not all was released", answer.place, *_places(held, released))
        paid, voided, captured = book.of("PaymentAuthorized"), book.of("PaymentVoided"), book.of("PaymentCaptured")
        if captured:
            self.violated("given back", f"{how} order {order_id} was captured", answer.place, *_places(captured))
        if paid and not voided:
            self.violated("given back", f"{how} order {order_id} is still authorised", answer.place, *_places(paid))
        self.checked["provider"] += len(lines)
        if any(entry.kind == "captured" for entry in lines):
            self.violated("provider", f"the provider captured {how} order {order_id}", answer.place)
        given = Counter((entry.authorization_id, entry.minor) for entry in lines if entry.kind == "authorized")
        given_back = Counter((entry.authorization_id, entry.minor) for entry in lines if entry.kind == "voided" and entry.authorization_id)
        for authorization_id, cents in (given - given_back) + (given_back - given):
            self.violated(
                "provider", f"of {how} order {order_id}, {cents} ({authorization_id}) did not come and go once each", answer.place
            )
        known = {authorization_id for authorization_id, _ in given}
        for fact in paid:
            if fact.event.authorization_id not in known and minor(fact.event.total):
                what = f"order {order_id} was authorised as {fact.event.authorization_id}, which the provider does not know"
                self.violated("provider", what, fact.place)


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


def _places(*facts: list[_Fact]) -> list[Place]:
    return [fact.place for some in facts for fact in some]


def _lines(lines: Iterable[Any]) -> list[tuple[str, int, int, str]]:
    return [(line.sku, line.quantity, minor(line.unit_price), line.unit_price.currency_code) for line in lines]


def _quantities(fact: _Fact) -> dict[str, int]:
    return {line.sku: line.quantity for line in fact.event.lines}

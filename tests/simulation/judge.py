"""What is wrong with a shop at rest: the laws of the shop, and what the runtime promises beyond them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from retail.ordering.v1.order_pb2 import (
    REJECTION_REASON_OUT_OF_STOCK,
    REJECTION_REASON_OVERDUE,
    REJECTION_REASON_PRICE_CHANGED,
    REJECTION_REASON_UNKNOWN_SKU,
)

from backbone.contract import ResolvedDecider, ResolvedView
from backbone.envelope import decode, moment_of_ms
from backbone.loops.folding import RowTable
from backbone.moments import moment
from backbone.partitioner import partition_of
from backbone.ports import Fragment, Record
from backbone.stored import Lineage
from backbone.testing.simulated.log import SimulatedLog
from backbone.v1.private_pb2 import Tick
from laws.check import check
from laws.entries import WRAPPERS, Entry, Place, take_apart
from tests.simulation.shop import ORDERS_TOPIC, PARTITIONS, Shop, services, topics

PRIVATE = (".commands", ".outcomes", ".ticks", ".quarantine")
REQUESTS = "retail.gateway.order-requests.v1"
LEVELS = "retail.fulfilment.stock-by-sku.v1"
LISTED = "retail.ordering.prices.v1"
TICKS = "private.ordering.orders.ticks"

MILLISECOND = timedelta(milliseconds=1)
"""The log keeps whole ones."""


class Judged:
    """A log at rest, taken apart once."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.log = shop.simulation.log
        public = sorted(WRAPPERS, key=lambda name: bool(WRAPPERS[name].copy_of))
        private = [name for name in topics() if name.startswith("private.") and name.endswith(PRIVATE)]
        self.entries: list[Entry] = []
        self.appended_ms: dict[Place, int] = {}
        for topic in (*public, *private):
            for record in self.log.history(topic):
                place = Place(record.topic, record.partition, record.offset)
                self.appended_ms[place] = record.timestamp_ms
                self.entries.append(take_apart(place, record.key, record.value))
        self.by_topic: dict[str, list[Entry]] = {}
        for entry in self.entries:
            self.by_topic.setdefault(entry.place.topic, []).append(entry)
        self.primaries = [entry for entry in self.entries if entry.event is not None and not WRAPPERS[entry.place.topic].copy_of]

    def named(self, name: str) -> list[Entry]:
        """Every event of a name."""
        return [entry for entry in self.primaries if entry.name == name]


def wrong_with(shop: Shop) -> list[str]:
    """What is wrong, one line each, most telling first; empty if nothing is."""
    judged = Judged(shop)
    verdict = check(judged.entries, shop.provider.ledger.entries)
    wrong = [f"{one.law}: {one.text} {' '.join(map(str, one.witnesses[:2]))}" for one in verdict.violations]
    for name, law in LAWS.items():
        wrong += [f"{name}: {text}" for text in law(judged)]
    return wrong


def _nothing_set_aside(judged: Judged) -> Iterator[str]:
    for topic, entries in judged.by_topic.items():
        if topic.endswith(".quarantine"):
            yield from (f"{entry.place}: {entry.value!r:.300}" for entry in entries)


def _all_taken_in(judged: Judged) -> Iterator[str]:
    requests = {(entry.name, entry.event.order_id) for entry in judged.by_topic.get(REQUESTS, ())}
    for wish in judged.shop.asked:
        if (type(wish.event).__name__, wish.event.order_id) not in requests:
            yield f"{type(wish.event).__name__} of {wish.event.order_id} was acknowledged and is not in the log"
    for source, topic in ((judged.shop.catalogue, "retail.ordering.catalogue.v1"), (judged.shop.receipts, "retail.fulfilment.receipts.v1")):
        raised = Counter(entry.event.SerializeToString(deterministic=True) for entry in judged.by_topic.get(topic, ()))
        lines = Counter(event.SerializeToString(deterministic=True) for _, event in source.lines)
        if raised != lines:
            yield f"{topic} holds {sum(raised.values())} events of {sum(lines.values())} lines: {(raised - lines) + (lines - raised)}"


def _ids(judged: Judged) -> Iterator[str]:
    """What was caused has the identity that its cause's coordinate gives, in its primary topic or in the copy that was heard."""
    topic_ids = {name: identity for name, (identity, _) in judged.log.topics().items()}
    at: dict[str, list[Place]] = {}
    for entry in judged.entries:
        if entry.meta.id:
            at.setdefault(entry.meta.id, []).append(entry.place)
    for entry in judged.entries:
        meta = entry.meta
        if not meta.causation_id or entry.value is None:
            continue
        places = at.get(meta.causation_id, [])
        expected = {f"{meta.writer}:{topic_ids[place.topic]}:{place.partition}:{place.offset}" for place in places}
        if meta.id.rpartition(":")[0] not in expected:
            yield f"{entry.name or 'a record'} at {entry.place} is called {meta.id}, its cause lies at {', '.join(map(str, places))}"


def _one_outcome(judged: Judged) -> Iterator[str]:
    """Outcome and tombstone are one transaction, so a command has one outcome."""
    for topic, entries in judged.by_topic.items():
        if topic.endswith(".outcomes"):
            times = Counter(entry.meta.causation_id for entry in entries if entry.value is not None)
            yield from (f"{command} has {count} outcomes" for command, count in times.items() if count > 1)


def _answered_by_stock(judged: Judged) -> Iterator[str]:
    answered = {entry.event.order_id for name in ("ItemsReserved", "ReservationRefused") for entry in judged.named(name)}
    started = {entry.event.order_id for entry in judged.named("PaymentStarted")}
    closed = {entry.event.order_id for entry in judged.named("OrderRejected") + judged.named("OrderCancelled")}
    for entry in judged.named("OrderValidated"):
        order_id = entry.event.order_id
        if order_id not in answered and order_id not in closed:
            yield f"stock never answered {order_id}"
        if order_id not in started:
            yield f"payments never heard of {order_id}"


def _honest(judged: Judged) -> Iterator[str]:
    """A refusal at the door of the shop is what the rows that were looked up say, and they were not merely late."""
    asked = {entry.place: entry for entry in judged.by_topic.get(REQUESTS, ())}
    by_cause = {entry.meta.id: entry for entry in reversed(list(asked.values()))}
    rows = {topic: _by_sku(judged.by_topic.get(topic, ())) for topic in (LEVELS, LISTED)}
    for entry in judged.named("OrderRejected"):
        request = by_cause.get(entry.meta.causation_id)
        if request is None or entry.event.reason == REJECTION_REASON_OVERDUE:
            continue
        known = {(one.view.rpartition(".")[2], key): one for one in entry.meta.observed for key in one.keys}
        objections = []
        if any((of, line.sku) not in known for line in request.event.lines for of in ("price", "availability")):
            yield f"{entry.event.order_id} was refused without a look at its rows"
            continue
        for line in request.event.lines:
            price = _as_of(rows[LISTED].get(line.sku, ()), known["price", line.sku].watermark)
            level = _as_of(rows[LEVELS].get(line.sku, ()), known["availability", line.sku].watermark, request.event.delivery_zone)
            wanted = sum(one.quantity for one in request.event.lines if one.sku == line.sku)
            for of, topic in (("price", LISTED), ("availability", LEVELS)):
                at, there = known[of, line.sku], rows[topic].get(line.sku, ())
                if _as_of(there, at.watermark) is None and (late := _before(judged, there, request, at.watermark)):
                    yield f"{entry.event.order_id} was decided without {late.place}, which was there when it was asked for"
            if price is None:
                objections.append(REJECTION_REASON_UNKNOWN_SKU)
            elif price.event.unit_price != line.unit_price:
                objections.append(REJECTION_REASON_PRICE_CHANGED)
            if level is None or level.event.on_hand - level.event.reserved < wanted:
                objections.append(REJECTION_REASON_OUT_OF_STOCK)
        if entry.event.reason not in objections:
            yield f"{entry.event.order_id} was refused for reason {entry.event.reason}, the rows it looked up say {objections}"


def _by_sku(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.event.sku, []).append(entry)
    return found


def _as_of(entries: Sequence[Entry], watermark: int, pool: str = "") -> Entry | None:
    found = None
    for entry in entries:
        if entry.place.offset < watermark and (not pool or (entry.name == "StockLevelChanged" and entry.event.pool_id == pool)):
            found = entry
    return found


def _before(judged: Judged, entries: Sequence[Entry], request: Entry, watermark: int) -> Entry | None:
    asked_ms = judged.appended_ms[request.place]
    return next((one for one in entries if one.place.offset >= watermark and judged.appended_ms[one.place] < asked_ms), None)


def _patient(judged: Judged) -> Iterator[str]:
    """No order is refused as overdue before its time, nor while the answers it waits for lie in the log since before its time."""
    ticks: dict[str, tuple[datetime, list[datetime]]] = {}
    for entry in judged.by_topic.get(TICKS, ()):
        tick = Tick.FromString(entry.value or b"")
        at = moment_of_ms(judged.appended_ms[entry.place])
        ticks.setdefault(tick.meta.id, (moment(tick.due), []))[1].append(at)
    said: dict[tuple[str, str], datetime] = {}
    for name in ("ItemsReserved", "PaymentAuthorized"):
        for entry in judged.named(name):
            said[name, entry.event.order_id] = moment_of_ms(judged.appended_ms[entry.place])
    for entry in judged.named("OrderRejected"):
        if entry.event.reason != REJECTION_REASON_OVERDUE or entry.meta.causation_id not in ticks:
            continue
        order_id, (due, written) = entry.event.order_id, ticks[entry.meta.causation_id]
        if max(written) < due - MILLISECOND:
            yield f"{order_id} was refused as overdue {(due - max(written)).total_seconds():.2f} s before its time"
        if min(written) < due - MILLISECOND:
            continue  # who wrote it had a fast clock: it waited for what lay in the log when its own time had come
        reserved, paid = said.get(("ItemsReserved", order_id)), said.get(("PaymentAuthorized", order_id))
        if reserved is not None and paid is not None and max(reserved, paid) < due - MILLISECOND:
            yield f"{order_id} was refused as overdue, its answers had come {(due - max(reserved, paid)).total_seconds():.2f} s before"


def _views(judged: Judged) -> Iterator[str]:
    """Every view is the fold of its topic, byte for byte."""
    for service in services():
        for view in service.views:
            for partition in range(PARTITIONS):
                held = judged.shop.simulation.rows[service.context].lies(Fragment(view.name, view.view.version, partition))
                rows, indexed = _folded(judged.log, view, partition)
                if held.rows != rows:
                    differ = sorted(key for key in held.rows.keys() | rows.keys() if held.rows.get(key) != rows.get(key))
                    yield f"{view.name}/{partition} is not the fold of its topic: {', '.join(differ[:5])}"
                if {name: of for name, of in held.indexes.items() if of} != indexed:
                    yield f"an index of {view.name}/{partition} is not the fold of its topic"


def _folded(log: SimulatedLog, view: ResolvedView, partition: int) -> tuple[dict[str, bytes], dict[tuple[str, str], dict[str, float]]]:
    table = RowTable(view.view, view.name, view.key, {}, Lineage(view.topic.name))
    lines = {reaction.number: reaction.line for reaction in view.reactions}
    for record in _of(log, view.topic.name, partition):
        decoded = decode(view.topic, record)
        if decoded.number in lines:
            at = moment_of_ms(record.timestamp_ms)
            after, line = decoded.meta.after, lines[decoded.number]
            error = table.fold(line, decoded.key, decoded.event, at, "", after=after, next_offset=record.offset + 1)
            assert error is None, error
    change = table.change(0, 0)
    indexed: dict[tuple[str, str], dict[str, float]] = {}
    for (index, group, key), score in change.indexed.items():
        if score is not None:
            indexed.setdefault((index, group), {})[key] = score
    return {key: row for key, row in change.rows.items() if row is not None}, indexed


def _states(judged: Judged) -> Iterator[str]:
    """What a decider holds is the fold of what it said."""
    for service in services():
        if service.decider is None:
            continue
        worker = judged.shop.simulation.worker(f"{service.name}.decide")
        for number, held in worker._partitions.items():
            found = {key: (one.state, one.sequence) for key, one in held.aggregates.items()}
            expected = _evolved(judged.log, service.decider, number)
            if found != expected:
                differ = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
                yield f"{service.name}/{number} holds something else than it said of {', '.join(differ[:5])}"


def _evolved(log: SimulatedLog, decider: ResolvedDecider, number: int) -> Mapping[str, Any]:
    states: dict[str, tuple[Any, int]] = {}
    for record in _of(log, decider.primary.name, number):
        own = decode(decider.primary, record)
        state = states[own.key][0] if own.key in states else decider.decider.state()
        states[own.key] = (decider.decider.evolve(state, own.event), own.meta.sequence)
    return states


def _of(log: SimulatedLog, topic: str, partition: int) -> Iterator[Record]:
    return (record for record in log.history(topic) if record.partition == partition)


def _where_keys_belong(judged: Judged) -> Iterator[str]:
    for entry in judged.by_topic.get(ORDERS_TOPIC, ()):
        if entry.key is not None and partition_of(entry.key, PARTITIONS) != entry.place.partition:
            yield f"{entry.place} does not belong there"


LAWS = {
    "set aside": _nothing_set_aside,
    "taken in": _all_taken_in,
    "identity": _ids,
    "one outcome": _one_outcome,
    "stock answers": _answered_by_stock,
    "honest": _honest,
    "patient": _patient,
    "views": _views,
    "states": _states,
    "places": _where_keys_belong,
}
"""What the runtime promises, beyond the laws of the shop, by name."""

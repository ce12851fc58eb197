"""Decisions that look at time or at rows: neither too early, nor on what was merely late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError
from retail.ordering.v1.order_pb2 import (
    REJECTION_REASON_OUT_OF_STOCK,
    REJECTION_REASON_OVERDUE,
    REJECTION_REASON_PRICE_CHANGED,
    REJECTION_REASON_UNKNOWN_SKU,
)

from backbone.v1.private_pb2 import Tick
from tests.checker.seen import Said, Seen
from tests.checker.world import Finding

LISTED, LEVELS = "retail.ordering.prices.v1", "retail.fulfilment.stock-by-sku.v1"
TICKS = "private.ordering.orders.ticks"


def expiry(seen: Seen) -> Iterator[Finding]:
    """No order is refused as overdue before its time by the log's clock, nor while its answers lie in the log since before."""
    written: dict[str, list[int]] = {}
    due: dict[str, int] = {}
    for one in seen.by_topic.get(TICKS, ()):
        try:
            tick = Tick.FromString(one.entry.value or b"")
        except DecodeError:
            continue
        written.setdefault(tick.meta.id, []).append(one.at_ms)
        due[tick.meta.id] = tick.due.ToMilliseconds()
    for one in seen.named("OrderRejected"):
        if one.event.reason != REJECTION_REASON_OVERDUE or one.because is None:
            continue
        came = seen.at.get(one.because.place)
        if came is None:
            continue
        tick_id = one.meta.causation_id
        time_ms = due[tick_id] if tick_id in due else came.event.expires_at.ToMilliseconds() if came.event is not None else 0
        at_ms = max(written.get(tick_id, [came.at_ms]))
        if at_ms < time_ms - 1:
            yield _finding("expiry", one, f"{one.event.order_id} was refused as overdue {time_ms - at_ms} ms before its time", came)
        if tick_id not in due or min(written[tick_id]) < time_ms - 1:
            continue  # whoever wrote it had a fast clock: it waited for what lay in the log when its own time had come
        steps = [next(iter(seen.about(one.event.order_id, name)), None) for name in ("ItemsReserved", "PaymentAuthorized")]
        there = [step for step in steps if step is not None and step.at_ms < time_ms - 1]
        if len(there) == len(steps):
            late_ms = time_ms - max(step.at_ms for step in there)
            yield _finding("expiry", one, f"{one.event.order_id} was refused as overdue, its answers had come {late_ms} ms before", *there)


def absence(seen: Seen) -> Iterator[Finding]:
    """A refusal says what the rows that were looked up said, and no row was taken for absent that was merely late."""
    rows = {topic: _by_sku(seen.by_topic.get(topic, ())) for topic in (LISTED, LEVELS)}
    for one in seen.named("OrderRejected"):
        request = None if one.because is None else seen.at.get(one.because.place)
        if request is None or request.name != "OrderRequested" or one.event.reason == REJECTION_REASON_OVERDUE:
            continue
        known = {(looked.view.rpartition(".")[2], key): looked.watermark for looked in one.meta.observed for key in looked.keys}
        objections = set()
        for sku in {line.sku for line in request.event.lines}:
            for of, topic in (("price", LISTED), ("availability", LEVELS)):
                watermark = known.get((of, sku))
                if watermark is None:
                    yield _finding("absence", one, f"{one.event.order_id} was refused without a look at the {of} of {sku}", request)
                    return
                there = rows[topic].get(sku, ())
                late = next((row for row in there if row.place.offset >= watermark and row.at_ms < request.at_ms), None)
                if late is not None and _as_of(there, watermark) is None:
                    what = f"{one.event.order_id} was refused as if there were no {of} of {sku}, which was there before it was asked for"
                    yield _finding("absence", one, what, request, late)
            price = _as_of(rows[LISTED].get(sku, ()), known["price", sku])
            level = _as_of(rows[LEVELS].get(sku, ()), known["availability", sku], request.event.delivery_zone)
            lines = [line for line in request.event.lines if line.sku == sku]
            if price is None:
                objections.add(REJECTION_REASON_UNKNOWN_SKU)
            elif any(line.unit_price != price.event.unit_price for line in lines):
                objections.add(REJECTION_REASON_PRICE_CHANGED)
            if level is None or level.event.on_hand - level.event.reserved < sum(line.quantity for line in lines):
                objections.add(REJECTION_REASON_OUT_OF_STOCK)
        if one.event.reason not in objections:
            what = f"{one.event.order_id} was refused for reason {one.event.reason}, the rows it looked up say {sorted(objections)}"
            yield _finding("absence", one, what, request)


def _by_sku(said: Sequence[Said]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for one in said:
        if one.event is not None:
            found.setdefault(one.event.sku, []).append(one)
    return found


def _as_of(said: Sequence[Said], watermark: int, pool: str = "") -> Said | None:
    found = None
    for one in said:
        if one.place.offset < watermark and (not pool or one.event.pool_id == pool):
            found = one
    return found


def _finding(rule: str, one: Said, text: str, *others: Said) -> Finding:
    return Finding(rule, text, (one.place, *(other.place for other in others)), one.event.order_id)

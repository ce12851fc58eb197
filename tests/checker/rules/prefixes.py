"""The laws of the shop at every causal prefix: what must have been before, was; what must not have been, was not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from laws.entries import WRAPPERS, Place
from laws.facts import minor
from tests.checker.seen import ANSWERS, Said, Seen
from tests.checker.world import Finding

BEFORE: Mapping[str, Sequence[tuple[str, ...]]] = {
    "OrderValidated": [("OrderRequested",)],
    "OrderReserved": [("ItemsReserved",)],
    "OrderPaid": [("PaymentAuthorized",)],
    "OrderConfirmed": [("ItemsReserved",), ("PaymentAuthorized",), ("OrderReserved",), ("OrderPaid",)],
    "ItemsReserved": [("OrderValidated",)],
    "ReservationRefused": [("OrderValidated",)],
    "PaymentStarted": [("OrderValidated",)],
    "PaymentAuthorized": [("PaymentStarted",)],
    "PaymentCaptured": [("PaymentAuthorized",), ("OrderConfirmed",)],
    "PaymentVoided": [("OrderRejected", "OrderCancelled", "PaymentDeclined", "PaymentAbandoned")],
    "PaymentAbandoned": [("OrderRejected", "OrderCancelled")],
    "ReservationReleased": [("ItemsReserved",), ("OrderRejected", "OrderCancelled")],
}
"""For each event groups of which one must have come before it."""

NEVER_WITH: Mapping[str, Sequence[str]] = {
    "OrderConfirmed": ("ReservationReleased", "PaymentVoided", "PaymentDeclined", "ReservationRefused"),
    "PaymentCaptured": ("PaymentVoided", "OrderRejected", "OrderCancelled"),
}
"""For each event what must not have come before it, nor come later."""


def prefix(seen: Seen) -> Iterator[Finding]:
    """Fold the log in an order that respects every cause, and look at each order after each of its events."""
    so_far: dict[str, dict[str, Said]] = {}
    said = [one for one in seen.said if one.place.topic not in WRAPPERS or not WRAPPERS[one.place.topic].copy_of]
    ordered = list(linear(said))
    if len(ordered) < len(said):
        first = min({one.place for one in said} - {one.place for one in ordered})
        yield Finding("prefix", f"{len(said) - len(ordered)} records come after each other in a circle", (first,))
    for one in ordered:
        order_id = getattr(one.event, "order_id", "")
        if not order_id:
            continue
        before = so_far.setdefault(order_id, {})
        for wanted in BEFORE.get(one.name, ()):
            if not any(name in before for name in wanted):
                yield _finding(one, f"{one.name} of {order_id} came before any {' or '.join(wanted)}")
        for name in NEVER_WITH.get(one.name, ()):
            if name in before:
                yield _finding(one, f"{one.name} of {order_id} came after {name}", before[name].place)
        for name, unwanted in NEVER_WITH.items():
            if one.name in unwanted and name in before:
                yield _finding(one, f"{one.name} of {order_id} came although it has {name}", before[name].place)
        for name in ANSWERS:
            if one.name in ANSWERS and name in before:
                yield _finding(one, f"{order_id} is answered with {one.name}, and was with {name}", before[name].place)
        yield from _whole(one, before)
        before.setdefault(one.name, one)


def _whole(one: Said, before: Mapping[str, Said]) -> Iterator[Finding]:
    """What is held is all of the order or nothing, and what is authorised is its total."""
    asked = before.get("OrderValidated")
    if asked is None:
        return
    if one.name == "ItemsReserved":
        wanted: dict[str, int] = {}
        for line in asked.event.lines:
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        held = {line.sku: line.quantity for line in one.event.lines}
        if held != wanted:
            yield _finding(one, f"of {one.event.order_id}, {held} is held, its lines want {wanted}", asked.place)
    if one.name in ("PaymentAuthorized", "PaymentCaptured") and minor(one.event.total) != minor(asked.event.total):
        what = f"{one.name} of {one.event.order_id} says {minor(one.event.total)}, the order costs {minor(asked.event.total)}"
        yield _finding(one, what, asked.place)


def linear(said: Sequence[Said]) -> Iterator[Said]:
    """An order in which nothing comes before what it comes after: by partitions, and by the causes that are among these."""
    by_id = {one.meta.id: one for one in reversed(said) if one.meta.id}
    waits: dict[Place, list[Said]] = {}
    open_: dict[Place, int] = {}
    last: dict[tuple[str, int], Said] = {}
    ready: deque[Said] = deque()
    for one in said:
        needs = {other.place for other in (_cause(one, by_id), last.get((one.place.topic, one.place.partition))) if other is not None}
        needs.discard(one.place)
        last[one.place.topic, one.place.partition] = one
        open_[one.place] = len(needs)
        for place in needs:
            waits.setdefault(place, []).append(one)
        if not needs:
            ready.append(one)
    while ready:
        one = ready.popleft()
        yield one
        for other in waits.get(one.place, ()):
            open_[other.place] -= 1
            if not open_[other.place]:
                ready.append(other)


def _cause(one: Said, by_id: Mapping[str, Said]) -> Said | None:
    return by_id.get(one.meta.causation_id) if one.meta.causation_id else None


def _finding(one: Said, text: str, *others: Place) -> Finding:
    return Finding("prefix", text, (one.place, *others), getattr(one.event, "order_id", ""))

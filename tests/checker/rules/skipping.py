"""Nothing is silently skipped: each record was decided, set aside or parked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from backbone.v1.private_pb2 import QUARANTINE_REASON_RAISED, Quarantined
from laws.entries import WRAPPERS, Place
from tests.checker.seen import ANSWERS, ORDERS, REQUESTS, Said, Seen
from tests.checker.world import Finding

BY_ZONE = "retail.ordering.orders-by-zone.v1"
BY_ORDER = "retail.fulfilment.stock-by-order.v1"
CATALOGUE = "retail.ordering.catalogue.v1"
RECEIPTS = "retail.fulfilment.receipts.v1"
PAYMENTS = "retail.payments.payments.v1"

READERS: Mapping[str, tuple[str, ...]] = {
    REQUESTS: ("ordering.orders", "gateway.door"),
    CATALOGUE: ("ordering.pricing",),
    RECEIPTS: ("fulfilment.stock",),
    BY_ZONE: ("fulfilment.stock",),
    BY_ORDER: ("ordering.orders",),
    PAYMENTS: ("ordering.orders",),
    ORDERS: ("payments.payments", "gateway.door"),
    "retail.ordering.prices.v1": ("ordering.orders",),
    "retail.fulfilment.stock-by-sku.v1": ("ordering.orders",),
    "retail.payments.payments-by-customer.v1": ("payments.risk",),
}
"""Services that read a topic, deciders and views; each sets aside what it cannot understand."""

DEAF: Mapping[tuple[str, str], frozenset[str]] = {
    (REQUESTS, "gateway.door"): frozenset({"OrderCancellationRequested"}),
    (BY_ZONE, "fulfilment.stock"): frozenset({"OrderConfirmed"}),
    (BY_ORDER, "ordering.orders"): frozenset({"ReservationReleased"}),
    (PAYMENTS, "ordering.orders"): frozenset({"PaymentStarted", "PaymentAssessed", "PaymentAbandoned", "PaymentCaptured", "PaymentVoided"}),
    (ORDERS, "payments.payments"): frozenset({"OrderReserved", "OrderPaid", "OrderCancellationRefused"}),
}
"""Events a reader does not hear: it passes them over by their first byte, and need not notice what is wrong behind it."""

ALWAYS: Mapping[tuple[str, str], str] = {
    (REQUESTS, "OrderCancellationRequested"): "ordering.orders",
    (BY_ZONE, "OrderValidated"): "fulfilment.stock",
    (ORDERS, "OrderValidated"): "payments.payments",
    (ORDERS, "OrderConfirmed"): "payments.payments",
}
"""Deciders that always have something to say to an event."""

UNLESS_ANSWERED: Mapping[tuple[str, str], str] = {
    (BY_ORDER, "ItemsReserved"): "ordering.orders",
    (BY_ORDER, "ReservationRefused"): "ordering.orders",
    (PAYMENTS, "PaymentAuthorized"): "ordering.orders",
    (PAYMENTS, "PaymentDeclined"): "ordering.orders",
}
"""Deciders that have something to say to an event unless the order has its answer already."""


def skipped(seen: Seen) -> Iterator[Finding]:
    """Whoever must say something to a record has said it, or has set the record aside."""
    if not seen.world.at_rest:
        return
    for (topic, name), decider in ALWAYS.items():
        for one in seen.by_topic.get(topic, ()):
            if one.name == name:
                yield from _no_reaction(seen, one, decider)
    for (topic, name), decider in UNLESS_ANSWERED.items():
        for one in seen.by_topic.get(topic, ()):
            if one.name == name and not _answered_before(seen, one, decider):
                yield from _no_reaction(seen, one, decider)
    yield from _first_of_each(seen, REQUESTS, "OrderRequested", "order_id", "ordering.orders")
    yield from _first_of_each(seen, RECEIPTS, "GoodsReceived", "receipt_id", "fulfilment.stock")
    yield from _prices(seen)
    yield from _garbage(seen)
    yield from _receipts(seen)
    yield from _positions(seen)


def _answered_before(seen: Seen, one: Said, decider: str) -> bool:
    """Whether silence is right: the order had its answer, or the same step, because of something else."""
    step = {"ItemsReserved": "OrderReserved", "PaymentAuthorized": "OrderPaid"}.get(one.name, "")
    done = seen.about(one.event.order_id, *ANSWERS, *((step,) if step else ()))
    return any(other.because is not None and other.because.place != one.place for other in done)


def _first_of_each(seen: Seen, topic: str, name: str, key: str, decider: str) -> Iterator[Finding]:
    known: set[str] = set()
    for one in seen.by_topic.get(topic, ()):
        if one.name == name and (of := getattr(one.event, key)) not in known:
            known.add(of)
            yield from _no_reaction(seen, one, decider)


def _prices(seen: Seen) -> Iterator[Finding]:
    """A price that is another than before is listed."""
    before: dict[str, bytes] = {}
    for one in seen.by_topic.get(CATALOGUE, ()):
        if one.event is not None:
            price = one.event.list_price.SerializeToString(deterministic=True)
            if before.get(one.event.sku) != price:
                yield from _no_reaction(seen, one, "ordering.pricing")
            before[one.event.sku] = price


def _no_reaction(seen: Seen, one: Said, decider: str) -> Iterator[Finding]:
    if one.place not in seen.reactions.get(decider, {}) and one.place not in seen.set_aside.get(decider, ()):
        yield Finding("skipped", f"{decider} neither reacted to {one.name} nor set it aside", (one.place,), one.meta.correlation_id)


def _garbage(seen: Seen) -> Iterator[Finding]:
    """What is no event of its topic is set aside by each of its readers."""
    for topic, readers in READERS.items():
        for one in seen.by_topic.get(topic, ()):
            if not one.entry.wrong:
                continue
            for reader in readers:
                if _name(one) not in DEAF.get((topic, reader), ()) and one.place not in seen.set_aside.get(reader, ()):
                    yield Finding("skipped", f"{reader} did not set aside what is no event: {one.entry.wrong}", (one.place,))


def _name(one: Said) -> str:
    """Which event a value claims to hold, by its first byte."""
    wrapper: Any = WRAPPERS[one.place.topic].message.DESCRIPTOR
    found = wrapper.fields_by_number.get((one.entry.value or b"\0")[0] >> 3) if one.entry.key is not None else None
    return found.message_type.name if found is not None and found.message_type is not None else ""


def _receipts(seen: Seen) -> Iterator[Finding]:
    """What stands in the ramp's book came in, once."""
    if seen.world.receipts is None:
        return
    came: dict[str, list[Said]] = defaultdict(list)
    for one in seen.by_topic.get(RECEIPTS, ()):
        if one.event is not None:
            came[one.event.receipt_id].append(one)
    for receipt_id, (pool, sku, quantity) in seen.world.receipts.items():
        said = [(one.event.pool_id, one.event.sku, one.event.quantity) for one in came.get(receipt_id, ())]
        if not said or set(said) != {(pool, sku, quantity)}:
            places = tuple(one.place for one in came.get(receipt_id, ()))
            yield Finding("skipped", f"receipt {receipt_id} of {quantity} {sku} for {pool} came in as {said or 'nothing'}", places)


def defect(seen: Seen) -> Iterator[Finding]:
    """No decision and no fold raises: what is set aside is what strangers wrote, or what lies behind that."""
    for topic, said in seen.by_topic.items():
        for one in said if topic.endswith(".quarantine") else ():
            try:
                found = Quarantined.FromString(one.entry.value or b"")
            except DecodeError:
                continue
            if found.reason == QUARANTINE_REASON_RAISED:
                place = Place(found.topic, found.partition, found.offset)
                yield Finding("defect", f"{found.service} could not decide: {found.detail}", (place, one.place), found.aggregate)


def _positions(seen: Seen) -> Iterator[Finding]:
    """Who says that it has decided so far has, and has come to the end."""
    ends: dict[tuple[str, int], Place] = {}
    for one in seen.said:
        ends[one.place.topic, one.place.partition] = one.place
    reached: dict[tuple[str, str, int], Place] = defaultdict(lambda: Place("", -1, -1))
    for decider, reactions in seen.reactions.items():
        for place in reactions:
            of = (decider, place.topic, place.partition)
            reached[of] = max(reached[of], place, key=lambda one: one.offset)
    for decider, positions in seen.world.decided.items():
        for (topic, partition), offset in positions.items():
            last = ends.get((topic, partition))
            if topic in WRAPPERS and last is not None and last.offset >= offset:
                yield Finding("skipped", f"{decider} has decided {topic}/{partition} below {offset} only", (last,))
            if (said := reached[decider, topic, partition]).offset >= offset:
                yield Finding("skipped", f"{decider} reacted to what it has not decided yet by its own account, below {offset}", (said,))

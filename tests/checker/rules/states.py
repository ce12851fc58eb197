"""What a decider keeps of an aggregate reaches as far as what it said."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from backbone.v1.private_pb2 import StateEntry
from laws.entries import WRAPPERS, Place
from tests.checker.seen import Seen
from tests.checker.world import Finding

OWN = {
    "ordering.orders": "retail.ordering.orders.v1",
    "ordering.pricing": "retail.ordering.prices.v1",
    "payments.payments": "retail.payments.payments.v1",
    "fulfilment.stock": "retail.fulfilment.stock.v1",
}
"""Topic of each decider's own events."""


def state(seen: Seen) -> Iterator[Finding]:
    """The last snapshot of each aggregate has the number of its last event: both were committed together, or neither."""
    for decider, topic in OWN.items():
        events = {getattr(one.event, WRAPPERS[topic].key): one for one in seen.by_topic.get(topic, ()) if one.event is not None}
        kept: dict[str, tuple[int, Place]] = {}
        for one in seen.by_topic.get(f"private.{decider}.state", ()):
            try:
                entry = StateEntry.FromString(one.entry.value or b"")
            except DecodeError:
                continue
            aggregate = _aggregate(one.entry.key)
            if entry.WhichOneof("entry") == "aggregate" and aggregate:
                kept[aggregate] = (entry.aggregate.sequence, one.place)
        for aggregate, last in events.items():
            sequence, *place = kept.get(aggregate, (0,))
            if sequence != last.meta.sequence:
                what = f"{decider} said event {last.meta.sequence} of {aggregate} last, its state reaches to {sequence}"
                yield Finding("state", what, (last.place, *place), last.meta.correlation_id)
        for aggregate in kept.keys() - events.keys():
            if kept[aggregate][0]:
                yield Finding("state", f"{decider} keeps a state of {aggregate}, of which it said nothing", (kept[aggregate][1],))


def _aggregate(key: bytes | None) -> str:
    """The first of the two length-prefixed parts of a private key."""
    size, _, rest = (key or b"").partition(b":")
    return rest[: int(size)].decode(errors="replace") if size.isdigit() else ""

"""A world taken apart once, for all rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError

from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import Quarantined
from laws.entries import WRAPPERS, Entry, Place, take_apart
from tests.checker.world import Lain, World

REQUESTS = "retail.gateway.order-requests.v1"
ORDERS = "retail.ordering.orders.v1"
ANSWERS = ("OrderConfirmed", "OrderRejected", "OrderCancelled")
DECIDERS = ("ordering.orders", "ordering.pricing", "payments.payments", "fulfilment.stock")


@dataclass(frozen=True, slots=True)
class Because:
    """What the identity of something said tells of its cause.

    Attributes:
        place: coordinate of the record that caused it; its topic is "?" and the name of an id if no topic is called so.
        index: number among all that was said because of that record.
    """

    writer: str
    place: Place
    index: int


@dataclass(frozen=True, slots=True)
class Said:
    """A committed record of the log, taken apart."""

    entry: Entry
    at_ms: int
    because: Because | None

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self.entry.place

    @property
    def name(self) -> str:
        """Name of the event; empty in a private topic."""
        return self.entry.name

    @property
    def event(self) -> Any:
        """The event."""
        return self.entry.event

    @property
    def meta(self) -> Meta:
        """Its meta; empty if there is none."""
        return self.entry.meta


class Seen:
    """A world, and what is often asked of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        names = {topic_id: name for name, topic_id in world.topic_ids.items()}
        self.aborted: dict[Place, Lain] = {lain.place: lain for lain in world.records if not lain.committed}
        self.said: list[Said] = []
        for lain in world.records:
            if lain.committed:
                entry = take_apart(lain.place, lain.key, lain.value)
                self.said.append(Said(entry, lain.at_ms, because(entry.meta, names)))
        self.at: Mapping[Place, Said] = {one.place: one for one in self.said}

    @cached_property
    def by_topic(self) -> Mapping[str, list[Said]]:
        """Committed records by topic, each partition in its order."""
        found: dict[str, list[Said]] = {}
        for one in self.said:
            found.setdefault(one.place.topic, []).append(one)
        return found

    @cached_property
    def primaries(self) -> list[Said]:
        """Every event in the topic of its writer."""
        return [one for one in self.said if one.event is not None and not WRAPPERS[one.place.topic].copy_of]

    @cached_property
    def by_name(self) -> Mapping[str, list[Said]]:
        """Every event in the topic of its writer, by name."""
        found: dict[str, list[Said]] = {}
        for one in self.primaries:
            found.setdefault(one.name, []).append(one)
        return found

    @cached_property
    def of_order(self) -> Mapping[str, list[Said]]:
        """Events about each order."""
        found: dict[str, list[Said]] = {}
        for one in self.primaries:
            if order_id := getattr(one.event, "order_id", ""):
                found.setdefault(order_id, []).append(one)
        return found

    def named(self, *names: str) -> list[Said]:
        """Every event of these names."""
        return [one for name in names for one in self.by_name.get(name, ())]

    def about(self, order_id: str, *names: str) -> list[Said]:
        """What was said about an order."""
        return [one for one in self.of_order.get(order_id, ()) if one.name in names]

    @cached_property
    def reactions(self) -> Mapping[str, Mapping[Place, list[Said]]]:
        """What each decider said, commands among it, by the record it heard; by writer."""
        found: dict[str, dict[Place, list[Said]]] = {}
        for one in self.said:
            topic = one.place.topic
            heard = one.event is not None and not WRAPPERS[topic].copy_of
            if one.because is not None and (heard or (topic.endswith(".commands") and one.entry.value is not None)):
                found.setdefault(one.because.writer, {}).setdefault(one.because.place, []).append(one)
        return found

    @cached_property
    def set_aside(self) -> Mapping[str, frozenset[Place]]:
        """What lies in the quarantine of each service."""
        return {
            topic.removeprefix("private.").removesuffix(".quarantine"): frozenset(_quarantined(said))
            for topic, said in self.by_topic.items()
            if topic.endswith(".quarantine")
        }


def because(meta: Meta, names: Mapping[str, str]) -> Because | None:
    """The cause that an identity names; None for a root."""
    if not meta.causation_id:
        return None
    parts = meta.id.rsplit(":", 4)
    if len(parts) != 5 or not all(part.isdigit() for part in parts[2:]):
        return Because(meta.writer, Place(f"? {meta.id}", -1, -1), 0)
    writer, topic_id, partition, offset, index = parts
    return Because(writer, Place(names.get(topic_id, f"? {topic_id}"), int(partition), int(offset)), int(index))


def _quarantined(said: list[Said]) -> Iterator[Place]:
    for one in said:
        try:
            found = Quarantined.FromString(one.entry.value or b"")
        except DecodeError:
            continue
        yield Place(found.topic, found.partition, found.offset)

"""An old stock decider meets events of a newer build on real Kafka: what it does not know waits for the newer one, and nothing leaks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from google.protobuf.message import Message
from retail.fulfilment.v1.stock_pb2 import ItemsReserved, ReservationReleased, StockLevelChanged
from retail.ordering.v1.order_pb2 import OrderCancelled

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import ResolvedService, resolve
from backbone.envelope import decode, encode, root_meta
from backbone.local.kafka import Kafka, prepare
from backbone.loops.decide import Decide
from backbone.ownership import BROKER
from backbone.ports import Record
from backbone.settings import Settings
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNKNOWN_EVENT, Quarantined, Release
from contexts.fulfilment.context import fulfilment
from contexts.fulfilment.stock import state
from contexts.fulfilment.stock.service import stock
from tests import examples as say
from tests.conftest import scratch
from tests.loops.deciding import PARTITIONS as DECIDING_PARTITIONS
from tests.loops.deciding import World, steps
from tests.loops.older import older

PARTITIONS = 2
WITHIN_S = 60.0
UNKNOWN = 14
"""A number of no event of today."""
NEWER_FIELD = b"\xd2\x05\x05after"
"""Field 90, which no build of today knows."""


@dataclass
class Two:
    """Stock on a real log, and its builds.

    Attributes:
        newer: the service as it is.
        older: as it was before orders could be cancelled.
    """

    log: KafkaLog
    settings: Settings
    newer: ResolvedService
    older: ResolvedService
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1000)))

    def worker(self, build: ResolvedService, slot: int) -> Decide:
        """A worker of a build."""
        name = "newer" if build is self.newer else "older"
        return Decide(build, self.log, MemoryRows(), self.settings.model_copy(update={"slot": slot, "build": name}))

    def comes(self, event: Any, more: bytes = b"") -> None:
        """Another service says something; `more` is appended to the event."""
        assert self.newer.decider is not None
        topic = next(one.topic for one in self.newer.decider.reactions if one.line.hears is type(event))
        meta = root_meta(
            writer=topic.writer, build="other", request_id=f"r-{next(self.numbers)}", correlation_id="conversation", occurred_at_ms=1_000
        )
        value = encode(topic.number(type(event)) or 0, event.SerializeToString() + more, meta.SerializeToString())
        self.append(topic.name, getattr(event, topic.key).encode(), value)

    def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> None:
        """Append a record."""
        producer = self.log.producer(f"{self.newer.name}.test")
        producer.begin()
        producer.produce(topic, key, value, partition)
        producer.commit()
        producer.close()

    def records(self, topic: str) -> list[Record]:
        """Every record of a topic, partition by partition."""
        places = [(topic, partition) for partition in range(PARTITIONS)]
        ends = self.log.high_watermarks(places)
        return [record for place in places for record in self.log.read(place, 0, ends[place])]

    def said(self) -> list[Message]:
        """Everything stock said."""
        assert self.newer.decider is not None
        primary = self.newer.decider.primary
        return [decode(primary, record).event for record in self.records(primary.name)]

    def pool(self) -> state.Pool:
        """What follows from all that stock said of its pool."""
        pool = state.Pool()
        for one in self.said():
            pool = state.evolve(pool, one)  # type: ignore[arg-type]
        return pool

    def aside(self) -> list[tuple[Record, Quarantined]]:
        """Everything that was set aside, with the record that says so."""
        return [(one, Quarantined.FromString(one.value or b"")) for one in self.records(self.newer.private("quarantine"))]

    def released(self) -> set[str]:
        """Orders whose reservation was given back."""
        return {one.order_id for one in self.said() if isinstance(one, ReservationReleased)}

    def reserved(self) -> set[str]:
        """Orders that were ever held."""
        return {one.order_id for one in self.said() if isinstance(one, ItemsReserved)}


@pytest.fixture
def two() -> Iterator[Two]:
    """Both builds on a broker of their own, since what a decider says lies in the topics of its contract."""
    prepare()
    newer = resolve(fulfilment, stock)
    assert newer.decider is not None
    public = {topic.name for topic in (*newer.decider.inputs, newer.decider.primary, *newer.decider.copies)}
    for_ever = [*public, *(newer.private(purpose) for purpose in ("quarantine", "releases"))]
    specs = [TopicSpec(name, PARTITIONS, KEPT_FOR_EVER) for name in for_ever]
    with scratch("builds") as folder, Kafka(folder) as kafka:
        settings = Settings.read({**kafka.variables, "BACKBONE_PARTITIONS": str(PARTITIONS)})
        KafkaAdmin(settings).create_topics([*specs, TopicSpec(newer.private("state"), PARTITIONS, COMPACTED)])
        log = KafkaLog(settings, BROKER)
        yield Two(log, settings, newer, older(newer, OrderCancelled))
        log.close()


def work(workers: Sequence[Decide], until: Callable[[], bool], what: str) -> None:
    """Let workers step in turn until something holds."""
    deadline = time.monotonic() + WITHIN_S
    while not until():
        assert time.monotonic() < deadline, f"after {WITHIN_S} s not {what}: {[worker.status() for worker in workers]}"
        for worker in workers:
            worker.step(0.05)


@pytest.mark.integration
@pytest.mark.timeout(300)  # starts a broker; a quarter of a minute alone
def test_an_old_decider_sets_a_new_event_aside_and_the_new_one_takes_it_up_without_a_leak(two: Two) -> None:
    """The key is not parked: what comes behind it is decided by whichever build has it, and the reservation is given back once. A field
    that was added is no matter to the old one."""
    old = two.worker(two.older, 0)
    two.comes(say.goods_received(quantity=10), NEWER_FIELD)
    work([old], lambda: "CD-1" in two.pool().levels, "the goods in stock")  # nothing orders records of two topics
    two.comes(say.order_validated("order-1", lines=[("CD-1", 2, 1234)]), NEWER_FIELD)
    work([old], lambda: two.reserved() == {"order-1"}, "the first order held")

    two.comes(say.order_cancelled("order-1"))
    two.comes(say.order_validated("order-2", lines=[("CD-1", 3, 1234)]))
    work([old], lambda: two.reserved() == {"order-1", "order-2"}, "the second order held behind the unknown event")
    ((record, aside),) = two.aside()
    assert (aside.reason, aside.build) == (QUARANTINE_REASON_UNKNOWN_EVENT, "older")
    assert set(two.pool().held) == {"order-1", "order-2"}, "nothing is given back as long as nobody knows"

    new = two.worker(two.newer, 1)
    two.comes(say.order_validated("order-3", lines=[("CD-1", 1, 1234)]))
    work([old, new], lambda: "order-3" in two.reserved() and bool(new.status()["partitions"]), "both builds at work")
    old.close()

    word = Release(records=[aside], operator="somebody", because="the newer build knows it")
    two.append(two.newer.private("releases"), b"-", word.SerializeToString(), record.partition)
    work([new], lambda: two.released() == {"order-1"}, "the reservation given back")
    two.comes(say.order_cancelled("order-1"))
    two.comes(say.order_cancelled("order-3"))
    work([new], lambda: two.released() == {"order-1", "order-3"}, "the next cancellation decided at once")
    new.close()

    pool = two.pool()
    assert set(pool.held) == {"order-2"}
    assert (pool.levels["CD-1"].on_hand, pool.levels["CD-1"].reserved) == (10, 3)
    assert len([one for one in two.said() if isinstance(one, ReservationReleased)]) == 2, "each is given back once"
    last = [one for one in two.said() if isinstance(one, StockLevelChanged)][-1]
    assert (last.on_hand, last.reserved) == (10, 3)
    assert len(two.aside()) == 1


def test_an_old_decider_keeps_its_hands_off_a_partition_whose_own_topic_it_cannot_read() -> None:
    """A newer build of it has said what it does not know: it must not decide on a state that lacks it, and says why."""
    world = World(fulfilment, stock)
    first = world.worker()
    held = world.comes(say.goods_received())
    steps(first, lambda: first.decided == 1, "goods received")
    first.close()
    assert world.resolved.decider is not None
    primary = world.resolved.decider.primary
    meta = root_meta(writer=primary.writer, build="newer", request_id="r", correlation_id="c", occurred_at_ms=1_000)
    world.raw(primary.name, held.key, encode(UNKNOWN, b"", meta.SerializeToString()))
    said = len(world.records(primary.name))

    old = Decide(next_version(world.resolved), world.log, world.rows, Settings.read({"BACKBONE_PARTITIONS": str(DECIDING_PARTITIONS)}))
    world.comes(say.goods_received("note-1/2"))
    steps(old, lambda: any("run the newer build" in str(one) for one in old.status()["partitions"].values()), "a partition paused")
    assert not old.ready
    for _ in range(20):
        old.step(0.01)
    assert len(world.records(primary.name)) == said, "nothing was said"
    old.close()


def next_version(service: ResolvedService) -> ResolvedService:
    """The service with a state that has to be folded anew."""
    assert service.decider is not None
    decider = copy.copy(service.decider.decider)
    decider.version += 1
    return replace(service, decider=replace(service.decider, decider=decider))

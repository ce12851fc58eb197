"""Every queue of the runtime has a bound in bytes: each is flooded with big records here. The table of them is in docs/operations.md."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from confluent_kafka import Producer
from google.protobuf.message import Message
from retail.fulfilment.v1.receipt_pb2 import GoodsReceived

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import MemoryRows
from backbone.declare import Heard, Intake, Unreadable
from backbone.errors import Overloaded
from backbone.local.kafka import Kafka
from backbone.loops import act as act_module
from backbone.loops.listen import Listen
from backbone.loops.take_in import Poll
from backbone.ownership import BROKER
from backbone.settings import Settings
from backbone.v1.private_pb2 import Cursor
from contexts.ordering.context import ordering
from contexts.ordering.pricing.service import pricing
from gateway.context import gateway
from gateway.service import answers, door
from tests import examples
from tests.conftest import scratch
from tests.loops.deciding import World, steps
from tests.loops.edges import authorize, committed, in_memory, running, until
from tests.loops.histories import PARTITIONS, shown
from tests.loops.test_act import Outside, Scene, never
from tests.users import TESTER

KIB = 1024
BIG = 200_000
BATCH, QUEUE = 1024 * KIB, 2048 * KIB
WITHIN_S = 30.0


def settings(kafka: Kafka, **more: Any) -> Settings:
    """Those of a broker, with small bounds."""
    given = kafka.variables
    return Settings.model_validate({**given, "BACKBONE_BATCH_BYTES": BATCH, "BACKBONE_QUEUE_BYTES": QUEUE, **more})


@pytest.fixture
def topic(kafka: Kafka, unique: Callable[[str], str]) -> str:
    """A topic of one partition."""
    name = unique("flooded")
    KafkaAdmin(settings(kafka)).create_topics([TopicSpec(name, 1)])
    return name


def flood(kafka: Kafka, topic: str, count: int, size: int) -> None:
    """Append big records."""
    producer = Producer(kafka.credentials())
    for number in range(count):
        producer.produce(topic, os.urandom(size), str(number))
        producer.poll(0)
    assert producer.flush(WITHIN_S) == 0


class Figures:
    """What a client of Kafka tells of its queues, while it is polled.

    Attributes:
        given: bytes that a consumer gave out.
        ahead: the most bytes that it had fetched beyond those.
        queued: the most bytes that waited in a producer.
    """

    def __init__(self) -> None:
        self.told = self.given = self.ahead = self.queued = 0

    @property
    def options(self) -> dict[str, Any]:
        return {"statistics.interval.ms": 20, "stats_cb": self._hear}

    def _hear(self, text: str) -> None:
        told = json.loads(text)
        fetched = sum(partition["rxbytes"] for topic in told["topics"].values() for partition in topic["partitions"].values())
        self.told += 1
        self.ahead = max(self.ahead, fetched - self.given)
        self.queued = max(self.queued, told["msg_size"])


@pytest.mark.integration
def test_a_consumer_fetches_ahead_no_more_than_its_queue_holds_and_gives_out_no_more_than_a_batch(kafka: Kafka, topic: str) -> None:
    flood(kafka, topic, 60, BIG)
    figures = Figures()
    largest = count = 0
    with closing(KafkaLog(settings(kafka), TESTER, options=figures.options)) as log, closing(log.consumer({(topic, 0): 0})) as consumer:
        deadline = time.monotonic() + WITHIN_S
        while count < 60:
            assert time.monotonic() < deadline
            if slowly := count < 30:
                time.sleep(0.05)  # who is slow and asks for little lets the client run ahead
            records = consumer.poll(1 if slowly else 500, 1.0)
            size = sum(len(record.value or b"") for record in records)
            count, figures.given, largest = count + len(records), figures.given + size, max(largest, size)
    assert BATCH < figures.ahead <= 1.5 * QUEUE
    assert BATCH - 2 * BIG < largest <= BATCH


@pytest.mark.integration
def test_a_transaction_larger_than_the_queue_waits_for_room_and_is_whole(kafka: Kafka, topic: str, unique: Callable[[str], str]) -> None:
    figures = Figures()
    log = KafkaLog(settings(kafka), TESTER, options=figures.options)
    with closing(log), closing(log.producer(unique("flooding"))) as producer:
        producer.begin()
        for number in range(40):
            producer.produce(topic, str(number).encode(), os.urandom(BIG), 0)
        producer.commit()
        assert len(list(log.read((topic, 0), 0, log.high_watermarks([(topic, 0)])[topic, 0]))) == 40
    assert QUEUE - 2 * BIG < figures.queued <= QUEUE


@pytest.mark.integration
def test_an_appender_whose_queue_is_full_says_so(unique: Callable[[str], str]) -> None:
    with scratch("frozen") as folder, Kafka(folder) as broker:
        KafkaAdmin(settings(broker)).create_topics([TopicSpec("frozen", 1)])
        log = KafkaLog(settings(broker), BROKER)
        appender = log.appender(confirm_within_s=2.0)
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            for number in range(QUEUE // BIG):
                appender.append("frozen", str(number).encode(), os.urandom(BIG), 0)
            with pytest.raises(Overloaded):
                appender.append("frozen", b"one too many", os.urandom(BIG), 0)
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
            appender.close()
            log.close()


def decided_at_once(batch_bytes: int) -> int:
    """The most records that a decider takes into one transaction, of forty that are there."""
    world = World(ordering, pricing, MemoryLog(batch_bytes=batch_bytes))
    worker = world.worker()
    worker.step(0.01)
    for number in range(40):
        world.comes(examples.item_catalogued(f"sku-{number}", title="x" * 200))
    taken: list[int] = []
    while sum(taken) < 40:
        before = worker.decided
        steps(worker, lambda before=before: worker.decided > before, "something is decided")  # type: ignore[misc]
        taken.append(worker.decided - before)
    worker.close()
    return max(taken)


def test_a_decider_takes_no_more_into_a_transaction_than_a_batch_of_bytes() -> None:
    assert 1 < decided_at_once(2 * KIB) < 8
    assert decided_at_once(2048 * KIB) == 40


def folded_at_once(batch_bytes: int) -> int:
    """The most records that a view folds in one step, of forty that are there."""
    log = MemoryLog(batch_bytes=batch_bytes)

    def make(names: Sequence[str]) -> None:
        for name in names:
            log.create_topic(name, PARTITIONS)

    here = shown(log, "risk", make, Settings())
    with closing(here.project(MemoryRows())) as project:
        project.step(0.01)
        here.tell(*(examples.payment_authorized(f"o-{number}", "x" * 200) for number in range(40)))
        taken: list[int] = []
        while sum(taken) < 40:
            before = project.status()["folded"]
            project.step(0.01)
            taken.append(project.status()["folded"] - before)
        return max(taken)


def test_a_view_folds_no_more_at_once_than_a_batch_of_bytes() -> None:
    assert 1 < folded_at_once(2 * KIB) < 8
    assert folded_at_once(2048 * KIB) == 40


async def test_open_commands_of_many_bytes_pause_reading(unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act_module, "HELD_BYTES", 4 * KIB)
    scene = Scene(in_memory(unique), Outside(never()))
    act = scene.act()
    async with running(act):
        await until(lambda: act.ready, "ready")
        for number in range(40):
            command = authorize(f"order-{number}")
            command.customer_id = "x" * 1_000
            scene.payments.say(command)
            await until(lambda number=number: act.status()["paused"] or act.status()["open"] > number, "it is read, or reading is paused")  # type: ignore[misc]
        assert act.status()["paused"]
        assert 3 <= act.status()["open"] <= 5


async def test_a_tail_takes_no_more_from_the_log_than_the_event_loop_has_room_for() -> None:
    """The loop is busy: one batch is on its way to it, and the rest stays in the log."""
    log = MemoryLog(batch_bytes=2 * KIB)
    world = World(gateway, door, log)
    heard: list[int] = []

    def hears(came: Sequence[Heard]) -> None:
        heard.append(len(came))

    listen = Listen(world.resolved, answers, log, Settings.read({"BACKBONE_PARTITIONS": "4"}))
    with listen.heard_by(hears, lambda: None):
        for number in range(40):
            world.comes(examples.order_confirmed(f"order-{number}"))
        time.sleep(0.3)  # noqa: ASYNC251 - the event loop is busy, and would find all forty waiting for it
        await asyncio.sleep(0)
        assert sum(heard) < 20
        await until(lambda: sum(heard) == 40, "all are heard")


async def test_an_intake_writes_no_more_at_once_than_a_batch_of_bytes(unique: Callable[[str], str]) -> None:
    ground = in_memory(unique)
    events: list[tuple[str, Message | Unreadable]] = [
        (f"{number:02}", examples.goods_received(f"note-{number}", sku="x" * 200)) for number in range(40)
    ]

    @asynccontextmanager
    async def connect(_: Settings) -> AsyncIterator[None]:
        yield

    async def read(_: None, cursor: str) -> Sequence[tuple[str, Message | Unreadable]]:
        return [pair for pair in events if pair[0] > cursor]

    service = ground.intake(Intake(GoodsReceived, source=(connect, read)))
    log = ground.log()
    poll = Poll(service, log, ground.settings.model_copy(update={"batch_bytes": 2 * KIB}))
    async with running(poll):
        await until(lambda: poll.status()["raised"] == 40, "all are raised")
    cursors = [Cursor.FromString(record.value or b"").cursor for record in committed(log, service.private("cursor"))]
    assert len(cursors) == 5

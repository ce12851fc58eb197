"""What the tests of the asynchronous edges share: services on topics of their own, a log that fails on demand, and patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from google.protobuf.message import Message
from retail.payments.effects.v1.payment_pb2 import AuthorizeCard, PaymentCommand, PaymentOutcome

from backbone import envelope
from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.adapters.memory import MemoryLog
from backbone.contract import ResolvedEffect, ResolvedService, Topic, primary_of, topic_of
from backbone.declare import Effect, Intake, Service
from backbone.errors import WorkerEnded
from backbone.local.kafka import Kafka
from backbone.partitioner import partition_of
from backbone.ports import Consumer, Log, Place, Producer, Record
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta, Position
from backbone.v1.private_pb2 import Quarantined
from tests.users import TESTER

PARTITIONS = 2
WITHIN_S = 30.0


async def until(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Wait for a condition; fail with what it stands for when it does not come about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"after {within_s} s: not {what}"
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Ground:
    """A log and names on it that nobody else uses.

    Attributes:
        memory: the log, if it lies in memory and not in Kafka.
    """

    settings: Settings
    unique: Callable[[str], str]
    memory: MemoryLog | None = None

    def log(self) -> KafkaLog | MemoryLog:
        """The log, as one more process sees it."""
        return self.memory or KafkaLog(self.settings, TESTER)

    def make(self, *specs: TopicSpec) -> None:
        """Make topics."""
        if self.memory is None:
            KafkaAdmin(self.settings).create_topics(specs)
        else:
            for spec in specs:
                self.memory.create_topic(spec.name, spec.partitions)

    def effects(self, *effects: Effect[Any]) -> ResolvedService:
        """A service with these effects, doing the commands of payments on topics of its own."""
        name = self.unique("payments.payments")
        commands = replace(topic_of(PaymentCommand), name=f"private.{name}.commands", writer=name)
        outcomes = replace(topic_of(PaymentOutcome), name=f"private.{name}.outcomes", writer=name)
        resolved = tuple(ResolvedEffect(effect, commands, outcomes) for effect in effects)
        self.make(
            TopicSpec(commands.name, PARTITIONS, COMPACTED),
            TopicSpec(outcomes.name, PARTITIONS, COMPACTED),
            TopicSpec(f"private.{name}.quarantine", PARTITIONS, KEPT_FOR_EVER),
        )
        return ResolvedService(name, "payments", Service("payments", *effects), None, (), resolved, (), ())

    def intake(self, intake: Intake) -> ResolvedService:
        """A service with this intake, writing to a topic of its own."""
        primary = primary_of(intake.messages[0])
        name = self.unique(primary.writer)
        topic = replace(primary, name=f"{primary.name}-{name}", writer=name)
        self.make(
            TopicSpec(topic.name, PARTITIONS, KEPT_FOR_EVER),
            TopicSpec(f"private.{name}.cursor", PARTITIONS, COMPACTED),
            TopicSpec(f"private.{name}.quarantine", PARTITIONS, KEPT_FOR_EVER),
        )
        return ResolvedService(name, "test", Service("intake", intake), None, (), (), (topic,), ())


def in_memory(unique: Callable[[str], str]) -> Ground:
    """A log in memory."""
    return Ground(Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS), "BACKBONE_BUILD": "test"}), unique, MemoryLog())


def on_kafka(kafka: Kafka, unique: Callable[[str], str]) -> Ground:
    """The broker of this run."""
    settings = Settings.read(
        {
            **kafka.variables,
            "BACKBONE_PARTITIONS": str(PARTITIONS),
            "BACKBONE_BUILD": "test",
        }
    )
    return Ground(settings, unique)


class Edge(Protocol):
    """What runs until it is told to stop."""

    async def run(self, stop: asyncio.Event) -> None: ...


@asynccontextmanager
async def running(edge: Edge) -> AsyncIterator[asyncio.Task[None]]:
    """An edge that runs inside the block; its failure is raised at the end of it."""
    stop = asyncio.Event()
    task = asyncio.create_task(edge.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, WITHIN_S)


def committed(log: Log, topic: str) -> list[Record]:
    """Everything committed in a topic, by partition."""
    places = [(topic, partition) for partition in range(PARTITIONS)]
    starts, ends = log.starts(places), log.high_watermarks(places)
    return [record for place in places for record in log.read(place, starts[place], ends[place])]


@dataclass(frozen=True)
class Payments:
    """Commands and outcomes of one service, seen from outside."""

    ground: Ground
    service: ResolvedService
    log: Log

    @property
    def commands(self) -> Topic:
        return self.service.effects[0].commands

    @property
    def outcomes_topic(self) -> Topic:
        return self.service.effects[0].outcomes

    def say(self, *commands: Message) -> list[str]:
        """Append commands as a decider would; gives their ids."""
        appender = self.log.appender()
        said = [self.ground.unique("command") for _ in commands]
        try:
            for command, command_id in zip(commands, said, strict=True):
                number = self.commands.number(type(command))
                assert number is not None
                key = command.order_id  # type: ignore[attr-defined]
                after = [Position(topic="t", next_offset=7)]
                full = Meta(id=command_id, correlation_id=key, writer=self.service.name, traceparent="00-trace", after=after)
                value = envelope.encode(number, command.SerializeToString(), full.SerializeToString())
                partition = partition_of(key.encode(), PARTITIONS)
                appender.append(self.commands.name, envelope.entry_key(key, command_id), value, partition).result(10)
        finally:
            appender.close()
        return said

    def append(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        """Append raw bytes."""
        appender = self.log.appender()
        try:
            appender.append(topic, key, value, partition).result(10)
        finally:
            appender.close()

    def close_by_hand(self, order_id: str, command_id: str) -> None:
        """Write the tombstone of a command."""
        producer = self.log.producer(self.ground.unique("by-hand"))
        producer.begin()
        producer.produce(self.commands.name, envelope.entry_key(order_id, command_id), None, partition_of(order_id.encode(), PARTITIONS))
        producer.commit()
        producer.close()

    def outcomes(self) -> list[envelope.Decoded]:
        """Every outcome that is committed."""
        return [envelope.decode(self.outcomes_topic, record) for record in committed(self.log, self.outcomes_topic.name)]

    def outcomes_of(self, order_id: str) -> list[str]:
        """Names of the outcomes of one order."""
        return [type(told.event).__name__ for told in self.outcomes() if told.event.order_id == order_id]

    def tombstones(self) -> list[bytes | None]:
        """Keys of the commands that are closed."""
        return [record.key for record in committed(self.log, self.commands.name) if record.value is None]


def quarantined(log: Log, service: ResolvedService) -> list[Quarantined]:
    """What the service set aside."""
    records = committed(log, service.private("quarantine"))
    return [Quarantined.FromString(record.value) for record in records if record.value is not None]


def authorize(order_id: str, within_s: float = 60.0) -> AuthorizeCard:
    """A command with an answer wanted within some seconds."""
    command = AuthorizeCard(order_id=order_id, customer_id="someone")
    command.answer_by.FromDatetime(datetime.now(UTC) + timedelta(seconds=within_s))
    return command


class FailingProducer:
    """A producer that dies at a commit, before or after it took effect, and leaves what is open open, as a killed process does."""

    def __init__(self, inner: Producer, commits: int, after: bool) -> None:
        self._inner = inner
        self._left = commits
        self._after = after
        self.suspicion: str | None = None
        self.renewed = 0

    @property
    def suspect(self) -> str | None:
        return self.suspicion

    def begin(self) -> None:
        self._inner.begin()

    def produce(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        self._inner.produce(topic, key, value, partition)

    def send_offsets(self, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        self._inner.send_offsets(offsets, getattr(consumer, "inner", consumer))

    def commit(self) -> None:
        if self._left == 0 and not self._after:
            raise WorkerEnded("killed before the commit")
        self._inner.commit()
        if self._left == 0:
            raise WorkerEnded("killed after the commit")
        self._left -= 1

    def abort(self) -> None:
        self._inner.abort()

    def renew(self) -> None:
        self.renewed += 1
        self.suspicion = None
        self._inner.renew()

    def close(self) -> None:
        """A killed process closes nothing."""


class DeafConsumer:
    """A consumer that can be made to hear nothing any more: that its member was replaced does not reach it either.

    Attributes:
        polls: how often it was asked.
        missed: how often it was asked while deaf.
        once: done inside the next `poll`, which then brings nothing.
    """

    def __init__(self, inner: Consumer, revoked: Callable[[Sequence[Place]], None]) -> None:
        self.inner = inner
        self.revoked = revoked
        self.deaf = False
        self.polls = 0
        self.missed = 0
        self.once: Callable[[], None] | None = None

    def poll(self, limit: int, timeout_s: float) -> Sequence[Record]:
        self.polls += 1
        if self.once is not None:
            once, self.once = self.once, None
            once()
            return ()
        if self.deaf:
            time.sleep(timeout_s)
            self.missed += 1
            return ()
        return self.inner.poll(limit, timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class FailingLog:
    """A log whose transactional producers fail after some commits, and whose group members can go deaf.

    Args:
        commits: how many commits succeed; -1 lets all succeed.
        after: the failing one takes effect.
        alias: appended to transactional ids, so that only the group fences.
    """

    def __init__(self, inner: Log, commits: int = -1, after: bool = False, alias: str = "") -> None:
        self._inner = inner
        self._commits = commits
        self._after = after
        self._alias = alias
        self.producers: list[FailingProducer] = []
        self.consumers: list[DeafConsumer] = []

    def producer(self, transactional_id: str) -> Producer:
        producer = FailingProducer(self._inner.producer(transactional_id + self._alias), self._commits, self._after)
        self.producers.append(producer)
        return producer

    def group_consumer(self, *args: Any) -> Any:
        consumer = DeafConsumer(self._inner.group_consumer(*args), args[-1])
        self.consumers.append(consumer)
        return consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

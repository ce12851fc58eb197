"""Records as the services of the shop would write them, without running any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from backbone.adapters.memory import MemoryLog
from backbone.contract import copies_of, primary_of
from backbone.envelope import encode, entry_key, timestamp
from backbone.moments import stamp
from backbone.partitioner import partition_of
from backbone.ports import Record
from backbone.topology import Topology
from backbone.v1.meta_pb2 import Meta, Observed
from backbone.v1.private_pb2 import Quarantined, QuarantineReason, Tick
from tests import examples

PARTITIONS = 4
NOON_MS = round(examples.NOON.timestamp() * 1000)


@dataclass
class Narrator:
    """Writes down what is said, record by record; a millisecond passes between two of them unless told otherwise.

    Attributes:
        records: all that was written, in the order of writing.
    """

    records: list[Record] = field(default_factory=list)
    offsets: Counter[tuple[str, int]] = field(default_factory=Counter)

    def say(
        self,
        message: Message,
        cause: str = "",
        *,
        order: str = examples.ORDER,
        named: str = "",
        at_ms: int | None = None,
        sequence: int = 0,
        observed: Sequence[Observed] = (),
    ) -> str:
        """Write an event with its copies, a command or an outcome; returns its id."""
        topic = primary_of(type(message))
        identity = named or f"{topic.writer}:{type(message).__name__}:{len(self.records)}"
        meta = Meta(
            id=identity,
            correlation_id=order,
            causation_id=cause,
            writer=topic.writer,
            build="b1",
            sequence=sequence,
            occurred_at=timestamp(NOON_MS),
            observed=observed,
        ).SerializeToString()
        for one in (topic, *(copy for copy in copies_of(topic) if copy.number(type(message)) is not None)):
            key = str(getattr(message, one.key))
            raw_key = entry_key(key, cause if topic.name.endswith("outcomes") else identity) if one.private else key.encode()
            number = one.number(type(message))
            assert number is not None
            self.write(one.name, raw_key, encode(number, message.SerializeToString(), meta), partition_of(key.encode(), PARTITIONS), at_ms)
        return identity

    def tick(self, key: str, cause: str = "") -> str:
        """Write a passed deadline of orders; returns its id."""
        identity = f"ordering.orders:tick:{key}"
        meta = Meta(id=identity, correlation_id=key, causation_id=cause, writer="ordering.orders", build="b1")
        tick = Tick(key=key, due=stamp(examples.ANSWER_BY), meta=meta)
        raw_key = entry_key(key, "due")
        self.write("private.ordering.orders.ticks", raw_key, tick.SerializeToString(), partition_of(key.encode(), PARTITIONS))
        return identity

    def set_aside(self, record: Record, service: str, detail: str) -> None:
        """Write a record into a service's quarantine."""
        aside = Quarantined(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            appended_at=timestamp(record.timestamp_ms),
            key=record.key,
            value=record.value,
            reason=QuarantineReason.QUARANTINE_REASON_RAISED,
            detail=detail,
            traceback="Traceback (most recent call last):\n  ...\nZeroDivisionError: division by zero",
            service=service,
            build="b1",
        )
        self.write(f"private.{service}.quarantine", b"where", aside.SerializeToString(), record.partition)

    def write(self, topic: str, key: bytes | None, value: bytes | None, partition: int, at_ms: int | None = None) -> Record:
        """Write any record."""
        offset = self.offsets[topic, partition]
        self.offsets[topic, partition] += 1
        record = Record(topic, partition, offset, key, value, NOON_MS + len(self.records) if at_ms is None else NOON_MS + at_ms)
        self.records.append(record)
        return record

    def last(self, topic: str) -> Record:
        """The last record of a topic."""
        return [record for record in self.records if record.topic == topic][-1]


def log_of(of: Topology, records: Sequence[Record]) -> MemoryLog:
    """A log in memory that holds these records at their append times."""
    times = iter([record.timestamp_ms for record in records])
    log = MemoryLog(now_ms=lambda: next(times))
    for topic in of.topics:
        log.create_topic(topic.name, PARTITIONS)
    producer = log.producer("narrator")
    for record in records:
        producer.begin()
        producer.produce(record.topic, record.key, record.value, record.partition)
        producer.commit()
    return log

"""What the tests of the decide loop share: a log in memory with a service's topics, and words to write and read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import ResolvedService, resolve, topics_holding
from backbone.declare import Context, Service
from backbone.envelope import Decoded, decode, encode, root_meta
from backbone.loops.decide import Decide
from backbone.ports import Change, Fragment, Log, Record, Rows
from backbone.settings import Settings
from backbone.topology import topology
from backbone.v1.private_pb2 import Quarantined

PARTITIONS = 4
WITHIN_S = 20.0


@dataclass
class World:
    """A log with the topics of one service, and rows for its look-ups.

    Attributes:
        clock: what the loop takes for now, in seconds since the epoch; None is the real one.
    """

    context: Context
    service: Service
    log: MemoryLog = field(default_factory=MemoryLog)
    rows: MemoryRows = field(default_factory=MemoryRows)
    requests: int = 0

    def __post_init__(self) -> None:
        wanted = topology(self.context)
        heard = {topic for group in wanted.groups for topic in group.topics}
        for name in sorted({topic.name for topic in wanted.topics} | heard):
            self.log.create_topic(name, PARTITIONS)

    @property
    def resolved(self) -> ResolvedService:
        """The service, resolved."""
        return resolve(self.context, self.service)

    def worker(self, log: Log | None = None, rows: Rows | None = None, clock: Callable[[], float] = time.time, **settings: str) -> Decide:
        """A worker of the service, as one process would run it."""
        read = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS), "BACKBONE_TRANSACTION_TIMEOUT_S": "2", **settings})
        return Decide(self.resolved, log or self.log, rows or self.rows, read, clock)

    def comes(self, event: Message, topic_name: str = "", correlation_id: str = "conversation") -> Record:
        """Append an event to one of its topics, the primary if not named; the record as readers get it."""
        topic = next(topic for topic in topics_holding(type(event)) if topic_name in ("", topic.name))
        self.requests += 1
        meta = root_meta(
            writer=topic.writer,
            build="other",
            request_id=f"request-{self.requests}",
            correlation_id=correlation_id,
            occurred_at_ms=1_000,
        )
        value = encode(topic.number(type(event)) or 0, event.SerializeToString(), meta.SerializeToString())
        return self.raw(topic.name, getattr(event, topic.key).encode(), value)

    def raw(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> Record:
        """Append any bytes."""
        producer = self.log.producer("test")
        producer.begin()
        producer.produce(topic, key, value, partition)
        producer.commit()
        return next(record for record in reversed(self.records(topic)) if record.key == key and record.value == value)

    def records(self, topic: str) -> list[Record]:
        """Every committed record of a topic."""
        places = [(topic, partition) for partition in range(PARTITIONS)]
        ends = self.log.high_watermarks(places)
        return [record for place in places for record in self.log.read(place, 0, ends[place])]

    def said(self, topic_name: str, of: type[Message]) -> list[Decoded]:
        """Everything a topic holds, decoded."""
        topic = next(topic for topic in topics_holding(of) if topic.name == topic_name)
        return [decode(topic, record) for record in self.records(topic_name)]

    def quarantined(self) -> list[Quarantined]:
        """Everything the service set aside."""
        topic = self.resolved.private("quarantine")
        return [Quarantined.FromString(record.value or b"") for record in self.records(topic)]

    def shows(self, view: Any, partition: int, until: int, rows: dict[str, Message]) -> None:
        """Write rows and a watermark into a view, as its projector would."""
        fragment = Fragment(self.resolved.view_of(view).name, view.version, partition)
        since = self.rows.fetch([(fragment, ())])[0].watermark or 0
        raw = {key: row.SerializeToString() for key, row in rows.items()}
        assert self.rows.apply(fragment, Change(since, until, dict(raw))) is None

    def shows_to_the_end(self, view: Any, rows: dict[str, Message]) -> None:
        """Let a view be read to the end of its topic in every partition; each row lies where its key belongs."""
        from backbone.partitioner import partition_of

        topic = self.resolved.view_of(view).topic.name
        for partition in range(PARTITIONS):
            end = self.log.high_watermarks([(topic, partition)])[topic, partition]
            own = {key: row for key, row in rows.items() if partition_of(key.encode(), PARTITIONS) == partition}
            self.shows(view, partition, end, own)


def steps(worker: Decide, until: Callable[[], bool], what: str = "") -> None:
    """Let a worker work until something holds; fail with what it stands for when it does not come about."""
    deadline = time.monotonic() + WITHIN_S
    while not until():
        assert time.monotonic() < deadline, f"after {WITHIN_S} s: not {what or until}; {worker.status()}"
        worker.step(0.01)


def idle(worker: Decide, turns: int = 5) -> None:
    """Let a worker work on what is there."""
    for _ in range(turns):
        worker.step(0.01)


def sequences(decoded: Sequence[Decoded]) -> list[int]:
    """The sequence of each event."""
    return [one.meta.sequence for one in decoded]

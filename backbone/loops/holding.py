"""What a worker holds of a partition of its inputs, and how it takes a partition over."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from google.protobuf.message import DecodeError

from backbone.contract import ResolvedService
from backbone.declare import On
from backbone.envelope import Undecodable, UnknownEvent, decode, entry_key, split_entry_key
from backbone.loops.aggregates import Aggregates, Forgotten
from backbone.loops.deadlines import Deadlines
from backbone.loops.looking_up import Wanted
from backbone.loops.set_aside import SetAside
from backbone.loops.snapshots import AGGREGATE, FORGOTTEN, PARKED, POSITIONS, Held, Snapshots, held_after
from backbone.ports import Log, Place, Producer, Record
from backbone.positions import from_proto, to_proto
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNDECODABLE, Parked, PartitionPositions, QuarantineReason, StateEntry
from backbone.v1.private_pb2 import Forgotten as Forgot

log = structlog.get_logger()


@dataclass(slots=True)
class Came:
    """A record on its way through a batch.

    Attributes:
        at_ms: when it was appended; for a forwarded one, the original.
        wrong: why it cannot be decided, if so.
        released: for an operator's release: the records to be decided now.
        count: for a release: how many records it speaks of.
    """

    record: Record
    at_ms: int
    event: Any = None
    meta: Meta = field(default_factory=Meta)
    key: str = ""
    line: On[Any, Any] | None = None
    wanted: Wanted | None = None
    wrong: tuple[QuarantineReason.ValueType, str] | None = None
    released: Sequence[Came] | None = None
    count: int = 0


@dataclass(slots=True)
class Partition:
    """What a worker holds of one partition number of its inputs.

    Attributes:
        positions: next offset by input topic, as decided.
        frozen: why this build must not decide here, if so.
        known: offset below which everything in the state partition is in memory.
        held_back: records that wait for rows, and everything behind them.
        heard_ms: append time of the latest record decided here, milliseconds since the epoch: the clock by which stubs are forgotten.
        look_at: when to look again for stubs to be forgotten, by the monotonic clock, seconds.
    """

    number: int
    aggregates: Aggregates
    forgotten: Forgotten = field(default_factory=Forgotten)
    parked: dict[str, Parked] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    deadlines: Deadlines = field(default_factory=Deadlines)
    frozen: str = ""
    known: int = 0
    known_at: float = field(default_factory=time.monotonic)
    held_back: deque[Came] = field(default_factory=deque)
    waits_for: str = ""
    waits_since: float = 0.0
    retry_at: float = 0.0
    heard_ms: int = 0
    look_at: float = 0.0


def forgotten_entry(version: int, build: str, bucket: int, fingerprints: bytes) -> tuple[bytes, bytes]:
    """Key and value of the record of one bucket of forgotten aggregates."""
    entry = StateEntry(version=version, build=build, forgotten=Forgot(fingerprints=fingerprints))
    return entry_key("", f"{FORGOTTEN}/{bucket:x}"), entry.SerializeToString()


def positions_entry(version: int, build: str, number: int, offsets: Mapping[Place, int]) -> tuple[bytes, bytes]:
    """Key and value of the position record of one partition."""
    inputs = to_proto({place: offset for place, offset in offsets.items() if place[1] == number})
    entry = StateEntry(version=version, build=build, positions=PartitionPositions(inputs=inputs))
    return entry_key("", POSITIONS), entry.SerializeToString()


def _bucket_of(name: str) -> int:
    """The number of a bucket, from the name of its entry."""
    return int(name.removeprefix(f"{FORGOTTEN}/"), 16)


class TakingOver:
    """Takes partitions of one decider over from the log.

    Args:
        inputs: names of the topics it hears, private ones included.
    """

    def __init__(self, service: ResolvedService, inputs: Sequence[str], snapshots: Snapshots, log: Log, settings: Settings) -> None:
        assert service.decider is not None
        self._name = service.name
        self._decider = service.decider.decider
        self._primary = service.decider.primary
        self._state_topic = service.private("state")
        self._inputs = inputs
        self._snapshots = snapshots
        self._log = log
        self._build = settings.build
        self._batch = settings.batch
        self._aside = SetAside(service.name, settings.build)

    def take_over(
        self, number: int, committed: Mapping[Place, int | None], producer: Producer, former: Partition | None = None
    ) -> Partition:
        """The partition as the log left it.

        The order matters: committed offsets (which wait while a transaction's offsets are pending) come first, then the high watermark
        of the state, then the state up to it. Reading to the end of what is committed instead loses an update (docs/adr: transactions).

        Args:
            committed: the group's offsets, asked before.
            producer: writes what a newer version folds, or where a first read starts.
            former: what this worker held of the partition when it lost it; only what was written since is read.
        """
        place = (self._state_topic, number)
        until = self._log.high_watermarks([place])[place]
        partition = Partition(number, Aggregates(self._snapshots.decoded))
        if former is not None and not former.frozen:
            partition.aggregates, partition.parked, partition.known = former.aggregates, former.parked, former.known
            partition.forgotten, partition.heard_ms = former.forgotten, former.heard_ms
        restoring = _Restoring(partition, self._snapshots, self._decider.version, self._decider.state())
        for record in self._log.read(place, max(partition.known, self._log.starts([place])[place]), until):
            restoring.take_up(record)
        partition.known = until
        if former is not None:
            restoring.recorded = {(topic, number): offset for topic, offset in former.positions.items()} | restoring.recorded
        places = [(topic, number) for topic in self._inputs]
        first = self._log.high_watermarks(places) if self._decider.since == "now" else self._log.starts(places)
        for input_place in places:
            known = max(committed.get(input_place) or 0, restoring.recorded.get(input_place, 0))
            partition.positions[input_place[0]] = known or first[input_place]
        if self._decider.since == "now" and not restoring.recorded:
            self._keep_start(partition, producer)
        if restoring.strange:
            self._set_strange_aside(partition, restoring.strange, producer)
        if restoring.older and not partition.frozen:
            self._refold(partition, restoring.older, producer)
        return partition

    def _set_strange_aside(self, partition: Partition, strange: Mapping[bytes, tuple[Record, str]], producer: Producer) -> None:
        """Keep what is no entry of ours in quarantine and put a tombstone in its place, so that the next start does not meet it."""
        producer.begin()
        for key, (record, why) in strange.items():
            log.error("no state entry", service=self._name, partition=partition.number, offset=record.offset, topic=record.topic, why=why)
            aside_key, value = self._aside.record(record, QUARANTINE_REASON_UNDECODABLE, why)
            producer.produce(self._aside.topic, aside_key, value, partition.number)
            producer.produce(self._state_topic, key, None, partition.number)
        for aggregate, parked in partition.parked.items():
            if entry_key(aggregate, PARKED) in strange:
                entry = StateEntry(version=self._decider.version, build=self._build, parked=parked)
                producer.produce(self._state_topic, entry_key(aggregate, PARKED), entry.SerializeToString(), partition.number)
        producer.commit()

    def _keep_start(self, partition: Partition, producer: Producer) -> None:
        """Keep where the first read starts, so that a restart before the first decision does not move it."""
        offsets = {(topic, partition.number): offset for topic, offset in partition.positions.items()}
        producer.begin()
        key, value = positions_entry(self._decider.version, self._build, partition.number, offsets)
        producer.produce(self._state_topic, key, value, partition.number)
        producer.commit()

    def _refold(self, partition: Partition, older: set[bytes], producer: Producer) -> None:
        """Fold the decider's own topic again, because an older version of it wrote the state, and keep what comes out."""
        aggregates = self._folded(partition)
        if partition.frozen:
            return
        partition.aggregates = Aggregates(self._snapshots.decoded)
        entries: list[tuple[bytes, bytes | None]] = []
        for key, held in aggregates.items():
            written = list(self._snapshots.entries(key, held))
            partition.aggregates.keep(key, self._snapshots.kept(held), None if self._snapshots.in_parts else written[-1][1])
            entries += written
        entries += [(raw_key, None) for raw_key in older - {raw_key for raw_key, _ in entries}]
        for begin in range(0, len(entries), self._batch):
            producer.begin()
            for raw_key, value in entries[begin : begin + self._batch]:
                producer.produce(self._state_topic, raw_key, value, partition.number)
            producer.commit()
        log.info("refolded", service=self._name, partition=partition.number, aggregates=len(aggregates), version=self._decider.version)

    def _folded(self, partition: Partition) -> dict[str, Held]:
        place = (self._primary.name, partition.number)
        blank = Held(self._decider.state())
        aggregates: dict[str, Held] = {}
        until = self._log.high_watermarks([place])[place]
        for record in self._log.read(place, self._log.starts([place])[place], until):
            try:
                own = decode(self._primary, record)
            except UnknownEvent:
                partition.frozen = f"its own topic holds an event this build does not know, at offset {record.offset}: run the newer build"
                return {}
            except Undecodable:
                continue  # not ours: nobody but us may write here, and we write nothing that cannot be read
            held = aggregates.get(own.key, blank)
            if own.meta.sequence == held.sequence + 1:
                state = self._decider.evolve(held.state, own.event)
                aggregates[own.key] = held_after(self._decider, state, own.meta.sequence, own.meta.correlation_id, record.timestamp_ms)
        return {key: held for key, held in aggregates.items() if key not in partition.forgotten}


class _Restoring:
    """Takes up the records of a state partition one by one.

    A record that is no entry of ours stops nothing: it is set aside, and if it lies in the place of an entry, the decider's own topic,
    which is the truth, is folded again.

    Attributes:
        recorded: positions by input.
        older: keys of entries that an older version wrote, or that cannot be read.
        strange: by key, the last record that is no entry, and why.
    """

    def __init__(self, partition: Partition, snapshots: Snapshots, version: int, blank: Any) -> None:
        self.partition = partition
        self.recorded: dict[Place, int] = {}
        self.older: set[bytes] = set()
        self.strange: dict[bytes, tuple[Record, str]] = {}
        self._snapshots = snapshots
        self._version = version
        self._blank = Held(blank)

    def take_up(self, record: Record) -> None:
        """Take up one record, or note that it is none of ours."""
        if record.key is None:
            return  # the broker refuses them in a compacted topic
        try:
            key, name = split_entry_key(record.key)
        except Undecodable as error:
            self._estrange(record, str(error))
            return
        try:
            self._take_up(record, key, name)
        except (DecodeError, msgspec.MsgspecError, LookupError, ValueError) as error:
            self._estrange(record, f"not a state entry: {error}")
            if name == PARKED:
                unread = "its mark in the state topic cannot be read"
                self.partition.parked[key] = Parked(topic=record.topic, partition=record.partition, offset=record.offset, reason=unread)
            elif name != POSITIONS:
                self.older.add(record.key)
                if name.startswith(FORGOTTEN):
                    self._forget(key, name)  # the bucket goes, and its aggregates come back
        else:
            self.strange.pop(record.key, None)

    def _estrange(self, record: Record, why: str) -> None:
        assert record.key is not None
        if record.value is None:
            self.strange.pop(record.key, None)
        else:
            self.strange[record.key] = (record, why)

    def _take_up(self, record: Record, key: str, name: str) -> None:
        assert record.key is not None
        if record.value is None:
            self.older.discard(record.key)
            self._forget(key, name)
            return
        entry = StateEntry.FromString(record.value)
        if name == POSITIONS:
            self.recorded.update(from_proto(entry.positions.inputs))
        elif name == PARKED:
            self.partition.parked[key] = entry.parked
        elif name.startswith(FORGOTTEN):
            self.partition.forgotten.put(_bucket_of(name), entry.forgotten.fingerprints)
        elif entry.version > self._version:
            self.partition.frozen = (
                f"its state is of version {entry.version} (build {entry.build}), this build folds version {self._version}: "
                "run the newer build"
            )
        elif entry.version < self._version:
            self.older.add(record.key)
        else:
            aggregates = self.partition.aggregates
            held = self._snapshots.taken_up(aggregates.get(key) or self._blank, entry)
            if self._snapshots.in_parts:
                aggregates.keep(key, held, None)
            else:
                aggregates.put_by(key, record.value, stub=bool(held.done_at_ms))
            self.older.discard(record.key)

    def _forget(self, key: str, name: str) -> None:
        if name == PARKED:
            self.partition.parked.pop(key, None)
        elif name == AGGREGATE:
            self.partition.aggregates.drop(key)
        elif name.startswith(FORGOTTEN):
            with suppress(ValueError):  # what is no bucket of ours was never held
                self.partition.forgotten.drop(_bucket_of(name))
        elif "/" in name and (held := self.partition.aggregates.get(key)) is not None:
            self.partition.aggregates.keep(key, self._snapshots.without(held, name), None)

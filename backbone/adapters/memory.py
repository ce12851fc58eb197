"""The log in memory: Kafka's semantics without Kafka, for tests and simulations in one process.

What the conformance suite asks of Kafka holds here too: transaction markers take offsets, aborted records are never read, an open
transaction holds back its partition, a transactional id has one owner, a group has generations.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from threading import Condition
from typing import NamedTuple
from uuid import uuid4

from backbone.errors import DeclarationError, Fenced, Unavailable, WorkerEnded
from backbone.partitioner import partition_of
from backbone.ports import Consumer, Place, Record
from backbone.settings import Settings

GLANCE_S = 0.02
"""How long a wait sleeps at most before it looks at the clock again: timeouts pass without anybody telling."""

MILLISECOND_S = 0.001
"""How exactly timeouts are observed."""

SLACK_S = 1.0
"""How much longer than a transaction may stay open we wait for it."""


class _Fate(Enum):
    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class _Transaction:
    transactional_id: str
    ends_by: float
    fate: _Fate = _Fate.OPEN
    touched: dict[Place, int] = field(default_factory=dict)
    offsets: dict[str, dict[Place, int]] = field(default_factory=dict)


class _Entry(NamedTuple):
    record: Record | None
    """None is a transaction's marker."""
    transaction: _Transaction | None


@dataclass(slots=True, eq=False)
class _Member:
    instance: str
    owner: _MemoryMember
    held: tuple[Place, ...] = ()
    joined: int = 0
    gone_at: float | None = None


@dataclass(slots=True, eq=False)
class _Group:
    generation: int = 0
    members: dict[str, _Member] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)


class MemoryLog:
    """A log of its own; all consumers and producers made by one object share it, from any thread.

    Args:
        transaction_timeout_s: after how many seconds an open transaction is aborted.
        session_timeout_s: after how many seconds a member that left loses its place.
        batch_bytes: how many bytes of records one `poll` gives out, unless one alone is larger.
        now_ms: the clock of append times, in milliseconds since the epoch.
        clock: the clock of timeouts, in seconds.
    """

    def __init__(
        self,
        transaction_timeout_s: float = 10.0,
        session_timeout_s: float = 6.0,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock: Callable[[], float] = time.monotonic,
        batch_bytes: int = Settings.model_fields["batch_bytes"].default,
    ) -> None:
        self.batch_bytes = batch_bytes
        self.transaction_timeout_s = transaction_timeout_s
        self.session_timeout_s = session_timeout_s
        self._now_ms = now_ms
        self.clock = clock
        self._cluster_id = uuid4().hex[:22]
        self.changed = Condition()
        self._ids: dict[str, str] = {}
        self._entries: dict[Place, list[_Entry]] = {}
        self._open: list[_Transaction] = []
        self._expired_at = -1.0
        self._partitions: dict[str, int] = {}
        self.epochs: dict[str, int] = defaultdict(int)
        self.groups: dict[str, _Group] = defaultdict(_Group)

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic; one that exists stays as it is.

        Raises:
            DeclarationError: it exists with another number of partitions.
        """
        with self.changed:
            found = self.partitions(name)
            if found and found != partitions:
                raise DeclarationError(f"topic {name} has {found} partitions, not {partitions}")
            if not found:
                self._ids[name] = uuid4().hex[:22]
                self._partitions[name] = partitions
                self._entries.update({(name, partition): [] for partition in range(partitions)})

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        return self._cluster_id

    def close(self) -> None:
        """Nothing to let go of."""

    def topics(self) -> Mapping[str, tuple[str, int]]:
        """Every topic: its id and number of partitions."""
        with self.changed:
            return {name: (identity, self.partitions(name)) for name, identity in self._ids.items()}

    def group_consumer(
        self,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> MemoryConsumer:
        """A static member of a group under range assignment; see the port."""
        return _MemoryMember(self, group, instance, topics, assigned, revoked)

    def consumer(self, start: Mapping[Place, int]) -> MemoryConsumer:
        """A consumer without a group, reading the given partitions from the given offsets."""
        return MemoryConsumer(self, start)

    def producer(self, transactional_id: str) -> MemoryProducer:
        """A transactional producer; takes the place of any earlier one of the same id and aborts what it left open."""
        return MemoryProducer(self, transactional_id)

    def appender(self) -> MemoryAppender:
        """Appends single records."""
        return MemoryAppender(self)

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets after the last record of each partition, committed or not."""
        with self.changed:
            return {place: len(self.entries(place)) for place in places}

    def starts(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets of the first record of each partition: nothing is ever deleted here."""
        with self.changed:
            for place in places:
                self.entries(place)
            return dict.fromkeys(places, 0)

    def read(self, place: Place, start: int, stop: int) -> Iterator[Record]:
        """Committed records of one partition in [start, stop); see the port."""
        reader = MemoryConsumer(self, {place: start})
        deadline = self.clock() + self.transaction_timeout_s + SLACK_S
        while (reached := reader.positions()[place]) < stop:
            for record in reader.poll(1000, GLANCE_S):
                if record.offset >= stop:
                    return
                yield record
            if reader.positions()[place] > reached:
                deadline = self.clock() + self.transaction_timeout_s + SLACK_S
            elif self.clock() > deadline:
                raise Unavailable(f"{place[0]}/{place[1]} cannot be read up to {stop}: a transaction is still open, or there is no more")

    def partitions(self, topic: str) -> int:
        """Number of partitions; 0 if there is no such topic. Under the lock, like all that follow."""
        return self._partitions.get(topic, 0)

    def entries(self, place: Place) -> list[_Entry]:
        """What lies in a partition."""
        try:
            return self._entries[place]
        except KeyError:
            raise WorkerEnded(f"there is no partition {place[0]}/{place[1]}: make the topics first") from None

    def last_stable(self, place: Place) -> int:
        """The end of what may be read: the first record of an open transaction, or the end of the partition."""
        self.expire()
        return min((open_.touched[place] for open_ in self._open if place in open_.touched), default=len(self.entries(place)))

    def write(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int, transaction: _Transaction | None
    ) -> tuple[int, int]:
        """Append a record, perhaps of a transaction."""
        count = self.partitions(topic)
        if partition < 0 < count:
            partition = random.randrange(count) if key is None else partition_of(key, count)
        entries = self.entries((topic, partition))
        offset = len(entries)
        if transaction is not None:
            transaction.touched.setdefault((topic, partition), offset)
        entries.append(_Entry(Record(topic, partition, offset, key, value, self._now_ms()), transaction))
        self.changed.notify_all()
        return partition, offset

    def open(self, transactional_id: str) -> _Transaction:
        """Start a transaction."""
        transaction = _Transaction(transactional_id, self.clock() + self.transaction_timeout_s)
        self._open.append(transaction)
        return transaction

    def end(self, transaction: _Transaction, fate: _Fate) -> None:
        """End a transaction: a marker in each partition it touched."""
        transaction.fate = fate
        self._open.remove(transaction)
        for place in transaction.touched:
            self.entries(place).append(_Entry(None, transaction))
        if fate is _Fate.COMMITTED:
            for group, offsets in transaction.offsets.items():
                self.groups[group].committed.update(offsets)
        self.changed.notify_all()

    def end_all_of(self, transactional_id: str) -> int:
        """Abort what an id left open and fence its owners; the new epoch."""
        for transaction in [open_ for open_ in self._open if open_.transactional_id == transactional_id]:
            self.end(transaction, _Fate.ABORTED)
        self.epochs[transactional_id] += 1
        return self.epochs[transactional_id]

    def expire(self) -> None:
        """Abort transactions and drop members whose time is over."""
        now = self.clock()
        if now - self._expired_at < MILLISECOND_S:
            return
        self._expired_at = now
        for transaction in [open_ for open_ in self._open if open_.ends_by < now]:
            self.end_all_of(transaction.transactional_id)
        for group in self.groups.values():
            left = [
                member for member in group.members.values() if member.gone_at is not None and now - member.gone_at > self.session_timeout_s
            ]
            for member in left:
                del group.members[member.instance]
                group.generation += 1

    def pending(self, group: str, places: Sequence[Place]) -> bool:
        """Whether an open transaction holds offsets of these back."""
        self.expire()
        return any(place in open_.offsets.get(group, ()) for open_ in self._open for place in places)

    def wait(self, deadline: float) -> bool:
        """Wait for a change; False if there is no time left."""
        left = deadline - self.clock()
        if left <= 0:
            return False
        self.changed.wait(min(left, GLANCE_S))
        return True


class MemoryConsumer:
    """Reads what is committed of some partitions."""

    def __init__(self, log: MemoryLog, start: Mapping[Place, int]) -> None:
        self._log = log
        self._positions = dict(start)
        self._paused: set[Place] = set()

    def poll(self, limit: int, timeout_s: float) -> Sequence[Record]:
        """Up to `limit` records; see the port."""
        deadline = self._log.clock() + timeout_s
        while True:
            self._keep_up()
            with self._log.changed:
                records = self._take(limit)
                if records or not self._log.wait(deadline):
                    return records

    def _keep_up(self) -> None:
        """What a group asks of its member; there is no group here."""

    def _take(self, limit: int) -> list[Record]:
        records: list[Record] = []
        room = self._log.batch_bytes
        for place in list(self._positions):
            if place not in self._paused and room > 0:
                taken = self._take_from(place, limit - len(records), room, bool(records))
                room -= sum(len(record.value or b"") for record in taken)
                records += taken
        for place in list(self._positions)[:1]:  # the next poll starts with another partition
            self._positions[place] = self._positions.pop(place)
        return records

    def _take_from(self, place: Place, limit: int, room: int, more: bool) -> list[Record]:
        entries, end, position = self._log.entries(place), self._log.last_stable(place), self._positions[place]
        if not 0 <= position <= len(entries):
            raise WorkerEnded(f"{place[0]}/{place[1]} has no position {position}: it ends at {len(entries)}")
        records: list[Record] = []
        while position < end and len(records) < limit:
            record, transaction = entries[position]
            room -= len(record.value or b"") if record is not None else 0
            if room < 0 and (more or records):
                break
            position += 1
            if record is not None and (transaction is None or transaction.fate is _Fate.COMMITTED):
                records.append(record)
        while position < end and entries[position].record is None:  # markers at the end count as read
            position += 1
        self._positions[place] = position
        return records

    def positions(self) -> Mapping[Place, int]:
        """Next offsets of what is assigned."""
        return dict(self._positions)

    def seek(self, place: Place, offset: int) -> None:
        """Go on reading a partition at `offset`."""
        if place not in self._positions:
            raise Unavailable(f"cannot seek {place}: it is not assigned here")
        self._positions[place] = offset

    def pause(self, places: Sequence[Place]) -> None:
        """Stop giving these out. Inside `assigned` it counts from the start."""
        self._paused.update(places)

    def resume(self, places: Sequence[Place]) -> None:
        """Give these out again."""
        self._paused.difference_update(places)

    def committed(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """Without a group nothing is committed."""
        return dict.fromkeys(places)

    def close(self) -> None:
        """Leave."""
        self._positions = {}


class _MemoryMember(MemoryConsumer):
    """A static member of a group. All are revoked and assigned anew at each generation, as under Kafka's eager `range`."""

    def __init__(
        self,
        log: MemoryLog,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> None:
        super().__init__(log, {})
        self.group = group
        self._topics = topics
        self._assigned = assigned
        self._revoked = revoked
        self._generation = 0
        with log.changed:
            log.expire()
            found = log.groups[group].members.get(instance)
            if found is None:
                self._member = _Member(instance, self)
                log.groups[group].members[instance] = self._member
                log.groups[group].generation += 1
            else:  # it takes the place of the earlier one of its name, which is fenced, and nobody else notices
                self._member = found
                found.owner, found.gone_at = self, None
            log.changed.notify_all()

    def check(self) -> None:
        """Whether this is still a member of the present generation; under the lock.

        Raises:
            Fenced: another consumer has its name.
            WorkerEnded: the generation is another one.
        """
        self._log.expire()
        if self._member.owner is not self:
            raise Fenced(f"another process is {self._member.instance} of {self.group}")
        group = self._log.groups[self.group]
        if group.members.get(self._member.instance) is not self._member or self._generation != group.generation:
            raise WorkerEnded(f"{self._member.instance} is no member of the present generation of {self.group}")

    def _keep_up(self) -> None:
        with self._log.changed:
            self._log.expire()
            if self._member.owner is not self:
                raise Fenced(f"another process is {self._member.instance} of {self.group}")
            group = self._log.groups[self.group]
            found = group.members.get(self._member.instance)
            if found is None:  # it was given up after a silence; now it joins anew
                self._member.gone_at = None
                group.members[self._member.instance] = self._member
                group.generation += 1
            elif found is not self._member:
                raise Fenced(f"another process is {self._member.instance} of {self.group}")
            generation = group.generation
            if self._generation == generation:
                return
            lost, self._positions = sorted(self._positions), {}
            if self._generation:
                self._paused.clear()
        if self._generation:
            self._generation = 0
            self._revoked(lost)
        with self._log.changed:
            self._member.joined = generation
            self._log.changed.notify_all()
            if generation != group.generation or any(
                member.joined != generation and member.gone_at is None for member in group.members.values()
            ):
                return
            mine = self._share(sorted(group.members))
        starts = self._assigned(mine)
        with self._log.changed:
            self._positions = {place: starts[place] for place in mine}
            self._generation = generation

    def _share(self, members: Sequence[str]) -> list[Place]:
        """Range: the partitions of each topic in rows, the first members one more where it does not come out even."""
        at = members.index(self._member.instance)
        mine: list[Place] = []
        for topic in sorted(self._topics):
            each, over = divmod(self._log.partitions(topic), len(members))
            first = each * at + min(at, over)
            mine += [(topic, partition) for partition in range(first, first + each + (at < over))]
        return mine

    def committed(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """The group's committed offsets; waits while offsets of a transaction are pending."""
        deadline = self._log.clock() + self._log.transaction_timeout_s + SLACK_S
        with self._log.changed:
            while self._log.pending(self.group, places):
                if not self._log.wait(deadline):
                    raise Unavailable(f"offsets of {self.group} are held back by an open transaction")
            return {place: self._log.groups[self.group].committed.get(place) for place in places}

    def close(self) -> None:
        """Leave; the place is kept for the session timeout."""
        with self._log.changed:
            if self._member.owner is self and self._member.gone_at is None:
                self._member.gone_at = self._log.clock()
        super().close()


class MemoryProducer:
    """Writes transactions."""

    def __init__(self, log: MemoryLog, transactional_id: str) -> None:
        self._log = log
        self._transactional_id = transactional_id
        self._transaction: _Transaction | None = None
        with log.changed:
            self._epoch = log.end_all_of(transactional_id)

    @property
    def suspect(self) -> str | None:
        """Nothing comes late in memory."""
        return None

    def begin(self) -> None:
        """Start a transaction."""
        with self._log.changed:
            self._check()
            if self._transaction is not None:
                raise WorkerEnded("a transaction is open already")
            self._transaction = self._log.open(self._transactional_id)

    def produce(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        """Add a record; partition -1 is chosen by the key."""
        with self._log.changed:
            self._log.write(topic, key, value, partition, self._current())

    def send_offsets(self, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        """Add the group's next offsets; refused, and the transaction aborted, if the consumer is no longer a member."""
        if not isinstance(consumer, _MemoryMember):
            raise WorkerEnded("this consumer belongs to no group")
        with self._log.changed:
            transaction = self._current()
            try:
                consumer.check()
            except WorkerEnded:
                self.abort()
                raise
            transaction.offsets.setdefault(consumer.group, {}).update(offsets)

    def commit(self) -> None:
        """Make it readable."""
        with self._log.changed:
            self._log.end(self._current(), _Fate.COMMITTED)
            self._transaction = None

    def abort(self) -> None:
        """Drop the transaction."""
        with self._log.changed:
            if self._transaction is not None:
                self._log.end(self._current(), _Fate.ABORTED)
                self._transaction = None

    def renew(self) -> None:
        """Take the transactional id anew."""
        with self._log.changed:
            self._epoch = self._log.end_all_of(self._transactional_id)
            self._transaction = None

    def close(self) -> None:
        """Let go; an open transaction is aborted."""
        with self._log.changed:
            if self._transaction is not None and self._transaction.fate is _Fate.OPEN:
                self._log.end(self._transaction, _Fate.ABORTED)
            self._transaction = None

    def _check(self) -> None:
        self._log.expire()
        if self._epoch != self._log.epochs[self._transactional_id]:
            raise Fenced(f"{self._transactional_id} belongs to another producer now, or its transaction took too long")

    def _current(self) -> _Transaction:
        self._check()
        if self._transaction is None:
            raise WorkerEnded("no transaction is open")
        return self._transaction


class MemoryAppender:
    """Appends single records at once."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._closed = False

    def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> Future[tuple[int, int]]:
        """Append one record; the future is done already."""
        if self._closed:
            raise Unavailable("this appender is closed")
        appended: Future[tuple[int, int]] = Future()
        with self._log.changed:
            try:
                appended.set_result(self._log.write(topic, key, value, partition, None))
            except WorkerEnded as error:
                appended.set_exception(Unavailable(str(error)))
        return appended

    def close(self) -> None:
        """Let go."""
        self._closed = True

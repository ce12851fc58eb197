"""Ports through which a simulated worker works: each call passes a gate, at which the worker can die, wait or be lied to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from random import Random
from typing import Protocol

from backbone.errors import Unavailable, Unconfirmed, WorkerEnded
from backbone.ports import Appender, Change, Consumer, Fetched, Fragment, Log, Place, Producer, Record, Rows
from backbone.testing.simulated.faults import Kind


class Crash(BaseException):
    """The process is gone, at this very call: nothing of the worker runs after it."""


class Watch(Protocol):
    """Who decides what happens at a gate."""

    def passing(self, gate: Gate, call: str) -> Kind | None:
        """A call is about to be made; answers what strikes it. May let others work first."""
        ...

    def hanging(self, producer: Producer) -> None:
        """The end of a transaction hangs; it may arrive later."""
        ...

    def late_end(self, producer: Producer) -> None:
        """The end of a transaction that was sent twice arrives for the second time."""
        ...


class Gate:
    """Where all calls of one incarnation of a worker pass.

    Args:
        worker: its name.
        lot: draws how much each poll gives.
        bites: how much it may give at most, to draw from.

    Attributes:
        dead: the process is gone.
        waiting_for: faults that wait for one of its calls.
        overtaken_at: number of the call before which others work.
        keys: keys of the records it works on.
        moves: calls that moved something.
    """

    def __init__(self, worker: str, watch: Watch, lot: Random, bites: Sequence[int] = (1, 4, 100, 500)) -> None:
        self.worker = worker
        self.bites = bites
        self.lot = lot
        self.watch = watch
        self.dead = False
        self.waiting_for: Sequence[object] = ()
        self.keys: Sequence[bytes | None] = ()
        self.moves = 0
        self.calls = 0
        self.overtaken_at = 0
        self.members: list[tuple[str, str, object]] = []

    def enter(self, call: str) -> Kind | None:
        """Before a call.

        Raises:
            Crash: the worker is gone.
        """
        if self.dead:
            raise Crash
        self.calls += 1
        if not self.waiting_for and self.calls != self.overtaken_at:
            return None
        struck = self.watch.passing(self, call)
        if self.dead:
            raise Crash
        if struck is Kind.CRASH_BEFORE:
            self.crash()
        return struck

    def leave(self, struck: Kind | None) -> None:
        """After a call.

        Raises:
            Crash: the worker is gone.
        """
        if struck is Kind.CRASH_AFTER:
            self.crash()

    def crash(self) -> None:
        """End the worker.

        Raises:
            Crash: always.
        """
        self.dead = True
        raise Crash


class GatedConsumer:
    """A consumer behind a gate."""

    def __init__(self, gate: Gate, real: Consumer) -> None:
        self._gate = gate
        self.real = real

    def poll(self, limit: int, timeout_s: float) -> Sequence[Record]:
        """Some of what is there; never waits."""
        gate = self._gate
        struck = gate.enter("poll")
        if struck is Kind.REFUSED:
            raise WorkerEnded("simulated: polling failed")
        records = self.real.poll(min(limit, gate.lot.choice(gate.bites)), 0.0)
        if records:
            gate.moves += 1
            gate.keys = [record.key for record in records]
        gate.leave(struck)
        return records

    def positions(self) -> Mapping[Place, int]:
        """Next offsets."""
        return self.real.positions()

    def seek(self, place: Place, offset: int) -> None:
        """Go on elsewhere."""
        self.real.seek(place, offset)

    def pause(self, places: Sequence[Place]) -> None:
        """Stop fetching."""
        self.real.pause(places)

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch again."""
        self.real.resume(places)

    def committed(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """The group's offsets."""
        struck = self._gate.enter("committed")
        if struck is Kind.REFUSED:
            raise Unavailable("simulated: no answer about committed offsets")
        found = self.real.committed(places)
        self._gate.leave(struck)
        return found

    def close(self) -> None:
        """Leave."""
        self._gate.enter("close")
        self.real.close()


class GatedProducer:
    """A producer behind a gate."""

    def __init__(self, gate: Gate, real: Producer) -> None:
        self._gate = gate
        self._real = real
        self._suspect: str | None = None
        self._late_in = 0
        self._halved = False

    @property
    def suspect(self) -> str | None:
        """Why the last commit must not be followed by another."""
        return self._suspect or self._real.suspect

    def begin(self) -> None:
        """Start a transaction."""
        struck = self._enter("begin")
        self._real.begin()
        self._gate.leave(struck)

    def produce(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        """Add a record."""
        struck = self._enter("produce")
        self._real.produce(topic, key, value, partition)
        self._gate.leave(struck)

    def send_offsets(self, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        """Add offsets."""
        assert isinstance(consumer, GatedConsumer)
        struck = self._enter("send_offsets")
        self._real.send_offsets(offsets, consumer.real)
        self._gate.leave(struck)

    def commit(self) -> None:
        """Make it readable, or not, and tell so, or not."""
        gate = self._gate
        struck = self._enter("commit")
        if struck is Kind.HANGS:
            gate.watch.hanging(self._real)
            raise WorkerEnded("simulated: no answer to the end of the transaction")
        self._real.commit()
        gate.moves += 1
        gate.leave(struck)
        if struck is Kind.REPLY_LOST:
            raise WorkerEnded("simulated: the answer to the end of the transaction is lost")
        if struck is Kind.SUSPECT:
            self._suspect = "simulated"
            self._late_in = gate.lot.choice((2, 3, 6))

    def abort(self) -> None:
        """Drop the transaction."""
        struck = self._gate.enter("abort")
        self._real.abort()
        self._gate.leave(struck)

    def renew(self) -> None:
        """Replace the connection."""
        struck = self._gate.enter("renew")
        if struck is Kind.REFUSED:
            raise WorkerEnded("simulated: no new producer")
        self._real.renew()
        self._suspect, self._late_in = None, 0
        self._gate.leave(struck)

    def close(self) -> None:
        """Let go."""
        self._gate.enter("close")
        self._real.close()

    def _enter(self, call: str) -> Kind | None:
        struck = self._gate.enter(call)
        if self._late_in:
            self._late_in -= 1
            if self._late_in == 0:
                self._gate.watch.late_end(self._real)
                self._halved = True
        if self._halved and call == "commit":
            self._gate.crash()
        if struck is Kind.REFUSED:
            with suppress(WorkerEnded):
                self._real.abort()
            raise WorkerEnded(f"simulated: {call} failed, the transaction is aborted")
        return struck


class GatedAppender:
    """An appender behind a gate."""

    def __init__(self, gate: Gate, real: Appender) -> None:
        self._gate = gate
        self._real = real

    def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> Future[tuple[int, int]]:
        """Append one record."""
        struck = self._gate.enter("append")
        lost: Future[tuple[int, int]] = Future()
        lost.set_exception(Unconfirmed("simulated: no acknowledgement"))
        if struck is Kind.REFUSED:
            return lost
        appended = self._real.append(topic, key, value, partition)
        self._gate.moves += 1
        self._gate.leave(struck)
        return lost if struck is Kind.REPLY_LOST else appended

    def close(self) -> None:
        """Let go."""
        self._gate.enter("close")
        self._real.close()


class GatedLog:
    """A log behind a gate."""

    def __init__(self, gate: Gate, real: Log) -> None:
        self._gate = gate
        self._real = real

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        return self._real.cluster_id

    def topics(self) -> Mapping[str, tuple[str, int]]:
        """Every topic."""
        struck = self._enter("topics")
        found = self._real.topics()
        self._gate.leave(struck)
        return found

    def group_consumer(
        self,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> GatedConsumer:
        """A static member of a group."""
        real = self._real.group_consumer(group, instance, topics, assigned, revoked)
        self._gate.members.append((group, instance, real))
        return GatedConsumer(self._gate, real)

    def consumer(self, start: Mapping[Place, int]) -> GatedConsumer:
        """A consumer without a group."""
        return GatedConsumer(self._gate, self._real.consumer(start))

    def producer(self, transactional_id: str) -> GatedProducer:
        """A transactional producer."""
        struck = self._enter("producer")
        producer = GatedProducer(self._gate, self._real.producer(transactional_id))
        self._gate.leave(struck)
        return producer

    def appender(self) -> GatedAppender:
        """An appender."""
        return GatedAppender(self._gate, self._real.appender())

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Ends of partitions."""
        struck = self._enter("high_watermarks")
        found = self._real.high_watermarks(places)
        self._gate.leave(struck)
        return found

    def starts(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Starts of partitions."""
        struck = self._enter("starts")
        found = self._real.starts(places)
        self._gate.leave(struck)
        return found

    def read(self, place: Place, start: int, stop: int) -> Iterator[Record]:
        """Committed records of one partition."""
        struck = self._enter("read")
        yield from self._real.read(place, start, stop)
        self._gate.leave(struck)

    def _enter(self, call: str) -> Kind | None:
        struck = self._gate.enter(call)
        if struck is Kind.REFUSED:
            raise Unavailable(f"simulated: the log does not answer {call}")
        return struck


class GatedRows:
    """Rows behind a gate.

    Args:
        up: whether they answer at all.
    """

    def __init__(self, gate: Gate, real: Rows, up: Callable[[], bool]) -> None:
        self._gate = gate
        self._real = real
        self._up = up

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows and watermarks."""
        struck = self._gate.enter("fetch")
        if struck is Kind.REFUSED or not self._up():
            raise Unavailable("simulated: the rows do not answer")
        found = self._real.fetch(wanted)
        self._gate.leave(struck)
        return found

    def apply(self, fragment: Fragment, change: Change) -> int | None:
        """Write a change."""
        struck = self._gate.enter("apply")
        if struck is Kind.REFUSED or not self._up():
            raise Unconfirmed("simulated: the rows do not answer")
        found = self._real.apply(fragment, change)
        self._gate.moves += 1
        self._gate.leave(struck)
        if struck is Kind.REPLY_LOST:
            raise Unconfirmed("simulated: the answer of the rows is lost")
        return found

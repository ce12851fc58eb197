"""Act: does what a decider tells its service to do outside, and tells what came of it.

The rules it obeys
1. A command without a tombstone is open. A partition's commands are done once everything below the high watermark seen at its
   assignment has been read, because only then it is known which are open.
2. Outcome and tombstone are one transaction, fenced by the generation of the group: who lost a partition cannot close its commands.
3. What was done and not written is done again under the same command id, which is the idempotency key towards the outside.
4. Commands of one aggregate are done in the order of the log; the next starts when the outcome of the one before is in the log.
5. After `answer_by` nothing is tried any more: the outcome says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import structlog
from google.protobuf.message import Message

from backbone import envelope
from backbone.because import Because, because
from backbone.contract import ResolvedEffect, ResolvedService
from backbone.declare import CommandId, On, Sibling
from backbone.errors import WorkerEnded
from backbone.loops.own_thread import OwnThread
from backbone.loops.set_aside import SetAside
from backbone.ports import Consumer, Log, Place, Producer, Record
from backbone.positions import from_proto
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNDECODABLE

TRIED_AT_ONCE = 64
"""Tries under way at once in one service; an outside server that hangs holds no more than these."""

CONNECT_S = 30.0
"""Longest time an effect may take to open its tool, in seconds."""

TRY_S = 10.0
"""Longest time one try may take, in seconds."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Pauses between tries double from the first to the longest, with jitter so that commands that failed together part."""

HELD = 10_000
"""Open commands held in memory before their partitions are paused; about a kilobyte each."""

HELD_BYTES = 64 * 1024 * 1024
"""Bytes of their records, likewise."""

FINISH_S = 5.0
"""How long a stop waits for tries that are under way, in seconds."""

BUSY_WAIT_S, IDLE_WAIT_S = 0.005, 0.1
"""How long to wait for records while something is being done, whose outcome should not wait, and while nothing is."""

SHOWN = 10
"""How many commands that wait are shown one by one in the status."""

AskSibling = Callable[[Settings, Callable[[Any], Any]], AbstractAsyncContextManager[Any]]
"""Opens a stub of the own context for as long as it is needed."""

log_ = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a kind of command is done: by which effect, with which tool, by which line."""

    effect: ResolvedEffect
    tool: Any
    line: On[Any, Any]


@dataclass(eq=False, slots=True)
class _Command:
    """An open command.

    Attributes:
        trying: a try is under way.
        resting: it waits for its next try.
        way: None if this build does not know the command: a newer one will do it, later ones of its aggregate wait.
        defect: why its record is no command; it goes to quarantine.
        stuck: why not even giving up was possible; later ones of its aggregate wait.
    """

    record: Record
    key: bytes
    aggregate: str
    message: Message | None = None
    meta: Meta = field(default_factory=Meta)
    way: _Way | None = None
    defect: str = ""
    stuck: str = ""
    task: asyncio.Task[None] | None = None
    trying: bool = False
    resting: bool = False
    tries: int = 0
    last_error: str = "it was never tried"

    @property
    def name(self) -> str:
        return self.message.DESCRIPTOR.name if self.message is not None else "?"

    def left_s(self) -> float:
        """Time until `answer_by`, in seconds."""
        answer_by = self.message.answer_by  # type: ignore[union-attr] # every command has one, which `resolve` checks
        return float(answer_by.seconds + answer_by.nanos / 1e9 - time.time())


@dataclass(eq=False, slots=True)
class _Holding:
    """A partition for as long as it is ours; got again, it is another one.

    Attributes:
        until: high watermark when it was assigned.
        live: everything below `until` has been read.
        open: open commands by record key.
        lanes: the same by aggregate, in the order of the log; the first of each is being done.
        bytes: size of their records.
    """

    place: Place
    start: int
    until: int
    live: bool = False
    paused: bool = False
    open: dict[bytes, _Command] = field(default_factory=dict)
    lanes: dict[str, list[_Command]] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A command and the record that closes it together with the tombstone."""

    holding: _Holding
    command: _Command
    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class _Turn:
    """What one turn of the log's thread brought."""

    closed: Sequence[_Finished]
    records: Sequence[Record]
    positions: dict[Place, int]


class Act:
    """Does the commands of all effects of one service, as a member of the group `<context>.<service>.effects`.

    Args:
        service: a service with effects.
        log: where commands and outcomes lie.
        settings: given to every effect's `connect`; `slot` names the member and the transactional id.
        ask: opens a stub of the own context's view server.
    """

    def __init__(self, service: ResolvedService, log: Log, settings: Settings, ask: AskSibling) -> None:
        self._service = service
        self._log = log
        self._settings = settings
        self._ask = ask
        self._commands = service.effects[0].commands
        self._topic_id = ""
        self._aside = SetAside(service.name, settings.build)
        self._ways: dict[int, _Way] = {}
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._held: dict[Place, _Holding] = {}
        self._lost: list[_Holding] = []
        self._finished: deque[_Finished] = deque()
        self._under_way: dict[asyncio.Task[None], _Command] = {}
        self._slots = asyncio.Semaphore(TRIED_AT_ONCE)
        self._defect: BaseException | None = None
        self._assigned_once = False
        self._crowded = False
        self._stopping = False
        self._tries = 0
        self._done = 0
        self._gave_up = 0

    @property
    def ready(self) -> bool:
        """Whether it knows of every open command of its partitions."""
        return self._assigned_once and all(holding.live for holding in list(self._held.values()))

    def status(self) -> dict[str, Any]:
        """Open commands, tries and ages, for /status; to be called in the event loop."""
        holdings = list(self._held.values())
        commands = [command for holding in holdings for command in list(holding.open.values())]
        oldest_ms = min((command.record.timestamp_ms for command in commands), default=None)
        waiting = [command for command in commands if command.tries or command.stuck or command.defect]
        return {
            "open": len(commands),
            "trying": sum(command.trying for command in self._under_way.values()),
            "oldest_s": 0.0 if oldest_ms is None else round(max(0.0, time.time() - oldest_ms / 1000), 3),
            "tries": self._tries,
            "done": self._done,
            "gave_up": self._gave_up,
            "unknown": sum(command.way is None and not command.defect for command in commands),
            "stuck": sum(bool(command.stuck) for command in commands),
            "partitions": sorted(place[1] for place in self._held),
            "restoring": sorted(holding.place[1] for holding in holdings if not holding.live),
            "paused": self._crowded,
            "waiting": [
                {
                    "aggregate": command.aggregate,
                    "command": command.name,
                    "id": command.meta.id,
                    "tries": command.tries,
                    "error": command.stuck or command.defect or command.last_error,
                }
                for command in waiting[:SHOWN]
            ],
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Do commands until told to stop; then finish what is being tried within five seconds and leave the rest open.

        Raises:
            WorkerEnded: the log failed or another took this worker's place; start again.
        """
        async with AsyncExitStack() as tools:
            for effect in self._service.effects:
                connect = effect.effect.connect
                opening = self._ask(self._settings, connect.stub) if isinstance(connect, Sibling) else connect(self._settings)
                async with asyncio.timeout(CONNECT_S):
                    tool = await tools.enter_async_context(opening)
                for line in effect.effect.table:
                    number = self._commands.number(line.hears)
                    assert number is not None
                    self._ways[number] = _Way(effect, tool, line)
            on_thread = tools.enter_context(OwnThread(f"{self._service.name}.effects"))
            try:
                await on_thread(self._open)
                while not stop.is_set():
                    await self._step(on_thread)
                await self._finish(on_thread)
            finally:
                await self._abandon()
                await on_thread.last(self._close)

    async def _step(self, on_thread: OwnThread) -> None:
        busy = self._finished or not all(command.resting for command in self._under_way.values())
        self._take(await on_thread(self._turn, BUSY_WAIT_S if busy else IDLE_WAIT_S))
        if self._defect is not None:
            raise self._defect

    async def _finish(self, on_thread: OwnThread) -> None:
        self._stopping = True
        deadline = time.monotonic() + FINISH_S
        for task, command in self._under_way.items():
            if not command.trying:
                task.cancel()
        while self._finished or (self._under_way and time.monotonic() < deadline):
            await self._step(on_thread)

    async def _abandon(self) -> None:
        self._stopping = True
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # On the log's thread, while the event loop only runs tries.

    def _open(self) -> None:
        group = f"{self._service.name}.effects"
        try:
            self._topic_id = self._log.topics()[self._commands.name][0]
        except KeyError:
            raise WorkerEnded(f"topic {self._commands.name} does not exist; apply the topology's topics first") from None
        self._producer = self._log.producer(f"{group}.{self._settings.slot}")
        self._consumer = self._log.group_consumer(
            group, f"{group}.{self._settings.slot}", [self._commands.name], self._assigned, self._revoked
        )

    def _close(self) -> None:
        try:
            if self._consumer is not None:
                self._consumer.close()
        finally:
            if self._producer is not None:
                self._producer.close()

    def _assigned(self, places: Sequence[Place]) -> dict[Place, int]:
        self._assigned_once = True
        starts, ends = self._log.starts(places), self._log.high_watermarks(places)
        for place in places:
            self._held[place] = _Holding(place, starts[place], ends[place])
        return {place: starts[place] for place in places}

    def _revoked(self, places: Sequence[Place]) -> None:
        self._lost.extend(self._held.pop(place) for place in places if place in self._held)

    def _turn(self, wait_s: float) -> _Turn:
        assert self._consumer is not None
        closed = self._write()
        self._pause_when_crowded(self._consumer)
        records = self._consumer.poll(self._settings.batch, wait_s)
        restoring = any(not holding.live for holding in self._held.values())
        return _Turn(closed, records, dict(self._consumer.positions()) if restoring else {})

    def _pause_when_crowded(self, consumer: Consumer) -> None:
        count = sum(len(holding.open) for holding in self._held.values())
        size = sum(holding.bytes for holding in self._held.values())
        part = 2 if self._crowded else 1
        self._crowded = count >= HELD // part or size >= HELD_BYTES // part
        for holding in self._held.values():
            pause = holding.live and self._crowded
            if pause is not holding.paused:
                (consumer.pause if pause else consumer.resume)([holding.place])
                holding.paused = pause

    def _write(self) -> list[_Finished]:
        """Close whatever has finished and is still ours, in one transaction."""
        assert self._consumer is not None
        assert self._producer is not None
        batch: list[_Finished] = []
        while self._finished and len(batch) < self._settings.batch:
            finished = self._finished.popleft()
            if self._held.get(finished.holding.place) is finished.holding:
                batch.append(finished)
        if not batch:
            return batch
        producer = self._producer
        producer.begin()
        for finished in batch:
            partition = finished.command.record.partition
            producer.produce(finished.topic, finished.key, finished.value, partition)
            producer.produce(self._commands.name, finished.command.key, None, partition)
        positions = self._consumer.positions()
        # Nobody reads these offsets: they make the broker refuse the transaction of a member that lost its partitions.
        producer.send_offsets({place: positions[place] for place in {finished.holding.place for finished in batch}}, self._consumer)
        producer.commit()
        if producer.suspect is not None:
            log_.warning("commit is suspect, producer is renewed", service=self._service.name, reason=producer.suspect)
            producer.renew()
        return batch

    # In the event loop, between two turns.

    def _take(self, turn: _Turn) -> None:
        for holding in self._lost:
            for command in holding.open.values():
                if command.task is not None:
                    command.task.cancel()
        self._lost.clear()
        for finished in turn.closed:
            self._done += 1
            command = finished.command
            log_.info(
                "command done", service=self._service.name, order_id=command.meta.correlation_id, command=command.name, tries=command.tries
            )
            self._dismiss(finished.holding, command.key)
        for record in turn.records:
            held = self._held.get((record.topic, record.partition))
            if held is None or record.key is None:
                continue
            if record.value is None:
                self._dismiss(held, record.key)
            elif record.key not in held.open:
                self._accept(held, self._read(record, record.key))
        for holding in self._held.values():
            if not holding.live and turn.positions.get(holding.place, holding.start) >= holding.until:
                holding.live = True
                for lane in holding.lanes.values():
                    self._start(holding, lane[0])

    def _read(self, record: Record, key: bytes) -> _Command:
        aggregate = repr(key)
        try:
            aggregate, command_id = envelope.split_entry_key(key)
            decoded = envelope.decode(self._commands, record)
        except envelope.UnknownEvent:
            return _Command(record, key, aggregate, last_error="this build does not know it")
        except envelope.Undecodable as error:
            return _Command(record, key, aggregate, defect=str(error))
        if decoded.meta.id != command_id:
            return _Command(record, key, aggregate, defect=f"its key names command {command_id!r}, its meta {decoded.meta.id!r}")
        way = self._ways.get(decoded.number)
        return _Command(record, key, aggregate, decoded.event, decoded.meta, way)

    def _accept(self, holding: _Holding, command: _Command) -> None:
        holding.open[command.key] = command
        holding.bytes += len(command.record.value or b"")
        lane = holding.lanes.setdefault(command.aggregate, [])
        lane.append(command)
        if holding.live and len(lane) == 1:
            self._start(holding, command)

    def _dismiss(self, holding: _Holding, key: bytes) -> None:
        command = holding.open.pop(key, None)
        if command is None:
            return
        holding.bytes -= len(command.record.value or b"")
        if command.task is not None:
            command.task.cancel()
        lane = holding.lanes[command.aggregate]
        first = lane[0] is command
        lane.remove(command)
        if not lane:
            del holding.lanes[command.aggregate]
        elif first and holding.live:
            self._start(holding, lane[0])

    def _start(self, holding: _Holding, command: _Command) -> None:
        if command.defect:
            key, value = self._aside.record(command.record, QUARANTINE_REASON_UNDECODABLE, command.defect, aggregate=command.aggregate)
            log_.error("record is no command, set aside", topic=command.record.topic, offset=command.record.offset, reason=command.defect)
            self._finished.append(_Finished(holding, command, self._aside.topic, key, value))
        elif command.way is not None and command.message is not None and not self._stopping:
            command.task = asyncio.create_task(self._do(holding, command, command.way, command.message))
            self._under_way[command.task] = command
            command.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = error

    # One task for each command that is its aggregate's first.

    async def _do(self, holding: _Holding, command: _Command, way: _Way, message: Message) -> None:
        because.set(Because(from_proto(command.meta.after), command.meta.traceparent))
        while command.left_s() > 0:
            async with self._slots:
                outcome = await self._try(command, way, message)
            if outcome is not None:
                self._finished.append(_Finished(holding, command, way.effect.outcomes.name, command.key, outcome))
                return
            if self._stopping:
                return
            command.resting = True
            await asyncio.sleep(max(0.0, min(_pause_s(command.tries), command.left_s())))
            command.resting = False
        try:
            outcome = self._encoded(command, way, way.effect.effect.gave_up(message, command.last_error))
        except Exception as error:  # noqa: BLE001 - a defect of one command must not end the others
            command.stuck = f"gave_up raised {_words(error)}"
            log_.error("command can neither be done nor given up", **self._about(command), error=command.stuck)
            return
        self._gave_up += 1
        log_.error("command given up", **self._about(command), error=command.last_error)
        self._finished.append(_Finished(holding, command, way.effect.outcomes.name, command.key, outcome))

    async def _try(self, command: _Command, way: _Way, message: Message) -> bytes | None:
        """The outcome as its record's value; None if there is none."""
        limit_s = min(TRY_S, command.left_s())
        if limit_s <= 0:
            return None
        found = [command.meta.id for look_up in way.line.look_ups if isinstance(look_up, CommandId)]
        command.tries += 1
        self._tries += 1
        command.trying = True
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                outcome = await way.line.function(way.tool, message, *found)
            return self._encoded(command, way, outcome)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            command.last_error = "the call was cancelled from within"
        except Exception as error:  # noqa: BLE001 - whatever an effect raises is tried again, which is the contract of Effect
            command.last_error = f"no answer within {limit_s:.1f} s" if limit.expired() else _words(error)
        finally:
            command.trying = False
        log_.warning("command failed, is tried again", **self._about(command), error=command.last_error)
        return None

    def _encoded(self, command: _Command, way: _Way, outcome: Message) -> bytes:
        topic = way.effect.outcomes
        number = topic.number(type(outcome))
        if number is None:
            raise TypeError(f"{way.line} gave {type(outcome).__name__}, which {topic.name} does not hold")
        if (named := getattr(outcome, topic.key)) != command.aggregate:
            raise ValueError(f"{way.line} gave an outcome of {topic.key} {named!r}, the command is about {command.aggregate!r}")
        said = envelope.because_of(
            writer=self._service.name,
            build=self._settings.build,
            topic_id=self._topic_id,
            record=command.record,
            meta=command.meta,
            occurred_at=envelope.timestamp(time.time_ns() // 1_000_000),
        )
        return envelope.encode(number, outcome.SerializeToString(deterministic=True), said.meta(0, 0))

    def _about(self, command: _Command) -> dict[str, Any]:
        return {
            "service": self._service.name,
            "aggregate": command.aggregate,
            "command": command.name,
            "id": command.meta.id,
            "tries": command.tries,
        }


def _pause_s(tries: int) -> float:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 16))
    return longest * random.uniform(0.5, 1.0)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]

"""Project: folds one topic into the rows of one view, at least once, fenced where the rows lie.

1. The position comes from the rows, never from the group: where a partition is taken up, its watermark says.
2. Rows, index entries and watermark of a partition are written in one atomic step, which refuses if the watermark is not the position
   the batch started from. A refusal sends us to the watermark found. So a zombie is harmless, and rows that were flushed or rolled back
   are folded again.
3. Watermarks are consumer positions: transaction markers and what the view does not hear move them too, so that the watermark of an
   idle view is the end of its topic.
4. While the rows cannot be reached, polling goes on with everything paused, so that the member keeps its place.
5. What cannot be decoded lies acknowledged in quarantine before the watermark passes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from backbone.contract import Reaction, ResolvedService, ResolvedView
from backbone.envelope import Decoded, Undecodable, UnknownEvent, decode, moment_of_ms
from backbone.errors import StrangeCluster, Unavailable, Unconfirmed, WorkerEnded
from backbone.loops.folding import RowTable
from backbone.loops.set_aside import SetAside
from backbone.ports import Appender, Fragment, Log, Place, Record, Rows
from backbone.rules import BreaksRules, check
from backbone.settings import Settings
from backbone.stored import Lineage
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_INVALID,
    QUARANTINE_REASON_RAISED,
    QUARANTINE_REASON_UNDECODABLE,
    QUARANTINE_REASON_UNKNOWN_EVENT,
    QuarantineReason,
)

LOOK_EVERY_S = 0.5
"""How often the watermarks are compared while nothing comes: how long a flush of an idle view stays unseen, in seconds."""

ACKNOWLEDGED_WITHIN_S = 10.0
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0


@dataclass(slots=True)
class _Waiting:
    """Why nothing is written.

    Attributes:
        since: when it began; this and `retry_at` by the monotonic clock, seconds.
        pause_s: from the last attempt to the next.
    """

    reason: str
    since: float
    retry_at: float
    pause_s: float


@dataclass(frozen=True, slots=True)
class _Heard:
    """A record that the view folds."""

    record: Record
    reaction: Reaction
    decoded: Decoded


@dataclass(frozen=True, slots=True)
class _Quarantined:
    """A record on its way to quarantine."""

    record: Record
    acknowledged: Future[tuple[int, int]]


class Project:
    """The projection of one view in one worker.

    Args:
        service: whose view it is; bad records go to its quarantine.
        view: what is folded.
        log: where the events come from.
        rows: where the rows go.
        settings: slot, build and size of a batch are used.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        service: ResolvedService,
        view: ResolvedView,
        log: Log,
        rows: Rows,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._topic = view.topic.name
        self._version = view.view.version
        self._reactions = {reaction.number: reaction for reaction in view.reactions}
        self._log = log
        self._rows = rows
        self._batch = settings.batch
        self._clock = clock
        self._aside = SetAside(service.name, settings.build)
        self._appender: Appender | None = None
        self._lineage = Lineage(self._topic)
        self._upstream: dict[int, set[str]] = {}
        self._marks: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._paused: set[int] = set()
        self._acknowledged: dict[int, int] = {}
        self._joined = False
        self._folded = self._set_aside_count = self._damages = 0
        self._waiting: _Waiting | None = None
        self._unproven: _Waiting | None = None
        self._look_at = clock()
        self.group = f"{view.name}.v{self._version}"
        self._consumer = log.group_consumer(self.group, f"{self.group}.{settings.slot}", [self._topic], self._assigned, self._revoked)

    def step(self, timeout_s: float) -> bool:
        """Fold what is there, up to a batch; wait at most `timeout_s` seconds for it.

        Returns:
            Whether rows or watermarks moved.

        Raises:
            StrangeCluster: the rows are of another log.
            WorkerEnded: the log ended this worker.
        """
        try:
            if self._waiting is not None and not self._resumed():
                self._pause()
                self._consumer.poll(self._batch, min(timeout_s, max(self._waiting.retry_at - self._clock(), 0.0)))
                return False
            self._look()
            records = self._consumer.poll(self._batch, timeout_s)
            if self._waiting is not None:
                self._pause()
                return False
            moved = self._write(records)
        except (Unavailable, Unconfirmed) as error:
            self._wait(str(error))
            return False
        self._unproven = None
        return moved

    @property
    def ready(self) -> bool:
        """Whether it has its partitions and reaches its rows."""
        return self._joined and self._waiting is None

    def close(self) -> None:
        """Leave the group and let go of the log."""
        self._consumer.close()
        if self._appender is not None:
            self._appender.close()

    def status(self) -> dict[str, Any]:
        """How far it is, and what it waits for, if so, and for how many seconds."""
        waiting = self._waiting or self._unproven
        return {
            "loop": "project",
            "group": self.group,
            "view": self._view.name,
            "version": self._version,
            "topic": self._topic,
            "positions": {str(partition): mark for partition, mark in sorted(dict(self._marks).items())},
            "folded": self._folded,
            "quarantined": self._set_aside_count,
            "damaged": self._damages,
            "waits_s": 0.0 if waiting is None else self._clock() - waiting.since,
            "waiting": None if waiting is None else {"reason": waiting.reason, "age_s": round(self._clock() - waiting.since, 3)},
        }

    def _assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        partitions = [partition for _, partition in places]
        try:
            self._starts.update({partition: start for (_, partition), start in self._log.starts(places).items()})
        except Unavailable as error:
            raise WorkerEnded(f"{self.group} got {self._topic}, whose start the log does not tell: {error}") from error
        self._paused.difference_update(partitions)
        self._joined = True
        try:
            starts = self._take_up(partitions)
        except Unavailable as error:
            # Where it starts is not known, so nothing that is read now counts; `_resumed` seeks.
            self._marks.update(dict.fromkeys(partitions, 0))
            self._wait(str(error))
            return {(self._topic, partition): self._starts[partition] for partition in partitions}
        return {(self._topic, partition): start for partition, start in starts.items()}

    def _revoked(self, places: Sequence[Place]) -> None:
        for _, partition in places:
            self._marks.pop(partition, None)
            self._paused.discard(partition)

    def _take_up(self, partitions: Sequence[int]) -> dict[int, int]:
        """Read the watermarks of partitions and believe them; where to read on, by partition."""
        fetched = self._rows.fetch([(self._fragment(partition), ()) for partition in partitions])
        return self._believe({partition: found.watermark or 0 for partition, found in zip(partitions, fetched, strict=True)})

    def _believe(self, found: Mapping[int, int]) -> dict[int, int]:
        """Take watermarks for true; where to read on, by partition."""
        ahead = [(self._topic, partition) for partition, mark in found.items() if mark > 0]
        for (_, partition), end in self._log.high_watermarks(ahead).items() if ahead else ():
            if found[partition] > end:
                raise StrangeCluster(
                    f"{self._view.name} v{self._version} has folded {self._topic}/{partition} up to {found[partition]}, the topic ends at "
                    f"{end}: these rows are of another log; flush this Redis, or set REDIS_URL to the one that belongs to this log"
                )
        self._marks.update(found)
        for partition in found:
            self._upstream.pop(partition, None)  # these rows may have forgotten it; it is written again
        return {partition: max(mark, self._starts[partition]) for partition, mark in found.items()}

    def _go_to(self, found: Mapping[int, int]) -> None:
        for partition, start in self._believe(found).items():
            self._consumer.seek((self._topic, partition), start)

    def _look(self) -> None:
        """Compare all watermarks now and then: rows that vanish while nothing comes would not be noticed otherwise."""
        if self._clock() < self._look_at or not self._marks:
            return
        partitions = list(self._marks)
        fetched = self._rows.fetch([(self._fragment(partition), ()) for partition in partitions])
        found = {partition: one.watermark or 0 for partition, one in zip(partitions, fetched, strict=True)}
        self._go_to({partition: mark for partition, mark in found.items() if mark != self._marks[partition]})
        self._look_at = self._clock() + LOOK_EVERY_S

    def _write(self, records: Sequence[Record]) -> bool:
        quarantined: list[_Quarantined] = []
        heard: dict[int, list[_Heard]] = {}
        for record in records:
            one = self._hear(record, quarantined)
            if one is not None:
                heard.setdefault(record.partition, []).append(one)
        moved = self._moved()
        tables = self._tables({partition: heard.get(partition, []) for partition in moved})
        for partition, table in tables.items():
            for one in heard.get(partition, ()):
                self._fold(table, one, quarantined)
        self._await(quarantined)
        for partition, table in tables.items():
            change = table.change(self._marks[partition], moved[partition])
            upstream = self._upstream.setdefault(partition, set())
            change.upstream -= upstream
            found = self._rows.apply(self._fragment(partition), change)
            if found is None:
                self._marks[partition] = change.until
                upstream |= change.upstream
                self._folded += len(heard.get(partition, ()))
            else:
                self._go_to({partition: found})
        return bool(tables)

    def _moved(self) -> dict[int, int]:
        """Positions beyond the watermarks, by partition."""
        positions = self._consumer.positions()
        reached = {partition: positions.get((self._topic, partition), 0) for partition in self._marks}
        return {partition: position for partition, position in reached.items() if position > self._marks[partition]}

    def _hear(self, record: Record, quarantined: list[_Quarantined]) -> _Heard | None:
        """The record if the view folds it; what is no event, or none we know, goes to quarantine."""
        if record.key is not None and record.value is not None:
            number = _leading_field(record.value)
            if number not in self._reactions and number in self._view.topic.events:
                return None
        try:
            decoded = decode(self._view.topic, record)
            reaction = self._reactions.get(decoded.number)
            if reaction is None:
                return None
            check(decoded.event)
        except Undecodable as error:
            self._set_aside(record, QUARANTINE_REASON_UNDECODABLE, str(error), quarantined)
        except UnknownEvent as error:
            self._set_aside(record, QUARANTINE_REASON_UNKNOWN_EVENT, str(error), quarantined)
        except BreaksRules as error:
            self._set_aside(record, QUARANTINE_REASON_INVALID, str(error), quarantined)
        else:
            return _Heard(record, reaction, decoded)
        return None

    def _tables(self, heard: Mapping[int, Sequence[_Heard]]) -> dict[int, RowTable]:
        """The rows the events of each partition may touch, in one round trip; partitions whose watermark is another are left out."""
        keys = {partition: list(dict.fromkeys(one.decoded.key for one in of)) for partition, of in heard.items()}
        asked = [partition for partition, of in keys.items() if of]
        fetched = dict(zip(asked, self._rows.fetch([(self._fragment(p), keys[p]) for p in asked]), strict=True))
        found = {partition: one.watermark or 0 for partition, one in fetched.items()}
        stale = {partition: mark for partition, mark in found.items() if mark != self._marks[partition]}
        self._go_to(stale)
        return {
            partition: RowTable(
                self._view.view,
                self._view.name,
                self._view.key,
                dict(zip(of, fetched[partition].rows, strict=True)) if of else {},
                self._lineage,
            )
            for partition, of in keys.items()
            if partition not in stale
        }

    def _fold(self, table: RowTable, one: _Heard, quarantined: list[_Quarantined]) -> None:
        record = one.record
        where = f"{record.topic}/{record.partition}@{record.offset}"
        at = moment_of_ms(record.timestamp_ms)
        decoded = one.decoded
        error = table.fold(
            one.reaction.line, decoded.key, decoded.event, at, where, after=decoded.meta.after, next_offset=record.offset + 1
        )
        if error is not None:
            self._damages += 1
            detail = f"{one.reaction.line} raised {type(error).__name__}: {error}"
            self._set_aside(record, QUARANTINE_REASON_RAISED, detail, quarantined, key=one.decoded.key, error=error)

    def _set_aside(
        self,
        record: Record,
        reason: QuarantineReason.ValueType,
        detail: str,
        quarantined: list[_Quarantined],
        *,
        key: str = "",
        error: Exception | None = None,
    ) -> None:
        if record.offset <= self._acknowledged.get(record.partition, -1):
            return
        if self._appender is None:
            self._appender = self._log.appender()
        at, value = self._aside.record(record, reason, detail, aggregate=key, error=error)
        quarantined.append(_Quarantined(record, self._appender.append(self._aside.topic, at, value, record.partition)))

    def _await(self, quarantined: Sequence[_Quarantined]) -> None:
        """Wait until everything set aside is acknowledged; what is folded again later is not set aside again by this worker."""
        deadline = self._clock() + ACKNOWLEDGED_WITHIN_S
        for one in quarantined:
            try:
                one.acknowledged.result(max(deadline - self._clock(), 0.0))
            except TimeoutError as error:
                raise Unconfirmed(f"{self._aside.topic} did not acknowledge within {ACKNOWLEDGED_WITHIN_S:g} s") from error
        for one in quarantined:
            partition = one.record.partition
            self._set_aside_count += 1
            self._acknowledged[partition] = max(one.record.offset, self._acknowledged.get(partition, -1))

    def _wait(self, reason: str) -> None:
        before = self._waiting or self._unproven
        now = self._clock()
        pause_s = FIRST_RETRY_S if before is None else min(before.pause_s * 2, LAST_RETRY_S)
        self._waiting = _Waiting(reason, now if before is None else before.since, now + pause_s, pause_s)

    def _resumed(self) -> bool:
        """Go on where the rows say, if it is time to try; whether it was.

        Raises:
            Unavailable: the rows still cannot be reached.
        """
        waiting = self._waiting
        if waiting is None or self._clock() < waiting.retry_at:
            return waiting is None
        for partition, start in self._take_up(list(self._marks)).items():
            self._consumer.seek((self._topic, partition), start)
        self._consumer.resume([(self._topic, partition) for partition in sorted(self._paused)])
        self._paused.clear()
        self._waiting, self._unproven = None, waiting
        return True

    def _pause(self) -> None:
        running = sorted(self._marks.keys() - self._paused)
        if running:
            self._consumer.pause([(self._topic, partition) for partition in running])
            self._paused.update(running)

    def _fragment(self, partition: int) -> Fragment:
        return Fragment(self._view.name, self._version, partition)


def _leading_field(value: bytes) -> int:
    """Number of the first field of a serialised message; 0 if there is none.

    The runtime writes the event first, so this tells without decoding whether a view hears it; anything else is decoded and judged then.
    """
    tag = 0
    for index, byte in enumerate(value[:5]):
        tag |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return tag >> 3
    return 0

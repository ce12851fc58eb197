"""The decide loop: what came -> what is said, in one Kafka transaction per batch.

The rules it obeys:
- Partition p of all inputs sits on the same worker (the `range` assignor, P partitions everywhere).
- Taking over p: committed offsets, then the high watermark of the state partition, then the state read up to it; decided positions
  are the greater of committed and recorded ones.
- Staging is per record: a decision that raises loses all of that record, parks its key and changes nothing else.
- A batch is one transaction: events, copies, commands, state entries, ticks, quarantined records, one position record per partition,
  input offsets. Memory follows the commit, never precedes it.
- After a failed or unknown commit nothing in memory counts: the producer is replaced, which ends what it left open, and every partition
  is taken over again. Who was fenced ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from backbone.contract import ResolvedService
from backbone.declare import Tick
from backbone.envelope import entry_key
from backbone.errors import DataLoss, DeclarationError, Fenced, Unavailable, WorkerEnded
from backbone.loops.holding import Came, Partition, TakingOver, forgotten_entry, positions_entry
from backbone.loops.looking_up import Answers, LookingUp, NotYet
from backbone.loops.saying import Out, Saying
from backbone.loops.set_aside import SetAside
from backbone.loops.snapshots import AGGREGATE, PARKED, Held, Snapshots
from backbone.loops.taking_apart import TakingApart
from backbone.ports import Consumer, Log, Place, Record, Rows
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_BEHIND_PARKED,
    QUARANTINE_REASON_INVALID,
    QUARANTINE_REASON_RAISED,
    Parked,
    QuarantineReason,
    StateEntry,
)
from backbone.v1.private_pb2 import Tick as TickRecord

RETRY_AFTER_S = 0.05
"""Pause between two tries of a record that waits for rows."""
KNOWN_EVERY_S = 10.0
"""How often it is noted how far the state in memory reaches: what a partition that comes back need not read again."""
FORGET_EVERY_S = 1.0
"""How often a partition looks for stubs that have been kept long enough."""
MILLISECOND = timedelta(milliseconds=1)
"""The log's clock tells whole ones."""
IDLE_COMMIT_S = 1.0
"""Positions that only moved over records nobody hears are committed at most this late."""

log = structlog.get_logger()


@dataclass(slots=True)
class Staged:
    """What a batch will write, and what memory will hold once it is committed."""

    out: list[Out] = field(default_factory=list)
    held: dict[tuple[int, str], Held] = field(default_factory=dict)
    written: dict[tuple[int, str], bytes | None] = field(default_factory=dict)
    forgotten: dict[int, tuple[list[str], dict[int, bytes]]] = field(default_factory=dict)
    parked: dict[tuple[int, str], Parked | None] = field(default_factory=dict)
    positions: dict[Place, int] = field(default_factory=dict)
    ticked: list[tuple[int, str, datetime]] = field(default_factory=list)
    decided: int = 0
    said: int = 0


class Decide:
    """The loop of one decider.

    Args:
        service: the service whose decider it is.
        log: where it hears and says.
        rows: the rows of the context's views, for look-ups.
        settings: slot, build, partitions, batch size.
        clock: seconds since the epoch; only says when a deadline may have passed, never decides.
    """

    def __init__(self, service: ResolvedService, log: Log, rows: Rows, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        if service.decider is None:
            raise DeclarationError(f"{service.name} has no decider")
        self.name = service.name
        self._service = service
        self._decider = service.decider.decider
        self._log = log
        self._settings = settings
        self._clock = clock
        self._snapshots = Snapshots(self._decider, settings.build)
        self._set_aside = SetAside(service.name, settings.build)
        self._state_topic = service.private("state")
        self._tick_topic = service.private("ticks")
        self._inputs = service.decider_inputs
        self._looking_up = LookingUp(service, log, rows, settings.partitions)
        self._taking_apart = TakingApart(service, self._looking_up)
        self._saying = Saying(service, service.decider, log, settings.build)
        self._taking_over = TakingOver(service, self._inputs, self._snapshots, log, settings)
        self._partitions: dict[int, Partition] = {}
        self._former: dict[int, Partition] = {}
        self._moved: set[int] = set()
        self._member = False
        self._idle_since = time.monotonic()
        self.decided = 0
        self.said = 0
        self.set_aside = 0
        self.recovered = 0
        self.replaced = 0
        self._producer = log.producer(f"{self.name}.decide.{settings.slot}")
        self._consumer: Consumer = log.group_consumer(
            self.name, f"{self.name}.{settings.slot}", self._inputs, self._assigned, self._revoked
        )

    def step(self, timeout_s: float) -> bool:
        """Decide what has come.

        Args:
            timeout_s: how long to wait if nothing has come, in seconds.

        Returns:
            Whether anything was committed.

        Raises:
            Fenced: another process took this slot.
            WorkerEnded: the worker cannot go on; its slot starts again.
        """
        staged = Staged()
        self._tick(staged)
        came = self._retried()
        waiting = any(partition.held_back for partition in self._partitions.values())
        if not came and not staged.out:
            polled = self._consumer.poll(self._settings.batch, min(timeout_s, RETRY_AFTER_S) if waiting else timeout_s)
            came = [self._taking_apart.came(record) for record in polled if self._may_decide(record)]
        if came:
            self._decide(came, staged)
        try:
            return self._commit(staged)
        except Fenced:
            raise
        except WorkerEnded as error:
            self._recover(error)
            return False

    def status(self) -> dict[str, Any]:
        """What it holds and waits for, for people and probes."""
        now = time.monotonic()
        return {
            "decided": self.decided,
            "said": self.said,
            "quarantined": self.set_aside,
            "recovered": self.recovered,
            "replaced": self.replaced,
            "partitions": {
                partition.number: {
                    "aggregates": len(partition.aggregates),
                    "at_hand": partition.aggregates.at_hand,
                    "finished": partition.aggregates.finished,
                    "forgotten": len(partition.forgotten),
                    "positions": dict(partition.positions),
                    "parked": sorted(partition.parked),
                    "frozen": partition.frozen,
                    "waiting": len(partition.held_back),
                    "waits_for": partition.waits_for,
                    "waits_s": round(now - partition.waits_since, 3) if partition.waits_for else 0.0,
                    "deadlines": len(partition.deadlines),
                }
                for partition in list(self._partitions.values())
            },
        }

    @property
    def ready(self) -> bool:
        """Whether it has its share of the partitions and none of them is frozen."""
        return self._member and not any(partition.frozen for partition in list(self._partitions.values()))

    def held(self, key: str) -> Held | None:
        """What is held of an aggregate, if its partition is here."""
        for partition in self._partitions.values():
            if (held := partition.aggregates.get(key)) is not None:
                return held
        return None

    def close(self) -> None:
        """Leave the group, then let go of the producer."""
        self._consumer.close()
        log.info("consumer closed", service=self.name, slot=self._settings.slot)
        self._producer.close()
        log.info("producer closed", service=self.name, slot=self._settings.slot)

    # Taking over and letting go: called by the consumer inside poll, between two batches.

    def _assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        numbers = sorted({number for _, number in places})
        lacking = [(topic, n) for n in numbers for topic in self._inputs if (topic, n) not in set(places)]
        if lacking:
            raise WorkerEnded(
                f"{self.name} got partition {lacking[0][1]} of some inputs without {lacking[0][0]}: "
                f"every topic must have {self._settings.partitions} partitions; see `backbone topics plan`"
            )
        taken = {number: self._taken_over(number) for number in numbers}
        self._partitions.update(taken)
        self._former.clear()
        self._member = True
        log.info("assigned", service=self.name, partitions=numbers)
        return {(topic, number): partition.positions[topic] for number, partition in taken.items() for topic in self._inputs}

    def _revoked(self, places: Sequence[Place]) -> None:
        for number in {number for _, number in places}:
            if (partition := self._partitions.pop(number, None)) is not None:
                self._former[number] = partition
        log.info("revoked", service=self.name, partitions=sorted({number for _, number in places}))

    def _taken_over(self, number: int) -> Partition:
        committed = self._consumer.committed([(topic, number) for topic in self._inputs])
        partition = self._taking_over.take_over(number, committed, self._producer, self._former.pop(number, None))
        if self._decider.deadline is not None:
            for key, held in partition.aggregates.items():
                self._arm(partition, key, held)
        if partition.frozen:
            self._consumer.pause([(topic, number) for topic in self._inputs])
            log.error("partition paused", service=self.name, partition=number, reason=partition.frozen)
        return partition

    def _recover(self, error: WorkerEnded) -> None:
        """Begin again from the log, on a new producer: whether the batch is in the log or not, the log knows."""
        self.recovered += 1
        log.warning("recovering", service=self.name, reason=str(error))
        self._producer.renew()
        for number, former in list(self._partitions.items()):
            partition = self._taken_over(number)
            self._partitions[number] = partition
            places = [(topic, number) for topic in self._inputs]
            if (former.waits_for or former.frozen) and not partition.frozen:
                self._consumer.resume(places)
            for topic, _ in places:
                self._consumer.seek((topic, number), partition.positions[topic])

    def _blank(self) -> Held:
        return Held(self._decider.state())

    # One batch.

    def _may_decide(self, record: Record) -> bool:
        partition = self._partitions.get(record.partition)
        return partition is not None and not partition.frozen and record.offset >= partition.positions[record.topic]

    def _decide(self, came: Sequence[Came], staged: Staged) -> None:
        wanted = [one.wanted for some in came for one in (some, *(some.released or ())) if one.wanted is not None]
        answers: Answers = {}
        unavailable = ""
        try:
            answers = self._looking_up.fetch(wanted)
        except Unavailable as error:
            unavailable = str(error)
        for one in came:
            partition = self._partitions[one.record.partition]
            if partition.held_back:
                partition.held_back.append(one)
                continue
            try:
                if unavailable and any(some.wanted is not None for some in (one, *(one.released or ()))):
                    raise NotYet(unavailable)
                if one.released is not None:
                    self._release(partition, one, answers, staged)
                else:
                    self._decide_one(partition, one, answers, staged)
            except (NotYet, Unavailable) as error:
                self._hold_back(partition, one, str(error))
                continue
            staged.positions[one.record.topic, partition.number] = one.record.offset + 1
            staged.decided += 1
            partition.heard_ms = max(partition.heard_ms, one.record.timestamp_ms)

    def _hold_back(self, partition: Partition, came: Came, reason: str) -> None:
        partition.held_back.append(came)
        self._consumer.pause([(topic, partition.number) for topic in self._inputs])
        now = time.monotonic()
        if not partition.waits_for:
            partition.waits_since = now
            log.info("waiting", service=self.name, partition=partition.number, order_id=came.meta.correlation_id, reason=reason)
        partition.waits_for = reason
        partition.retry_at = now + RETRY_AFTER_S

    def _retried(self) -> list[Came]:
        """Records that waited long enough to be tried again; their partitions are fetched again once they are through."""
        came: list[Came] = []
        for partition in self._partitions.values():
            if partition.held_back and partition.retry_at <= time.monotonic():
                came.extend(partition.held_back)
                partition.held_back.clear()
            elif partition.waits_for and not partition.held_back:
                partition.waits_for = ""
                self._consumer.resume([(topic, partition.number) for topic in self._inputs])
        return came

    def _release(self, partition: Partition, came: Came, answers: Answers, staged: Staged) -> None:
        """Decide what an operator releases: all of it or, while rows are missing, nothing yet."""
        assert came.released is not None
        for one in came.released:
            if one.wanted is not None:
                with suppress(DataLoss):  # a damaged row parks the record when it is decided below
                    self._looking_up.found(one.wanted, answers)
        at = (partition.number, came.key)
        parked = staged.parked[at] if at in staged.parked else partition.parked.get(came.key)
        if parked is not None and parked.waiting != came.count:
            log.warning("release is out of date", service=self.name, aggregate=came.key, waiting=parked.waiting, released=came.count)
            return
        if parked is not None:
            staged.parked[at] = None
            staged.out.append(Out(self._state_topic, entry_key(came.key, PARKED), None, partition.number))
        for one in came.released:
            self._decide_one(partition, one, answers, staged)
        log.info("released", service=self.name, aggregate=came.key, records=len(came.released), operator=came.event.operator)

    def _decide_one(self, partition: Partition, came: Came, answers: Answers, staged: Staged) -> None:
        at = (partition.number, came.key)
        if came.wrong is not None:
            self._quarantine(staged, came, *came.wrong)
            return
        if came.line is None:
            return
        parked = staged.parked[at] if at in staged.parked else partition.parked.get(came.key)
        if parked is not None:
            self._quarantine(staged, came, QUARANTINE_REASON_BEHIND_PARKED, f"behind {parked.topic}/{parked.partition}@{parked.offset}")
            self._keep_parked(partition, came.key, staged, parked)
            return
        known = staged.held.get(at) or partition.aggregates.get(came.key)
        held = known or self._blank()
        if isinstance(came.event, Tick) and not self._in_time(partition, came.key, held, came.event):
            return
        if known is None and partition.forgotten and came.key in partition.forgotten:
            self._quarantine(
                staged, came, QUARANTINE_REASON_INVALID, f"{came.key} was finished, and forgotten {self._decider.forget_after} later"
            )
            return
        try:
            looked_up, observed = self._looking_up.found(came.wanted, answers) if came.wanted is not None else ([], [])
            out, after = self._saying.say(partition.number, came, held, looked_up, observed)
        except (NotYet, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a decision raises is a defect that must stop its key, and only its key
            self._park(partition, came, staged, error)
            return
        if out:
            staged.out.extend(out)
            staged.held[at] = after
            staged.said += len(out)

    def _quarantine(
        self, staged: Staged, came: Came, reason: QuarantineReason.ValueType, detail: str, error: Exception | None = None
    ) -> None:
        key, value = self._set_aside.record(came.record, reason, detail, aggregate=came.key, error=error)
        staged.out.append(Out(self._set_aside.topic, key, value, came.record.partition))
        self.set_aside += 1
        log.warning(
            "quarantined",
            service=self.name,
            order_id=came.meta.correlation_id,
            topic=came.record.topic,
            partition=came.record.partition,
            offset=came.record.offset,
            reason=QuarantineReason.Name(reason),
            detail=detail,
        )

    def _park(self, partition: Partition, came: Came, staged: Staged, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        self._quarantine(staged, came, QUARANTINE_REASON_RAISED, reason, error)
        record = came.record
        self._keep_parked(
            partition,
            came.key,
            staged,
            Parked(topic=record.topic, partition=record.partition, offset=record.offset, reason=reason[:1000]),
        )

    def _keep_parked(self, partition: Partition, key: str, staged: Staged, parked: Parked) -> None:
        """Keep the mark of a parked aggregate, with one more record in quarantine."""
        more = Parked()
        more.CopyFrom(parked)
        more.waiting += 1
        entry = StateEntry(version=self._decider.version, build=self._settings.build, parked=more)
        staged.out.append(Out(self._state_topic, entry_key(key, PARKED), entry.SerializeToString(), partition.number))
        staged.parked[partition.number, key] = more

    # Deadlines.

    def _due(self, held: Held) -> datetime | None:
        due: datetime | None = self._decider.deadline.due(held.state) if self._decider.deadline and self._decider.deadline.due else None
        return due

    def _in_time(self, partition: Partition, key: str, held: Held, tick: Tick) -> bool:
        """Whether a tick is about what is still waited for, and true: our clock may be fast, the log's says when the tick was written."""
        if self._due(held) != tick.due:
            return False
        if tick.at + MILLISECOND > tick.due:
            return True
        partition.deadlines.too_early(key, tick.due, (tick.due - tick.at).total_seconds())
        return False

    def _arm(self, partition: Partition, key: str, held: Held) -> None:
        if self._decider.deadline is not None:
            partition.deadlines.arm(key, self._due(held))

    def _tick(self, staged: Staged) -> None:
        """Write a tick for every deadline that has passed, once everything that came before has been decided."""
        if self._decider.deadline is None:
            return
        now = datetime.fromtimestamp(self._clock(), tz=UTC)
        reached: Mapping[Place, int] | None = None
        for partition in self._partitions.values():
            deadlines = partition.deadlines
            if passing := deadlines.passing(now):
                try:
                    ends = self._log.high_watermarks([(topic, partition.number) for topic in self._inputs])
                except Unavailable:
                    deadlines.put_back(passing)
                    return
                deadlines.await_(passing, ends)
            if deadlines.waiting and not partition.held_back and not partition.frozen:
                reached = self._consumer.positions() if reached is None else reached
                for key, due in deadlines.ripe(reached, self._settings.batch):
                    staged.out.append(self._tick_record(partition, key, due))
                    staged.ticked.append((partition.number, key, due))

    def _tick_record(self, partition: Partition, key: str, due: datetime) -> Out:
        stamp = Timestamp()
        stamp.FromDatetime(due)
        identity = f"{self.name}:tick:{key}:{due.isoformat()}"
        held = partition.aggregates.get(key) or self._blank()
        meta = Meta(id=identity, correlation_id=held.correlation_id, writer=self.name, build=self._settings.build, occurred_at=stamp)
        tick = TickRecord(key=key, due=stamp, meta=meta)
        return Out(self._tick_topic, entry_key(key, due.isoformat()), tick.SerializeToString(), partition.number)

    # Forgetting.

    def _forget(self, staged: Staged) -> None:
        """Stage the end of stubs that have been kept long enough, by the clock of the log, in partitions that have decided something."""
        if self._decider.forget_after is None:
            return
        now, kept_ms = time.monotonic(), round(self._decider.forget_after.total_seconds() * 1000)
        for number in {number for _, number in staged.positions}:
            partition = self._partitions[number]
            if now < partition.look_at:
                continue
            partition.look_at = now + FORGET_EVERY_S
            keys = [
                key
                for key, held in partition.aggregates.stubs(self._settings.batch)
                if held.done_at_ms + kept_ms <= partition.heard_ms and not self._in_use(partition, key, staged)
            ]
            if not keys:
                continue
            buckets = partition.forgotten.with_more(keys)
            staged.forgotten[number] = (keys, buckets)
            staged.out += [Out(self._state_topic, entry_key(key, AGGREGATE), None, number) for key in keys]
            for bucket, fingerprints in buckets.items():
                entry = forgotten_entry(self._decider.version, self._settings.build, bucket, fingerprints)
                staged.out.append(Out(self._state_topic, *entry, number))
            log.info("forgotten", service=self.name, partition=number, aggregates=len(keys))

    def _in_use(self, partition: Partition, key: str, staged: Staged) -> bool:
        at = (partition.number, key)
        return at in staged.held or at in staged.parked or key in partition.parked

    # The end of a batch.

    def _commit(self, staged: Staged) -> bool:
        now = time.monotonic()
        self._forget(staged)
        if not staged.out:
            for (topic, number), offset in staged.positions.items():
                self._partitions[number].positions[topic] = offset
            self.decided += staged.decided
            staged.decided = 0
            self._moved.update(number for _, number in staged.positions)
            if not self._moved or now - self._idle_since < IDLE_COMMIT_S:
                return False
        self._idle_since = now
        decided = {number for _, number in staged.positions} | (self._moved & self._partitions.keys())
        self._moved.clear()
        offsets = {(topic, n): offset for n in decided for topic, offset in self._partitions[n].positions.items()} | staged.positions
        known = self._known(decided, now)
        self._producer.begin()
        produce = self._producer.produce
        for topic, raw_key, value, number in staged.out:
            produce(topic, raw_key, value, number)
        for (number, key), held in staged.held.items():
            entry: bytes | None = None
            for raw_key, entry in self._snapshots.entries(key, held):
                produce(self._state_topic, raw_key, entry, number)
            staged.written[number, key] = None if self._snapshots.in_parts else entry
        for number in decided:
            raw_key, value = positions_entry(self._decider.version, self._settings.build, number, offsets)
            produce(self._state_topic, raw_key, value, number)
        if offsets:
            self._producer.send_offsets(offsets, self._consumer)
        self._producer.commit()
        for number, mark in known.items():
            self._partitions[number].known, self._partitions[number].known_at = mark, now
        self._apply(staged)
        if self._producer.suspect:
            self.replaced += 1
            log.warning("producer replaced", service=self.name, reason=self._producer.suspect)
            self._producer.renew()
        return True

    def _known(self, numbers: set[int], now: float) -> Mapping[int, int]:
        """Ends of state partitions, now and then: once a commit after this proves that we own them still, all below is ours."""
        due = [number for number in numbers if now - self._partitions[number].known_at >= KNOWN_EVERY_S]
        try:
            marks = self._log.high_watermarks([(self._state_topic, number) for number in due]) if due else {}
        except Unavailable:
            return {}  # it only spares work later
        return {number: mark for (_, number), mark in marks.items()}

    def _apply(self, staged: Staged) -> None:
        for (topic, number), offset in staged.positions.items():
            self._partitions[number].positions[topic] = offset
        for (number, key), held in staged.held.items():
            partition = self._partitions[number]
            partition.aggregates.keep(key, self._snapshots.kept(held), staged.written[number, key])
            self._arm(partition, key, held)
        for (number, key), parked in staged.parked.items():
            if parked is None:
                self._partitions[number].parked.pop(key, None)
            else:
                self._partitions[number].parked[key] = parked
        for number, (keys, buckets) in staged.forgotten.items():
            partition = self._partitions[number]
            for key in keys:
                partition.aggregates.drop(key)
            for bucket, fingerprints in buckets.items():
                partition.forgotten.put(bucket, fingerprints)
        for number, key, due in staged.ticked:
            self._partitions[number].deadlines.ticked(key, due)
        self.decided += staged.decided
        self.said += staged.said

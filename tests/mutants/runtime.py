"""Mistakes in the runtime, its ports and what it writes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from backbone import envelope
from backbone.adapters.memory import MemoryConsumer, _MemoryMember
from backbone.adapters.memory_rows import MemoryRows, _Held
from backbone.declare import Tick
from backbone.errors import Unconfirmed, WorkerEnded
from backbone.loops import holding, saying
from backbone.loops.act import Act, _Holding
from backbone.loops.deadlines import Deadlines
from backbone.loops.decide import Decide, Staged
from backbone.loops.holding import Partition
from backbone.loops.looking_up import LookingUp
from backbone.loops.project import Project
from backbone.loops.snapshots import Held
from backbone.loops.take_in import BoundIntake
from backbone.ports import Change, Consumer, Fragment, Place, Record
from backbone.testing.simulated.log import SimulatedLog
from backbone.testing.simulated.ports import GatedConsumer, GatedLog, GatedProducer, GatedRows
from backbone.v1.private_pb2 import StateEntry
from contexts.ordering.orders import decisions as orders
from tests.mutants.lines import decided_by
from tests.mutants.planting import Mutant, Patches


def _offsets_first() -> Patches:
    def send_offsets(self: GatedProducer, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        assert isinstance(consumer, GatedConsumer)
        assert isinstance(consumer.real, _MemoryMember)
        consumer.real._log.groups[consumer.real.group].committed.update(offsets)
        right(self, offsets, consumer)

    right = GatedProducer.send_offsets
    return [(GatedProducer, "send_offsets", send_offsets)]


def _no_offsets() -> Patches:
    return [(GatedProducer, "send_offsets", lambda self, offsets, consumer: self._gate.leave(self._enter("send_offsets")))]


def _memory_first() -> Patches:
    def commit(self: Decide, staged: Staged) -> bool:
        if staged.out:
            self._apply(staged)
        return right(self, staged)

    right = Decide._commit
    return [(Decide, "_commit", commit), (Decide, "_recover", lambda self, error: self._producer.renew())]


def _memory_kept() -> Patches:
    def recover(self: Decide, error: WorkerEnded) -> None:
        self._producer.renew()
        for number, partition in self._partitions.items():
            for topic, offset in partition.positions.items():
                self._consumer.seek((topic, number), offset)

    return [(Decide, "_recover", recover)]


def _watermark_first() -> Patches:
    def apply(self: GatedRows, fragment: Fragment, change: Change) -> int | None:
        found = right(self, fragment, Change(change.since, change.until))
        return (
            found
            if found is not None
            else right(self, fragment, Change(change.until, change.until, change.rows, change.indexed, change.upstream))
        )

    right = GatedRows.apply
    return [(GatedRows, "apply", apply)]


def _no_fence() -> Patches:
    def apply(self: MemoryRows, fragment: Fragment, change: Change) -> int | None:
        self._fragments.setdefault(fragment, _Held()).watermark = change.since
        return right(self, fragment, change)

    right = MemoryRows.apply
    return [(MemoryRows, "apply", apply)]


def _absence_believed() -> Patches:
    return [(LookingUp, "_ends", lambda self, fragments: dict.fromkeys(fragments, 0))]


def _read_committed_end() -> Patches:
    def high_watermarks(self: GatedLog, places: Sequence[Place]) -> Mapping[Place, int]:
        found = right(self, places)
        assert isinstance(self._real, SimulatedLog)
        return self._real.ends(places) if all(topic.endswith(".state") for topic, _ in places) else found

    right = GatedLog.high_watermarks
    return [(GatedLog, "high_watermarks", high_watermarks)]


def _random_ids() -> Patches:
    def because_of(**of: Any) -> envelope.Said:
        return envelope.Said(f"{of['writer']}:{lot.getrandbits(64)}", right(**of).tail)

    right, lot = envelope.because_of, Random(1)
    return [(saying, "because_of", because_of)]


def _hasty() -> Patches:
    def ripe(self: Deadlines, reached: Mapping[Place, int], limit: int) -> Iterator[tuple[str, Any]]:
        yield from [(key, due) for key, (due, _) in self._passed.items() if self._ticked.get(key) != due]

    return [(Deadlines, "ripe", ripe)]


def _own_clock() -> Patches:
    def in_time(self: Decide, partition: Partition, key: str, held: Held, tick: Tick) -> bool:
        return self._due(held) == tick.due

    return [(Decide, "_in_time", in_time)]


def _written_at_once(purpose: str, *, tombstones: bool) -> Callable[[], Patches]:
    def plant() -> Patches:
        def produce(self: GatedProducer, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
            real: Any = self._real
            if topic.endswith(purpose) and (value is None) is tombstones:
                with real._log.changed:
                    real._log.write(topic, key, value, partition, None)
            else:
                right(self, topic, key, value, partition)

        right = GatedProducer.produce
        return [(GatedProducer, "produce", produce)]

    return plant


def _effects_from_the_end() -> Patches:
    def assigned(self: Act, places: Sequence[Place]) -> dict[Place, int]:
        right(self, places)
        return {place: self._held[place].until for place in places}

    right = Act._assigned
    return [(Act, "_assigned", assigned)]


def _effects_before_restored() -> Patches:
    def init(self: Any, place: Place, start: int, until: int) -> None:
        right(self, place, start, until, live=True)

    right = _Holding.__init__
    return [(_Holding, "__init__", init)]


def _dirty_reads() -> Patches:
    def take_from(self: MemoryConsumer, place: Place, limit: int, *_: object) -> list[Record]:
        entries, position = self._log.entries(place), self._positions[place]
        if limit <= 0:
            return []
        found = [entry.record for entry in entries[position:] if entry.record is not None][:limit]
        self._positions[place] = found[-1].offset + 1 if found and len(found) == limit else len(entries)
        return found

    return [(MemoryConsumer, "_take_from", take_from)]


def _nobody_fenced() -> Patches:
    def producer(self: GatedLog, transactional_id: str) -> GatedProducer:
        return right(self, f"{transactional_id}.{next(numbers)}")

    right, numbers = GatedLog.producer, itertools.count()
    return [(GatedLog, "producer", producer), *_no_offsets()]


def _offsets_alone() -> Patches:
    return [(holding, "from_proto", lambda positions: {})]


def _suspicion_ignored() -> Patches:
    return [(GatedProducer, "suspect", None)]


def _unchecked(self: Any) -> None:
    pass


def _view_believes_itself() -> Patches:
    return [(Project, "_look", _unchecked)]


def _dropped(topic: str, lands: Callable[[bytes | None, bytes | None], bool], share: float = 0.1) -> Callable[[], Patches]:
    """Some records of a topic never get there."""

    def plant() -> Patches:
        def produce(self: GatedProducer, name: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
            if not (name.endswith(topic) and lands(key, value) and lot.random() < share):
                right(self, name, key, value, partition)

        right, lot = GatedProducer.produce, Random(1)
        return [(GatedProducer, "produce", produce)]

    return plant


def _is_state(key: bytes | None, value: bytes | None) -> bool:
    return value is not None and StateEntry.FromString(value).WhichOneof("entry") == "aggregate"


def _nothing_observed() -> Patches:
    def because_of(**of: Any) -> envelope.Said:
        return right(**{**of, "observed": ()})

    right = envelope.because_of
    return [(saying, "because_of", because_of)]


def _short_memory() -> Patches:
    def because_of(**of: Any) -> envelope.Said:
        meta = type(of["meta"])()
        meta.CopyFrom(of["meta"])
        del meta.after[:]
        return right(**{**of, "meta": meta})

    right = envelope.because_of
    return [(saying, "because_of", because_of)]


def _skips() -> Patches:
    def may_decide(self: Decide, record: Record) -> bool:
        return right(self, record) and lot.random() > 0.03

    right, lot = Decide._may_decide, Random(1)
    return [(Decide, "_may_decide", may_decide)]


def _poison_dropped() -> Patches:
    """A decision that raises loses its record, and nobody hears of it."""

    def cancel(order: Any, request: Any) -> Iterator[Any]:
        if order.reserved:
            raise ValueError("planted")
        yield from orders.cancel(order, request)

    return [(decided_by(orders.cancel), "function", cancel), (Decide, "_park", lambda self, partition, came, staged, error: None)]


def _taken_on_trust() -> Patches:
    async def raise_(self: BoundIntake, event: Any, **of: Any) -> Mapping[Place, int]:
        try:
            return await right(self, event, **of)
        except Unconfirmed:
            return {("retail.gateway.order-requests.v1", 0): 1}

    right = BoundIntake.__call__
    return [(BoundIntake, "__call__", raise_)]


def _uniform() -> Patches:
    """Partitions of all inputs are dealt out evenly, whatever their numbers, and workers take what they get."""

    def share(self: _MemoryMember, members: Sequence[str]) -> list[Place]:
        places = [(topic, number) for topic in sorted(self._topics) for number in range(self._log.partitions(topic))]
        at = members.index(self._member.instance)
        return places[len(places) * at // len(members) : len(places) * (at + 1) // len(members)]

    def assigned(self: Decide, places: Sequence[Place]) -> Mapping[Place, int]:
        numbers = sorted({number for _, number in places})
        starts = right(self, [(topic, number) for topic in self._inputs for number in numbers])
        return {place: starts[place] for place in places}

    def seek(self: GatedConsumer, place: Place, offset: int) -> None:
        if place in self.real.positions():
            past(self, place, offset)

    right, past = Decide._assigned, GatedConsumer.seek
    return [(_MemoryMember, "_share", share), (Decide, "_assigned", assigned), (GatedConsumer, "seek", seek)]


OF_RUNTIME: Mapping[str, Mutant] = {
    "offsets first": Mutant(
        "the offsets are committed before what was decided", _offsets_first, ("skipped", "acknowledged", "law: answered")
    ),
    "no offsets": Mutant(
        "the transaction holds no offsets, so nobody fences who lost a partition", _no_offsets, ("one outcome", "one reaction"), first=6
    ),
    "memory first": Mutant(
        "what is staged is in memory before it is committed, and stays there if it is not", _memory_first, ("law: sequence", "skipped")
    ),
    "memory kept": Mutant(
        "after a commit of unknown outcome the same batch is decided again from memory",
        _memory_kept,
        ("one reaction", "unique ids"),
        first=5,
    ),
    "watermark first": Mutant("the watermark is written before the rows", _watermark_first, ("view",)),
    "no fence": Mutant("rows are written whatever their watermark is", _no_fence, ("view",)),
    "absence believed": Mutant("a row that is absent counts as absent at once", _absence_believed, ("absence",), first=29),
    "read committed end": Mutant(
        "a state is restored up to the end of what is committed now", _read_committed_end, ("law: sequence", "state")
    ),
    "random ids": Mutant("an event gets a new identity each time it is decided", _random_ids, ("cause", "one reaction")),
    "hasty": Mutant("a deadline expires without waiting for what lies in the log", _hasty, ("expiry",), first=9),
    "own clock": Mutant("a tick counts even if it was written before its time", _own_clock, ("expiry",)),
    "tombstone first": Mutant(
        "a command is closed before its outcome", _written_at_once(".commands", tombstones=True), ("one outcome",), first=25
    ),
    "cursor first": Mutant(
        "the cursor moves before the events of a source are written", _written_at_once(".cursor", tombstones=False), ("skipped",), first=4
    ),
    "effects from the end": Mutant("effects start with what comes from now on", _effects_from_the_end, ("one outcome",)),
    "effects before restored": Mutant("effects start before they know what is done", _effects_before_restored, ("one outcome",)),
    "dirty reads": Mutant("what is not committed is read", _dirty_reads, ("aborted read",)),
    "nobody fenced": Mutant(
        "every start has its own transactional id, and offsets fence nobody either", _nobody_fenced, ("one outcome", "unique ids"), first=5
    ),
    "offsets alone": Mutant("positions recorded with the state are ignored", _offsets_alone, ("one reaction", "one outcome")),
    "suspicion ignored": Mutant("a producer goes on after a suspect commit", _suspicion_ignored, ("law: copies", "law: sequence")),
    "view believes itself": Mutant("a view never compares its watermark while nothing comes", _view_believes_itself, ("view",), first=5),
    "copy torn off": Mutant(
        "a copy is not written in the transaction of its event", _dropped("orders-by-zone.v1", lambda key, value: True), ("law: copies",)
    ),
    "state torn off": Mutant(
        "a state is not written in the transaction of its events", _dropped(".state", _is_state, 0.3), ("state", "law: sequence")
    ),
    "nothing observed": Mutant("a refusal does not say what was looked up", _nothing_observed, ("absence",)),
    "short memory": Mutant("an event does not say what its cause came after", _short_memory, ("cause",)),
    "skips": Mutant("a record is passed over", _skips, ("skipped",)),
    "poison dropped": Mutant("a record whose decision raises is dropped, not set aside", _poison_dropped, ("skipped",), first=2),
    "taken on trust": Mutant("a wish is acknowledged that nobody knows to be in the log", _taken_on_trust, ("acknowledged",), first=6),
    "uniform": Mutant(
        "partitions are dealt out evenly, whatever their number, and workers take what they get",
        _uniform,
        ("law: sequence", "one reaction"),
        first=8,
    ),
}
"""Every one, by name."""

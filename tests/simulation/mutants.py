"""Mistakes that can be planted in the runtime, the ports or the shop; each must turn some run red, and is green without."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

from retail.fulfilment.v1.stock_pb2 import StockReceived

from backbone import envelope
from backbone.adapters.memory import MemoryConsumer, _MemoryMember
from backbone.adapters.memory_rows import MemoryRows, _Held
from backbone.declare import On, Tick
from backbone.errors import WorkerEnded
from backbone.loops import decide, holding
from backbone.loops.act import Act, _Holding
from backbone.loops.deadlines import Deadlines
from backbone.loops.decide import Decide, Staged
from backbone.loops.holding import Partition
from backbone.loops.looking_up import LookingUp
from backbone.loops.project import Project
from backbone.loops.snapshots import Held
from backbone.ports import Change, Consumer, Fragment, Place, Record
from backbone.testing.simulated.log import SimulatedLog
from backbone.testing.simulated.ports import GatedConsumer, GatedLog, GatedProducer, GatedRows
from contexts.fulfilment.stock import decisions as stock
from contexts.fulfilment.stock.state import evolve
from contexts.payments.payments import effects
from tests.simulation.shop import services


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        about: what is done wrong, in a sentence.
        plant: puts it in the place of what is right: owner, name and what comes there instead.
        first: the seed from which it is looked for: one near by shows it.
    """

    about: str
    plant: Callable[[], Sequence[tuple[Any, str, Any]]]
    first: int = 1


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a mistake, or none."""
    patches = [patch.object(*one) for one in (MUTANTS[name].plant() if name is not None else ())]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in reversed(patches):
            one.stop()


def _offsets_first() -> Sequence[tuple[Any, str, Any]]:
    def send_offsets(self: GatedProducer, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        assert isinstance(consumer, GatedConsumer)
        assert isinstance(consumer.real, _MemoryMember)
        consumer.real._log.groups[consumer.real.group].committed.update(offsets)
        right(self, offsets, consumer)

    right = GatedProducer.send_offsets
    return [(GatedProducer, "send_offsets", send_offsets)]


def _no_offsets() -> Sequence[tuple[Any, str, Any]]:
    return [(GatedProducer, "send_offsets", lambda self, offsets, consumer: self._gate.leave(self._enter("send_offsets")))]


def _memory_first() -> Sequence[tuple[Any, str, Any]]:
    def commit(self: Decide, staged: Staged) -> bool:
        if staged.out:
            self._apply(staged)
        return right(self, staged)

    right = Decide._commit
    return [(Decide, "_commit", commit), (Decide, "_recover", lambda self, error: self._producer.renew())]


def _memory_kept() -> Sequence[tuple[Any, str, Any]]:
    def recover(self: Decide, error: WorkerEnded) -> None:
        self._producer.renew()
        for number, partition in self._partitions.items():
            for topic, offset in partition.positions.items():
                self._consumer.seek((topic, number), offset)

    return [(Decide, "_recover", recover)]


def _watermark_first() -> Sequence[tuple[Any, str, Any]]:
    def apply(self: GatedRows, fragment: Fragment, change: Change) -> int | None:
        found = right(self, fragment, Change(change.since, change.until))
        return (
            found
            if found is not None
            else right(self, fragment, Change(change.until, change.until, change.rows, change.indexed, change.upstream))
        )

    right = GatedRows.apply
    return [(GatedRows, "apply", apply)]


def _no_fence() -> Sequence[tuple[Any, str, Any]]:
    def apply(self: MemoryRows, fragment: Fragment, change: Change) -> int | None:
        self._fragments.setdefault(fragment, _Held()).watermark = change.since
        return right(self, fragment, change)

    right = MemoryRows.apply
    return [(MemoryRows, "apply", apply)]


def _absence_believed() -> Sequence[tuple[Any, str, Any]]:
    return [(LookingUp, "_ends", lambda self, fragments: dict.fromkeys(fragments, 0))]


def _read_committed_end() -> Sequence[tuple[Any, str, Any]]:
    def high_watermarks(self: GatedLog, places: Sequence[Place]) -> Mapping[Place, int]:
        found = right(self, places)
        assert isinstance(self._real, SimulatedLog)
        return self._real.ends(places) if all(topic.endswith(".state") for topic, _ in places) else found

    right = GatedLog.high_watermarks
    return [(GatedLog, "high_watermarks", high_watermarks)]


def _random_ids() -> Sequence[tuple[Any, str, Any]]:
    def because_of(**of: Any) -> envelope.Said:
        return envelope.Said(f"{of['writer']}:{lot.getrandbits(64)}", right(**of).tail)

    right, lot = envelope.because_of, Random(1)
    return [(decide, "because_of", because_of)]


def _hasty() -> Sequence[tuple[Any, str, Any]]:
    def ripe(self: Deadlines, reached: Mapping[Place, int], limit: int) -> Iterator[tuple[str, Any]]:
        yield from [(key, due) for key, (due, _) in self._passed.items() if self._ticked.get(key) != due]

    return [(Deadlines, "ripe", ripe)]


def _own_clock() -> Sequence[tuple[Any, str, Any]]:
    def in_time(self: Decide, partition: Partition, key: str, held: Held, tick: Tick) -> bool:
        return self._due(held) == tick.due

    return [(Decide, "_in_time", in_time)]


def _written_at_once(purpose: str, *, tombstones: bool) -> Callable[[], Sequence[tuple[Any, str, Any]]]:
    def plant() -> Sequence[tuple[Any, str, Any]]:
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


def _new_keys() -> Sequence[tuple[Any, str, Any]]:
    async def ask(provider: Any, path: str, asked: dict[str, object], key: str) -> Any:
        return await right(provider, path, asked, f"{key}/{next(numbers)}")

    right, numbers = effects._ask, itertools.count()
    return [(effects, "_ask", ask)]


def _line(function: Any) -> On[Any, Any]:
    return next(
        reaction.line
        for service in services()
        if service.decider is not None
        for reaction in service.decider.reactions
        if reaction.line.function is function
    )


def _every_receipt() -> Sequence[tuple[Any, str, Any]]:
    def receive(pool: Any, goods: Any) -> Iterator[Any]:
        said = StockReceived(pool_id=goods.pool_id, sku=goods.sku, quantity=goods.quantity, receipt_id=goods.receipt_id)
        yield said
        yield from stock.levels_of(evolve(pool, said), said.pool_id, [said.sku])

    return [(_line(stock.receive), "function", receive)]


def _unchecked_stock() -> Sequence[tuple[Any, str, Any]]:
    return [(stock, "missing", lambda pool, wanted: [])]


def _effects_from_the_end() -> Sequence[tuple[Any, str, Any]]:
    def assigned(self: Act, places: Sequence[Place]) -> dict[Place, int]:
        right(self, places)
        return {place: self._held[place].until for place in places}

    right = Act._assigned
    return [(Act, "_assigned", assigned)]


def _effects_before_restored() -> Sequence[tuple[Any, str, Any]]:
    def init(self: Any, place: Place, start: int, until: int) -> None:
        right(self, place, start, until, live=True)

    right = _Holding.__init__
    return [(_Holding, "__init__", init)]


def _dirty_reads() -> Sequence[tuple[Any, str, Any]]:
    def take_from(self: MemoryConsumer, place: Place, limit: int, *_: object) -> list[Record]:
        entries, position = self._log.entries(place), self._positions[place]
        if limit <= 0:
            return []
        found = [entry.record for entry in entries[position:] if entry.record is not None][:limit]
        self._positions[place] = found[-1].offset + 1 if found and len(found) == limit else len(entries)
        return found

    return [(MemoryConsumer, "_take_from", take_from)]


def _nobody_fenced() -> Sequence[tuple[Any, str, Any]]:
    def producer(self: GatedLog, transactional_id: str) -> GatedProducer:
        return right(self, f"{transactional_id}.{next(numbers)}")

    right, numbers = GatedLog.producer, itertools.count()
    return [(GatedLog, "producer", producer), *_no_offsets()]


def _offsets_alone() -> Sequence[tuple[Any, str, Any]]:
    return [(holding, "from_proto", lambda positions: {})]


def _suspicion_ignored() -> Sequence[tuple[Any, str, Any]]:
    return [(GatedProducer, "suspect", None)]


def _unchecked(self: Any) -> None:
    pass


def _view_believes_itself() -> Sequence[tuple[Any, str, Any]]:
    return [(Project, "_look", _unchecked)]


MUTANTS: Mapping[str, Mutant] = {
    "offsets first": Mutant("the offsets are committed before what was decided", _offsets_first),
    "no offsets": Mutant("the transaction holds no offsets, so nobody fences who lost a partition", _no_offsets, first=6),
    "memory first": Mutant("what is staged is in memory before it is committed, and stays there if it is not", _memory_first),
    "memory kept": Mutant("after a commit of unknown outcome the same batch is decided again from memory", _memory_kept, first=5),
    "watermark first": Mutant("the watermark is written before the rows", _watermark_first),
    "no fence": Mutant("rows are written whatever their watermark is", _no_fence),
    "absence believed": Mutant("a row that is absent counts as absent at once", _absence_believed, first=29),
    "read committed end": Mutant("a state is restored up to the end of what is committed now", _read_committed_end),
    "random ids": Mutant("an event gets a new identity each time it is decided", _random_ids),
    "hasty": Mutant("a deadline expires without waiting for what lies in the log", _hasty, first=9),
    "own clock": Mutant("a tick counts even if it was written before its time", _own_clock),
    "tombstone first": Mutant("a command is closed before its outcome", _written_at_once(".commands", tombstones=True), first=25),
    "cursor first": Mutant(
        "the cursor moves before the events of a source are written", _written_at_once(".cursor", tombstones=False), first=4
    ),
    "new keys": Mutant("each try has an idempotency key of its own", _new_keys),
    "every receipt": Mutant("a receipt that came twice is put away twice", _every_receipt),
    "unchecked stock": Mutant("stock is promised without looking", _unchecked_stock),
    "effects from the end": Mutant("effects start with what comes from now on", _effects_from_the_end),
    "effects before restored": Mutant("effects start before they know what is done", _effects_before_restored),
    "dirty reads": Mutant("what is not committed is read", _dirty_reads),
    "nobody fenced": Mutant("every start has its own transactional id, and offsets fence nobody either", _nobody_fenced, first=5),
    "offsets alone": Mutant("positions recorded with the state are ignored", _offsets_alone),
    "suspicion ignored": Mutant("a producer goes on after a suspect commit", _suspicion_ignored),
    "view believes itself": Mutant("a view never compares its watermark while nothing comes", _view_believes_itself, first=5),
}
"""Every mistake, by name."""

"""The log in memory, with what else Kafka does: markers that come late, records that are seen late, compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backbone.adapters.memory import MemoryLog, MemoryProducer, _Entry, _Fate, _Transaction
from backbone.adapters.memory_rows import MemoryRows, _Held
from backbone.ports import Fragment, Place, Record
from backbone.testing.simulated.clock import Clock


@dataclass(frozen=True, slots=True)
class _Unmarked:
    """A partition of an ended transaction whose marker is still to come."""

    place: Place
    first: int
    transaction: _Transaction


class SimulatedLog(MemoryLog):
    """A log under a virtual clock; while somebody waits for it, others work.

    Args:
        meanwhile: lets others work, and time pass, for a while.

    Attributes:
        marks_late: whether the marker of a transaction in a partition is to come late.
        hidden: ends beyond which consumers do not see yet, by partition.
        watched: topics whose last event of each key is noted, with the key.
        last_said: number of the last event of each key, by topic.
    """

    def __init__(self, clock: Clock, meanwhile: Callable[[], None], transaction_timeout_s: float, session_timeout_s: float) -> None:
        super().__init__(transaction_timeout_s, session_timeout_s, now_ms=clock.log_ms, clock=clock.monotonic)
        self._meanwhile = meanwhile
        self.marks_late: Callable[[Place], bool] | None = None
        self.hidden: dict[Place, int] = {}
        self.watched: frozenset[str] = frozenset()
        self.last_said: dict[bytes, dict[str, int]] = {}
        self.appended = 0
        self._unmarked: list[_Unmarked] = []
        self._removed: dict[Place, dict[int, Record]] = {}

    def wait(self, deadline: float) -> bool:
        """Let others work."""
        if self.clock() >= deadline:
            return False
        self._meanwhile()
        return True

    def write(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int, transaction: _Transaction | None
    ) -> tuple[int, int]:
        """Append a record, and note what was said last."""
        self.appended += 1
        if topic in self.watched and key is not None and value:
            self.last_said.setdefault(key, {})[topic] = value[0] >> 3
        return super().write(topic, key, value, partition, transaction)

    def last_stable(self, place: Place) -> int:
        """The end of what may be read, and is seen."""
        end = super().last_stable(place)
        for unmarked in self._unmarked:
            if unmarked.place == place:
                end = min(end, unmarked.first)
        return min(end, self.hidden.get(place, end))

    def open(self, transactional_id: str) -> _Transaction:
        """Start a transaction; the one before of the same id is completed first."""
        self.mark(transactional_id)
        return super().open(transactional_id)

    def end(self, transaction: _Transaction, fate: _Fate) -> None:
        """End a transaction; some of its markers may come later."""
        touched = transaction.touched
        late = [] if self.marks_late is None else [place for place in touched if self.marks_late(place)]
        transaction.touched = {place: first for place, first in touched.items() if place not in late}
        super().end(transaction, fate)
        self._unmarked += [_Unmarked(place, touched[place], transaction) for place in late]

    def end_all_of(self, transactional_id: str) -> int:
        """Complete what the id ended, abort what it left open and fence its owners."""
        epoch = super().end_all_of(transactional_id)
        self.mark(transactional_id)
        return epoch

    def end_late(self, producer: MemoryProducer) -> None:
        """The end of a transaction arrives for the second time: it commits what the next one holds by now, as if that was all of it;
        the rest of it is a transaction of its own. A producer that was replaced meanwhile is safe.
        """
        with self.changed:
            if producer._epoch != self.epochs[producer._transactional_id]:
                return
            if producer._transaction is not None and producer._transaction.fate is _Fate.OPEN:
                self.end(producer._transaction, _Fate.COMMITTED)
                producer._transaction = self.open(producer._transactional_id)

    def hung_end(self, producer: MemoryProducer) -> Callable[[], None]:
        """The end of the transaction that is open now; it may arrive later, and is refused if the producer was replaced meanwhile."""
        epoch, transaction = producer._epoch, producer._transaction

        def arrive() -> None:
            with self.changed:
                if transaction is not None and transaction.fate is _Fate.OPEN and epoch == self.epochs[producer._transactional_id]:
                    self.end(transaction, _Fate.COMMITTED)

        return arrive

    def mark(self, transactional_id: str | None = None) -> None:
        """Write the markers that are still to come; of one id, or of all."""
        for unmarked in [one for one in self._unmarked if transactional_id in (None, one.transaction.transactional_id)]:
            self._unmarked.remove(unmarked)
            self.entries(unmarked.place).append(_Entry(None, unmarked.transaction))

    def compact(self, topics: Iterable[str]) -> None:
        """Keep only the last committed record of each key below the last stable offset; tombstones stay."""
        for topic in topics:
            for partition in range(self.partitions(topic)):
                self._compact((topic, partition))

    def _compact(self, place: Place) -> None:
        entries, stable = self.entries(place), self.last_stable(place)
        last = {record.key: offset for offset in range(stable) if (record := self._committed(entries[offset])) is not None}
        removed = self._removed.setdefault(place, {})
        for offset in range(stable):
            record = self._committed(entries[offset])
            if record is not None and last[record.key] != offset:
                removed[offset] = record
                entries[offset] = _Entry(None, None)

    def silence(self, group: str, instance: str, owner: object) -> None:
        """Take a member for gone: its process ended without a word."""
        member = self.groups[group].members.get(instance)
        if member is not None and member.owner is owner and member.gone_at is None:
            member.gone_at = self.clock()

    def speak(self, group: str, instance: str, owner: object) -> None:
        """Let a member that was silent go on, if it was not given up meanwhile."""
        member = self.groups[group].members.get(instance)
        if member is not None and member.owner is owner:
            member.gone_at = None

    def history(self, topic: str) -> Iterator[Record]:
        """Every committed record of a topic, also those that compaction removed."""
        for partition in range(self.partitions(topic)):
            place = (topic, partition)
            removed = self._removed.get(place, {})
            for offset, entry in enumerate(self.entries(place)):
                record = removed.get(offset) or self._committed(entry)
                if record is not None:
                    yield record

    def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Ends of what may be read."""
        with self.changed:
            return {place: self.last_stable(place) for place in places}

    @staticmethod
    def _committed(entry: _Entry) -> Record | None:
        record, transaction = entry
        return record if transaction is None or transaction.fate is _Fate.COMMITTED else None


class SimulatedRows(MemoryRows):
    """Rows that can be copied and rolled back."""

    def copy(self) -> dict[Fragment, _Held]:
        """What lies there now."""
        return {
            fragment: _Held(held.watermark, dict(held.rows), {name: dict(of) for name, of in held.indexes.items()}, set(held.upstream))
            for fragment, held in self._fragments.items()
        }

    def restore(self, copy: dict[Fragment, _Held]) -> None:
        """Go back to an earlier copy."""
        self._fragments = copy

    def lies(self, fragment: Fragment) -> _Held:
        """What lies in a fragment."""
        return self._fragments.get(fragment) or _Held()

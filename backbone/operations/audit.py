"""Who wrote what, and because of what: every record of the log held against ownership and causality.

A record can have the right writer, key and next sequence and still be forged: its identity names the coordinate of its cause, and there
must lie a record that its writer hears, with the identity it calls its cause, of the same conversation. What is said because of one
record is numbered from 0 without a gap, and nothing is said twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backbone.declare import Platform
from backbone.operations.decoding import Decoder, Entry, Kind, coordinate
from backbone.operations.scan import Progress, Scan, existing
from backbone.ports import Log, Record
from backbone.settings import Settings
from backbone.topology import Kept, Topology, topology

Coordinate = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A record that breaks ownership or causality.

    Attributes:
        place: topic/partition@offset.
        law: what it breaks, in two words.
        what: how.
    """

    place: str
    law: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.law}: {self.what}"


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit saw.

    Attributes:
        records: how many were looked at.
        unread: partitions that could not be read to the end, because a transaction is open there.
    """

    records: int
    wrong: tuple[Wrong, ...]
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it for programs."""
        wrong = [{"place": one.place, "law": one.law, "what": one.what} for one in self.wrong]
        return {"records": self.records, "wrong": wrong, "unread": list(self.unread)}


@dataclass(frozen=True, slots=True)
class _Said:
    """What is kept of a record until all are read."""

    at: Coordinate
    id: str
    cause: str
    conversation: str
    key: str
    sequence: int
    value: bytes

    @property
    def place(self) -> str:
        return f"{self.at[0]}/{self.at[1]}@{self.at[2]}"


@dataclass
class Audit:
    """Looks at records one after the other, and at last at all of them together.

    Args:
        of: who writes and hears what.
        decoder: understands the records.
        topic_ids: what the log calls each topic, by name.
    """

    of: Topology
    decoder: Decoder
    topic_ids: Mapping[str, str]
    records: int = 0
    _wrong: list[Wrong] = field(default_factory=list)
    _said: dict[str, list[_Said]] = field(default_factory=lambda: defaultdict(list))
    _at: dict[Coordinate, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.of.topics}
        self._names = {identity: name for name, identity in self.topic_ids.items()}
        self._hears: dict[str, set[str]] = defaultdict(set)
        for group in self.of.groups:
            self._hears[group.service] |= set(group.topics)
        deciding = {node.writer for node in self.of.topics if node.purpose == "state"}
        self._deciders = deciding
        self._raising = {node.writer for node in self.of.topics if node.purpose == "events"} - deciding

    def look(self, record: Record) -> None:
        """Take one record up."""
        entry = self.decoder.decode(record)
        if entry is None or entry.kind is Kind.QUARANTINED:
            return
        self.records += 1
        at = (record.topic, record.partition, record.offset)
        if entry.message is None:
            self._wrong.append(Wrong(coordinate(record), "not readable", entry.problem))
            return
        self._at[at] = (entry.meta.id, entry.meta.correlation_id)
        self._owned(entry, record)
        meta = entry.meta
        said = _Said(at, meta.id, meta.causation_id, meta.correlation_id, entry.key, meta.sequence, record.value or b"")
        self._said[record.topic].append(said)

    def _owned(self, entry: Entry, record: Record) -> None:
        writer = self._nodes[record.topic].writer
        if entry.meta.writer != writer:
            self._wrong.append(Wrong(coordinate(record), "foreign writer", f"says it is of {entry.meta.writer}; the topic is {writer}'s"))
        elif not entry.meta.id.startswith(f"{writer}:"):
            self._wrong.append(Wrong(coordinate(record), "foreign identity", f"{entry.meta.id} is none that {writer} gives"))

    def wrong(self) -> list[Wrong]:
        """All that is wrong, by place."""
        found = list(self._wrong)
        for topic, said in self._said.items():
            node = self._nodes[topic]
            if node.purpose == "copy":
                found += self._copies(said, node.copy_of)
            elif node.purpose in ("events", "commands", "outcomes"):
                found += self._twice(said)
                if node.purpose == "events" and node.writer in self._deciders:
                    found += self._gaps(said)
                found += [wrong for one in said for wrong in self._caused(one)]
        found += self._numbers()
        return sorted(found, key=lambda one: (one.place, one.law))

    def _copies(self, said: Sequence[_Said], primary: str) -> Iterator[Wrong]:
        values = {one.id: one.value for one in self._said[primary]}
        for one in said:
            if values.get(one.id) != one.value:
                yield Wrong(one.place, "false copy", f"{primary} {'says otherwise' if one.id in values else 'holds no'} {one.id}")

    def _twice(self, said: Sequence[_Said]) -> Iterator[Wrong]:
        seen: dict[str, _Said] = {}
        for one in said:
            before = seen.setdefault(one.id, one)
            # A door that asks again after an unknown answer says the same request twice.
            if before is not one and not self._is_root(one):
                yield Wrong(one.place, "said twice", f"{one.id} lies at {before.place} already")

    def _gaps(self, said: Sequence[_Said]) -> Iterator[Wrong]:
        last: dict[str, int] = {}
        for one in sorted(said, key=lambda one: one.at):
            expected = last.get(one.key, 0) + 1
            if one.sequence != expected:
                yield Wrong(one.place, "sequence", f"{one.key} is at {one.sequence}, expected was {expected}")
            last[one.key] = max(one.sequence, last.get(one.key, 0))

    def _is_root(self, one: _Said) -> bool:
        return self._nodes[one.at[0]].writer in self._raising and not one.cause

    def _caused(self, one: _Said) -> Iterator[Wrong]:
        """Whether the coordinate in its identity is that of the record it calls its cause."""
        writer = self._nodes[one.at[0]].writer
        if self._is_root(one):
            return
        cause = self._cause_of(one)
        if cause is None:
            yield Wrong(one.place, "no cause", f"{one.id} names no record of this log")
            return
        node = self._nodes.get(cause[0])
        if cause[0] not in self._hears[writer] or node is None:
            yield Wrong(one.place, "not heard", f"{one.id} says it comes of {cause[0]}, which {writer} does not hear")
        elif cause in self._at:
            identity, conversation = self._at[cause]
            if identity != one.cause:
                yield Wrong(one.place, "other cause", f"{one.id} names a record that is {identity}, its causation_id is {one.cause}")
            elif conversation != one.conversation:
                yield Wrong(one.place, "other story", f"its cause belongs to {conversation}, it says {one.conversation}")
        elif node.kept is not Kept.COMPACTED and node.name in self.decoder.kinds:
            yield Wrong(one.place, "no cause", f"nothing lies at {cause[0]}/{cause[1]}@{cause[2]}, of which {one.id} says it comes")

    def _cause_of(self, one: _Said) -> Coordinate | None:
        parts = one.id.rsplit(":", 4)
        if len(parts) != 5 or parts[1] not in self._names or not all(part.isdigit() for part in parts[2:]):
            return None
        return self._names[parts[1]], int(parts[2]), int(parts[3])

    def _numbers(self) -> Iterator[Wrong]:
        """What is said for one cause is numbered from 0; a number without those before it follows from no decision."""
        numbers: dict[str, dict[int, _Said]] = defaultdict(dict)
        for topic, said in self._said.items():
            if self._nodes[topic].purpose in ("events", "commands", "outcomes"):
                for one in said:
                    if self._cause_of(one) is not None:
                        cause, _, last = one.id.rpartition(":")
                        numbers[cause].setdefault(int(last), one)
        for by_number in numbers.values():
            for number, one in by_number.items():
                # Commands are compacted away once they are done, and their numbers with them.
                if number > 0 and number - 1 not in by_number and not self._tells_commands(one):
                    yield Wrong(one.place, "number", f"{one.id} has no {number - 1} before it")

    def _tells_commands(self, one: _Said) -> bool:
        writer = self._nodes[one.at[0]].writer
        return any(node.purpose == "commands" for node in self.of.of_service(writer))


def audit(log: Log, platform: Platform, settings: Settings, progress: Progress | None = None) -> Audited:
    """Read the whole log and say what breaks ownership or causality.

    A few hundred bytes are kept of each record, so a log of millions wants gigabytes.

    Raises:
        Unavailable: the log does not answer.
    """
    decoder = Decoder.of(platform)
    ids = {name: identity for name, (identity, _) in log.topics().items()}
    scan = Scan(log, existing(log, decoder.places(settings.partitions)), progress=progress)
    seen = look_at(scan, platform, ids)
    return Audited(seen.records, tuple(seen.wrong()), tuple(f"{topic}/{number}" for topic, number in scan.unread))


def look_at(records: Iterable[Record], platform: Platform, topic_ids: Mapping[str, str]) -> Audit:
    """An audit that has seen these records."""
    seen = Audit(topology(platform), Decoder.of(platform), topic_ids)
    for record in records:
        seen.look(record)
    return seen

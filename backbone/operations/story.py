"""The story of one conversation: every event, command, outcome and tick of it, each behind what caused it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from backbone.errors import BackboneError, Unavailable
from backbone.moments import moment
from backbone.operations.decoding import Decoder, Entry, Kind, brief
from backbone.operations.scan import Progress, Scan, existing
from backbone.ports import Log, Record
from backbone.settings import Settings

NEWEST_LOOKED_AT = 50
"""Records at the end of each partition of the door's topics among which the last conversation is found."""
CANDIDATES_SHOWN = 5


class NoStory(BackboneError):
    """There is no such conversation in the log, or more than one."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a decision knew of one partition of one view.

    Attributes:
        watermark: the view held everything below this offset of the topic it folds.
        keys: that were asked for, found or not.
    """

    view: str
    version: int
    partition: int
    watermark: int
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.view} v{self.version} p{self.partition} up to {self.watermark}: {', '.join(self.keys)}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was said or done.

    Attributes:
        number: in causal order, from 1.
        because: number of the step that caused it; None for a root, or if the cause is no longer in the log.
        depth: how many causes lie before it.
        name: of the message, or the reason for what was set aside.
        at: when it was appended.
        occurred_at: when its cause was appended; the outside's time for outcomes.
        copies: coordinates of its copies, and of repetitions.
        note: what is odd about it, in one line.
    """

    number: int
    id: str
    kind: Kind
    name: str
    message: Message | None
    key: str
    at: datetime
    occurred_at: datetime | None
    writer: str
    build: str
    sequence: int
    cause: str
    because: int | None
    depth: int
    topic: str
    partition: int
    offset: int
    copies: tuple[str, ...]
    looked_up: tuple[LookedUp, ...]
    note: str

    @property
    def place(self) -> str:
        """topic/partition@offset."""
        return f"{self.topic}/{self.partition}@{self.offset}"

    def to_dict(self) -> dict[str, Any]:
        """The step for programs; times in ISO 8601, UTC."""
        return {
            "number": self.number,
            "kind": self.kind,
            "name": self.name,
            "writer": self.writer,
            "build": self.build,
            "key": self.key,
            "at": self.at.isoformat(timespec="milliseconds"),
            "occurred_at": self.occurred_at.isoformat(timespec="milliseconds") if self.occurred_at else None,
            "id": self.id,
            "causation_id": self.cause,
            "because": self.because,
            "sequence": self.sequence,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "copies": list(self.copies),
            "looked_up": [
                {"view": one.view, "version": one.version, "partition": one.partition, "watermark": one.watermark, "keys": list(one.keys)}
                for one in self.looked_up
            ],
            "note": self.note,
            "says": MessageToDict(self.message, preserving_proto_field_name=True) if self.message is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Story:
    """All steps of one conversation.

    Attributes:
        unread: how many offsets could not be read, because a transaction is open there.
    """

    correlation_id: str
    steps: tuple[Step, ...]
    unread: int = 0

    @property
    def took_ms(self) -> int:
        """From the first to the last append, milliseconds."""
        times = [step.at for step in self.steps]
        return round((max(times) - min(times)).total_seconds() * 1000) if times else 0

    def to_dict(self) -> dict[str, Any]:
        """The story for programs."""
        return {
            "correlation_id": self.correlation_id,
            "took_ms": self.took_ms,
            "unread": self.unread,
            "steps": [step.to_dict() for step in self.steps],
        }


def tell(entries: Iterable[Entry], correlation_id: str) -> Story:
    """Put the entries of one conversation into the order of their causes; what neither caused comes in the order of the log.

    Args:
        entries: what was read, in any order; those of other conversations are left out.
        correlation_id: which conversation.
    """
    nodes: dict[str, _Node] = {}
    for entry in sorted(entries, key=_log_order):
        if entry.meta.correlation_id != correlation_id:
            continue
        known = nodes.get(entry.meta.id)
        if known is None:
            nodes[entry.meta.id] = _Node(entry)
        elif known.entry.copy_of and not entry.copy_of:
            nodes[entry.meta.id] = _Node(entry, [known.entry.place, *known.more])
        else:
            known.more.append(entry.place)
    answered = {node.entry.meta.causation_id for node in nodes.values() if node.entry.kind is Kind.OUTCOME}
    steps: dict[str, Step] = {}
    for identity in _in_causal_order(nodes):
        node = nodes[identity]
        because = steps.get(node.entry.meta.causation_id)
        steps[identity] = _step(len(steps) + 1, node, because, _note(node.entry, because, open_=identity not in answered))
    return Story(correlation_id, tuple(steps.values()))


@dataclass(slots=True)
class _Node:
    entry: Entry
    more: list[str] = field(default_factory=list)


def _log_order(entry: Entry) -> tuple[int, int, str, int, int]:
    """By append time; within a millisecond as each aggregate counted, then by coordinate, so that the order is the same every time."""
    record = entry.record
    return record.timestamp_ms, entry.meta.sequence, record.topic, record.partition, record.offset


def _in_causal_order(nodes: dict[str, _Node]) -> Iterator[str]:
    effects: dict[str, list[str]] = {}
    for identity, node in nodes.items():
        cause = node.entry.meta.causation_id
        if cause in nodes and cause != identity:
            effects.setdefault(cause, []).append(identity)
    caused = {identity for some in effects.values() for identity in some}
    ready = [(*_log_order(node.entry), identity) for identity, node in nodes.items() if identity not in caused]
    heapq.heapify(ready)
    told = set()
    while ready:
        identity = heapq.heappop(ready)[-1]
        told.add(identity)
        yield identity
        for effect in effects.get(identity, ()):
            heapq.heappush(ready, (*_log_order(nodes[effect].entry), effect))
    yield from (identity for identity in nodes if identity not in told)  # a circle of causes is a lie, but a story hides nothing


def _note(entry: Entry, because: Step | None, *, open_: bool) -> str:
    notes = [entry.problem]
    if entry.kind is Kind.COMMAND and open_:
        notes.append("open: no outcome yet")
    if entry.meta.causation_id and because is None:
        notes.append("its cause is no longer in the log, or belongs to another conversation")
    return "; ".join(filter(None, notes))


def _step(number: int, node: _Node, because: Step | None, note: str) -> Step:
    entry = node.entry
    meta, record = entry.meta, entry.record
    return Step(
        number=number,
        id=meta.id,
        kind=entry.kind,
        name=entry.name,
        message=entry.message,
        key=entry.key,
        at=entry.at,
        occurred_at=_occurred(entry),
        writer=meta.writer,
        build=meta.build,
        sequence=meta.sequence,
        cause=meta.causation_id,
        because=because.number if because else None,
        depth=because.depth + 1 if because else 0,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        copies=tuple(node.more),
        looked_up=tuple(LookedUp(o.view, o.version, o.partition, o.watermark, tuple(o.keys)) for o in meta.observed),
        note=note,
    )


def _occurred(entry: Entry) -> datetime | None:
    return moment(entry.meta.occurred_at) if entry.meta.HasField("occurred_at") else None


def find(log: Log, decoder: Decoder, settings: Settings, wanted: str, progress: Progress | None = None) -> Story:
    """Read the log once and tell the story of a conversation.

    Args:
        wanted: its correlation id (the order id where there is one), or the beginning of it if no other begins so.
        progress: told how far the reading is.

    Raises:
        NoStory: no conversation begins so, or several do.
        Unavailable: Kafka does not answer.
    """
    if not wanted:
        raise NoStory("an empty name begins every conversation: give an order id, or --last")
    scan = Scan(log, existing(log, decoder.places(settings.partitions)), progress=progress)
    found = [entry for entry in _entries(scan, decoder, wanted.encode()) if entry.meta.correlation_id.startswith(wanted)]
    names = sorted({entry.meta.correlation_id for entry in found})
    if not names:
        raise NoStory(f"nothing in the log belongs to {wanted!r}: is it the id of an order? `backbone story --last` tells the newest one")
    if wanted not in names and len(names) > 1:
        shown = ", ".join(names[:CANDIDATES_SHOWN]) + (", ..." if len(names) > CANDIDATES_SHOWN else "")
        raise NoStory(f"{len(names)} conversations begin with {wanted!r}: {shown}. Give more of the id")
    story = tell(found, wanted if wanted in names else names[0])
    return replace(story, unread=sum(scan.unread.values()))


def _entries(records: Iterable[Record], decoder: Decoder, needle: bytes) -> Iterator[Entry]:
    """Those that may be about it: the id lies as it is in the bytes, so most records need not be decoded."""
    for record in records:
        if record.value is not None and needle in record.value:
            entry = decoder.decode(record)
            if entry is not None:
                yield entry


def last(log: Log, decoder: Decoder, settings: Settings, door: Sequence[str]) -> str:
    """The conversation that came in last.

    Args:
        door: topics in which conversations begin.

    Raises:
        NoStory: nothing has come in yet.
        Unavailable: Kafka does not answer.
    """
    places = existing(log, [(topic, number) for topic in door for number in range(settings.partitions)])
    if not places:
        raise Unavailable("the topics in which conversations begin do not exist: run `backbone topics apply`")
    ends = log.high_watermarks(places)
    scan = Scan(log, places, since={place: end - NEWEST_LOOKED_AT for place, end in ends.items()})
    newest: Entry | None = None
    for record in scan:
        entry = decoder.decode(record)
        if entry is not None and entry.meta.correlation_id and (newest is None or record.timestamp_ms >= newest.record.timestamp_ms):
            newest = entry
    if newest is None:
        raise NoStory("no conversation has begun yet: place an order first, with `make order`")
    return newest.meta.correlation_id


def lines(story: Story) -> Iterator[str]:
    """The story as plain text."""
    yield headline(story)
    for step in story.steps:
        yield ""
        why = f"because of {step.because}" if step.because else "a beginning"
        yield f"{step.number:>3}  {clock(step.at)}  {title(step)}  ({why})"
        yield from (f"     {' ' * 12}  {detail}" for detail in details(step, story.correlation_id))


def headline(story: Story) -> str:
    """The story in one line."""
    begun = f", begun {min(step.at for step in story.steps):%Y-%m-%d %H:%M:%S} UTC" if story.steps else ""
    unread = f"; {story.unread} offsets are hidden behind open transactions: ask again" if story.unread else ""
    return f"{story.correlation_id}: {len(story.steps)} steps in {story.took_ms} ms{begun}{unread}"


def clock(at: datetime) -> str:
    """The time of day, UTC, to the millisecond."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def title(step: Step) -> str:
    """Who said what."""
    kind = "" if step.kind is Kind.EVENT else f" [{step.kind}]"
    return f"{step.name}{kind} by {step.writer or '?'} ({step.build or 'no build'})"


def details(step: Step, correlation_id: str) -> Iterator[str]:
    """What it says, where it lies, what was known, what is odd."""
    if step.message is not None and step.kind is not Kind.QUARANTINED:
        said = brief(step.message, leave_out=(correlation_id,))
        if said:
            yield said
    copies = f" and {', '.join(step.copies)}" if step.copies else ""
    yield f"{step.place}{copies}"
    for one in step.looked_up:
        yield f"looked up {one}"
    if step.note:
        yield step.note

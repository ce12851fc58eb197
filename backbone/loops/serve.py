"""Serve: rows for those who ask, never older than what was promised, never missing because they are merely late.

1. A fragment may be read once its watermark has reached the end of its topic seen when this process started, and never below a watermark
   this process has already answered from: rows that were flushed are waited for, not taken for absent.
2. Who asks may demand a position vector (`backbone-at-least`). On a topic that one of the views folds, its watermark decides. On any other
   topic, what the row that is read comes after decides: it must have folded something that came after the position demanded. If nothing
   the views ever folded came after that topic, the demand is `NotComparable`, at once. A list has no row of its own to decide by.
3. An answer tells how far its views had read (as of), and what it rests on (position): for a row the record that changed it last, for a
   missing row and for a list the watermark. Who demands that position elsewhere gets an answer that comes after this one.
4. All waiting ends with the question's deadline, in `Unavailable` with the reason: `NotYet` if it is a demand that is not met.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from backbone import damage
from backbone.contract import ResolvedView
from backbone.declare import Row, View
from backbone.errors import NotComparable, NotYet, Unavailable
from backbone.partitioner import partition_of
from backbone.ports import AsyncRows, Fetched, Fragment, Place
from backbone.positions import Vector
from backbone.stored import After, after_of, next_offset_of

PATIENCE_S = 2.0
"""How long a question without a deadline waits for a view, in seconds."""

SAMPLE_EVERY_S = 1.0
"""How often the ends of the topics are looked at, in seconds: the grain of an answer's age."""

SAMPLES = 600
FIRST_PAUSE_S = 0.005
LAST_PAUSE_S = 0.1


Answer = TypeVar("Answer")


@dataclass(slots=True)
class Question:
    """What one asker demands of its answer, and what the answer turns out to know.

    Attributes:
        deadline: by the monotonic clock, in seconds.
        at_least: positions the answer must know.
        ignores_elsewhere: positions on topics that no view asked folds are left aside: who asks because of an event does not know what
            his siblings fold.
        as_of: watermarks of the fragments that were read.
        position: what the answer rests on.
    """

    deadline: float
    at_least: Vector = field(default_factory=dict)
    ignores_elsewhere: bool = False
    as_of: dict[Place, int] = field(default_factory=dict)
    position: dict[Place, int] = field(default_factory=dict)
    _topics: set[str] = field(default_factory=set)
    _compared: set[Place] = field(default_factory=set)
    _behind: NotYet | None = None

    def begin(self) -> None:
        """Forget what an earlier try to answer turned out to know."""
        self.as_of.clear()
        self.position.clear()
        self._compared.clear()
        self._behind = None

    def asks(self, topic: str) -> None:
        """A view that folds this topic is asked: its watermark decides there."""
        self._topics.add(topic)

    def rests_on(self, place: Place, offset: int) -> None:
        """A part of the answer rests on this."""
        self.position[place] = max(offset, self.position.get(place, 0))

    def elsewhere(self) -> dict[Place, int]:
        """What is demanded on topics that no view asked folds."""
        if self.ignores_elsewhere:
            return {}
        return {place: wanted for place, wanted in self.at_least.items() if place[0] not in self._topics}

    def compare(self, who: str, place: Place, wanted: int, reached: int) -> None:
        """A row decides whether a position elsewhere is known."""
        self._compared.add(place)
        if reached < wanted and self._behind is None:
            at = f"{place[0]}/{place[1]}"
            self._behind = NotYet(f"{who} comes after {at} up to {reached}, the question demands {wanted}", at, wanted, reached)

    def settled(self) -> NotYet | None:
        """What is missing until the answer knows all that is demanded, if something is.

        Raises:
            NotComparable: no part of the answer could decide that.
        """
        for topic, partition in self.elsewhere():
            if (topic, partition) not in self._compared:
                raise NotComparable(topic)
        return self._behind


class Ends(Protocol):
    """Of a log, what is needed here."""

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets after the last record of each partition."""
        ...


class Views:
    """The views of a process for those who ask.

    Args:
        views: which.
        log: tells where their topics end.
        rows: where their rows lie.
        partitions: P.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        views: Sequence[ResolvedView],
        log: Ends,
        rows: AsyncRows,
        partitions: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._views = {id(view.view): view for view in views}
        self._log = log
        self._rows = rows
        self._partitions = partitions
        self._clock = clock
        self._places = sorted({(view.topic.name, partition) for view in views for partition in range(partitions)})
        self._samples: deque[tuple[float, Mapping[Place, int]]] = deque(maxlen=SAMPLES)
        self._floors: dict[Fragment, int] = {}
        self._upstream: dict[str, set[str]] = {}
        self._caught_up = False
        self._asking = 0
        self._waits_for = "the log has not told yet where the topics end"

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the ends of the topics until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(Unavailable):
                await self.look()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), SAMPLE_EVERY_S)

    async def look(self) -> None:
        """Look at the ends of the topics once; the first time, they become what every view must reach.

        Raises:
            Unavailable: the log does not answer.
        """
        at = self._clock()
        ends = await asyncio.to_thread(self._log.high_watermarks, self._places) if self._places else {}
        if not self._samples:
            for view in self._views.values():
                for partition, fragment in enumerate(self._fragments(view)):
                    self._floors[fragment] = ends[view.topic.name, partition]
        self._samples.append((at, ends))

    async def caught_up(self) -> bool:
        """Whether every view has reached the ends seen first; once it has, it has for good."""
        if not self._caught_up and self._samples:
            fragments = [fragment for view in self._views.values() for fragment in self._fragments(view)]
            try:
                found = await self._rows.fetch([(fragment, ()) for fragment in fragments])
            except Unavailable as error:
                self._waits_for = str(error)
                return False
            late = self._late(fragments, found)
            self._waits_for = late or ""
            self._caught_up = late is None
        return self._caught_up

    def reader(self, view: View[Row], question: Question | None = None) -> ViewReader[Row]:
        """Rows of one of the views.

        Args:
            view: which.
            question: whose deadline and positions count; without, each read waits `PATIENCE_S` at most.
        """
        resolved = self._views[id(view)]
        if question is not None:
            question.asks(resolved.topic.name)
        return ViewReader(self, resolved, question)

    async def answer(self, question: Question, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask until the answer knows all that is demanded, on any topic.

        Args:
            question: with whose readers `ask` reads.
            ask: reads; is called again while the answer does not know enough.

        Raises:
            NotYet: it did not in time.
            NotComparable: it never will, as far as anybody can tell.
        """
        pause = FIRST_PAUSE_S
        while True:
            question.begin()
            answer = await ask()
            behind = question.settled()
            if behind is None:
                return answer
            pause = await self._pause(question, pause, behind)

    async def comes_after(self, view: ResolvedView, topic: str) -> bool:
        """Whether anything a view folded came after a topic; once it has, it has for good.

        Raises:
            Unavailable: the rows cannot be reached.
        """
        known = self._upstream.setdefault(view.name, set())
        if topic not in known:
            known |= await self._rows.upstream(self._fragments(view))
        return topic in known

    def age_ms(self, as_of: Vector) -> int:
        """How old the picture of an answer is, in milliseconds: it shows all that lay in the log so long ago; a lower bound when that is
        longer than is remembered (`SAMPLES` looks)."""
        now = self._clock()
        for at, ends in reversed(self._samples):
            if all(ends.get(place, 0) <= mark for place, mark in as_of.items()):
                return round((now - at) * 1000)
        return round((now - self._samples[0][0]) * 1000) if self._samples else 0

    def status(self) -> dict[str, Any]:
        """Which views are shown, whether they may be asked, and how many questions are under way."""
        return {
            "loop": "serve",
            "views": sorted(view.name for view in self._views.values()),
            "caught_up": self._caught_up,
            "asking": self._asking,
            "waiting": self._waits_for if not self._caught_up else "",
        }

    async def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]], topic: str, question: Question) -> Sequence[Fetched]:
        """Rows that know enough; waits for them until the question's deadline.

        Raises:
            Unavailable: they did not come in time; says what is missing.
        """
        self._asking += 1
        try:
            return await self._fetch(wanted, topic, question)
        finally:
            self._asking -= 1

    async def _fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]], topic: str, question: Question) -> Sequence[Fetched]:
        fragments = [fragment for fragment, _ in wanted]
        pause = FIRST_PAUSE_S
        while True:
            try:
                found = await self._rows.fetch(wanted)
                late = self._late(fragments, found)
                why = Unavailable(late) if late is not None else _behind(fragments, found, topic, question.at_least)
            except Unavailable as error:
                why = error
            else:
                if why is None:
                    self._answered(fragments, found, topic, question)
                    return found
            pause = await self._pause(question, pause, why)

    async def _pause(self, question: Question, pause_s: float, why: Unavailable) -> float:
        """Wait before the next try; gives how long to wait before the one after it, or raises why it came to nothing."""
        if self._clock() + pause_s >= question.deadline:
            raise why
        await asyncio.sleep(pause_s)
        return min(pause_s * 2, LAST_PAUSE_S)

    async def newest(self, view: ResolvedView, index: str, group: str, limit: int, question: Question) -> Sequence[str]:
        """Keys of one group of an index, highest score first, from fragments that know enough.

        Raises:
            Unavailable: they did not come in time; says what is missing.
        """
        fragments = self._fragments(view)
        # The index may be younger than these watermarks, never older.
        found = await self.fetch([(fragment, ()) for fragment in fragments], view.topic.name, question)
        for fragment, one in zip(fragments, found, strict=True):
            question.rests_on((view.topic.name, fragment.partition), one.watermark or 0)
        return await self._rows.newest(fragments, index, group, limit)

    def question(self, within_s: float = PATIENCE_S, at_least: Vector | None = None, *, ignores_elsewhere: bool = False) -> Question:
        """A question that is asked now.

        Args:
            within_s: how long it waits, in seconds.
            at_least: positions the answer must know.
            ignores_elsewhere: whether positions on topics that no view asked folds are left aside.
        """
        return Question(self._clock() + within_s, at_least or {}, ignores_elsewhere)

    def fragment(self, view: ResolvedView, key: str) -> Fragment:
        """Where the row of a key lies."""
        return Fragment(view.name, view.view.version, partition_of(key.encode(), self._partitions))

    def _fragments(self, view: ResolvedView) -> list[Fragment]:
        return [Fragment(view.name, view.view.version, partition) for partition in range(self._partitions)]

    def _late(self, fragments: Sequence[Fragment], found: Sequence[Fetched]) -> str | None:
        """What is missing until these fragments may be read, if something is."""
        for fragment, one in zip(fragments, found, strict=True):
            floor = self._floors.get(fragment)
            if floor is None:
                return self._waits_for or "the log has not told yet where the topics end"
            if (one.watermark or 0) < floor:
                return (
                    f"{fragment.view} v{fragment.version} has folded partition {fragment.partition} up to {one.watermark or 0}, "
                    f"it must reach {floor}"
                )
        return None

    def _answered(self, fragments: Sequence[Fragment], found: Sequence[Fetched], topic: str, question: Question) -> None:
        for fragment, one in zip(fragments, found, strict=True):
            mark = one.watermark or 0
            self._floors[fragment] = max(mark, self._floors[fragment])
            place = (topic, fragment.partition)
            question.as_of[place] = min(mark, question.as_of.get(place, mark))


class Asked:
    """One question to the views of a process; implements `declare.Asking`.

    Args:
        views: who is asked.
        question: what is demanded.
    """

    def __init__(self, views: Views, question: Question) -> None:
        self._views = views
        self._question = question

    def reader(self, view: View[Row]) -> ViewReader[Row]:
        """Rows of a view, for this question."""
        return self._views.reader(view, self._question)

    async def answer(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What is read, once it knows all that is demanded; see `Views.answer`."""
        return await self._views.answer(self._question, ask)

    @property
    def as_of(self) -> Vector:
        """How far the views that were read had read."""
        return self._question.as_of

    @property
    def position(self) -> Vector:
        """What the answer rests on."""
        return self._question.position

    def age_ms(self, as_of: Vector) -> int:
        """How old a picture that knows these positions is; see `Views.age_ms`."""
        return self._views.age_ms(as_of)


class ViewReader(Generic[Row]):
    """Rows of one view for one question; implements `declare.Reader`."""

    def __init__(self, views: Views, view: ResolvedView, question: Question | None) -> None:
        self._views = views
        self._view = view
        self._question = question

    async def get(self, key: str) -> Row | None:
        """The row, or None.

        Raises:
            Unavailable: the view did not know enough in time.
            DataLoss: the row is damaged.
        """
        question = self._asked()
        raw = (await self._raw([key], question))[key]
        row = self._row(key, raw)
        if elsewhere := question.elsewhere():
            await self._compare(key, raw, elsewhere, question)
        return row

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """The rows that exist among `keys`, in one round trip.

        Raises:
            Unavailable: the view did not know enough in time.
            DataLoss: a row is damaged.
        """
        return await self._rows(list(dict.fromkeys(keys)), self._asked())

    async def newest(self, index: str, group: str, limit: int) -> Sequence[Row]:
        """Rows of one group of a declared index, highest score first, at most `limit`.

        Raises:
            Unavailable: the view did not know enough in time.
            DataLoss: a row is damaged.
            ValueError: the view declares no such index.
        """
        if index not in {declared.name for declared in self._view.view.indexes}:
            raise ValueError(f"{self._view.name} declares no index {index!r}")
        question = self._asked()
        keys = await self._views.newest(self._view, index, group, limit, question)
        rows = await self._rows(keys, question)
        return [rows[key] for key in keys if key in rows]

    def _asked(self) -> Question:
        return self._question or self._views.question()

    async def _compare(self, key: str, raw: bytes | None, elsewhere: Vector, question: Question) -> None:
        """Let a row decide whether it knows positions on topics that its view does not fold."""
        known = After() if raw is None else after_of(raw)
        who = f"row {key!r} of {self._view.name}" if raw is not None else f"{self._view.name} has no row {key!r} yet, which"
        for place, wanted in elsewhere.items():
            reached = known.knows(place)
            if reached or await self._views.comes_after(self._view, place[0]):
                question.compare(who, place, wanted, reached)

    async def _rows(self, keys: Sequence[str], question: Question) -> dict[str, Row]:
        found = {key: self._row(key, raw) for key, raw in (await self._raw(keys, question)).items()}
        return {key: row for key, row in found.items() if row is not None}

    def _row(self, key: str, raw: bytes | None) -> Row | None:
        return None if raw is None else damage.row_of(self._view.view.row, self._view.name, key, raw)

    async def _raw(self, keys: Sequence[str], question: Question) -> dict[str, bytes | None]:
        by_fragment: dict[Fragment, list[str]] = {}
        for key in keys:
            by_fragment.setdefault(self._views.fragment(self._view, key), []).append(key)
        found = await self._views.fetch(list(by_fragment.items()), self._view.topic.name, question)
        rows: dict[str, bytes | None] = {}
        for (fragment, asked), fetched in zip(by_fragment.items(), found, strict=True):
            mark = fetched.watermark or 0
            for key, raw in zip(asked, fetched.rows, strict=True):
                rows[key] = raw
                last = 0 if raw is None else next_offset_of(raw)
                question.rests_on((self._view.topic.name, fragment.partition), last or mark)
        return rows


def _behind(fragments: Sequence[Fragment], found: Sequence[Fetched], topic: str, at_least: Vector) -> NotYet | None:
    """What is missing until these fragments know the positions demanded, if something is."""
    for fragment, one in zip(fragments, found, strict=True):
        wanted = at_least.get((topic, fragment.partition), 0)
        reached = one.watermark or 0
        if reached < wanted:
            at = f"{topic}/{fragment.partition}"
            return NotYet(f"{fragment.view} knows {at} up to {reached}, the question demands {wanted}", at, wanted, reached)
    return None

"""Serve: rows for those who ask, never older than what was promised, never missing because they are merely late.

1. A fragment may be read once its watermark has reached the end of its topic seen when this process started, and never below a watermark
   this process has already answered from: rows that were flushed are waited for, not taken for absent.
2. Who asks may demand a position vector (`backbone-at-least`). On the topic the view folds, the watermark decides; other topics are left
   aside.
3. All waiting ends with the question's deadline, in `Unavailable` with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from backbone import damage
from backbone.contract import ResolvedView
from backbone.declare import Row, View
from backbone.errors import Unavailable
from backbone.partitioner import partition_of
from backbone.ports import AsyncRows, Fetched, Fragment, Log, Place
from backbone.positions import Vector

PATIENCE_S = 2.0
"""How long a question without a deadline waits for a view, in seconds."""

SAMPLE_EVERY_S = 1.0
"""How often the ends of the topics are looked at, in seconds: the grain of an answer's age."""

SAMPLES = 600
FIRST_PAUSE_S = 0.005
LAST_PAUSE_S = 0.1


@dataclass(slots=True)
class Question:
    """What one asker demands of its answer, and what the answer turns out to know.

    Attributes:
        deadline: by the monotonic clock, in seconds.
        at_least: positions the answer must know.
        as_of: watermarks of the fragments that were read.
    """

    deadline: float
    at_least: Vector = field(default_factory=dict)
    as_of: dict[Place, int] = field(default_factory=dict)


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
        log: Log,
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
        return ViewReader(self, self._views[id(view)], question)

    def age_ms(self, as_of: Vector) -> int:
        """How long ago the log ended where an answer ends, in milliseconds; a lower bound when that is longer than is remembered."""
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
                late = self._late(fragments, found) or _behind(fragments, found, topic, question.at_least)
            except Unavailable as error:
                late = str(error)
            else:
                if late is None:
                    self._answered(fragments, found, topic, question)
                    return found
            if self._clock() + pause >= question.deadline:
                raise Unavailable(late)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def newest(self, view: ResolvedView, index: str, group: str, limit: int, question: Question) -> Sequence[str]:
        """Keys of one group of an index, highest score first, from fragments that know enough.

        Raises:
            Unavailable: they did not come in time; says what is missing.
        """
        fragments = self._fragments(view)
        # The index may be younger than these watermarks, never older.
        await self.fetch([(fragment, ()) for fragment in fragments], view.topic.name, question)
        return await self._rows.newest(fragments, index, group, limit)

    def question(self, within_s: float = PATIENCE_S, at_least: Vector | None = None) -> Question:
        """A question that is asked now.

        Args:
            within_s: how long it waits, in seconds.
            at_least: positions the answer must know.
        """
        return Question(self._clock() + within_s, at_least or {})

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
        return (await self._rows([key], self._asked())).get(key)

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

    async def _rows(self, keys: Sequence[str], question: Question) -> dict[str, Row]:
        by_fragment: dict[Fragment, list[str]] = {}
        for key in keys:
            by_fragment.setdefault(self._views.fragment(self._view, key), []).append(key)
        found = await self._views.fetch(list(by_fragment.items()), self._view.topic.name, question)
        rows: dict[str, Row] = {}
        for asked, fetched in zip(by_fragment.values(), found, strict=True):
            for key, raw in zip(asked, fetched.rows, strict=True):
                if raw is not None:
                    rows[key] = damage.row_of(self._view.view.row, self._view.name, key, raw)
        return rows


def _behind(fragments: Sequence[Fragment], found: Sequence[Fetched], topic: str, at_least: Vector) -> str | None:
    """What is missing until these fragments know the positions demanded, if something is."""
    for fragment, one in zip(fragments, found, strict=True):
        wanted = at_least.get((topic, fragment.partition), 0)
        if (one.watermark or 0) < wanted:
            return f"{fragment.view} knows {topic}/{fragment.partition} up to {one.watermark or 0}, the question demands {wanted}"
    return None

"""The deadlines of one partition: which aggregates are due, and when their ticks may be written."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

from backbone.ports import Place


class Deadlines:
    """What the aggregates of one partition wait for.

    A deadline that has passed becomes a tick only once every input has been decided up to the end seen afterwards: so an outage of ours
    does not expire what has its answer waiting in the log.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._again: list[tuple[float, datetime, str]] = []
        self._due: dict[str, datetime] = {}
        self._passed: dict[str, tuple[datetime, Mapping[Place, int]]] = {}
        self._ticked: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._due)

    def arm(self, key: str, due: datetime | None) -> None:
        """Note when an aggregate is due; None if it waits for nothing."""
        if due is None:
            self._due.pop(key, None)
            self._passed.pop(key, None)
            self._ticked.pop(key, None)
        elif self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))

    def passing(self, now: datetime) -> list[tuple[datetime, str]]:
        """Deadlines that have passed since it was last asked; entries that no longer hold are dropped as they surface."""
        passing = []
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                passing.append((due, key))
        while self._again and self._again[0][0] <= time.monotonic():
            _, due, key = heapq.heappop(self._again)
            if self._due.get(key) == due:
                passing.append((due, key))
        return passing

    def put_back(self, passing: list[tuple[datetime, str]]) -> None:
        """Let deadlines pass again the next time it is asked."""
        for entry in passing:
            heapq.heappush(self._heap, entry)

    def await_(self, passing: list[tuple[datetime, str]], ends: Mapping[Place, int]) -> None:
        """Hold passed deadlines back until the inputs are decided up to `ends`."""
        self._passed.update({key: (due, ends) for due, key in passing})

    def ripe(self, reached: Mapping[Place, int], limit: int) -> Iterator[tuple[str, datetime]]:
        """Keys and deadlines whose tick may be written, at most `limit`.

        Args:
            reached: next offsets of the inputs, as decided.
        """
        for key, (due, ends) in list(self._passed.items())[:limit]:
            if self._ticked.get(key) != due and all(reached.get(place, 0) >= end for place, end in ends.items()):
                yield key, due

    def too_early(self, key: str, due: datetime, left_s: float) -> None:
        """Note that a tick was written before its time, by a clock that was fast; it is written again.

        Args:
            left_s: how long before its time, in seconds.
        """
        if self._ticked.pop(key, None) == due:
            heapq.heappush(self._again, (time.monotonic() + left_s, due, key))

    @property
    def waiting(self) -> bool:
        """Whether a deadline has passed whose tick is not written."""
        return bool(self._passed)

    def ticked(self, key: str, due: datetime) -> None:
        """Note that a tick was written."""
        self._passed.pop(key, None)
        self._ticked[key] = due

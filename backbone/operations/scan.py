"""Reading many partitions of the log from here to there, once, with a bound on everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from backbone.ports import Log, Place, Record

BATCH = 2_000
STALL_S = 25.0
"""An open transaction hides what lies behind it until the broker ends it: 10 s of timeout, 10 s until somebody looks, and some."""
GLANCE_S = 3.0
"""How long somebody who only has a look waits for such a transaction."""
REPORT_S = 0.2

Progress = Callable[[int, int], None]
"""Takes how many offsets are done, and of how many."""


class Scan:
    """All committed records between two position vectors.

    Args:
        log: where to read.
        places: partitions; those that do not exist must be left out.
        since: where to start, if not at the start of each partition.
        progress: told a few times a second how far it is.
        stall_s: after how many seconds without any advance the rest is left unread.

    Attributes:
        until: high watermarks when it began; nothing behind them is read.
        unread: partitions that could not be read to the end, with how many offsets are left: a transaction is open there.
    """

    def __init__(
        self,
        log: Log,
        places: Sequence[Place],
        *,
        since: Mapping[Place, int] | None = None,
        progress: Progress | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self._log = log
        self._progress = progress or (lambda done, total: None)
        self._stall_s = stall_s
        self.until = dict(log.high_watermarks(places)) if places else {}
        starts = dict(log.starts(places)) if places else {}
        given = since or {}
        self.since = {place: min(max(starts[place], given.get(place, 0)), self.until[place]) for place in places}
        self.unread: dict[Place, int] = {}

    def __iter__(self) -> Iterator[Record]:
        reached = {place: start for place, start in self.since.items() if start < self.until[place]}
        if not reached:
            return
        total = sum(self.until[place] - start for place, start in reached.items())
        consumer = self._log.consumer(reached)
        try:
            advanced_at = reported_at = time.monotonic()
            behind = {place: self.until[place] - start for place, start in reached.items()}
            left = total
            while left:
                for record in consumer.poll(BATCH, 0.1):
                    if record.offset < self.until[record.topic, record.partition]:
                        yield record
                positions = consumer.positions()
                now = time.monotonic()
                before, left = left, 0
                for place in list(behind):
                    behind[place] = self.until[place] - positions.get(place, reached[place])
                    if behind[place] > 0:
                        left += behind[place]
                    else:  # what comes in meanwhile is nobody's business here
                        consumer.pause([place])
                        del behind[place]
                if left != before:
                    advanced_at = now
                elif now - advanced_at > self._stall_s:
                    break
                if now - reported_at > REPORT_S:
                    self._progress(total - left, total)
                    reported_at = now
            self.unread = behind
            self._progress(total - left, total)
        finally:
            consumer.close()


def existing(log: Log, places: Sequence[Place]) -> list[Place]:
    """The partitions that exist."""
    topics = log.topics()
    return [(topic, number) for topic, number in places if topic in topics and number < topics[topic][1]]

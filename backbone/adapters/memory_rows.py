"""Rows in memory, for tests and simulations: what Redis does, without Redis."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from backbone.ports import Change, Fetched, Fragment


@dataclass(slots=True)
class _Held:
    watermark: int | None = None
    rows: dict[str, bytes] = field(default_factory=dict)
    indexes: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    upstream: set[str] = field(default_factory=set)


class MemoryRows:
    """The rows of a context's views, in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fragments: dict[Fragment, _Held] = {}

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark."""
        with self._lock:
            found = [(self._fragments.get(fragment, _Held()), keys) for fragment, keys in wanted]
            return [Fetched(held.watermark, [held.rows.get(key) for key in keys]) for held, keys in found]

    def apply(self, fragment: Fragment, change: Change) -> int | None:
        """Write a change if the watermark is `change.since`.

        Returns:
            None if written, else the watermark found (0 on an empty fragment), and nothing was written.
        """
        if not 0 <= change.since <= change.until:
            raise ValueError(f"a change of {fragment} from {change.since} to {change.until}: a watermark does not go back")
        if any(score is not None and score != score for score in change.indexed.values()):
            raise ValueError(f"an index of {fragment.view}: a score is not a number")
        with self._lock:
            held = self._fragments.get(fragment, _Held())
            if (held.watermark or 0) != change.since:
                return held.watermark or 0
            self._fragments[fragment] = held
            for key, row in change.rows.items():
                if row is None:
                    held.rows.pop(key, None)
                else:
                    held.rows[key] = row
            for (index, group, key), score in change.indexed.items():
                entries = held.indexes.setdefault((index, group), {})
                if score is None:
                    entries.pop(key, None)
                else:
                    entries[key] = float(score)
            held.upstream |= change.upstream
            held.watermark = change.until
            return None

    def newest(self, fragments: Sequence[Fragment], index: str, group: str, limit: int) -> Sequence[str]:
        """Keys of one group of an index over the given fragments, highest score first, at most `limit`; ties by key, highest first."""
        with self._lock:
            entries = [
                (score, key.encode())
                for fragment in fragments
                if fragment in self._fragments
                for key, score in self._fragments[fragment].indexes.get((index, group), {}).items()
            ]
        return [key.decode() for _, key in sorted(entries, reverse=True)[: max(limit, 0)]]

    def upstream(self, fragments: Sequence[Fragment]) -> Set[str]:
        """Topics that anything folded into the given fragments came after."""
        with self._lock:
            return {topic for fragment in fragments if fragment in self._fragments for topic in self._fragments[fragment].upstream}

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        with self._lock:
            self._fragments.clear()

    def close(self) -> None:
        """Nothing to let go of."""


class AsyncMemoryRows:
    """The same rows for those who answer questions.

    Args:
        rows: what the projections write to.
    """

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows

    async def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark."""
        return self._rows.fetch(wanted)

    async def newest(self, fragments: Sequence[Fragment], index: str, group: str, limit: int) -> Sequence[str]:
        """Keys of one group of an index over the given fragments, highest score first, at most `limit`; ties by key, highest first."""
        return self._rows.newest(fragments, index, group, limit)

    async def upstream(self, fragments: Sequence[Fragment]) -> Set[str]:
        """Topics that anything folded into the given fragments came after."""
        return self._rows.upstream(fragments)

    async def close(self) -> None:
        """Nothing to let go of."""

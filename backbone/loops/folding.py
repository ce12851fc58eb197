"""Rows of one partition while a batch of events is folded into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from backbone import damage
from backbone.declare import On, View
from backbone.ports import Change
from backbone.stored import After, Lineage, after_of, wrapped
from backbone.v1.meta_pb2 import Position

Entries = dict[str, tuple[str, float] | None]
"""Group and score by name of the index."""


class NotItsKey(Exception):
    """A view's function reached for a row that its record does not feed."""


class RowTable:
    """A dictionary whose missing rows are new ones; each fold may touch the row of its own record only.

    Args:
        view: whose rows these are.
        name: full name of the view.
        key: the field of the row that holds its key.
        stored: what lies in the place of each row that the batch may touch.
        lineage: what the rows may come after; without it they do not remember.
    """

    def __init__(self, view: View[Any], name: str, key: str, stored: Mapping[str, bytes | None], lineage: Lineage | None = None) -> None:
        self._view = view
        self._name = name
        self._key = key
        self._stored = stored
        self._rows: dict[str, Message | None] = {}
        self._entries_before: dict[str, Entries] = {}
        self._entries: dict[str, Entries] = {}
        self._damaged: dict[str, bytes] = {}
        self._lineage = lineage
        self._afters: dict[str, After] = {}
        self._upstream: set[str] = set()
        self._own = ""

    def __getitem__(self, key: str) -> Any:
        row = self._held(key)
        if row is None:
            row = self._rows[key] = self._view.row(**{self._key: key})
        return row

    def __contains__(self, key: object) -> bool:
        return self._held(key) is not None

    def __delitem__(self, key: str) -> None:
        if self._held(key) is None:
            raise KeyError(key)
        self._rows[key] = None

    def fold(
        self,
        line: On[Any, Any],
        key: str,
        event: Message,
        at: datetime,
        where: str,
        *,
        after: Iterable[Position] = (),
        next_offset: int = 0,
    ) -> Exception | None:
        """Fold one event into the row of its record.

        Args:
            key: the record's key.
            at: when the record was appended: all that a view can look up.
            where: coordinate of the record.
            after: positions the event comes after.
            next_offset: the offset after the record.

        Returns:
            What was raised: then the row is damaged, and stays so whatever comes later for it.
        """
        self._own = key
        try:
            self._load(key)
            if key in self._damaged:
                return None
            line.function(self, event, *(at for _ in line.look_ups))
            row = self._rows[key]
            if row is not None and getattr(row, self._key) != key:
                raise NotItsKey(f"{self._key} of row {key!r} was set to {getattr(row, self._key)!r}")
            self._entries[key] = self._entries_of(row)
            self._remember(key, row, after, next_offset)
        except Exception as error:  # noqa: BLE001 - whatever a view's function raises is that row's damage, not the projection's end
            self._damaged[key] = damage.mark(f"{line} at {where} raised {type(error).__name__}: {error}")
            return error
        return None

    def change(self, since: int, until: int) -> Change:
        """What the folds have changed, the last word per key. A damaged row keeps its index entries, so that lists show the damage."""
        change = Change(since, until, upstream=self._upstream)
        for key, row in self._rows.items():
            raw = None if row is None else self._raw(key, row)
            if key in self._damaged or raw == self._stored.get(key):
                continue
            change.rows[key] = raw
            for index in self._view.indexes:
                _move(change, index.name, key, self._entries_before[key][index.name], self._entries[key][index.name])
        change.rows.update({key: raw for key, raw in self._damaged.items() if raw != self._stored.get(key)})
        return change

    def rows(self) -> dict[str, Message | None]:
        """The rows loaded so far; None where a row is deleted or was never there."""
        return dict(self._rows)

    def _held(self, key: object) -> Message | None:
        if key != self._own:
            raise NotItsKey(f"its record's key is {self._own!r}, it asked for row {key!r}: a record feeds the row of its own key only")
        return self._rows[self._own]

    def _load(self, key: str) -> None:
        if key in self._rows or key in self._damaged:
            return
        raw = self._stored.get(key)
        if raw is not None and damage.is_damaged(raw):
            self._damaged[key] = raw
            return
        row = None if raw is None else damage.row_of(self._view.row, self._name, key, raw)
        self._entries_before[key] = self._entries_of(row)
        self._rows[key] = row
        if self._lineage is not None and raw is not None:
            self._afters[key] = after_of(raw)

    def _remember(self, key: str, row: Message | None, after: Iterable[Position], next_offset: int) -> None:
        if self._lineage is None:
            return
        if row is None:
            self._afters.pop(key, None)
            return
        held = self._afters.get(key)
        if held is None:
            held = self._afters[key] = After()
        held.fold(self._lineage, after, next_offset, self._upstream)

    def _raw(self, key: str, row: Message) -> bytes:
        raw = damage.serialized(row)
        held = self._afters.get(key)
        return raw if held is None else wrapped(raw, held)

    def _entries_of(self, row: Message | None) -> Entries:
        return {index.name: None if row is None else index.entry(row) for index in self._view.indexes}


def _move(change: Change, index: str, key: str, before: tuple[str, float] | None, after: tuple[str, float] | None) -> None:
    if before == after:
        return
    if before is not None:
        change.indexed[index, before[0], key] = None
    if after is not None:
        change.indexed[index, after[0], key] = after[1]

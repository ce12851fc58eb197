"""Given rows, when events come, then these rows: a view driven without log or Redis.

rows(prices).given(Price(sku="A")).when(price_changed).then({"A": Price(sku="A", unit_price=usd(3))})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic

from google.protobuf.message import Message

from backbone import damage
from backbone.contract import row_key
from backbone.declare import Row, View
from backbone.loops.folding import RowTable
from backbone.moments import EPOCH
from backbone.rules import check


@dataclass(frozen=True)
class Rows(Generic[Row]):
    """A view, what it holds and what comes.

    Attributes:
        held: rows before anything comes.
        events: what comes, with the time each was appended to the log.
    """

    view: View[Row]
    held: Sequence[Row] = ()
    events: Sequence[tuple[Message, datetime]] = ()

    def given(self, *held: Row) -> Rows[Row]:
        """The view holds these rows."""
        return replace(self, held=(*self.held, *held))

    def when(self, *events: Message, at: datetime = EPOCH) -> Rows[Row]:
        """These events come, in this order, all appended at one time; call it again for another time."""
        return replace(self, events=(*self.events, *((event, at) for event in events)))

    def then(self, expected: Mapping[str, Row]) -> None:
        """The view holds exactly these rows, by key.

        Raises:
            AssertionError: it holds others.
            Exception: whatever a function of the view raises; in a projection it would damage the row.
        """
        found = self.folded()
        wrong = [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
        assert not wrong, "\n".join(
            f"row {key!r}\n  is       {_shown(found.get(key))}\n  expected {_shown(expected.get(key))}" for key in wrong
        )

    def folded(self) -> dict[str, Row]:
        """The rows the view holds afterwards, by key.

        Raises:
            AssertionError: the view hears no such event.
            BreaksRules: an event breaks its contract.
            Exception: whatever a function of the view raises.
        """
        key_field = row_key(self.view.row)
        lines = {line.hears: line for line in self.view.table}
        stored: dict[str, bytes | None] = {getattr(row, key_field): damage.serialized(row) for row in self.held}
        table = RowTable(self.view, self.view.name, key_field, stored)
        for number, (event, at) in enumerate(self.events, start=1):
            line: Any = lines.get(type(event))
            assert line is not None, f"view {self.view.name} does not hear {type(event).__name__}"
            check(event)
            error = table.fold(line, getattr(event, key_field), event, at, f"event {number}")
            if error is not None:
                raise error
        held = {key: raw for key, raw in (stored | table.change(0, 0).rows).items() if raw is not None}
        return {key: damage.row_of(self.view.row, self.view.name, key, raw) for key, raw in held.items()}


def rows(view: View[Row]) -> Rows[Row]:
    """A view that holds nothing yet."""
    return Rows(view)


def rows_of(view: View[Row], *events: Message) -> dict[str, Row]:
    """The rows, by key, of a view that held nothing and into which these events came; see `Rows.folded`."""
    return rows(view).when(*events).folded()


def _shown(row: Message | None) -> str:
    return "absent" if row is None else " ".join(str(row).split())

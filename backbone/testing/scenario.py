"""Given what was said, when this comes, knowing these rows, then exactly that is said: a decider driven without log, rows or clock."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from backbone.contract import is_effect, row_key, said_by
from backbone.declare import Decider, HappenedAt, On, Rows, Said, Tick, View
from backbone.rules import check

State = TypeVar("State")


@dataclass(frozen=True)
class Scenario(Generic[State, Said]):
    """One decision of a decider: immutable, so that a shared beginning can be continued in several ways. See `scenario`."""

    decider: Decider[State, Said]
    past: tuple[Said, ...] = ()
    came: Message | Tick | None = None
    rows: Mapping[View[Any], Mapping[str, Message]] = field(default_factory=dict)
    now: datetime | None = None

    def given(self, *said: Said) -> Scenario[State, Said]:
        """... after the decider said this (more)."""
        return replace(self, past=(*self.past, *said))

    def when(self, came: Message | Tick) -> Scenario[State, Said]:
        """... this event, outcome or tick comes."""
        return replace(self, came=came)

    def knowing(self, view: View[Any], *rows: Message) -> Scenario[State, Said]:
        """... while a view of the service holds these rows (more), and no others."""
        key = row_key(view.row)
        known = {**self.rows.get(view, {}), **{getattr(row, key): row for row in rows}}
        return replace(self, rows={**self.rows, view: known})

    def at(self, now: datetime) -> Scenario[State, Said]:
        """... at this append time."""
        return replace(self, now=now)

    def then(self, *expected: Said) -> State:
        """... exactly this is said, in this order; nothing if nothing is expected.

        Returns:
            The state afterwards.

        Raises:
            AssertionError: something else is said; shows the difference as text.
        """
        __tracebackhide__ = True
        said, state = self._decide()
        if list(said) != list(expected):
            raise AssertionError(f"{self._line()} says something else:\n{difference(expected, said)}")
        return state

    def then_fails(self, error: type[Exception], words: str = "") -> None:
        """... the decision raises: a defect, which stops the key and shows.

        Args:
            words: what the text of the error must hold.

        Raises:
            AssertionError: it says something instead, or the text is another.
        """
        __tracebackhide__ = True
        try:
            said, _ = self._decide()
        except error as raised:
            if words not in str(raised):
                raise AssertionError(f"{self._line()} raised {raised!r}, expected were the words {words!r}") from raised
            return
        raise AssertionError(f"{self._line()} raised no {error.__name__}; it said:\n{as_text(said)}")

    def said(self) -> Sequence[Said]:
        """... all that is said."""
        return self._decide()[0]

    def state(self) -> State:
        """What is held before anything comes: the fold of what was given."""
        state = self.decider.state()
        for said in self.past:
            state = self._evolved(state, said)
        return state

    def _decide(self) -> tuple[Sequence[Said], State]:
        """As the loop does it: on the state at entry, evolving after each thing said, every event checked against its contract."""
        line = self._line()
        before = after = self.state()
        if isinstance(self.came, Tick) and line.due is not None and line.due(before) != self.came.due:
            return [], before
        if isinstance(self.came, Message) and not is_effect(type(self.came)):
            check(self.came)
        said = list(self._said(line, before))
        for one in said:
            after = self._evolved(after, one)
        return said, after

    def _said(self, line: On[Any, Any], state: State) -> Iterator[Said]:
        for one in line.function(state, self.came, *map(self._looked_up, line.look_ups)):
            if type(one) not in said_by(self.decider):
                raise AssertionError(f"{line} said a {type(one).__name__}, which evolve's union does not name")
            if not is_effect(type(one)):
                check(one)
            yield one

    def _evolved(self, state: State, said: Said) -> State:
        if type(said) not in said_by(self.decider):
            raise AssertionError(f"{type(said).__name__} is nothing this decider says; given is what it said before")
        return self.decider.evolve(state, said)

    def _looked_up(self, look_up: object) -> object:
        if isinstance(look_up, HappenedAt):
            if self.now is None:
                raise AssertionError(f"{self._line()} asks when it happened: say .at(...)")
            return self.now
        assert isinstance(look_up, Rows), look_up
        known = self.rows.get(look_up.view)
        if known is None:
            raise AssertionError(f"{self._line()} looks up {look_up.view.name}: say .knowing(view, *rows), also for none")
        return {key: known[key] for key in look_up.keys(self.came) if key in known}

    def _line(self) -> On[Any, Any]:
        if self.came is None:
            raise AssertionError("nothing came: say .when(...)")
        if isinstance(self.came, Tick):
            if self.decider.deadline is None:
                raise AssertionError("a tick came to a decider without a deadline")
            return self.decider.deadline
        for line in self.decider.table:
            if line.hears is type(self.came):
                return line
        raise AssertionError(f"{type(self.came).__name__} is in no line of the table")


def scenario(decider: Decider[State, Said]) -> Scenario[State, Said]:
    """A decider of which nothing has been asked yet.

    scenario(decider).given(*said).when(came).knowing(view, *rows).at(now).then(*said)
    """
    return Scenario(decider)


def as_text(messages: Sequence[Message]) -> str:
    """Messages as text, one field a line."""
    if not messages:
        return "(nothing)\n"
    return "".join(f"{type(one).__name__}\n{text_format.MessageToString(one, indent=2)}" for one in messages)


def difference(expected: Sequence[Message], said: Sequence[Message]) -> str:
    """What was expected (-) beside what was said (+)."""
    return "\n".join(
        difflib.unified_diff(as_text(expected).splitlines(), as_text(said).splitlines(), "expected", "said", n=1000, lineterm="")
    )

"""A Hypothesis state machine over any decider: real histories of a few aggregates, every decision held to what all decisions promise.

Of each decision it is checked that the same record gives the same words again, that what it says keeps its contract, is its own and may
follow what was said before, that a repeated record is met with silence, that a deadline that was decided is no longer due, and that the
state can be kept and restored. Needs the package hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from hypothesis.strategies import SearchStrategy

from backbone.contract import ResolvedService, is_effect, said_by
from backbone.declare import HappenedAt, On, Rows, Tick, View
from backbone.envelope import split_entry_key
from backbone.loops.snapshots import Held, Snapshots
from backbone.rules import check
from backbone.testing.contracts import Given, valid
from backbone.v1.private_pb2 import StateEntry

BEGAN = datetime(2026, 3, 2, 12, tzinfo=UTC)
FIRST = ""
"""In successors: before anything was said."""


@dataclass(frozen=True)
class Successors:
    """What may be said after what, of one thing.

    Attributes:
        subject: field that names the thing: the key of the aggregate, or of something in it.
        after: names of the events that may follow an event, by its name; those that may come first under "".
    """

    subject: str
    after: Mapping[str, frozenset[str]]

    def wrong(self, said: Iterable[Message], last: dict[str, str] | None = None) -> list[str]:
        """What follows something that it must not follow, in words; events without the subject are passed over.

        Args:
            said: by one aggregate, in order.
            last: name of the last event of each subject; brought up to date.
        """
        last = {} if last is None else last
        found = []
        for one in said:
            subject = getattr(one, self.subject, "")
            name = type(one).DESCRIPTOR.name
            if not subject or is_effect(type(one)):
                continue
            if name not in self.after.get(last.get(subject, FIRST), frozenset()):
                found.append(f"{name} of {subject} after {last.get(subject) or 'nothing'}")
            last[subject] = name
        return found


@dataclass(frozen=True)
class World:
    """What a decider's machine needs to know besides its table and contracts.

    Attributes:
        given: strategies for fields and messages, above all a small pool for each key.
        successors: of everything its events tell of.
        comes: a strategy for a message that should often fit what is held, made from the states by key.
        rows: a strategy for the row of a key, by view; it may give None.
        again: messages that are answered each time they come, such as a request that is refused.
        defects: exceptions that a contradiction may raise: the record is set aside, nothing is said.
    """

    given: Given
    successors: Sequence[Successors] = ()
    comes: Mapping[type[Message], Callable[[Mapping[str, Any]], SearchStrategy[Any]]] = field(default_factory=dict)
    rows: Mapping[View[Any], Callable[[str], SearchStrategy[Any]]] = field(default_factory=dict)
    again: frozenset[type[Message]] = frozenset()
    defects: tuple[type[Exception], ...] = ()


def machine(service: ResolvedService, world: World) -> type[RuleBasedStateMachine]:
    """The machine of a service's decider; run it with `run_state_machine_as_test` or as its `TestCase`."""
    assert service.decider is not None, f"{service.name} decides nothing"
    rules = {f"{line.line.hears.DESCRIPTOR.name}_comes".lower(): _coming(line.line) for line in service.decider.reactions}
    members: dict[str, Any] = {"service": service, "world": world, **rules}
    if service.decider.decider.deadline is not None:
        members["a_deadline_passes"] = _deadline(service.decider.decider.deadline)
    return type(f"{service.name.title().replace('.', '')}Machine", (DeciderMachine,), members)


def _coming(line: On[Any, Any]) -> Any:
    @rule(data=st.data(), later=st.integers(0, 2000))
    def come(self: DeciderMachine, data: st.DataObject, later: int) -> None:
        self.now += timedelta(seconds=later)
        fitting = self.world.comes.get(line.hears)
        # One in five is anything the contract allows: most of those meet a final state or contradict it.
        fits = fitting is not None and data.draw(st.integers(0, 4)) > 0
        came = data.draw(fitting(self.states()) if fitting is not None and fits else valid(line.hears, self.world.given))
        if not is_effect(line.hears):
            check(came)
        for key in self.keys_of(line, came):
            looked_up = [self.looked_up(data, one, came) for one in line.look_ups]
            self.decide(line, key, came, looked_up)
            if line.hears not in self.world.again:
                again = self.ask(line, key, came, looked_up)
                assert not again, f"{line} says {again} when the same record comes again"

    return come


def _deadline(line: On[Any, Any]) -> Any:
    @precondition(lambda self: self.due(line))
    @rule(data=st.data(), late=st.integers(0, 600))
    def pass_by(self: DeciderMachine, data: st.DataObject, late: int) -> None:
        key = data.draw(st.sampled_from(self.due(line)))
        due = line.due(self.held[key].state) if line.due else None
        assert due is not None
        self.now = max(self.now, due) + timedelta(seconds=late)
        early = Tick(due - timedelta(seconds=1), self.now)
        assert not self.ask(line, key, early, []), f"{key} is due at {due}, and a tick of a deadline before that decides it"
        self.decide(line, key, Tick(due, self.now), [])
        left = line.due(self.held[key].state) if line.due else None
        assert left is None or left > due, f"{key} is still due at {due} after that was decided"

    return pass_by


class DeciderMachine(RuleBasedStateMachine):
    """The machine; `machine` gives it a rule per line of the table."""

    service: ResolvedService
    world: World

    def __init__(self) -> None:
        super().__init__()
        assert self.service.decider is not None
        self.of = self.service.decider
        self.decider = self.of.decider
        self.now = BEGAN
        self.held: dict[str, Held] = {}
        self.restored: dict[str, Held] = {}
        self.last: dict[tuple[str, str], dict[str, str]] = {}
        self.snapshots = Snapshots(self.decider, "machine")

    def states(self) -> Mapping[str, Any]:
        """What is held, by key."""
        return {key: held.state for key, held in self.held.items()}

    def due(self, line: On[Any, Any]) -> list[str]:
        """Keys that wait for a deadline."""
        return sorted(key for key, held in self.held.items() if line.due is not None and line.due(held.state) is not None)

    def keys_of(self, line: On[Any, Any], came: Any) -> list[str]:
        """The aggregates that a message is about."""
        if line.key is not None:
            keys = line.key(came)
            return [keys] if isinstance(keys, str) else list(keys)
        return [getattr(came, line.by or self.of.primary.key)]

    def looked_up(self, data: st.DataObject, look_up: Any, came: Any) -> Any:
        """What a decision is handed besides."""
        if isinstance(look_up, HappenedAt):
            return self.now
        assert isinstance(look_up, Rows), look_up
        rows = {key: data.draw(self.world.rows[look_up.view](key)) for key in look_up.keys(came)}
        return {key: row for key, row in rows.items() if row is not None}

    def ask(self, line: On[Any, Any], key: str, came: Any, looked_up: Sequence[Any]) -> list[Message]:
        """What is said on the state at entry; nothing for a contradiction."""
        state = self.held[key].state if key in self.held else self.decider.state()
        try:
            return list(line.function(state, came, *looked_up))
        except self.world.defects:
            return []

    def decide(self, line: On[Any, Any], key: str, came: Any, looked_up: Sequence[Any]) -> None:
        """One decision, and all that is promised of it."""
        said = self.ask(line, key, came, looked_up)
        assert said == self.ask(line, key, came, looked_up), f"{line} says something else for the same record"
        held = self.held.get(key) or Held(self.decider.state())
        state = held.state
        for one in said:
            assert type(one) in said_by(self.decider), f"{line} says a {type(one).__name__}, which is not its own"
            if not is_effect(type(one)):
                check(one)
                assert getattr(one, self.of.primary.key) == key, f"{line} decides {key} and says {one}"
            state = self.decider.evolve(state, one)
        for successors in self.world.successors:
            wrong = successors.wrong(said, self.last.setdefault((key, successors.subject), {}))
            assert not wrong, f"{line}: {', '.join(wrong)}"
        self.keep(key, Held(state, held.sequence + len(said), key))

    def keep(self, key: str, held: Held) -> None:
        """Keep a state as the loop does, and hold it against what is restored from all that was kept."""
        assert self.decider.done is None or self.decider.done(held.state) in (None, held.state), f"the stub of {key} has another stub"
        for raw_key, value in self.snapshots.entries(key, held):
            before = self.restored.get(key) or Held(self.decider.state())
            if value is None:
                self.restored[key] = self.snapshots.without(before, split_entry_key(raw_key)[1])
            else:
                self.restored[key] = self.snapshots.taken_up(before, StateEntry.FromString(value))
        self.held[key] = self.snapshots.kept(held)
        assert self.restored[key] == self.held[key], f"{key} is restored as something else"

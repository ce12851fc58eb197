"""Records what a decider's decisions were made on, from lives of its machine: a few of each kind, for `backbone contracts field-use`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from backbone.contract import ResolvedService
from backbone.declare import On, Rows
from backbone.operations.contracts.ablation import Decided, filled, shown_path
from backbone.testing.machine import DeciderMachine, World, machine

EACH = 2
"""Decisions kept of each line of the table with each answer."""
LONGEST = 12
"""What an aggregate may have said before a decision that is kept."""


class _Kept:
    """The decisions that are kept, and what is known of them."""

    def __init__(self) -> None:
        self.decided: list[Decided] = []
        self.answers: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.fields: set[tuple[str, str]] = set()

    def offer(self, decided: Decided, said: Sequence[Message]) -> None:
        """Keep a decision if it is one of few."""
        name = decided.came.DESCRIPTOR.name
        answer = (name, tuple(one.DESCRIPTOR.name for one in said))
        fresh = {(name, shown_path(path)) for path in filled(decided.came)} - self.fields
        if self.answers[answer] < EACH or fresh:
            self.answers[answer] += 1
            self.fields |= fresh
            self.decided.append(decided)


class _Recording(DeciderMachine):
    """The machine, with what each aggregate has said."""

    kept: _Kept

    def __init__(self) -> None:
        super().__init__()
        self.said: defaultdict[str, list[Message]] = defaultdict(list)

    def decide(self, line: On[Any, Any], key: str, came: Any, looked_up: Sequence[Any]) -> None:
        said = self.ask(line, key, came, looked_up)
        if isinstance(came, Message) and len(self.said[key]) <= LONGEST:
            self.kept.offer(Decided(tuple(self.said[key]), came, _known(line, looked_up), self.now), said)
        super().decide(line, key, came, looked_up)
        self.said[key] += said


def record(service: ResolvedService, world: World, lives: int = 100) -> list[Decided]:
    """Decisions of every kind that the machine of a decider meets, the same ones whenever it is called.

    A decision is kept if there are few with its line and its answer, or if what came fills a field that none before it filled.

    Args:
        lives: how many histories are tried.
    """
    kept = _Kept()
    lived = type("Recording", (_Recording, machine(service, world)), {"kept": kept})
    run_state_machine_as_test(
        lived,
        settings=settings(
            max_examples=lives,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
            phases=(Phase.explicit, Phase.generate),
        ),
    )
    return sorted(kept.decided, key=lambda one: one.came.DESCRIPTOR.name)


def _known(line: On[Any, Any], looked_up: Sequence[Any]) -> dict[str, tuple[Message, ...]]:
    pairs = zip(line.look_ups, looked_up, strict=True)
    return {one.view.row.DESCRIPTOR.name: tuple(rows.values()) for one, rows in pairs if isinstance(one, Rows)}

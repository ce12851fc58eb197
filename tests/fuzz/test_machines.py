"""Deciders live through histories that nobody wrote."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from backbone.testing.machine import FIRST, DeciderMachine, Successors, machine
from tests import examples as say
from tests.corpus import HISTORIES
from tests.fuzz.branches import Branches, watching
from tests.fuzz.worlds import DECIDERS, WORLDS
from tests.successors import OF_PAYMENTS, SUCCESSORS

ENOUGH = 0.95
EXAMPLES, FEW = {"ordering.orders": 220, "payments.payments": 220}, 25
"""Histories that it takes to meet every branch; a process manager's are long and often end early."""
pytestmark = pytest.mark.timeout(600)  # a quarter of a minute alone, several on a machine that is busy with other things

LONG = settings(
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
    phases=(Phase.explicit, Phase.generate),  # to shrink a history takes minutes: add Phase.shrink when one has failed
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WORLDS)
def test_a_decider_keeps_its_promises_through_any_history(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    branches = Branches.of(importlib.import_module(f"contexts.{name}.decisions"))

    lives = machine(DECIDERS[name], WORLDS[name])
    ask = DeciderMachine.ask

    def watched(self: DeciderMachine, *question: Any) -> list[Message]:
        with watching(branches):
            return ask(self, *question)

    monkeypatch.setattr(lives, "ask", watched, raising=False)
    run_state_machine_as_test(lives, settings=settings(LONG, max_examples=EXAMPLES.get(name, FEW)))
    print(f"{name}: {branches.share:.0%} of {len(branches.every)} branches of decisions.py", file=sys.stderr)
    assert branches.share >= ENOUGH, f"lines and ways not taken: {branches.missed}"


def test_every_decider_has_a_world_and_successors() -> None:
    assert WORLDS.keys() == DECIDERS.keys() == SUCCESSORS.keys()


@pytest.mark.parametrize("name", SUCCESSORS)
def test_what_follows_what_names_every_event(name: str) -> None:
    decider = DECIDERS[name].decider
    assert decider is not None
    told = {one for successors in SUCCESSORS[name] for after in successors.after.values() for one in after}
    with_subject = {
        event.DESCRIPTOR.name
        for event in decider.primary.events.values()
        if any(successors.subject in event.DESCRIPTOR.fields_by_name for successors in SUCCESSORS[name])
    }
    assert told == with_subject


@pytest.mark.parametrize("name", SUCCESSORS)
def test_stored_histories_follow_it(name: str) -> None:
    decider = DECIDERS[name].decider
    assert decider is not None
    for successors in SUCCESSORS[name]:
        assert successors.wrong(HISTORIES[decider.primary.name]) == []


def test_what_must_not_follow_is_found() -> None:
    assert OF_PAYMENTS.wrong([say.payment_started(), say.payment_captured()]) == ["PaymentCaptured of order-1 after PaymentStarted"]
    assert Successors("order_id", {FIRST: frozenset({"OrderPaid"})}).wrong([say.order_paid(), say.order_paid("order-2")]) == []

"""The checker finds every planted mistake that can bite in the simulation, and each for its own reason."""

from __future__ import annotations

import pytest

from tests.checker.check import SAYS
from tests.mutants.runtime import OF_RUNTIME
from tests.mutants.shop import OF_SHOP
from tests.mutants.table import ALL, WITHIN_SEEDS, look_for

LEAST = 30


@pytest.mark.parametrize("name", ALL)
def test_a_planted_mistake_turns_a_run_red(name: str) -> None:
    """By a rule that is named beforehand; and the same run is green without it."""
    looked = look_for(name)
    assert looked.seed is not None, f"{ALL[name].about}: not seen within {WITHIN_SEEDS} seeds by {', '.join(ALL[name].reasons)}"
    assert looked.red_without == ""


def test_every_mistake_has_its_reason_and_there_are_enough() -> None:
    """None is left out, and the rules are the checker's."""
    assert len(ALL) == len(OF_RUNTIME) + len(OF_SHOP) >= LEAST
    assert all(mutant.reasons for mutant in ALL.values())
    rules = {rule for mutant in ALL.values() for rule in mutant.reasons}
    assert {rule for rule in rules if not rule.startswith("law: ")} <= set(SAYS)

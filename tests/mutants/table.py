"""Every mistake that can be planted in the simulation, and what a search for it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.mutants.planting import Mutant, planted
from tests.mutants.runtime import OF_RUNTIME
from tests.mutants.shop import OF_SHOP
from tests.simulation.running import Ran, run
from tests.simulation.shop import Plan

ALL: Mapping[str, Mutant] = {**OF_RUNTIME, **OF_SHOP}

WITHIN_SEEDS = 80


@dataclass(frozen=True, slots=True)
class Looked:
    """What a search for one mistake showed.

    Attributes:
        seed: the one that shows it; None if none does.
        finding: what the checker says there, the smallest of its own reason.
        red_without: the same run is red without the mistake, which then proves nothing.
    """

    name: str
    seed: int | None
    finding: str = ""
    red_without: str = ""

    @property
    def well(self) -> bool:
        """Whether it was found, and for its own reason."""
        return self.seed is not None and not self.red_without


def look_for(name: str, within: int = WITHIN_SEEDS) -> Looked:
    """Run seeds with a mistake planted until its own reason shows, and that seed again without it."""
    mutant = ALL[name]
    for seed in range(mutant.first, mutant.first + within):
        plan = Plan(seed, of_orders=20, of_faults=40)
        with planted(mutant.plant):
            ran = run(plan)
        if (shown := own_reason(mutant, ran)) is not None:
            return Looked(name, seed, shown, next(iter(run(plan).wrong), ""))
    return Looked(name, None)


def own_reason(mutant: Mutant, ran: Ran) -> str | None:
    """The shortest finding of the checker that is the mistake's own."""
    found = [text for text in ran.wrong for rule in mutant.reasons if text.startswith(f"checker {rule}: ")]
    return min(found, key=len).removeprefix("checker ") if found else None

"""Every planted mistake, by which rules it is to be found, and what a search for it showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unittest.mock import patch

from tests.mutants.simulated import SIMULATED
from tests.simulation.mutants import MUTANTS, Mutant, planted
from tests.simulation.running import Ran, run
from tests.simulation.shop import Plan

ALL: Mapping[str, Mutant] = {**MUTANTS, **SIMULATED}

WITHIN_SEEDS = 80

REASONS: Mapping[str, Sequence[str]] = {
    "offsets first": ("skipped", "acknowledged", "law: answered"),
    "no offsets": ("one outcome", "one reaction"),
    "memory first": ("law: sequence", "skipped"),
    "memory kept": ("one reaction", "unique ids"),
    "watermark first": ("view",),
    "no fence": ("view",),
    "absence believed": ("absence",),
    "read committed end": ("law: sequence", "state"),
    "random ids": ("cause", "one reaction"),
    "hasty": ("expiry",),
    "own clock": ("expiry",),
    "tombstone first": ("one outcome",),
    "cursor first": ("skipped",),
    "new keys": ("law: provider",),
    "every receipt": ("law: receipts",),
    "unchecked stock": ("defect", "law: stock"),
    "effects from the end": ("one outcome",),
    "effects before restored": ("one outcome",),
    "dirty reads": ("aborted read",),
    "nobody fenced": ("one outcome", "unique ids"),
    "offsets alone": ("one reaction", "one outcome"),
    "suspicion ignored": ("law: copies", "law: sequence"),
    "view believes itself": ("view",),
    "two answers": ("prefix", "law: one answer"),
    "last word": ("prefix", "law: one answer"),
    "confirmed unpaid": ("prefix",),
    "partly reserved": ("prefix",),
    "check, then act": ("defect", "law: stock"),
    "never released": ("law: given back",),
    "no refund": ("law: given back",),
    "captured at once": ("prefix",),
    "copy torn off": ("law: copies",),
    "state torn off": ("state", "law: sequence"),
    "nothing observed": ("absence",),
    "short memory": ("cause",),
    "skips": ("skipped",),
    "poison dropped": ("skipped",),
    "taken on trust": ("acknowledged",),
    "uniform": ("law: sequence", "one reaction"),
    "fold forgets": ("view",),
    "own time": ("view",),
    "other lines": ("law: as requested",),
}
"""Rules of the checker of which one must be broken by each mistake: its own reason, not some consequence."""


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
    with patch.dict(MUTANTS, SIMULATED):
        for seed in range(mutant.first, mutant.first + within):
            plan = Plan(seed, of_orders=20, of_faults=40)
            with planted(name):
                ran = run(plan)
            if (shown := own_reason(name, ran)) is not None:
                return Looked(name, seed, shown, next(iter(run(plan).wrong), ""))
    return Looked(name, None)


def own_reason(name: str, ran: Ran) -> str | None:
    """The shortest finding of the checker that is the mistake's own."""
    found = [text for text in ran.wrong for rule in REASONS[name] if text.startswith(f"checker {rule}: ")]
    return min(found, key=len).removeprefix("checker ") if found else None

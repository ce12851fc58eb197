"""All rules, asked of one world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from laws.check import check as lawful
from laws.entries import Place
from tests.checker.rules.decisions import absence, expiry
from tests.checker.rules.identity import aborted_read, cause, one_outcome, one_reaction, unique_ids
from tests.checker.rules.prefixes import prefix
from tests.checker.rules.promises import acknowledged, complete, fresh, honest, idempotent
from tests.checker.rules.skipping import defect, skipped
from tests.checker.rules.states import state
from tests.checker.rules.views import view
from tests.checker.seen import Seen
from tests.checker.world import Finding, World

Rule = Callable[[Seen], Iterator[Finding]]

ALWAYS: Mapping[str, Rule] = {
    "aborted read": aborted_read,
    "unique ids": unique_ids,
    "cause": cause,
    "one reaction": one_reaction,
    "one outcome": one_outcome,
    "prefix": prefix,
    "expiry": expiry,
    "absence": absence,
    "skipped": skipped,
    "defect": defect,
    "acknowledged": acknowledged,
    "honest": honest,
    "idempotent": idempotent,
    "complete": complete,
    "fresh": fresh,
    "view": view,
}
"""Rules by name; those that only hold at rest look for themselves."""

AT_REST: Mapping[str, Rule] = {"state": state}

SAYS: Mapping[str, str] = {name: (rule.__doc__ or "").strip() for name, rule in {**ALWAYS, **AT_REST}.items()}
"""Every rule in a sentence."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the checker says.

    Attributes:
        records, aborted, calls, samples: how much it looked at.
        set_aside: records in quarantine.
        at_ms: when each record was appended.
    """

    findings: tuple[Finding, ...]
    records: int
    aborted: int
    calls: int
    samples: int
    set_aside: int
    at_ms: Mapping[Place, int] = field(default_factory=dict, repr=False)

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return not self.findings

    def smallest(self) -> tuple[Finding, ...]:
        """For each broken rule the finding with the fewest witnesses."""
        best: dict[str, Finding] = {}
        for one in self.findings:
            if one.rule not in best or len(one.witnesses) < len(best[one.rule].witnesses):
                best[one.rule] = one
        return tuple(best.values())


def judge(world: World) -> Judgement:
    """Ask every rule, and the laws of the shop.

    What cannot be read as what its topic holds is no finding by itself: strangers may write. That it was set aside is a rule.
    """
    seen = Seen(world)
    rules = {**ALWAYS, **(AT_REST if world.at_rest else {})}
    findings = [finding for rule in rules.values() for finding in rule(seen)]
    # The fold of the laws wants copies behind their primaries.
    entries = sorted((one.entry for one in seen.said), key=lambda entry: "-by-" in entry.place.topic)
    verdict = lawful(entries, world.books, at_rest=world.at_rest)
    findings += [Finding(f"law: {one.law}", one.text, one.witnesses) for one in verdict.violations if one.law != "readable"]
    return Judgement(
        tuple(findings),
        len(world.records),
        len(seen.aborted),
        len(world.calls),
        len(world.samples),
        sum(len(places) for places in seen.set_aside.values()),
        {one.place: one.at_ms for one in seen.said},
    )

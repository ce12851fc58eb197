"""One run: a plan carried out, judged, and made smaller if it fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from backbone.testing.simulated.faults import Fault
from tests.simulation.checked import findings
from tests.simulation.judge import wrong_with
from tests.simulation.shop import Plan, Shop


@dataclass
class Ran:
    """What a run showed.

    Attributes:
        wrong: what is wrong, most telling first; empty if nothing is.
        struck: how often each fault struck, by kind, step and standing of the order.
        simulated_s: seconds of CPU for the simulation itself, without judging it.
        digest: the same for two runs of one plan, and for no two different logs.
    """

    plan: Plan
    wrong: list[str]
    struck: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    confirmed: int = 0
    records: int = 0
    turns: int = 0
    virtual_s: float = 0.0
    faults: int = 0
    happened: Sequence[Fault] = ()
    simulated_s: float = 0.0
    digest: int = 0


def run(plan: Plan) -> Ran:
    """Carry out a plan and judge it."""
    shop = Shop(plan)
    simulation = shop.simulation
    began_s = time.process_time()
    with simulation.running():
        wrong = [] if shop.open() else [f"rest: the shop does not open: {simulation.unrest()}"]
        wrong += [] if wrong or shop.trade() else [f"rest: {simulation.unrest() or f'{len(shop.wishes)} wishes are not taken in'}"]
        simulated_s = time.process_time() - began_s
        # Whatever does not come to rest is judged as it stands: it had its time.
        found = [f"checker {finding}" for finding in findings(shop)]
        wrong = wrong + found if wrong else wrong_with(shop) + found
        if not wrong:
            before = _public(shop)
            simulation.restart_all()
            wrong = [] if simulation.rest() else [f"rest after a restart: {simulation.unrest()}"]
            wrong += [f"after a restart of all: {text}" for text in wrong or wrong_with(shop)]
            wrong += ["after a restart of all: more was said"] if _public(shop) != before else []
        wrong = [f"defect: {text}" for text in simulation.defects] + wrong
    return Ran(
        plan,
        wrong,
        simulation.struck,
        simulation.ended,
        len(plan.placed()),
        shop.confirmed(),
        simulation.log.appended,
        simulation.turns,
        simulation.clock.now_s,
        len(simulation.bitten),
        simulation.faults,
        simulated_s,
        _digest(shop),
    )


def _digest(shop: Shop) -> int:
    """A checksum of where every record lies and since when; keys and values hold names of topics that differ from run to run."""
    log = shop.simulation.log
    lies = [(record.partition, record.offset, record.timestamp_ms) for topic in sorted(log.topics()) for record in log.history(topic)]
    return crc32(repr(lies).encode())


def _public(shop: Shop) -> list[tuple[str, int]]:
    log = shop.simulation.log
    return [
        (topic, sum(1 for _ in log.history(topic)))
        for topic in sorted(log.topics())
        if topic.startswith("retail.") or topic.endswith((".commands", ".outcomes"))
    ]


def shrunk(plan: Plan, law: str, tries: int = 150, ran: Callable[[Plan], Ran] = run) -> Ran:
    """The smallest plan found, with fewer faults and orders, that breaks the same law."""
    best = ran(plan)
    faults = tuple(fault.number for fault in Shop(plan).planned_faults())
    best_plan = replace(plan, orders=tuple(plan.placed()), faults=faults)
    left = [tries]

    def breaks(candidate: Plan) -> bool:
        nonlocal best
        if left[0] <= 0:
            return False
        left[0] -= 1
        found = ran(candidate)
        if any(text.startswith(f"{law}:") for text in found.wrong):
            best = found
            return True
        return False

    for name in ("faults", "orders", "faults"):
        best_plan = _fewer(best_plan, name, breaks)
    return best


def _fewer(plan: Plan, name: str, breaks: Callable[[Plan], bool]) -> Plan:
    """Leave out ever smaller pieces as long as the plan still fails."""
    kept: Sequence[int] = getattr(plan, name)
    size = max(1, len(kept) // 2)
    while kept:
        for first in range(0, len(kept), size):
            fewer = (*kept[:first], *kept[first + size :])
            candidate = replace(plan, faults=fewer) if name == "faults" else replace(plan, orders=fewer)
            if breaks(candidate):
                plan, kept = candidate, fewer
                break
        else:
            if size == 1:
                break
            size //= 2
    return plan


def law_of(text: str) -> str:
    """The law that a line of `Ran.wrong` is about."""
    return text.partition(":")[0]

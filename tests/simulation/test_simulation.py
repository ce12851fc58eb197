"""Whatever goes wrong, whenever, and whoever is overtaken by whom: the laws of the shop and the promises of the runtime hold."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from backbone.testing.simulated.faults import AT_A_CALL, Kind
from tests.mutants.planting import planted
from tests.mutants.table import ALL
from tests.simulation.__main__ import main
from tests.simulation.running import Ran, run, shrunk
from tests.simulation.shop import Plan

SEEDS, AT_ONCE = 200, 20


@cache
def seed(number: int) -> Ran:
    """One seed, run once for all tests."""
    return run(Plan(number))


@pytest.mark.parametrize("first", range(1, SEEDS + 1, AT_ONCE))
def test_the_shop_survives_every_seed(first: int) -> None:
    """Crashes, zombies, lost replies, rebalances, lost rows, jumping clocks, a provider in a bad mood."""
    failed = [ran for ran in map(seed, range(first, first + AT_ONCE)) if ran.wrong]
    assert not failed, "\n".join(f"{ran.wrong[0]}\n    {ran.plan.command()}" for ran in failed)


def test_every_fault_strikes_or_the_test_above_proves_little() -> None:
    """Every kind of fault, at every call of decider and effect that it may strike at."""
    struck: Counter[str] = Counter()
    calls: set[str] = set()
    for number in range(1, SEEDS + 1):
        for (kind, step, _), times in seed(number).struck.items():
            struck[kind] += times
            if kind in set(AT_A_CALL):
                calls.add(step)
    assert {kind: times for kind, times in struck.items() if times < 20} == {}
    assert set(struck) == set(Kind)
    for name in ("ordering.orders.decide", "payments.payments.decide", "fulfilment.stock.decide", "payments.payments.effects"):
        assert {f"{name}.{call}" for call in ("begin", "produce", "send_offsets", "commit", "poll")} <= calls


def test_orders_stand_everywhere_when_faults_strike() -> None:
    """So it is not always the same moment of an order's life that is tried."""
    standings = {standing for number in range(1, SEEDS + 1) for _, _, standing in seed(number).struck}
    assert {"requested", "validated", "reserved", "paid", "confirmed", "rejected", "cancelled"} <= standings


def test_a_seed_runs_alike_in_another_process() -> None:
    """Whatever the order of its sets is there: one seed decides everything."""
    script = "from tests.simulation.running import run; from tests.simulation.shop import Plan; print(run(Plan(7)).digest)"
    found = {
        subprocess.check_output([sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": chosen}, text=True, timeout=60).strip()
        for chosen in ("1", "2")
    }
    assert found == {str(seed(7).digest)}


def test_a_failing_run_is_made_smaller_and_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is one line that fails in the same way."""
    with planted(ALL["every receipt"].plant):
        small = shrunk(Plan(1), "receipts")
    assert len(small.happened) == 0
    assert small.orders <= 1
    command = shlex.split(small.plan.command())
    assert command[:3] == ["python", "-m", "tests.simulation"]
    assert main([*command[3:], "--no-shrink", "--mutant", "every receipt"]) == 1
    assert "seed 1 fails: receipts:" in capsys.readouterr().out
    assert main(command[3:]) == 0


def test_without_faults_most_orders_are_confirmed() -> None:
    """The judge is not content with a shop that refuses everything."""
    ran = run(Plan(1, of_faults=0, scarce=5.0))
    assert ran.wrong == []
    assert ran.confirmed > ran.orders / 2

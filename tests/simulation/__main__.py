"""Runs seeds of the simulation: `python -m tests.simulation --seeds 200 --first 1`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext

from tests.mutants.planting import planted
from tests.mutants.table import ALL
from tests.simulation.coverage import table
from tests.simulation.running import Ran, law_of, run, shrunk
from tests.simulation.shop import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 if nothing is wrong."""
    asked = _asked(arguments)
    plans = [
        Plan(seed, asked.orders, asked.faults, asked.only_orders, asked.only_faults, asked.per_second, large=asked.large)
        for seed in range(asked.first, asked.first + asked.seeds)
    ]
    began_s, used_s = time.monotonic(), time.process_time()
    failed = 0
    runs: list[Ran] = []
    with planted(ALL[asked.mutant].plant) if asked.mutant else nullcontext():
        for plan in plans:
            ran = run(plan)
            runs.append(ran)
            if ran.wrong:
                failed += 1
                _show(ran, shrink=asked.shrink and failed == 1)
                if failed == asked.failures:
                    break
    struck: Counter[tuple[str, str, str]] = sum((ran.struck for ran in runs), Counter())
    print(table(struck, sum((ran.ended for ran in runs), Counter())))
    used_s = time.process_time() - used_s
    orders = sum(ran.orders for ran in runs)
    print(
        f"{len(runs)} seeds, {orders} orders, {sum(ran.records for ran in runs)} records, {sum(ran.faults for ran in runs)} faults, "
        f"{sum(ran.virtual_s for ran in runs):.0f} virtual seconds in {time.monotonic() - began_s:.1f} s "
        f"({used_s:.1f} s of CPU, {orders / sum(ran.simulated_s for ran in runs):.0f} orders simulated per second of it); {failed} failed"
    )
    return 1 if failed else 0


def _show(ran: Ran, *, shrink: bool) -> None:
    print(f"seed {ran.plan.seed} fails: {ran.wrong[0]}")
    for text in ran.wrong[1:6]:
        print(f"    {text}")
    if shrink:
        small = shrunk(ran.plan, law_of(ran.wrong[0]))
        print(f"  smaller: {small.wrong[0]}")
        for fault in small.happened:
            print(f"    fault {fault}")
        print(f"  again: {small.plan.command()}", flush=True)
    else:
        print(f"  again: {ran.plan.command()}", flush=True)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds are run")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--orders", type=int, default=Plan.of_orders, help="orders of each run")
    parser.add_argument("--faults", type=int, default=Plan.of_faults, help="faults of each run")
    parser.add_argument("--only-orders", type=_numbers, help="numbers of the orders that are placed, the others are left out; - for none")
    parser.add_argument("--only-faults", type=_numbers, help="numbers of the faults that happen; - for none")
    parser.add_argument("--per-second", type=float, default=Plan.per_second, help="orders placed in a virtual second")
    parser.add_argument("--large", action="store_true", help="large batches only: faster, finds less")
    parser.add_argument("--failures", type=int, default=3, help="failing seeds after which it stops")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false", help="do not make the first failing run smaller")
    parser.add_argument("--mutant", choices=sorted(ALL), help="plant a mistake first")
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "-" else tuple(map(int, text.split(",")))


if __name__ == "__main__":
    sys.exit(main())

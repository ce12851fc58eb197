"""`python -m tests.faults`: faults on the real stack under load; prints what came of it and writes .backbone/faults.json."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from tests.conftest import scratch
from tests.faults.campaign import as_text, campaign, written
from tests.faults.kinds import KINDS

REPORT = Path(".backbone/faults.json")


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign; 0 if nothing was lost, duplicated, torn or stale."""
    options = _options(arguments)
    kinds = options.fault or list(KINDS)
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {text}", flush=True)

    say(f"{len(kinds)} kinds of faults, {options.minutes:g} minutes, seed {options.seed}")
    with scratch("faults") as folder:
        report = campaign(folder, kinds, options.seed, options.minutes, say, at_once=options.customers)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(written(report))
    print(as_text(report))
    return 0 if report.well else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults come; each kind comes once at least")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="decides which faults come in which order")
    parser.add_argument("--fault", action="append", choices=sorted(KINDS), help="only this kind; may be given more than once")
    parser.add_argument("--customers", type=int, default=8, help="how many customers order at once")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the table is written as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

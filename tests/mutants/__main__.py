"""`python -m tests.mutants`: plants every mistake in turn and prints which rule found it, and by what."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tests.conftest import scratch
from tests.e2e.running import a_shop
from tests.mutants.gateway import MISTAKES
from tests.mutants.on_stack import look_on_stack
from tests.mutants.table import ALL, Looked, look_for

WIDTH = 150


def main(arguments: list[str] | None = None) -> int:
    """Plant what is asked for, or everything; 0 if each mistake was found for its own reason."""
    options = _options(arguments)
    missed = 0
    for where, about, looked in _looked(options.only or [*ALL, *MISTAKES]):
        missed += not looked.well
        how = f"seed {looked.seed}" if where == "simulation" and looked.seed is not None else where
        found = looked.finding if looked.well else looked.red_without or "NOT FOUND"
        print(f"{'found' if looked.well else 'MISSED':<7} {looked.name:<26} {how:<11} {about}\n{'':<46}{found:.{WIDTH}}", flush=True)
    print(f"{missed} missed")
    return 1 if missed else 0


def _looked(names: list[str]) -> Iterator[tuple[str, str, Looked]]:
    for name in names:
        if name in ALL:
            yield "simulation", ALL[name].about, look_for(name)
    if not MISTAKES.keys() & set(names):
        return
    with scratch("mutants") as folder, a_shop(folder) as shop:
        for name in names:
            if name in MISTAKES:
                yield "real stack", MISTAKES[name].about, look_on_stack(shop, name)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted([*ALL, *MISTAKES]), help="this mistake; may be given more than once")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

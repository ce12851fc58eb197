"""Ratios of things measured side by side in one run: rounds in shuffled order, medians, a table and a file."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bench:
    """What came of one comparison.

    Attributes:
        name: what was compared with what.
        ratio: median over the rounds of ours / theirs, each pair measured in one round.
        runs: the ratio of every round.
        rates: median rate of each side, per second.
        target: ratio to reach; None while there is none.
        unit: what the rates count.
    """

    name: str
    ratio: float
    runs: Sequence[float]
    rates: Mapping[str, float]
    unit: str
    target: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        return None if self.target is None else self.ratio >= self.target


def side_by_side(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    prepare: Callable[[], None],
    rounds: int,
    unit: str,
    target: float | None = None,
    seed: int = 1,
) -> Bench:
    """Measure two things in turn.

    Args:
        ours, theirs: do the work once and give a rate per second.
        prepare: called before each round, not measured.
        rounds: counted rounds, after one that warms up; each measures both, in random order.
        seed: of that order.
    """
    order = random.Random(seed)
    pairs: list[dict[str, float]] = []
    for number in range(rounds + 1):
        sides = [("ours", ours), ("theirs", theirs)]
        order.shuffle(sides)
        prepare()
        measured = {side: run() for side, run in sides}
        if number:
            pairs.append(measured)
    ratios = [pair["ours"] / pair["theirs"] for pair in pairs]
    rates = {side: statistics.median(pair[side] for pair in pairs) for side in ("ours", "theirs")}
    return Bench(name, statistics.median(ratios), ratios, rates, unit, target)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count() or 0}


def report(benches: Sequence[Bench], file: Path) -> None:
    """Print a table and write the figures to a file."""
    table = Table(title="ratios measured side by side in one run")
    for column in ("bench", "ratio", "lowest", "highest", "ours /s", "theirs /s", "target"):
        table.add_column(column, justify="left" if column == "bench" else "right")
    for bench in benches:
        target = "" if bench.target is None else f"{bench.target:g} {'reached' if bench.reached else 'missed'}"
        rates = [f"{bench.rates[side]:,.0f}" for side in ("ours", "theirs")]
        table.add_row(bench.name, f"{bench.ratio:.2f}", f"{min(bench.runs):.2f}", f"{max(bench.runs):.2f}", *rates, target)
    Console(width=None if Console().is_terminal else 160).print(table)
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "benches": [asdict(bench) | {"reached": bench.reached} for bench in benches]}
    file.write_text(json.dumps(found, indent=1) + "\n")

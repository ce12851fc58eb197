"""What the faults of many runs met: by kind, by step of a loop, by standing of the order they hit."""

from __future__ import annotations

from collections import Counter


def table(struck: Counter[tuple[str, str, str]], ended: Counter[str]) -> str:
    """Three small tables of counts.

    Args:
        struck: how often each kind of fault struck at a step while an order stood so.
        ended: how workers ended.
    """
    kinds: Counter[str] = Counter()
    steps: Counter[tuple[str, str]] = Counter()
    standings: Counter[tuple[str, str]] = Counter()
    for (kind, step, standing), times in struck.items():
        kinds[kind] += times
        steps[_loop(step), kind] += times
        standings[standing, kind] += times
    lines = [f"{len(struck)} different combinations of fault, step and standing of an order", "", "fault x step"]
    columns = [kind for kind, _ in kinds.most_common()]
    lines += _rows(steps, columns)
    lines += ["", "fault x standing of the order"]
    lines += _rows(standings, columns)
    lines += ["", "workers ended: " + ", ".join(f"{how} {times}" for how, times in ended.most_common())]
    return "\n".join(lines)


def _loop(step: str) -> str:
    """The step without its service: ordering.orders.decide.commit -> decide.commit."""
    return ".".join(step.split(".")[2:]) or step


def _rows(counts: Counter[tuple[str, str]], columns: list[str]) -> list[str]:
    names = sorted({name for name, _ in counts})
    return [f"  {name:<28} " + "  ".join(f"{kind} {counts[name, kind]}" for kind in columns if counts[name, kind]) for name in names]

"""`python -m tests.checker`: reads the shop that runs here, and what its clients recorded, and says which rules are broken and by what."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from laws.books import BooksUnreadable
from laws.log import Unreadable
from tests.checker.check import SAYS, Judgement, judge
from tests.checker.reading import world

SHOWN = 3
"""Findings of one rule that are printed; the others are counted."""


def main(arguments: list[str] | None = None) -> int:
    """Check, print, and tell by the exit code: 0 nothing is broken, 1 something is, 2 it cannot be checked."""
    options = _options(arguments)
    recorded = options.history or options.folder / "history.jsonl"
    try:
        judged = judge(world(options.folder, recorded, at_rest=not options.running))
    except (Unreadable, BooksUnreadable, ValueError) as error:
        print(f"checker: {error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(finding) for finding in judged.findings], indent=1) if options.json else as_text(judged))
    return 0 if judged.holds else 1


def as_text(judged: Judgement) -> str:
    """One line per rule, and below it the smallest things that break it."""
    by_rule: dict[str, list[str]] = {}
    for finding in sorted(judged.findings, key=lambda one: (len(one.witnesses), len(one.text))):
        by_rule.setdefault(finding.rule, []).append(f"        - {finding.text}  [{', '.join(map(str, finding.witnesses))}]")
    lines = []
    for rule, says in SAYS.items():
        lines.append(f"{'BROKEN' if rule in by_rule else 'holds':<7} {rule:<13} {says}")
        lines += _shown(by_rule.pop(rule, []))
    for rule, broken in by_rule.items():
        lines += [f"BROKEN  {rule}", *_shown(broken)]
    lines.append(
        f"\n{judged.records:,} records, {judged.aborted:,} of them aborted; {judged.calls:,} calls of clients; "
        f"{judged.samples} looks at a view; {judged.set_aside} records set aside"
    )
    return "\n".join(lines)


def _shown(broken: list[str]) -> list[str]:
    return broken[:SHOWN] + ([f"        - and {len(broken) - SHOWN} more"] if len(broken) > SHOWN else [])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checker", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("BACKBONE_FOLDER") or ".backbone"), help="where the stack lies")
    parser.add_argument("--history", type=Path, help="what clients recorded [history.jsonl in the folder]")
    parser.add_argument("--running", action="store_true", help="orders are under way: ask only what holds at every moment")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

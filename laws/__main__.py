"""`python -m laws`: reads the whole log and the provider's books of the stack that runs here, and prints which laws hold."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from laws import books, log
from laws.check import LAWS, Totals, Verdict, check

FOLDER_VARIABLE = "BACKBONE_FOLDER"
SHOWN = 10
"""Violations of one law that are printed; the others are counted."""


def main(arguments: list[str] | None = None) -> int:
    """Check, print, and tell by the exit code: 0 all laws hold, 1 one is broken, 2 it cannot be checked."""
    options = _options(arguments)
    try:
        kafka, provider = _addresses(options)
        verdict = check(log.read(kafka), books.read(provider), at_rest=not options.running)
    except (log.Unreadable, books.BooksUnreadable) as error:
        print(f"laws: {error}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(verdict), indent=1) if options.json else as_text(verdict))
    return 0 if verdict.holds else 1


def as_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as plain data."""
    return {
        "holds": verdict.holds,
        "laws": [
            {
                "law": law,
                "says": LAWS[law],
                "checked": checked,
                "violations": [
                    {"text": violation.text, "witnesses": [str(place) for place in violation.witnesses]}
                    for violation in verdict.violations
                    if violation.law == law
                ],
            }
            for law, checked in verdict.checked.items()
        ],
        "totals": asdict(verdict.totals),
    }


def as_text(verdict: Verdict) -> str:
    """A verdict as a table: one line per law, what breaks it below, and what happened in all."""
    lines = []
    for law, checked in verdict.checked.items():
        broken = [violation for violation in verdict.violations if violation.law == law]
        lines.append(f"{'BROKEN' if broken else 'holds':<7} {law:<13} {LAWS[law]} ({checked:,} checked)")
        for violation in broken[:SHOWN]:
            lines.append(f"        - {violation.text}  [{', '.join(map(str, violation.witnesses))}]")
        if len(broken) > SHOWN:
            lines.append(f"        - and {len(broken) - SHOWN} more")
    return "\n".join([*lines, "", *totals_text(verdict.totals)])


def totals_text(totals: Totals) -> list[str]:
    """What happened in all, in lines of text."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(totals.rejected.items())) or "none"
    rejected = sum(totals.rejected.values())
    money = (
        f"{dollars(totals.placed_minor)} placed = {dollars(totals.confirmed_minor)} confirmed + {dollars(totals.rejected_minor)} rejected"
        f" + {dollars(totals.cancelled_minor)} cancelled"
    )
    return [
        f"orders  {totals.placed:,} placed ({totals.free} free): {totals.confirmed:,} confirmed, {rejected:,} rejected ({reasons})",
        f"        {totals.cancelled} cancelled, {totals.unanswered} without an answer",
        f"money   {money}",
        f"        {dollars(totals.captured_minor)} captured, {dollars(totals.books_captured_minor)} by the provider's books",
        f"log     {totals.records:,} records; {totals.books_entries:,} lines in the provider's books",
        f"        {totals.open_commands} commands open, {totals.quarantined} records set aside",
    ]


def dollars(cents: int) -> str:
    """Cents as people write them."""
    return f"{cents // 100:,}.{cents % 100:02d} USD"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m laws", description=__doc__)
    parser.add_argument("--json", action="store_true", help="the verdict as JSON")
    parser.add_argument("--running", action="store_true", help="orders are under way: ask only the laws that hold at every moment")
    folder = Path(os.environ.get(FOLDER_VARIABLE) or ".backbone")
    parser.add_argument("--folder", type=Path, default=folder, help=f"where the stack lies [{FOLDER_VARIABLE}, .backbone]")
    parser.add_argument("--kafka", default="", help="bootstrap servers of another log, with --provider and --secrets")
    parser.add_argument("--secrets", type=Path, help=f"folder with the password of {log.READER}, with --kafka [KAFKA_SECRETS]")
    parser.add_argument("--provider", default="", help="address of the provider of another log, with --kafka")
    options = parser.parse_args(arguments)
    if (options.kafka or options.secrets) and not (options.kafka and options.provider):
        parser.error("--kafka needs --provider, and --secrets needs --kafka: they speak of another log than the stack's")
    return options


def _addresses(options: argparse.Namespace) -> tuple[dict[str, str], str]:
    if options.kafka and options.provider:
        access = {**os.environ, **({"KAFKA_SECRETS": str(options.secrets)} if options.secrets else {})}
        return log.as_reader(options.kafka, access), options.provider
    written = options.folder / "stack.json"
    try:
        stack = json.loads(written.read_text())
        kafka, provider = stack["kafka"], options.provider or f"http://127.0.0.1:{stack['ports']['provider']}"
        return log.as_reader(kafka, stack["kafka_access"]), provider
    except FileNotFoundError:
        raise log.Unreadable(f"no stack was started here ({written} is missing): `make up`, or name --kafka and --provider") from None
    except (ValueError, KeyError, TypeError) as error:
        raise log.Unreadable(f"{written} cannot be understood ({error!r}): name --kafka and --provider") from error


if __name__ == "__main__":
    sys.exit(main())

"""What the gate says, for people, for programs, and for the review page of a forge."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from backbone.operations.contracts.finding import Finding, Level
from backbone.operations.contracts.gate import Report

WIDTH = 120
SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def lines(report: Report) -> Iterator[str]:
    """The report as text."""
    for one in report.findings:
        yield from lines_of(one)
        yield ""
    against = ", ".join(report.against) or "nothing: there is no release yet"
    notices = len(report.findings) - len(report.breaches)
    yield f"contracts: {len(report.breaches)} breaches, {notices} notices against {against} ({report.seconds:.1f} s)"


def lines_of(one: Finding) -> Iterator[str]:
    """One finding as text: what, why, whom, what instead."""
    yield f"{one.level.value.upper()} {one.name}"
    where = f" ({one.place.file}:{one.place.line})" if one.place else ""
    against = f" [{', '.join(one.against)}]" if one.against else ""
    said = [("what", f"{one.what}{where}{against}"), ("why", one.why), ("breaks", ", ".join(one.breaks) or "nobody we know of")]
    for word, text in (*said, ("instead", one.instead)):
        yield from textwrap.wrap(text, WIDTH, initial_indent=f"  {word + ':':9}", subsequent_indent=" " * 11, break_long_words=False)


def to_dict(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "open": report.open,
        "against": list(report.against),
        "seconds": round(report.seconds, 3),
        "findings": [one.to_dict() for one in report.findings],
    }


def to_sarif(report: Report, modules: Mapping[str, str]) -> dict[str, Any]:
    """The report as SARIF 2.1.0.

    Args:
        modules: the folder each proto file lies in, by the file's name below its import root.
    """
    rules = {one.rule: one for one in report.findings}
    return {
        "$schema": SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "backbone contracts",
                        "rules": [
                            {"id": rule, "fullDescription": {"text": one.why}, "help": {"text": one.instead}}
                            for rule, one in sorted(rules.items())
                        ],
                    }
                },
                "results": [_result(one, modules) for one in report.findings],
            }
        ],
    }


def _result(one: Finding, modules: Mapping[str, str]) -> dict[str, Any]:
    breaks = f" Breaks {', '.join(one.breaks)}." if one.breaks else ""
    result: dict[str, Any] = {
        "ruleId": one.rule,
        "level": "error" if one.level is Level.BREACH else "note",
        "message": {"text": f"{one.what}: {one.why}.{breaks} {one.instead}"},
        "partialFingerprints": {"finding/v1": one.name},
    }
    if one.place is not None:
        uri = f"{modules.get(one.place.file, '')}{one.place.file}"
        result["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": one.place.line}}}]
    return result

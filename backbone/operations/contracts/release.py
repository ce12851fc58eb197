"""Makes a release: what the contracts promise from then on, told to users and kept for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from backbone.errors import DeclarationError
from backbone.operations.contracts import buf, corpus, releases
from backbone.operations.contracts.gate import Law, Now, Report, check, look
from backbone.operations.contracts.image import Image
from backbone.operations.contracts.releases import Release

HEADING = "# Changelog\n"


class NotReleased(DeclarationError):
    """Nothing was released; the text says what stands in the way."""

    def __init__(self, what: str, report: Report) -> None:
        super().__init__(what)
        self.report = report


@dataclass(frozen=True)
class Released:
    """What a release wrote."""

    release: Release
    image: Path
    entry: str


def release(law: Law, reasons: Mapping[str, str], on: date) -> Released:
    """Promise the contracts as they are.

    Args:
        reasons: why a breach is released all the same, by its name (RULE:subject).
        on: the date for the changelog.

    Raises:
        NotReleased: a breach has no reason, a reason no breach, or nothing has changed.
        DeclarationError: the contracts cannot be built.
    """
    report = check(law)
    open_ = [one.name for one in report.breaches if one.name not in reasons]
    if open_:
        raise NotReleased(f"the gate is red: mend {', '.join(sorted(set(open_)))}, or accept each with a reason", report)
    unknown = sorted(set(reasons) - {one.name for one in report.breaches})
    if unknown:
        raise NotReleased(f"there is no breach {', '.join(unknown)}: take the reason back", report)
    empty = sorted(name for name, reason in reasons.items() if not reason.strip())
    if empty:
        raise NotReleased(f"say why {', '.join(empty)} is accepted", report)
    folder = law.root / law.released
    former = releases.read_all(folder)
    now = look(law, Image.of(buf.build(law.root, sources=False)))
    made = _made(law, former, now, reasons)
    if former and _same(former[-1], made):
        raise NotReleased(f"nothing has changed since {former[-1].name}", report)
    entry = changelog_entry(former[-1] if former else None, made, on)
    image = made.write(folder)
    append(law.root / law.changelog, entry)
    return Released(made, image, entry)


def _made(law: Law, former: Sequence[Release], now: Now, reasons: Mapping[str, str]) -> Release:
    last = former[-1] if former else None
    return Release(
        number=last.number + 1 if last else 1,
        raw=now.image.raw,
        folds=now.folds,
        consumers={event.name: event.heard_by for event in now.topology.events} if now.topology else {},
        corpus=corpus.digests(law.root / law.corpus),
        accepted=dict(reasons),
        digest=releases.sha256(now.image.raw),
        before=releases.sha256((law.root / law.released / f"{last.number}.json").read_bytes()) if last else "",
    )


def _same(last: Release, made: Release) -> bool:
    known = {event: tuple(heard_by) for event, heard_by in last.consumers.items()}
    return last.raw == made.raw and last.folds == made.folds and last.corpus == made.corpus and known == dict(made.consumers)


def changelog_entry(last: Release | None, made: Release, on: date) -> str:
    """What users of the contracts are told."""
    lines = [f"## Contracts, release {made.number} ({on.isoformat()})", ""]
    if last is None:
        image = made.image
        public = [wrapper for wrapper in image.wrappers.values() if not wrapper.private]
        events = {event for wrapper in public for event in wrapper.events.values()}
        lines.append(f"- First release: {len(public)} topics, {len(events)} events, {len(image.rpcs)} methods.")
    else:
        lines += [f"- {line}" for line in changes(last.image, made.image)] or ["- No message has changed."]
        lines += [
            f"- `{name}` is version {fold.version}: kept states or rows are made anew."
            for name, fold in made.folds.items()
            if name in last.folds and fold.version != last.folds[name].version
        ]
    lines += [f"- **Breaks** `{name}`: {reason}" for name, reason in sorted(made.accepted.items())]
    return "\n".join(lines) + "\n"


def changes(before: Image, now: Image) -> Iterator[str]:
    """What was added and taken away, a sentence each."""
    for kind, old, new in (
        ("topic", _topics(before), _topics(now)),
        ("message", set(before.messages), set(now.messages)),
        ("enum", set(before.enums), set(now.enums)),
        ("method", set(before.rpcs), set(now.rpcs)),
        ("field", _fields(before, now), _fields(now, before)),
        ("value", _values(before, now), _values(now, before)),
    ):
        yield from (f"New {kind} `{name}`." for name in sorted(new - old))
        yield from (f"Gone: {kind} `{name}`." for name in sorted(old - new))


def _topics(image: Image) -> set[str]:
    return {wrapper.topic for wrapper in image.wrappers.values()}


def _fields(image: Image, other: Image) -> set[str]:
    shared = set(image.messages) & set(other.messages)
    return {f"{name}.{one.name}" for name in shared for one in image.messages[name].fields}


def _values(image: Image, other: Image) -> set[str]:
    shared = set(image.enums) & set(other.enums)
    return {f"{name}.{one.name}" for name in shared for one in image.enums[name].values}


def append(changelog: Path, entry: str) -> None:
    """Put an entry at the end of the changelog."""
    written = changelog.read_text(encoding="utf-8") if changelog.is_file() else HEADING
    changelog.write_text(f"{written.rstrip()}\n\n{entry}", encoding="utf-8")

"""The gate: contracts as they are, against everything that was ever promised."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from backbone.declare import Platform
from backbone.errors import SettingsError
from backbone.operations.contracts import buf, corpus, expectations, releases
from backbone.operations.contracts.compare import Comparison
from backbone.operations.contracts.consumers import Consumers, view_of_row
from backbone.operations.contracts.expectations import Expectations
from backbone.operations.contracts.finding import OF_BUF, OTHERWISE_OF_BUF, RULES, Finding, Level
from backbone.operations.contracts.folds import Folds, compare_folds, folds_of, read_recorded, recorded_folds, row_shape
from backbone.operations.contracts.image import Image, Role, Span
from backbone.operations.contracts.releases import Release
from backbone.topology import Topology, topology

GIT_PATIENCE_S = 30
SHOWN = 3


@dataclass(frozen=True)
class Law:
    """Where contracts lie, and what they are held against.

    Attributes:
        root: folder with buf.yaml.
        platform: who reads and writes; None where only contracts are at hand: findings then name no services.
        released: folder of the releases, below the root.
        corpus: folder of the stored bytes, below the root.
        recorded: folder of the recorded folds, below the root.
        expectations: folder of what consumers read, below the root.
        changelog: file that tells users of releases, below the root.
    """

    root: Path
    platform: Platform | None = None
    released: str = "protos/released"
    corpus: str = "protos/corpus"
    recorded: str = ""
    expectations: str = "protos/expectations"
    changelog: str = "CHANGELOG.md"


@dataclass(frozen=True)
class Report:
    """What the gate says.

    Attributes:
        against: names of what was promised.
        seconds: how long it took.
    """

    findings: tuple[Finding, ...]
    against: tuple[str, ...]
    seconds: float

    @property
    def breaches(self) -> tuple[Finding, ...]:
        """What must not pass."""
        return tuple(one for one in self.findings if one.level is Level.BREACH)

    @property
    def open(self) -> bool:
        """Whether the change may pass."""
        return not self.breaches


@dataclass(frozen=True)
class Now:
    """The contracts as they are."""

    image: Image
    topology: Topology | None
    folds: Folds = field(default_factory=dict)


def check(law: Law, against: str = "") -> Report:
    """Hold the contracts against what was promised.

    Args:
        law: where they lie.
        against: a git ref or an image file; every release if empty.

    Raises:
        DeclarationError: the contracts cannot be built, or a file of expectations cannot be read.
        SettingsError: there is no such ref or file, or no buf.
    """
    began = time.monotonic()
    expected = expectations.read_all(law.root, law.expectations)
    with ThreadPoolExecutor(max_workers=2) as pool:
        categories = pool.submit(buf.categories)
        image = pool.submit(lambda: Image.of(buf.build(law.root)))
        promised = [promise(law, against)] if against else releases.read_all(law.root / law.released)
        now = look(law, image.result())
        found = list(Comparison(None, now.image, Consumers([now.image], now.topology)).findings())
        found += _unmet(now.image, expected)
        if not against:
            found += _kept(law, promised)
            promised = [one for one in promised if one.unchanged]
        wire = list(pool.map(lambda one: buf.breaking(now.image.raw, one.raw), promised))
    for number, one in enumerate(promised):
        forgiven = {name for later in promised[number + 1 :] for name in later.accepted}
        consumers = Consumers([now.image, one.image], now.topology)
        seen = _against(one, against or one.name, now, consumers, wire[number], categories.result())
        found += [finding for finding in seen if finding.name not in forgiven]
    merged = _with_readers(_with_evidence(law, now.image, _merged(found)), promised, expected)
    return Report(tuple(merged), tuple(against or one.name for one in promised), time.monotonic() - began)


def look(law: Law, image: Image) -> Now:
    """What the contracts, tables and recorded folds say now."""
    if law.platform is None:
        return Now(image, None)
    recorded = read_recorded(law.root / law.recorded) if law.recorded else {}
    return Now(image, topology(law.platform), folds_of(law.platform, recorded))


def promise(law: Law, against: str) -> Release:
    """What a git ref or an image file promises.

    Raises:
        SettingsError: it is neither.
    """
    for file in (Path(against), law.root / against):
        if file.is_file():
            return releases.read(file)
    try:
        done = subprocess.run(
            ["git", "-C", str(law.root), "archive", "--format=tar", against, "."], check=False, capture_output=True, timeout=GIT_PATIENCE_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{against} is no image file, and git does not answer: {error}") from error
    if done.returncode != 0:
        raise SettingsError(f"{against} is neither an image file nor a git ref: {done.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory(prefix="contracts-") as name, tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        folder = Path(name)
        archive.extractall(folder, filter="data")
        recorded = recorded_folds(read_recorded(folder / law.recorded)) if law.recorded else {}
        return Release(0, buf.build(folder, sources=False), recorded)


def _against(
    before: Release, name: str, now: Now, consumers: Consumers, wire: Sequence[buf.Breach], categories: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    comparison = Comparison(before.image, now.image, consumers, name)
    yield from comparison.findings()
    yield from _rows(comparison, before, now, consumers)
    for rule, fold, what in compare_folds(before.folds, now.folds):
        yield comparison.finding(rule, fold, what, _readers_of_fold(now, consumers, fold))
    for event, heard_by in before.consumers.items():
        if heard_by and now.topology is not None and not consumers.events.get(event):
            yield comparison.finding("LAST_CONSUMER_LOST", event, f"{event} was heard by {', '.join(heard_by)}")
    for breach in wire:
        file = breach.file or next(iter(re.findall(r'"([^"]+\.proto)"', breach.message)), "")
        subject = _subject(now.image, breach)
        if breach.rule in categories[_category(before.image, now.image, file)] and not _only_rows(before.image, now.image, subject):
            law = OF_BUF.get(breach.rule, OTHERWISE_OF_BUF)
            place = Span(file, breach.line, breach.line) if breach.file else None
            owner = subject or file
            broken = consumers.of(subject) if subject else _of_file(before.image, consumers, file)
            yield Finding(
                breach.rule, owner, breach.message.split(" See https")[0], law.why, law.instead, law.level, broken, (name,), place
            )


def _category(before: Image, now: Image, file: str) -> str:
    """How strictly a file is held: what clients compile against most, what lies in one service's own topics least."""
    if file in before.api_files | now.api_files:
        return "FILE"
    return "WIRE" if {"views", "effects"} & set(file.split("/")) else "WIRE_JSON"


def _only_rows(before: Image, now: Image, subject: str) -> bool:
    """Whether something belongs to rows alone: they are made anew by a higher version, and held by ROW_CHANGED."""
    for image in (now, before):
        for name in (subject, subject.rpartition(".")[0]):
            if name in image.roles:
                return image.roles[name] - {Role.QUESTION} == frozenset({Role.ROW})
    return False


def _subject(now: Image, breach: buf.Breach) -> str:
    """The full name of what buf means: it tells a line and a sentence."""
    at = now.at(breach.file, breach.line) if breach.file else ""
    if named := re.search(r'with name "(\w+)" on message "([\w.]+)"', breach.message):
        field_name, message = named.groups()
        inside = at if at.endswith(f".{message}") else at.rpartition(".")[0]
        return f"{inside}.{field_name}"
    if deleted := re.search(r'present (?:RPC|enum value|message|enum|service) "(\w+)"', breach.message):
        return f"{at}{'/' if ' RPC ' in breach.message else '.'}{deleted.group(1)}"
    return at


def _of_file(before: Image, consumers: Consumers, file: str) -> tuple[str, ...]:
    declared = [name for name, message in before.messages.items() if message.file.name == file]
    return tuple(sorted({reader for name in declared for reader in consumers.of(name)}))


def _rows(comparison: Comparison, before: Release, now: Now, consumers: Consumers) -> Iterator[Finding]:
    for row, key in before.image.rows.items():
        if row not in now.image.rows:
            continue
        view = next((name for name in now.folds if view_of_row(name, row)), "")
        old, new = before.folds.get(view), now.folds.get(view)
        if old is not None and new is not None and new.version > old.version:
            continue
        kept = f" of {view}, still version {new.version}" if new is not None else ""
        if now.image.rows[row] != key:
            yield comparison.finding("ROW_KEY_CHANGED", row, f"the rows{kept} were keyed by {key}, now by {now.image.rows[row]}")
        if row_shape(before.image.messages[row]) != row_shape(now.image.messages[row]):
            yield comparison.finding("ROW_CHANGED", row, f"the row{kept} has other fields")


def _readers_of_fold(now: Now, consumers: Consumers, name: str) -> Iterable[str]:
    fold = now.folds[name]
    return consumers.of_row(fold.row) if fold.row else [name]


def _kept(law: Law, promised: Sequence[Release]) -> Iterator[Finding]:
    """What a release promised to keep for ever: images, notes, stored bytes."""
    for name, what in releases.broken_notes(law.root / law.released, promised):
        yield _by_itself("RELEASE_CHANGED", f"{law.released}/{name}", what)
    for path, what in corpus.missing(law.root / law.corpus, promised):
        yield _by_itself("CORPUS_CHANGED", f"{law.corpus}/{path}", what)


def _unmet(now: Image, expected: Sequence[Expectations]) -> Iterator[Finding]:
    """What consumers said that they read and that is not as they read it."""
    for one in expectations.unmet(expected, now):
        law, owner = RULES[one.rule], one.subject.rpartition(".")[0]
        place = now.spans.get(one.subject) or now.spans.get(owner)
        yield Finding(one.rule, one.subject, one.what, law.why, law.instead, law.level, (one.consumer,), (one.file,), place)


def _by_itself(rule: str, subject: str, what: str) -> Finding:
    return Finding(rule, subject, what, RULES[rule].why, RULES[rule].instead, RULES[rule].level)


def _merged(found: Iterable[Finding]) -> list[Finding]:
    """Each finding once, with all that it was found against; breaches first."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for one in found:
        same = (one.rule, one.subject, one.what)
        merged[same] = replace(merged[same], against=(*merged[same].against, *one.against)) if same in merged else one
    return sorted(merged.values(), key=lambda one: (one.level.value, one.subject, one.rule, one.what))


def _with_evidence(law: Law, now: Image, found: Sequence[Finding]) -> Iterator[Finding]:
    """A tightened rule together with the stored records that break it."""
    tightened = [one for one in found if one.rule == "VALUE_RULE_TIGHTENED"]
    broken = corpus.invalid(law.root / law.corpus, now) if tightened else []
    for one in found:
        shown = [path for path, messages in broken if _message_of(now, one.subject) in messages] if one in tightened else []
        if shown:
            more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
            yield replace(one, what=f"{one.what}; it breaks {len(shown)} stored records: {', '.join(shown[:SHOWN])}{more}")
        else:
            yield one


def _with_readers(found: Iterable[Finding], promised: Sequence[Release], expected: Sequence[Expectations]) -> Iterator[Finding]:
    """A deleted field together with who says that it reads it."""
    for one in found:
        if "_NO_DELETE" in one.rule and expected and any(_has_field(release.image, one.subject) for release in promised):
            readers = sorted({name for release in promised for file in expected for name in file.readers(one.subject, release.image)})
            told = f"read by {', '.join(readers)}" if readers else "no recorded decision or fold reads it"
            yield replace(one, what=f"{one.what}; {told}")
        else:
            yield one


def _has_field(image: Image, subject: str) -> bool:
    owner, _, name = subject.rpartition(".")
    return owner in image.messages and name in image.messages[owner].fields_by_name


def _message_of(image: Image, subject: str) -> str:
    return subject if subject in image.messages else subject.rpartition(".")[0]

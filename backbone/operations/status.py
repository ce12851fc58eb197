"""How a running platform is: its processes, how far every service has come, and what waits for what."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backbone.adapters.kafka import KafkaLog
from backbone.contract import resolve_context
from backbone.local.processes import recorded
from backbone.operations.checkout import Checkout
from backbone.operations.decoding import Decoder
from backbone.operations.kept import OpenCommand, ParkedKey, Waiting, read_kept
from backbone.operations.lag import Lag, lag_of
from backbone.operations.scan import Progress
from backbone.ownership import READER
from backbone.ports import Place

ANSWER_S = 2.0
"""How long a process may take to tell its status."""
SHOWN = 10
"""How many of a kind are shown one by one; --json gives all."""


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process of the local stack.

    Attributes:
        pid: None if it does not run.
        ready: None for a server that is not ours to ask.
        waits_for: what it waits for, if it is not ready or held up.
    """

    name: str
    pid: int | None
    ready: bool | None
    waits_for: str
    build: str
    health: str


@dataclass(frozen=True, slots=True)
class Door:
    """An edge that turns callers away when too much is under way.

    Attributes:
        process: which process it is in.
        limit: how much may be under way now, by how quick answers are.
        answer_s: how long they take now, in seconds.
        refused: how many callers were turned away since the process started.
    """

    process: str
    name: str
    under_way: int
    limit: int
    answer_s: float
    refused: int


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `backbone status` shows.

    Attributes:
        quarantined: number of records set aside, by service.
        doors: how much every edge that turns callers away lets be under way.
        data_bytes: what the stack's folder takes on the disk; None if the log is elsewhere.
    """

    at: datetime
    kafka: str
    cluster_id: str
    processes: tuple[ProcessStatus, ...]
    lag: tuple[Lag, ...]
    open_commands: tuple[OpenCommand, ...]
    parked: tuple[ParkedKey, ...]
    waiting: tuple[Waiting, ...]
    quarantined: Mapping[str, int]
    data_bytes: int | None
    doors: tuple[Door, ...] = ()

    @property
    def trouble(self) -> list[str]:
        """What somebody should look at, one sentence each; empty if all is well."""
        sentences = [
            f"{process.name} does not run: see its log" for process in self.processes if process.pid is None and process.ready is not True
        ]
        sentences += [
            f"{process.name} is not ready: {process.waits_for or 'it does not answer'}"
            for process in self.processes
            if process.pid is not None and process.ready is False
        ]
        unknown = sorted({lag.reader for lag in self.lag if lag.position is None})
        sentences += [f"{reader}: its position cannot be found out" for reader in unknown]
        sentences += [f"{one.service} parked {one.key} at {one.record}: {one.reason}" for one in self.parked]
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """The status for programs; times in ISO 8601, UTC."""
        return {**_plain(asdict(self)), "trouble": self.trouble}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def look(checkout: Checkout, progress: Progress | None = None) -> Status:
    """Look at the running platform.

    Args:
        progress: told how far the reading of private topics is.

    Raises:
        SettingsError: no stack runs, or the platform is not declared.
        Unavailable: Kafka does not answer.
    """
    platform = checkout.platform()
    settings = checkout.settings()
    services = [service for context in platform.contexts for service in resolve_context(context)]
    log = KafkaLog(settings, READER)
    try:
        kept = read_kept(log, services, Decoder.of(platform), settings, progress)
        answers = _answers(checkout)
        return Status(
            at=datetime.now(UTC),
            kafka=settings.kafka,
            cluster_id=log.cluster_id,
            processes=tuple(_processes(checkout, answers)),
            lag=tuple(lag_of(log, services, checkout, settings, _told_positions(answers))),
            open_commands=tuple(kept.open_commands()),
            parked=tuple(kept.parked()),
            waiting=tuple(kept.waiting()),
            quarantined=kept.quarantined,
            data_bytes=size_of(checkout.folder) if checkout.launcher is not None else None,
            doors=tuple(_doors(answers)),
        )
    finally:
        log.close()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a process of ours says of itself; None if it does not answer."""

    address: str
    said: dict[str, Any] | None


def _answers(checkout: Checkout) -> dict[str, _Answer]:
    """What every process that should run says of itself, by its name."""
    state = checkout.stack()
    if state is None or checkout.launcher is None:
        return {}
    running = recorded(checkout.folder)
    ours = [name.removesuffix(".health") for name in state.ports if name.endswith(".health")]
    # Processes of earlier runs, and of workers that were taken away, have kept their ports.
    shown = [name for name in ours if name in running or name in state.processes]
    addresses = {name: f"http://127.0.0.1:{state.ports[f'{name}.health']}" for name in shown}
    with ThreadPoolExecutor(max(len(addresses), 1)) as pool:
        said = pool.map(_told, addresses.values())
        return {name: _Answer(address, one) for (name, address), one in zip(addresses.items(), said, strict=True)}


def _processes(checkout: Checkout, answers: Mapping[str, _Answer]) -> Iterator[ProcessStatus]:
    if checkout.launcher is None:
        return
    running = {name: identities[-1].pid for name, identities in recorded(checkout.folder).items()}
    for name, pid in running.items():
        if name not in answers:
            yield ProcessStatus(name, pid, None, "", "", "")
    for name, answer in answers.items():
        said = answer.said or {}
        yield ProcessStatus(
            name=name,
            pid=running.get(name),
            ready=bool(said.get("ready")),
            waits_for="; ".join(filter(None, [said.get("why_not", ""), *_held_up(said)])),
            build=said.get("build", ""),
            health=answer.address,
        )


def _doors(answers: Mapping[str, _Answer]) -> Iterator[Door]:
    for process, answer in answers.items():
        for name, part in (answer.said or {}).get("edges", {}).items():
            if "limit" in part and "refused" in part:
                yield Door(process, name, part["under_way"], part["limit"], part["answer_s"], part["refused"])


def _told_positions(answers: Mapping[str, _Answer]) -> dict[tuple[str, Place], int]:
    """How far the deciders of running processes say they are: what they passed over without deciding is committed later."""
    told: dict[tuple[str, Place], int] = {}
    for answer in answers.values():
        for name, part in (answer.said or {}).get("loops", {}).items():
            partitions = part.get("partitions")
            if name.endswith(".decide") and isinstance(partitions, dict):
                for number, partition in partitions.items():
                    for topic, position in partition["positions"].items():
                        told[name.removesuffix(".decide"), (topic, int(number))] = position
    return told


def _told(address: str) -> dict[str, Any] | None:
    """What a process says of itself; None if it does not answer."""
    try:
        with urllib.request.urlopen(f"{address}/status", timeout=ANSWER_S) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _held_up(answer: Mapping[str, Any]) -> Iterator[str]:
    """What loops and edges of a process say that they wait for."""
    for name, part in {**answer.get("loops", {}), **answer.get("edges", {})}.items():
        for number, partition in (part.get("partitions") or {}).items() if isinstance(part.get("partitions"), dict) else ():
            for key in ("frozen", "waits_for"):
                if partition.get(key):
                    yield f"{name} p{number}: {partition[key]}"
        waiting = part.get("waiting")
        if isinstance(waiting, dict):
            yield f"{name}: {waiting.get('reason')}"
        for command in waiting[:1] if isinstance(waiting, list) else ():
            yield f"{name}: {command['command']} of {command['aggregate']}, tried {command['tries']} times: {command['error']}"
        if part.get("error"):
            yield f"{name}: {part['error']}"


def size_of(folder: Path) -> int:
    """Bytes on the disk, sparse files as they lie there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:  # gone meanwhile: a log segment was deleted
            continue
    return total


def lines(status: Status) -> Iterator[str]:
    """The status as text."""
    size = f", {status.data_bytes / 1e6:.0f} MB on disk" if status.data_bytes is not None else ""
    yield f"Kafka {status.kafka}, cluster {status.cluster_id}{size}"
    if status.processes:
        yield ""
        yield f"{'process':<22} {'pid':>8}  state"
    for process in status.processes:
        ready = {True: "ready", False: "not ready", None: "runs"}[process.ready] if process.pid is not None else "does not run"
        yield f"{process.name:<22} {process.pid or '-':>8}  {ready}{f': {process.waits_for}' if process.waits_for else ''}"
    yield ""
    yield f"{'lag':<46} {'behind':>7}  at/end per partition"
    for reader, topic, row in _by_reader(status.lag):
        behind = [lag.behind for lag in row]
        total = "?" if None in behind else str(sum(count or 0 for count in behind))
        places = "  ".join(f"{'?' if lag.position is None else lag.position}/{lag.end}" for lag in row)
        yield f"{reader:<46} {total:>7}  {topic}: {places}"
    for door in status.doors:
        places = f"{door.under_way} of {door.limit} places taken"
        yield f"{door.process}, {door.name}: {places}, answers take {door.answer_s:.1f} s, {door.refused} turned away"
    yield ""
    yield f"open commands: {len(status.open_commands)}"
    yield from (
        f"  {one.service}: {one.command} of {one.aggregate}, for {(status.at - one.since).total_seconds():.0f} s"
        for one in status.open_commands[:SHOWN]
    )
    yield from _more(len(status.open_commands))
    yield f"waiting: {len(status.waiting)}"
    yield from (
        f"  {one.service}: {one.key} to {one.waits_for}, until {one.due:%H:%M:%S} UTC ({(one.due - status.at).total_seconds():.0f} s)"
        for one in status.waiting[:SHOWN]
    )
    yield from _more(len(status.waiting))
    yield f"parked keys: {len(status.parked)}"
    yield from (f"  {one.service}: {one.key} at {one.record}: {one.reason}" for one in status.parked[:SHOWN])
    yield from _more(len(status.parked))
    counts = ", ".join(f"{service} {count}" for service, count in sorted(status.quarantined.items()))
    yield f"quarantined records: {counts or 0}{'; see `backbone quarantine list`' if counts else ''}"
    if status.trouble:
        yield ""
        yield from (f"trouble: {sentence}" for sentence in status.trouble)


def _more(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"  ... and {count - SHOWN} more (--json gives all)"


def _by_reader(lags: Sequence[Lag]) -> Iterator[tuple[str, str, list[Lag]]]:
    rows: dict[tuple[str, str], list[Lag]] = {}
    for lag in lags:
        rows.setdefault((lag.reader, lag.topic), []).append(lag)
    for (reader, topic), row in rows.items():
        yield reader, topic, row

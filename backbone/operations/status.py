"""How a running platform is: its processes, how far every service has come, and what waits for what."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import MsgspecError

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.adapters.redis import RedisRows
from backbone.contract import ResolvedService, ResolvedView, resolve_context
from backbone.declare import Platform
from backbone.envelope import Undecodable, split_entry_key
from backbone.errors import Unavailable
from backbone.local.processes import recorded
from backbone.loops.snapshots import AGGREGATE, PARKED, POSITIONS, Held, Snapshots
from backbone.operations.checkout import Checkout
from backbone.operations.decoding import Decoder, Entry, Kind
from backbone.operations.scan import Progress, Scan, existing
from backbone.ports import Fragment, Log, Place, Record
from backbone.settings import Settings
from backbone.v1.private_pb2 import Parked as ParkedMark
from backbone.v1.private_pb2 import StateEntry

ANSWER_S = 2.0
"""How long a process may take to tell its status."""
COUNTED = 2_000
"""Offsets behind, up to which the records among them are counted; markers of transactions take offsets too."""
SHOWN = 10
"""How many of a kind are shown one by one; --json gives all."""
STALL_S = 3.0
"""An open transaction hides what lies behind it; a glance does not wait for it."""


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
class Lag:
    """How far a reader is behind the end of one partition.

    Attributes:
        reader: the group: <context>.<service>, or that of a view.
        position: next offset it will take; None if it cannot be found out.
        end: offset after the last record.
        behind: records it has not taken; None if unknown.
    """

    service: str
    reader: str
    topic: str
    partition: int
    position: int | None
    end: int
    behind: int | None


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command without an outcome."""

    service: str
    command: str
    aggregate: str
    id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """An aggregate whose record could not be decided; later ones wait behind it."""

    service: str
    key: str
    record: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aggregate that waits, until when, and for what."""

    service: str
    key: str
    waits_for: str
    due: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `backbone status` shows.

    Attributes:
        quarantined: number of records set aside, by service.
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
    log = KafkaLog(settings)
    try:
        kept = _read_private(log, services, Decoder.of(platform), settings, progress)
        answers = _answers(checkout, platform)
        return Status(
            at=datetime.now(UTC),
            kafka=settings.kafka,
            cluster_id=log.cluster_id,
            processes=tuple(_processes(checkout, answers)),
            lag=tuple(_lag(log, services, checkout, settings, _told_positions(answers))),
            open_commands=tuple(kept.open_commands()),
            parked=tuple(kept.parked()),
            waiting=tuple(kept.waiting()),
            quarantined=kept.quarantined,
            data_bytes=size_of(checkout.folder) if checkout.launcher is not None else None,
        )
    finally:
        log.close()


# Processes.


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a process of ours says of itself; None if it does not answer."""

    address: str
    said: dict[str, Any] | None


def _answers(checkout: Checkout, platform: Platform) -> dict[str, _Answer]:
    """What every process that should run says of itself, by its name."""
    state = checkout.stack()
    if state is None or checkout.launcher is None:
        return {}
    running = recorded(checkout.folder)
    contexts = {context.name for context in platform.contexts}
    ours = [name.removesuffix(".health") for name in state.ports if name.endswith(".health")]
    # A context that ran in one process in an earlier run, and in several now, has kept the old name's port.
    shown = [name for name in ours if name in running or (name in contexts and not any(one.startswith(f"{name}.") for one in running))]
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


# How far each service is.


def _lag(
    log: Log, services: Sequence[ResolvedService], checkout: Checkout, settings: Settings, told: Mapping[tuple[str, Place], int]
) -> Iterator[Lag]:
    positions: list[tuple[str, str, Place, int | None]] = []
    admin = KafkaAdmin(settings)
    for service in services:
        for reader, topics in _groups(service):
            committed = admin.committed(reader)
            places = [(topic, number) for topic in topics for number in range(settings.partitions)]
            positions += [(service.name, reader, place, max(committed.get(place, 0), told.get((reader, place), 0))) for place in places]
    contexts = dict.fromkeys(service.context for service in services)
    for context in contexts:
        views = [(service, view) for service in services if service.context == context for view in service.views]
        positions += _watermarks(views, checkout.redis_url(context), settings.partitions)
    there = set(existing(log, [place for _, _, place, _ in positions]))
    places = sorted(there)
    ends = log.high_watermarks(places) if places else {}
    starts = log.starts(places) if places else {}
    read = [(s, r, place, max(p, starts[place]) if p is not None else None) for s, r, place, p in positions if place in there]
    behind = _behind(log, [(place, position) for _, _, place, position in read if position is not None], ends)
    for service_name, reader, place, position in read:
        count = behind.get((place, position)) if position is not None else None
        yield Lag(service_name, reader, *place, position, ends[place], count)


def _groups(service: ResolvedService) -> Iterator[tuple[str, Sequence[str]]]:
    """The groups of a service whose offsets say how far it is: effects go by open commands instead, views by their rows."""
    decider = service.decider
    if decider is None:
        return
    own = [service.private("ticks")] if decider.decider.deadline is not None else []
    own += [service.private("repartition")] if decider.repartitioned else []
    yield service.name, [*(topic.name for topic in decider.inputs), *own]
    if decider.repartitioned:
        yield f"{service.name}.repartition", [topic.name for topic in decider.repartitioned]


def _watermarks(
    views: Sequence[tuple[ResolvedService, ResolvedView]], url: str | None, partitions: int
) -> list[tuple[str, str, Place, int | None]]:
    """How far the rows of one context are; None for all of them if its Redis does not answer."""
    wanted = [
        (service.name, f"{view.name}.v{view.view.version}", (view.topic.name, number), Fragment(view.name, view.view.version, number))
        for service, view in views
        for number in range(partitions)
    ]
    found: list[int | None] = [None] * len(wanted)
    if url is not None and wanted:
        rows = RedisRows(url)
        try:
            found = [one.watermark or 0 for one in rows.fetch([(fragment, ()) for *_, fragment in wanted])]
        except Unavailable:  # unknown is what is shown then
            pass
        finally:
            rows.close()
    return [(service, reader, place, mark) for (service, reader, place, _), mark in zip(wanted, found, strict=True)]


def _behind(log: Log, positions: Sequence[tuple[Place, int]], ends: Mapping[Place, int]) -> dict[tuple[Place, int], int]:
    """Records between each position and the end: counted if there are few offsets in between, else their number is the answer."""
    behind = {(place, position): max(ends[place] - position, 0) for place, position in positions}
    near = {at: offsets for at, offsets in behind.items() if 0 < offsets <= COUNTED}
    since: dict[Place, int] = {}
    for place, position in near:
        since[place] = min(position, since.get(place, position))
    if not since:
        return behind
    scan = Scan(log, list(since), since=since, stall_s=STALL_S)
    offsets: dict[Place, list[int]] = {place: [] for place in since}
    for record in scan:
        offsets[record.topic, record.partition].append(record.offset)
    for place, position in near:
        if place not in scan.unread:
            behind[place, position] = sum(1 for offset in offsets[place] if position <= offset < ends[place])
    return behind


# What lies in private topics.


class _Kept:
    """What is left of private compacted topics after reading them once."""

    def __init__(self, services: Sequence[ResolvedService], decoder: Decoder) -> None:
        self._decoder = decoder
        self._services = {service.name: service for service in services if service.decider is not None}
        self._by_topic = {service.private("state"): service for service in self._services.values()}
        self._snapshots = {
            name: Snapshots(service.decider.decider, "")
            for name, service in self._services.items()
            if service.decider is not None and service.decider.decider.deadline is not None
        }
        self._parked: dict[tuple[str, str], ParkedMark] = {}
        self._held: dict[tuple[str, str], Held] = {}
        self._open: dict[tuple[str, bytes], Record] = {}
        self.quarantined: dict[str, int] = {}

    def take(self, record: Record) -> None:
        """One record of a state, commands or quarantine topic."""
        kind = self._decoder.kinds.get(record.topic)
        if kind is Kind.QUARANTINED:
            service = record.topic.removeprefix("private.").removesuffix(".quarantine")
            self.quarantined[service] = self.quarantined.get(service, 0) + 1
        elif record.key is None:
            return
        elif kind is Kind.COMMAND:
            if record.value is None:
                self._open.pop((record.topic, record.key), None)
            else:
                self._open[record.topic, record.key] = record
        else:
            self._state(self._by_topic[record.topic].name, record.key, record.value)

    def _state(self, service: str, raw_key: bytes, value: bytes | None) -> None:
        snapshots = self._snapshots.get(service)
        try:
            key, name = split_entry_key(raw_key)
            entry = StateEntry.FromString(value) if value is not None else None
            at = (service, key)
            if name == PARKED:
                if entry is None:
                    self._parked.pop(at, None)
                else:
                    self._parked[at] = entry.parked
            elif name != POSITIONS and snapshots is not None:
                self._aggregate(snapshots, at, name, entry)
        except (Undecodable, DecodeError, MsgspecError):  # what its own service cannot read either stops that service, not this glance
            return

    def _aggregate(self, snapshots: Snapshots, at: tuple[str, str], name: str, entry: StateEntry | None) -> None:
        decider = self._services[at[0]].decider
        assert decider is not None
        held = self._held.get(at) or Held(decider.decider.state())
        if entry is None:
            if name == AGGREGATE:
                self._held.pop(at, None)
            else:
                self._held[at] = snapshots.without(held, name)
        elif entry.version == decider.decider.version:
            self._held[at] = snapshots.taken_up(held, entry)

    def open_commands(self) -> Iterator[OpenCommand]:
        """Commands without a tombstone, oldest first."""
        for (topic, _), record in sorted(self._open.items(), key=lambda item: item[1].timestamp_ms):
            entry: Entry | None = self._decoder.decode(record)
            if entry is not None:
                service = topic.removeprefix("private.").removesuffix(".commands")
                yield OpenCommand(service, entry.name, entry.key, entry.meta.id, entry.at)

    def parked(self) -> Iterator[ParkedKey]:
        """Parked aggregates."""
        for (service, key), mark in sorted(self._parked.items()):
            yield ParkedKey(service, key, f"{mark.topic}/{mark.partition}@{mark.offset}", mark.reason)

    def waiting(self) -> Iterator[Waiting]:
        """Aggregates that have a deadline, the next first."""
        found = []
        for (service, key), held in self._held.items():
            decider = self._services[service].decider
            assert decider is not None
            due_of = decider.decider.deadline.due if decider.decider.deadline is not None else None
            due = due_of(held.state) if due_of is not None else None
            if due is not None:
                found.append(Waiting(service, key, _next_action(held.state), due))
        yield from sorted(found, key=lambda waiting: (waiting.due, waiting.key))


def _next_action(state: Any) -> str:
    """What a process manager says it needs next: `next_action(state)` beside its state, if it has one."""
    next_action = getattr(sys.modules.get(type(state).__module__), "next_action", None)
    return str(next_action(state)) if callable(next_action) else "its deadline"


def _read_private(log: Log, services: Sequence[ResolvedService], decoder: Decoder, settings: Settings, progress: Progress | None) -> _Kept:
    kept = _Kept(services, decoder)
    states = [service.private("state") for service in services if service.decider is not None]
    places = [(topic, number) for topic in states for number in range(settings.partitions)]
    places += decoder.places(settings.partitions, [Kind.COMMAND, Kind.QUARANTINED])
    for record in Scan(log, existing(log, places), progress=progress, stall_s=STALL_S):
        kept.take(record)
    return kept


# For people.


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

"""What services keep in their private topics: commands under way, aggregates that wait or are parked, records set aside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import MsgspecError

from backbone.contract import ResolvedService
from backbone.envelope import Undecodable, split_entry_key
from backbone.loops.snapshots import AGGREGATE, FORGOTTEN, PARKED, POSITIONS, Held, Snapshots
from backbone.operations.decoding import Decoder, Entry, Kind
from backbone.operations.scan import GLANCE_S, Progress, Scan, existing
from backbone.ports import Log, Record
from backbone.settings import Settings
from backbone.v1.private_pb2 import Parked as ParkedMark
from backbone.v1.private_pb2 import StateEntry


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


class Kept:
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
            elif name != POSITIONS and not name.startswith(FORGOTTEN) and snapshots is not None:
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


def read_kept(log: Log, services: Sequence[ResolvedService], decoder: Decoder, settings: Settings, progress: Progress | None) -> Kept:
    """Read state, command and quarantine topics once.

    Raises:
        Unavailable: Kafka does not answer.
    """
    kept = Kept(services, decoder)
    states = [service.private("state") for service in services if service.decider is not None]
    places = [(topic, number) for topic in states for number in range(settings.partitions)]
    places += decoder.places(settings.partitions, [Kind.COMMAND, Kind.QUARANTINED])
    for record in Scan(log, existing(log, places), progress=progress, stall_s=GLANCE_S):
        kept.take(record)
    return kept

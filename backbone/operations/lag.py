"""How far every reader of a platform is behind the end of what it hears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.adapters.redis import RedisRows
from backbone.contract import ResolvedService, ResolvedView
from backbone.errors import Unavailable
from backbone.operations.checkout import Checkout
from backbone.operations.scan import GLANCE_S, Scan, existing
from backbone.ownership import READER
from backbone.ports import Fragment, Log, Place
from backbone.settings import Settings

COUNTED = 2_000
"""Offsets behind, up to which the records among them are counted; markers of transactions take offsets too."""


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


def lag_of(
    log: Log, services: Sequence[ResolvedService], checkout: Checkout, settings: Settings, told: Mapping[tuple[str, Place], int]
) -> Iterator[Lag]:
    """The lag of every decider and view, partition by partition.

    Args:
        checkout: knows where the rows of each context lie.
        told: positions that running processes name themselves, by reader and partition.

    Raises:
        Unavailable: Kafka does not answer.
    """
    positions: list[tuple[str, str, Place, int | None]] = []
    admin = KafkaAdmin(settings, READER)
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
    behind = behind_of(log, [(place, position) for _, _, place, position in read if position is not None], ends)
    for service_name, reader, place, position in read:
        count = behind.get((place, position)) if position is not None else None
        yield Lag(service_name, reader, *place, position, ends[place], count)


def _groups(service: ResolvedService) -> Iterator[tuple[str, Sequence[str]]]:
    """The groups of a service whose offsets say how far it is: effects go by open commands instead, views by their rows."""
    decider = service.decider
    if decider is None:
        return
    yield service.name, service.decider_inputs
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


def behind_of(log: Log, positions: Sequence[tuple[Place, int]], ends: Mapping[Place, int]) -> dict[tuple[Place, int], int]:
    """Records between each position and the end: counted if there are few offsets in between, else their number is the answer."""
    behind = {(place, position): max(ends[place] - position, 0) for place, position in positions}
    near = {at: offsets for at, offsets in behind.items() if 0 < offsets <= COUNTED}
    since: dict[Place, int] = {}
    for place, position in near:
        since[place] = min(position, since.get(place, position))
    if not since:
        return behind
    scan = Scan(log, list(since), since=since, stall_s=GLANCE_S)
    offsets: dict[Place, list[int]] = {place: [] for place in since}
    for record in scan:
        offsets[record.topic, record.partition].append(record.offset)
    for place, position in near:
        if place not in scan.unread:
            behind[place, position] = sum(1 for offset in offsets[place] if position <= offset < ends[place])
    return behind

"""Runs the intake of a context's service over a file, on a log in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from backbone import envelope
from backbone.adapters.memory import MemoryLog
from backbone.contract import resolve
from backbone.declare import Context, Service
from backbone.loops.take_in import Poll
from backbone.settings import Settings
from backbone.v1.private_pb2 import Quarantined
from tests.loops.edges import running, until

PARTITIONS = 4


def taken_in(context: str, service: Service, outside: str, path: Path) -> tuple[list[Message], list[Quarantined]]:
    """The events a file gives, in the order they were written, and what was set aside.

    Args:
        outside: name of the file in the settings.
    """
    resolved = resolve(Context(context, service), service)
    log = MemoryLog()
    topics = [resolved.raises[0].name, resolved.private("cursor"), resolved.private("quarantine")]
    for topic in topics:
        log.create_topic(topic, PARTITIONS)
    settings = Settings.read({f"OUTSIDE_{outside.upper()}": str(path), "BACKBONE_PARTITIONS": str(PARTITIONS)})
    poll = Poll(resolved, log, settings)
    asyncio.run(_to_the_end(poll))
    events = [envelope.decode(resolved.raises[0], record) for record in _records(log, topics[0])]
    in_order = sorted(events, key=lambda event: int(event.meta.id.rpartition(":")[2]))
    aside = [Quarantined.FromString(record.value or b"") for record in _records(log, topics[2])]
    return [event.event for event in in_order], aside


async def _to_the_end(poll: Poll) -> None:
    async with running(poll):
        await until(lambda: bool(poll.status()["caught_up"]), "the whole file taken in")


def _records(log: MemoryLog, topic: str) -> list[Any]:
    places = [(topic, partition) for partition in range(PARTITIONS)]
    ends = log.high_watermarks(places)
    return [record for place in places for record in log.read(place, 0, ends[place])]

"""What is said while one watches: every record of the platform as it becomes readable, decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from backbone.errors import SettingsError
from backbone.operations.decoding import Decoder, Entry, Kind, brief
from backbone.operations.scan import existing
from backbone.operations.story import clock
from backbone.ports import Log, Place
from backbone.settings import Settings

BATCH = 500
POLL_S = 0.2


def places(decoder: Decoder, log: Log, settings: Settings, wanted: str) -> tuple[list[Place], str]:
    """Where to listen, and to which conversation.

    Args:
        wanted: a topic of the platform, a part of the names of several, or the id of a conversation; empty for everything.

    Returns:
        The partitions, and the beginning of the correlation id to keep, empty if all are kept.

    Raises:
        SettingsError: the topics do not exist yet.
    """
    named = {topic for topic in decoder.kinds if wanted and wanted in topic}
    chosen = existing(log, [place for place in decoder.places(settings.partitions) if not named or place[0] in named])
    if not chosen:
        raise SettingsError("there is nothing to listen to: the topics do not exist, run `backbone topics apply`")
    return chosen, "" if named else wanted


def follow(
    log: Log,
    decoder: Decoder,
    since: Mapping[Place, int],
    conversation: str = "",
    seconds: float | None = None,
) -> Iterator[Entry]:
    """Entries as they come.

    Args:
        since: where to start, by partition.
        conversation: only entries whose correlation id begins so.
        seconds: when to stop; None for never.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    consumer = log.consumer(since)
    try:
        while deadline is None or time.monotonic() < deadline:
            # Partitions come one after the other; within what came together, time is the order people expect.
            for record in sorted(consumer.poll(BATCH, POLL_S), key=lambda record: (record.timestamp_ms, record.topic, record.offset)):
                entry = decoder.decode(record)
                if entry is not None and not entry.copy_of and entry.meta.correlation_id.startswith(conversation):
                    yield entry
    finally:
        consumer.close()


def line(entry: Entry) -> str:
    """An entry in one line."""
    meta = entry.meta
    kind = "" if entry.kind is Kind.EVENT else f" [{entry.kind}]"
    said = brief(entry.message, leave_out=(meta.correlation_id,)) if entry.message is not None and not entry.problem else entry.problem
    about = meta.correlation_id or entry.key or "?"
    return f"{clock(entry.at)}  {about}  {entry.name}{kind} by {meta.writer or '?'}  {said}  {entry.place}"

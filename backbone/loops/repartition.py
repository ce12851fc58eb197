"""Repartition: forwards the events of lines with a `key=` to the partitions of the keys they are about, exactly once.

The order of one source partition is kept per key, since one record's forwards are produced in the order of the log and equal keys meet
in one partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from backbone.contract import ResolvedService, Topic
from backbone.declare import On
from backbone.envelope import Undecodable, UnknownEvent, decode, timestamp
from backbone.errors import DeclarationError
from backbone.loops.set_aside import SetAside
from backbone.ports import Log, Place, Record
from backbone.settings import Settings
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_RAISED,
    QUARANTINE_REASON_UNDECODABLE,
    QUARANTINE_REASON_UNKNOWN_EVENT,
    Forwarded,
    QuarantineReason,
)

log = structlog.get_logger()


class Repartition:
    """The forwarding of one decider's lines that have a `key=`.

    Args:
        service: the service whose decider it is.
        log: where it reads and writes.
        settings: slot, build and batch size.
    """

    def __init__(self, service: ResolvedService, log: Log, settings: Settings) -> None:
        decider = service.decider
        if decider is None or not decider.repartitioned:
            raise DeclarationError(f"{service.name} has no line with a key=")
        self.name = f"{service.name}.repartition"
        self._topic = service.private("repartition")
        self._since = decider.decider.since
        self._sources: dict[str, Topic] = {topic.name: topic for topic in decider.repartitioned}
        self._lines: dict[tuple[str, int], On[Any, Any]] = {
            (reaction.topic.name, reaction.number): reaction.line for reaction in decider.reactions if reaction.repartitioned
        }
        self._log = log
        self._batch = settings.batch
        self._set_aside = SetAside(service.name, settings.build)
        self._positions: dict[Place, int] = {}
        self._assigned_once = False
        self._forwarded = 0
        self._quarantined = 0
        self._producer = log.producer(f"{self.name}.{settings.slot}")
        self._consumer = log.group_consumer(self.name, f"{self.name}.{settings.slot}", sorted(self._sources), self._assigned, self._revoked)

    @property
    def ready(self) -> bool:
        """Whether it has its partitions."""
        return self._assigned_once

    def step(self, timeout_s: float) -> bool:
        """Forward what has come.

        Args:
            timeout_s: how long to wait if nothing has come, in seconds.

        Returns:
            Whether anything was committed.

        Raises:
            WorkerEnded: the worker cannot go on; its slot starts again.
        """
        records = self._consumer.poll(self._batch, timeout_s)
        if not records:
            return False
        self._producer.begin()
        for record in records:
            for topic, key, value, partition in self._forward(record):
                self._producer.produce(topic, key, value, partition)
        offsets = {(record.topic, record.partition): record.offset + 1 for record in records}
        self._producer.send_offsets(offsets, self._consumer)
        self._producer.commit()
        self._positions.update(offsets)
        return True

    def status(self) -> dict[str, Any]:
        """How far it is."""
        return {
            "forwarded": self._forwarded,
            "quarantined": self._quarantined,
            "positions": {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(dict(self._positions).items())},
        }

    def close(self) -> None:
        """Leave the group, then let go of the producer."""
        self._consumer.close()
        self._producer.close()

    def _assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        committed = self._consumer.committed(places)
        first = self._log.high_watermarks(places) if self._since == "now" else self._log.starts(places)
        starts = {place: first[place] if (known := committed[place]) is None else known for place in places}
        self._positions = dict(starts)
        self._assigned_once = True
        return starts

    def _revoked(self, places: Sequence[Place]) -> None:
        for place in places:
            self._positions.pop(place, None)

    def _forward(self, record: Record) -> Iterable[tuple[str, bytes, bytes, int]]:
        try:
            decoded = decode(self._sources[record.topic], record)
        except Undecodable as error:
            return [self._aside(record, QUARANTINE_REASON_UNDECODABLE, str(error))]
        except UnknownEvent as error:
            return [self._aside(record, QUARANTINE_REASON_UNKNOWN_EVENT, str(error))]
        line = self._lines.get((record.topic, decoded.number))
        if line is None or line.key is None:
            return []
        try:
            keys = line.key(decoded.event)
        except Exception as error:  # noqa: BLE001 - a key function that raises is a defect of that line, not the end of the others
            return [
                self._aside(
                    record,
                    QUARANTINE_REASON_RAISED,
                    f"{line} key= raised {type(error).__name__}: {error}",
                    error=error,
                    order_id=decoded.meta.correlation_id,
                )
            ]
        forwarded = Forwarded(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            appended_at=timestamp(record.timestamp_ms),
            value=record.value or b"",
        ).SerializeToString()
        distinct = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))
        self._forwarded += len(distinct)
        return [(self._topic, key.encode(), forwarded, -1) for key in distinct]

    def _aside(
        self,
        record: Record,
        reason: QuarantineReason.ValueType,
        detail: str,
        *,
        error: Exception | None = None,
        order_id: str = "",
    ) -> tuple[str, bytes, bytes, int]:
        self._quarantined += 1
        key, value = self._set_aside.record(record, reason, detail, error=error)
        log.warning(
            "quarantined",
            service=self.name,
            order_id=order_id,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            detail=detail,
        )
        return self._set_aside.topic, key, value, record.partition

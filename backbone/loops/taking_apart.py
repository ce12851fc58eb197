"""What a decider hears, taken apart: events, outcomes, ticks, forwarded events and an operator's releases."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from backbone.contract import ResolvedService, Topic
from backbone.declare import On, Tick
from backbone.envelope import Undecodable, UnknownEvent, decode, moment_of_ms, split_entry_key
from backbone.loops.holding import Came
from backbone.loops.looking_up import LookingUp
from backbone.moments import moment
from backbone.ports import Record
from backbone.rules import BreaksRules, check
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_INVALID,
    QUARANTINE_REASON_UNDECODABLE,
    QUARANTINE_REASON_UNKNOWN_EVENT,
    Forwarded,
    Quarantined,
    Release,
)
from backbone.v1.private_pb2 import Tick as TickRecord


class TakingApart:
    """Turns the records of one decider into what its lines take.

    Args:
        service: whose decider it is.
        looking_up: says what each record needs besides.
    """

    def __init__(self, service: ResolvedService, looking_up: LookingUp) -> None:
        assert service.decider is not None
        self._looking_up = looking_up
        self._deadline = service.decider.decider.deadline
        self._topics = {topic.name: topic for topic in (*service.decider.inputs, *service.decider.repartitioned)}
        self._lines: dict[str, dict[int, On[Any, Any]]] = {}
        for reaction in service.decider.reactions:
            self._lines.setdefault(reaction.topic.name, {})[reaction.number] = reaction.line
        self._private = {
            service.private("ticks"): self._tick,
            service.private("repartition"): self._forwarded,
            service.private("releases"): self._release,
        }

    def came(self, record: Record) -> Came:
        """A record as the loop decides it; what nobody hears has no line, what cannot be decided says why."""
        came = Came(record, record.timestamp_ms)
        if (private := self._private.get(record.topic)) is not None:
            private(came)
            return came
        topic, lines = self._topics[record.topic], self._lines[record.topic]
        value = record.value
        # What nobody hears is told by its first byte, the tag of the event's field, and not decoded.
        if value and record.key is not None and (number := value[0] >> 3) in topic.events and number not in lines:
            return came
        try:
            self._event(came, topic, lines)
        except Undecodable as error:
            came.wrong = (QUARANTINE_REASON_UNDECODABLE, str(error))
        except UnknownEvent as error:
            came.wrong = (QUARANTINE_REASON_UNKNOWN_EVENT, str(error))
        except BreaksRules as error:
            came.wrong = (QUARANTINE_REASON_INVALID, str(error))
        return came

    def _event(self, came: Came, topic: Topic, lines: dict[int, On[Any, Any]]) -> None:
        decoded = decode(topic, came.record)
        came.event, came.meta = decoded.event, decoded.meta
        came.key = split_entry_key(came.record.key or b"")[0] if topic.private else decoded.key
        came.line = lines.get(decoded.number)
        if came.line is not None:
            if not topic.private:
                check(decoded.event)
            came.wanted = self._looking_up.wanted(came.line, decoded.event)

    def _tick(self, came: Came) -> None:
        try:
            tick = TickRecord.FromString(came.record.value or b"")
        except DecodeError as error:
            came.wrong = (QUARANTINE_REASON_UNDECODABLE, f"not a Tick: {error}")
            return
        came.key, came.meta, came.line = tick.key, tick.meta, self._deadline
        came.event = Tick(due=moment(tick.due), at=moment_of_ms(came.record.timestamp_ms))

    def _forwarded(self, came: Came) -> None:
        """An event by way of the repartition topic: decided under the key of the forward, at the time of the original."""
        try:
            forwarded = Forwarded.FromString(came.record.value or b"")
            topic = self._topics[forwarded.topic]
            wrapped: Any = topic.wrapper.FromString(forwarded.value)
            came.key = (came.record.key or b"").decode()
        except (DecodeError, KeyError, UnicodeDecodeError) as error:
            came.wrong = (QUARANTINE_REASON_UNDECODABLE, f"not a Forwarded: {error}")
            return
        came.event, came.meta = getattr(wrapped, wrapped.WhichOneof(topic.oneof)), wrapped.meta
        came.at_ms = forwarded.appended_at.ToMilliseconds()
        came.line = self._lines[topic.name][topic.number(type(came.event)) or 0]
        came.wanted = self._looking_up.wanted(came.line, came.event)

    def _release(self, came: Came) -> None:
        try:
            release = Release.FromString(came.record.value or b"")
        except DecodeError as error:
            came.wrong = (QUARANTINE_REASON_UNDECODABLE, f"not a Release: {error}")
            return
        came.event, came.key = release, release.aggregate
        came.released = [self.came(_record(one)) for one in release.records if one.topic in self._topics or one.topic in self._private]
        came.count = len(release.records) + len(release.dropped)


def _record(quarantined: Quarantined) -> Record:
    """The record that was set aside, as it was read."""
    return Record(
        quarantined.topic,
        quarantined.partition,
        quarantined.offset,
        quarantined.key if quarantined.HasField("key") else None,
        quarantined.value if quarantined.HasField("value") else None,
        quarantined.appended_at.ToMilliseconds(),
    )

"""An older build of a service: the same table and contracts without one event, which it cannot tell from bytes nobody knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from backbone.contract import ResolvedService, Topic


class WrapperOf:
    """A wrapper as code generated before an event was added reads it: the event is an unknown field.

    Args:
        wrapper: as it is generated today.
        field: of the event in its oneof.
    """

    def __init__(self, wrapper: Any, field: str) -> None:
        self.DESCRIPTOR = wrapper.DESCRIPTOR
        self._wrapper = wrapper
        self._field = field

    def FromString(self, raw: bytes) -> Any:  # noqa: N802 - Protobuf calls it so
        """What the bytes say to it."""
        found = self._wrapper.FromString(raw)
        found.ClearField(self._field)
        return found


def before(topic: Topic, event: type[Message]) -> Topic:
    """A topic as its contract was before an event was added; unchanged if it does not hold it."""
    number = topic.number(event)
    if number is None:
        return topic
    known: Any = WrapperOf(topic.wrapper, topic.fields[number])
    events = {other: one for other, one in topic.events.items() if other != number}
    fields = {other: one for other, one in topic.fields.items() if other != number}
    return replace(topic, wrapper=known, events=events, fields=fields)


def older(service: ResolvedService, event: type[Message]) -> ResolvedService:
    """A service as it was built before an event was added."""
    assert service.decider is not None
    reactions = [one for one in service.decider.reactions if one.line.hears is not event]
    heard = tuple(replace(one, topic=before(one.topic, event)) for one in reactions)
    decider = replace(service.decider, reactions=heard, primary=before(service.decider.primary, event))
    return replace(service, decider=decider)

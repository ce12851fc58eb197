"""Whatever the contracts allow is taken, whatever they forbid is refused, and nothing that lies in a topic breaks a reader."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone.contract import all_topics
from backbone.envelope import Undecodable, UnknownEvent, decode
from backbone.ports import Record
from backbone.rules import violations
from backbone.testing.contracts import Broken, garbage, invalid, records, valid

TOPICS = all_topics("retail")
PUBLIC = [topic for topic in TOPICS.values() if not topic.private and not topic.copy_of]
EVENTS = [event for topic in PUBLIC for event in topic.events.values()]
NO_PATIENCE = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
"""The machine is shared: how long a draw takes says nothing."""
FEW = settings(max_examples=15, deadline=None, suppress_health_check=NO_PATIENCE)


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: one.DESCRIPTOR.name)
@FEW
@given(data=st.data())
def test_what_is_made_valid_keeps_every_rule(event: type[Message], data: st.DataObject) -> None:
    found = data.draw(valid(event))
    assert violations(found) == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: one.DESCRIPTOR.name)
@FEW
@given(data=st.data())
def test_what_breaks_a_rule_at_its_boundary_is_refused(event: type[Message], data: st.DataObject) -> None:
    broken: Broken = data.draw(invalid(event))
    found = violations(broken.message)
    last = broken.field.rpartition(".")[2]
    assert any(last in one.field for one in found), f"{broken.field} breaks {broken.rule}, and nobody says so: {found}"


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda one: one.name)
@FEW
@given(data=st.data())
def test_a_valid_record_is_read_as_it_was_written(topic: Any, data: st.DataObject) -> None:
    key, value = data.draw(records(topic))
    found = decode(topic, Record(topic.name, 0, 0, key, value, 0))
    assert found.meta.writer == topic.writer
    assert topic.private or getattr(found.event, topic.key).encode() == key


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda one: one.name)
@settings(max_examples=40, deadline=None, suppress_health_check=NO_PATIENCE)
@given(data=st.data())
def test_whatever_lies_in_a_topic_is_a_record_or_named_for_what_it_is(topic: Any, data: st.DataObject) -> None:
    key, value = data.draw(garbage(topic))
    try:
        found = decode(topic, Record(topic.name, 0, 0, key, value, 0))
    except (Undecodable, UnknownEvent):
        return
    assert found.meta.id


def test_a_message_without_rules_cannot_be_broken() -> None:
    from retail.payments.views.v1.risk_pb2 import GetCustomerHistoryRequest

    with pytest.raises(ValueError, match="no rule"):
        invalid(GetCustomerHistoryRequest)

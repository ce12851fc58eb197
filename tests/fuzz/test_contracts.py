"""Whatever the contracts allow is taken, whatever they forbid is refused, and nothing that lies in a topic breaks a reader."""

from __future__ import annotations

from typing import Any

import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from retail.fulfilment.v1.stock_pb2 import StockLevelChanged
from retail.gateway.v1.order_request_pb2 import OrderRequested, RequestedLine

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
    if broken.rule.startswith("cel."):
        assert {one.rule for one in found} == {broken.rule.removeprefix("cel.")}


def drawn(strategy: SearchStrategy[Broken], rule: str, count: int = 10) -> list[Broken]:
    """Messages that break one rule."""
    found: list[Broken] = []

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=NO_PATIENCE)
    @given(strategy.filter(lambda one: one.rule == rule))
    def collect(broken: Broken) -> None:
        found.append(broken)

    collect()
    return found


def test_a_rule_over_two_fields_is_broken_by_one() -> None:
    broken = [one.message for one in drawn(invalid(StockLevelChanged), "cel.stock_level_changed.reserved_within_on_hand")]
    assert {one.reserved - one.on_hand for one in broken if isinstance(one, StockLevelChanged)} == {1}


def test_a_rule_over_the_parts_of_a_field_is_broken_at_each_of_its_bounds() -> None:
    broken = [one.message for one in drawn(invalid(RequestedLine), "cel.unit_price.exact", 30)]
    prices = [one.unit_price for one in broken if isinstance(one, RequestedLine)]
    assert {one.units for one in prices} >= {-1, 10**9}
    assert any(one.nanos % 10_000_000 in (1, 9_999_999) for one in prices)
    assert all(-1 <= one.units <= 10**9 for one in prices), "no further than its boundary"


def test_a_rule_over_many_parts_is_broken_by_one_of_them() -> None:
    for one in drawn(invalid(OrderRequested), "cel.order_requested.one_currency"):
        assert isinstance(one.message, OrderRequested)
        first, *others = [line.unit_price.currency_code for line in one.message.lines]
        assert any(first != other for other in others)


def test_a_pattern_is_missed_by_one_character() -> None:
    coded = message_with_pattern("^[A-Z]{3}$")
    broken = [getattr(one.message, "code") for one in drawn(invalid(coded), "string.pattern")]  # noqa: B009 - made at run time
    assert broken
    assert {len(one) for one in broken} >= {2, 4}, "too short and too long"
    assert all(2 <= len(one) <= 4 for one in broken)


def message_with_pattern(pattern: str) -> type[Message]:
    """A message of one text that must match."""
    file = FileDescriptorProto(name="fuzz/coded.proto", package="fuzz", syntax="proto3", dependency=["buf/validate/validate.proto"])
    message = file.message_type.add(name="Coded")
    one = message.field.add(name="code", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL)
    one.options.Extensions[validate_pb2.field].string.pattern = pattern
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("fuzz.Coded"))


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

"""The story of one order, told from records."""

from __future__ import annotations

import json
import random

import pytest

from backbone.operations import story
from backbone.operations.decoding import Decoder, Entry, Kind
from backbone.operations.story import NoStory, Story
from backbone.operations.story_tree import tree
from backbone.ports import Record
from backbone.settings import Settings
from backbone.topology import topology
from backbone.v1.meta_pb2 import Observed
from shop import shop
from tests import examples
from tests.operations.narrating import PARTITIONS, Narrator, log_of

DECODER = Decoder.of(shop)
SETTINGS = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)})


def told(narrator: Narrator, order: str = examples.ORDER) -> Story:
    return story.tell(entries(narrator.records), order)


def entries(records: list[Record]) -> list[Entry]:
    return [entry for record in records if (entry := DECODER.decode(record)) is not None]


def confirmed(narrator: Narrator, order: str = examples.ORDER) -> None:
    """An order that was requested, validated, reserved, paid and confirmed."""
    request = narrator.say(examples.order_requested(order_id=order), order=order)
    validated = narrator.say(
        examples.order_validated(order_id=order),
        request,
        order=order,
        sequence=1,
        observed=[Observed(view="ordering.orders.price", version=1, partition=2, watermark=7, keys=["CD-1", "CD-2"])],
    )
    narrator.say(examples.items_reserved(order_id=order), validated, order=order)
    command = narrator.say(examples.authorize_card(order_id=order), validated, order=order)
    outcome = narrator.say(examples.card_authorized(order_id=order), command, order=order)
    paid = narrator.say(examples.payment_authorized(order_id=order), outcome, order=order)
    narrator.say(examples.order_paid(order_id=order), paid, order=order, sequence=2)
    narrator.say(examples.order_confirmed(order_id=order), paid, order=order, sequence=3)


def test_every_step_stands_behind_its_cause_whatever_the_order_of_reading() -> None:
    """Topics are read side by side, so records come in any order."""
    narrator = Narrator()
    confirmed(narrator)
    shuffled = narrator.records.copy()
    random.Random(7).shuffle(shuffled)
    read_in_order, read_shuffled = told(narrator), story.tell(entries(shuffled), examples.ORDER)
    assert read_shuffled == read_in_order
    assert [step.name for step in read_in_order.steps] == [
        "OrderRequested",
        "OrderValidated",
        "ItemsReserved",
        "AuthorizeCard",
        "CardAuthorized",
        "PaymentAuthorized",
        "OrderPaid",
        "OrderConfirmed",
    ]
    assert [step.because for step in read_in_order.steps] == [None, 1, 2, 2, 4, 5, 6, 6]
    assert [step.depth for step in read_in_order.steps] == [0, 1, 2, 2, 3, 4, 5, 5]


def test_an_effect_stands_behind_its_cause_even_if_another_broker_stamped_it_earlier() -> None:
    narrator = Narrator()
    request = narrator.say(examples.order_requested(), at_ms=50)
    narrator.say(examples.order_validated(), request, at_ms=10)
    assert [step.name for step in told(narrator).steps] == ["OrderRequested", "OrderValidated"]


def test_copies_are_one_step_that_names_all_its_coordinates() -> None:
    narrator = Narrator()
    narrator.say(examples.order_confirmed())
    (step,) = told(narrator).steps
    assert step.topic == "retail.ordering.orders.v1"
    assert {place.split("/")[0] for place in step.copies} == {
        "retail.ordering.orders-by-zone.v1",
        "retail.ordering.orders-by-customer.v1",
    }


def test_other_conversations_are_left_out() -> None:
    narrator = Narrator()
    confirmed(narrator, "order-1")
    confirmed(narrator, "order-2")
    assert {step.key for step in told(narrator, "order-2").steps} <= {"order-2", examples.ZONE}
    assert len(told(narrator, "order-2").steps) == len(told(narrator, "order-1").steps)


def test_a_command_without_outcome_is_told_as_open() -> None:
    narrator = Narrator()
    command = narrator.say(examples.authorize_card())
    assert told(narrator).steps[0].note == "open: no outcome yet"
    narrator.say(examples.card_refused(), command)
    assert [step.note for step in told(narrator).steps] == ["", ""]


def test_a_tombstone_is_no_step() -> None:
    narrator = Narrator()
    narrator.say(examples.authorize_card())
    done = narrator.last("private.payments.payments.commands")
    narrator.write(done.topic, done.key, None, done.partition)
    assert [step.kind for step in told(narrator).steps] == [Kind.COMMAND]


def test_a_passed_deadline_causes_what_was_decided_on_it() -> None:
    narrator = Narrator()
    tick = narrator.tick(examples.ORDER)
    narrator.say(examples.order_rejected(), tick)
    steps = told(narrator).steps
    assert [(step.kind, step.because) for step in steps] == [(Kind.TICK, None), (Kind.EVENT, 1)]


def test_what_was_set_aside_is_told_behind_the_record_it_is_about() -> None:
    narrator = Narrator()
    narrator.say(examples.order_validated())
    narrator.set_aside(narrator.last("retail.ordering.orders.v1"), "payments.payments", "ZeroDivisionError: division by zero")
    event, aside = told(narrator).steps
    assert (aside.kind, aside.name, aside.because) == (Kind.QUARANTINED, "RAISED", event.number)
    assert aside.note == "ZeroDivisionError: division by zero"


def test_a_cause_that_is_gone_is_said_so() -> None:
    narrator = Narrator()
    narrator.say(examples.card_authorized(), "a command that was compacted away")
    (step,) = told(narrator).steps
    assert step.because is None
    assert "no longer in the log" in step.note


def test_causes_that_run_in_a_circle_hide_nothing() -> None:
    narrator = Narrator()
    narrator.say(examples.order_validated(), "b", named="a")
    narrator.say(examples.order_confirmed(), "a", named="b")
    assert {step.id for step in told(narrator).steps} == {"a", "b"}


def test_garbage_in_a_topic_does_not_stop_a_story() -> None:
    narrator = Narrator()
    narrator.write("retail.ordering.orders.v1", b"order-1", b"order-1 \xff", 0)
    narrator.write("retail.ordering.orders.v1", None, None, 0)
    confirmed(narrator)
    assert len(told(narrator).steps) == 8


def test_the_text_says_who_what_where_why_and_what_was_known() -> None:
    narrator = Narrator()
    confirmed(narrator)
    text = "\n".join(story.lines(told(narrator)))
    for expected in (
        "OrderValidated by ordering.orders (b1)  (because of 1)",
        "looked up ordering.orders.price v1 p2 up to 7: CD-1, CD-2",
        "total=34.67 USD",
        "AuthorizeCard [command] by payments.payments",
        "12:00:00.000  OrderRequested by gateway.door (b1)  (a beginning)",
        "retail.gateway.order-requests.v1/",
    ):
        assert expected in text


def test_the_tree_hangs_every_step_on_its_cause() -> None:
    narrator = Narrator()
    confirmed(narrator)
    root = tree(told(narrator))
    (request,) = root.children
    (validated,) = request.children
    assert [len(child.children) for child in validated.children] == [0, 1]


def test_the_json_holds_all_of_it() -> None:
    narrator = Narrator()
    confirmed(narrator)
    found = json.loads(json.dumps(told(narrator).to_dict()))
    step = found["steps"][1]
    assert step["says"]["total"] == {"currency_code": "USD", "units": "34", "nanos": 670000000}
    assert step["looked_up"] == [{"view": "ordering.orders.price", "version": 1, "partition": 2, "watermark": 7, "keys": ["CD-1", "CD-2"]}]
    assert step["causation_id"] == found["steps"][0]["id"]


def test_a_story_is_found_by_the_beginning_of_its_order_id() -> None:
    narrator = Narrator()
    confirmed(narrator, "order-77")
    confirmed(narrator, "order-88")
    log = log_of(topology(shop), narrator.records)
    assert story.find(log, DECODER, SETTINGS, "order-8").correlation_id == "order-88"
    assert len(story.find(log, DECODER, SETTINGS, "order-77").steps) == 8


def test_a_beginning_of_several_order_ids_is_refused_naming_them() -> None:
    narrator = Narrator()
    confirmed(narrator, "order-7")
    confirmed(narrator, "order-78")
    log = log_of(topology(shop), narrator.records)
    with pytest.raises(NoStory, match="2 conversations begin with 'order-': order-7, order-78"):
        story.find(log, DECODER, SETTINGS, "order-")
    assert story.find(log, DECODER, SETTINGS, "order-7").correlation_id == "order-7"


def test_an_unknown_order_is_refused_with_a_way_on() -> None:
    log = log_of(topology(shop), [])
    with pytest.raises(NoStory, match="--last"):
        story.find(log, DECODER, SETTINGS, "order-9")


def test_the_last_conversation_is_the_one_that_came_in_last() -> None:
    narrator = Narrator()
    for number in range(20):
        confirmed(narrator, f"order-{number}")
    log = log_of(topology(shop), narrator.records)
    assert story.last(log, DECODER, SETTINGS, ["retail.gateway.order-requests.v1"]) == "order-19"


def test_without_any_conversation_there_is_no_last_one() -> None:
    log = log_of(topology(shop), [])
    with pytest.raises(NoStory, match="place an order first"):
        story.last(log, DECODER, SETTINGS, ["retail.gateway.order-requests.v1"])

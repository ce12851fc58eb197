"""How a platform is, from what lies in its private topics and what its processes say."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from backbone.contract import ResolvedService, resolve_context
from backbone.envelope import entry_key
from backbone.loops.snapshots import PARKED, Held, Snapshots
from backbone.operations import status
from backbone.operations.decoding import Decoder
from backbone.operations.kept import Kept, ParkedKey, Waiting, read_kept
from backbone.operations.lag import Lag, behind_of
from backbone.operations.status import ProcessStatus, Status
from backbone.settings import Settings
from backbone.topology import topology
from backbone.v1.private_pb2 import Parked, StateEntry
from contexts.ordering.orders.state import Order
from contexts.ordering.orders.state import Status as OrderStatus
from shop import shop
from tests import examples
from tests.operations.narrating import PARTITIONS, Narrator, log_of

DECODER = Decoder.of(shop)
SETTINGS = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)})
SERVICES = [service for context in shop.contexts for service in resolve_context(context)]
STATE = "private.ordering.orders.state"


def kept(narrator: Narrator) -> Kept:
    log = log_of(topology(shop), narrator.records)
    return read_kept(log, SERVICES, DECODER, SETTINGS, None)


def orders() -> ResolvedService:
    return next(service for service in SERVICES if service.name == "ordering.orders")


def holding(narrator: Narrator, key: str, order: Order) -> None:
    """Write the state of an order as its decider does."""
    decider = orders().decider
    assert decider is not None
    for raw_key, value in Snapshots(decider.decider, "b1").entries(key, Held(order, 1, key)):
        narrator.write(STATE, raw_key, value, 0)


VALIDATED = Order(OrderStatus.VALIDATED, answer_by=examples.ANSWER_BY)


def test_an_order_waits_for_what_its_process_manager_says() -> None:
    narrator = Narrator()
    holding(narrator, "order-1", replace(VALIDATED, reserved=True))
    holding(narrator, "order-2", VALIDATED)
    assert [(one.key, one.waits_for, one.due) for one in kept(narrator).waiting()] == [
        ("order-1", "await payment", examples.ANSWER_BY),
        ("order-2", "await stock and payment", examples.ANSWER_BY),
    ]


def test_an_answered_order_waits_no_more() -> None:
    narrator = Narrator()
    holding(narrator, "order-1", VALIDATED)
    holding(narrator, "order-1", Order(OrderStatus.CONFIRMED))
    assert list(kept(narrator).waiting()) == []


def test_a_command_is_open_until_its_tombstone() -> None:
    narrator = Narrator()
    narrator.say(examples.authorize_card(order_id="order-1"), order="order-1")
    done = narrator.last("private.payments.payments.commands")
    narrator.say(examples.authorize_card(order_id="order-2"), order="order-2")
    narrator.write(done.topic, done.key, None, done.partition)
    assert [(one.service, one.command, one.aggregate) for one in kept(narrator).open_commands()] == [
        ("payments.payments", "AuthorizeCard", "order-2")
    ]


def test_a_parked_key_is_told_with_its_record_until_it_is_released() -> None:
    narrator = Narrator()
    mark = StateEntry(version=1, parked=Parked(topic="retail.payments.payments.v1", partition=1, offset=7, reason="ValueError: no"))
    narrator.write(STATE, entry_key("order-1", PARKED), mark.SerializeToString(), 0)
    narrator.write(STATE, entry_key("order-2", PARKED), mark.SerializeToString(), 0)
    narrator.write(STATE, entry_key("order-2", PARKED), None, 0)
    assert list(kept(narrator).parked()) == [ParkedKey("ordering.orders", "order-1", "retail.payments.payments.v1/1@7", "ValueError: no")]


def test_quarantined_records_are_counted_by_service() -> None:
    narrator = Narrator()
    narrator.say(examples.order_validated())
    for service in ("payments.payments", "payments.payments", "gateway.door"):
        narrator.set_aside(narrator.last("retail.ordering.orders.v1"), service, "no")
    assert kept(narrator).quarantined == {"payments.payments": 2, "gateway.door": 1}


def test_garbage_in_a_state_topic_does_not_stop_the_glance() -> None:
    narrator = Narrator()
    narrator.write(STATE, b"no such key", b"\xff", 0)
    narrator.write(STATE, entry_key("order-1", "aggregate"), b"\xff\xff", 0)
    narrator.write(STATE, None, b"", 0)
    holding(narrator, "order-2", VALIDATED)
    assert [one.key for one in kept(narrator).waiting()] == ["order-2"]


def test_markers_of_transactions_are_no_lag() -> None:
    """Each transaction ends with a marker, which takes an offset and is no record."""
    narrator = Narrator()
    for _ in range(3):
        narrator.write("retail.ordering.prices.v1", b"sku", b"x", 0)
    log = log_of(topology(shop), narrator.records)
    place = ("retail.ordering.prices.v1", 0)
    end = log.high_watermarks([place])[place]
    assert end == 6
    behind = behind_of(log, [(place, 1), (place, 5), (place, 6)], {place: end})
    assert behind == {(place, 1): 2, (place, 5): 0, (place, 6): 0}


WELL = Status(
    at=examples.NOON,
    kafka="127.0.0.1:9092",
    cluster_id="c",
    processes=(ProcessStatus("ordering", 7, True, "", "b1", "http://127.0.0.1:1"), ProcessStatus("kafka", 8, None, "", "", "")),
    lag=(Lag("ordering.orders", "ordering.orders", "retail.payments.payments.v1", 0, 5, 9, 2),),
    open_commands=(),
    parked=(),
    waiting=(Waiting("ordering.orders", "order-1", "await payment", examples.NOON + timedelta(seconds=90)),),
    quarantined={},
    data_bytes=3_000_000,
)


def test_lag_and_waiting_are_no_trouble() -> None:
    assert WELL.trouble == []


def test_a_process_that_does_not_run_or_is_not_ready_is_trouble() -> None:
    sick = replace(
        WELL,
        processes=(
            ProcessStatus("ordering", None, False, "", "", "http://127.0.0.1:1"),
            ProcessStatus("payments", 9, False, "ordering.orders is missing", "b1", "http://127.0.0.1:2"),
        ),
    )
    assert sick.trouble == ["ordering does not run: see its log", "payments is not ready: ordering.orders is missing"]


def test_a_parked_key_and_an_unknown_position_are_trouble() -> None:
    sick = replace(
        WELL,
        parked=(ParkedKey("ordering.orders", "order-1", "retail.payments.payments.v1/1@7", "ValueError: no"),),
        lag=(Lag("ordering.orders", "ordering.orders.price.v1", "retail.ordering.prices.v1", 0, None, 9, None),),
    )
    assert sick.trouble == [
        "ordering.orders.price.v1: its position cannot be found out",
        "ordering.orders parked order-1 at retail.payments.payments.v1/1@7: ValueError: no",
    ]


def test_the_text_shows_what_waits_for_what_and_for_how_long() -> None:
    text = "\n".join(status.lines(WELL))
    assert "ordering.orders: order-1 to await payment, until 12:01:30 UTC (90 s)" in text
    assert "3 MB on disk" in text
    assert "retail.payments.payments.v1: 5/9" in text


def test_the_limit_of_a_door_is_shown() -> None:
    edge = {"limit": 80, "under_way": 12, "answer_s": 0.84, "refused": 3, "calls": 14}
    answer = status._Answer("http://127.0.0.1:1", {"edges": {"gateway.door": edge, "gateway.door.intake": {"under_way": 1}}})
    doors = tuple(status._doors({"gateway": answer, "ordering": status._Answer("", None)}))
    text = "\n".join(status.lines(replace(WELL, doors=doors)))
    assert "gateway, gateway.door: 12 of 80 places taken, answers take 0.8 s, 3 turned away" in text
    assert replace(WELL, doors=doors).to_dict()["doors"][0]["limit"] == 80


def test_the_json_is_json() -> None:
    found = json.loads(json.dumps(WELL.to_dict()))
    assert found["waiting"][0]["due"] == "2026-03-02T12:01:30.000+00:00"
    assert found["trouble"] == []
    assert found["lag"][0]["behind"] == 2


def test_what_loops_wait_for_is_told() -> None:
    answer = {
        "loops": {
            "ordering.orders.decide": {"partitions": {"0": {"frozen": "", "waits_for": "rows of price"}, "1": {"frozen": "newer state"}}},
            "ordering.orders.price": {"waiting": {"reason": "Redis does not answer", "age_s": 3.0}},
        },
        "edges": {
            "ordering.catalogue.intake": {"error": "FileNotFoundError"},
            "payments.payments.effects": {
                "partitions": [0, 1],
                "waiting": [{"command": "AuthorizeCard", "aggregate": "order-1", "id": "c", "tries": 4, "error": "ConnectError"}],
            },
        },
    }
    assert list(status._held_up(answer)) == [
        "ordering.orders.decide p0: rows of price",
        "ordering.orders.decide p1: newer state",
        "ordering.orders.price: Redis does not answer",
        "ordering.catalogue.intake: FileNotFoundError",
        "payments.payments.effects: AuthorizeCard of order-1, tried 4 times: ConnectError",
    ]

"""What is said while one watches."""

from __future__ import annotations

import pytest

from backbone.errors import SettingsError
from backbone.operations import tail
from backbone.operations.decoding import Decoder
from backbone.settings import Settings
from backbone.topology import topology
from shop import shop
from tests import examples
from tests.operations.narrating import PARTITIONS, Narrator, log_of

DECODER = Decoder.of(shop)
SETTINGS = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)})


def heard(narrator: Narrator, wanted: str = "") -> list[str]:
    log = log_of(topology(shop), narrator.records)
    places, conversation = tail.places(DECODER, log, SETTINGS, wanted)
    return [tail.line(entry) for entry in tail.follow(log, DECODER, log.starts(places), conversation, seconds=0.1)]


def two_orders() -> Narrator:
    narrator = Narrator()
    for order in ("order-1", "order-2"):
        narrator.say(examples.order_validated(order_id=order), order=order)
        narrator.say(examples.payment_authorized(order_id=order), order=order)
    return narrator


def test_everything_is_heard_and_copies_once() -> None:
    assert len(heard(two_orders())) == 4


def test_one_order_is_heard() -> None:
    assert {line.split()[1] for line in heard(two_orders(), "order-2")} == {"order-2"}


def test_some_topics_are_heard() -> None:
    lines = heard(two_orders(), "payments.payments.v1")
    assert [line.split()[2] for line in lines] == ["PaymentAuthorized", "PaymentAuthorized"]


def test_what_cannot_be_understood_is_heard_too() -> None:
    narrator = Narrator()
    narrator.write("retail.ordering.orders.v1", b"order-1", b"\xff", 0)
    (line,) = heard(narrator)
    assert "not a OrderEvent" in line
    assert "retail.ordering.orders.v1/0@0" in line


def test_without_topics_there_is_nothing_to_hear() -> None:
    from backbone.adapters.memory import MemoryLog

    with pytest.raises(SettingsError, match="backbone topics apply"):
        tail.places(DECODER, MemoryLog(), SETTINGS, "")

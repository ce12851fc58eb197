"""What was set aside, for people."""

from __future__ import annotations

import json

import pytest

from backbone.operations import quarantine
from backbone.operations.decoding import Decoder
from backbone.operations.quarantine import Aside, NotQuarantined
from backbone.settings import Settings
from backbone.topology import topology
from shop import shop
from tests import examples
from tests.operations.narrating import PARTITIONS, Narrator, log_of

DECODER = Decoder.of(shop)
SETTINGS = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)})


def read(narrator: Narrator) -> list[Aside]:
    return quarantine.read(log_of(topology(shop), narrator.records), DECODER, SETTINGS)


def with_garbage_and_a_defect() -> Narrator:
    narrator = Narrator()
    narrator.set_aside(
        narrator.write("retail.ordering.orders.v1", b"\xff\xfe", b"gar\x00bage", 2), "payments.payments", "not an OrderEvent"
    )
    narrator.say(examples.order_validated())
    narrator.set_aside(narrator.last("retail.ordering.orders.v1"), "payments.payments", "ZeroDivisionError: division by zero")
    return narrator


def test_all_that_was_set_aside_is_found_oldest_first() -> None:
    garbage, defect = read(with_garbage_and_a_defect())
    assert garbage.origin == "retail.ordering.orders.v1/2@0"
    assert garbage.quarantined.value == b"gar\x00bage"
    assert defect.inside is not None
    assert defect.inside.name == "OrderValidated"


def test_raw_bytes_are_shown_as_they_lay_there() -> None:
    garbage = read(with_garbage_and_a_defect())[0]
    text = "\n".join(quarantine.lines(garbage))
    assert "67 61 72 00 62 61 67 65" in text
    assert "gar.bage" in text
    assert "ff fe" in text
    assert "it cannot be understood" in text


def test_a_defect_is_shown_with_what_the_record_says_and_where_it_was_raised() -> None:
    text = "\n".join(quarantine.lines(read(with_garbage_and_a_defect())[1]))
    assert "ZeroDivisionError: division by zero" in text
    assert "Traceback (most recent call last):" in text
    assert "OrderValidated" in text
    assert examples.ORDER in text


def test_the_json_holds_the_bytes_as_hex() -> None:
    found = json.loads(json.dumps([aside.to_dict() for aside in read(with_garbage_and_a_defect())]))
    assert bytes.fromhex(found[0]["value_hex"]) == b"gar\x00bage"
    assert found[0]["says"] is None
    assert found[1]["says"]["order_id"] == examples.ORDER
    assert found[1]["correlation_id"] == examples.ORDER


def test_one_is_found_by_its_name_or_by_where_it_was_read() -> None:
    asides = read(with_garbage_and_a_defect())
    assert quarantine.one(asides, asides[1].name) is asides[1]
    assert quarantine.one(asides, "retail.ordering.orders.v1/2@0") is asides[0]


def test_an_unknown_name_is_refused_naming_those_there_are() -> None:
    asides = read(with_garbage_and_a_defect())
    with pytest.raises(NotQuarantined, match=r"payments\.payments/2@0"):
        quarantine.one(asides, "nothing")


def test_a_missing_key_and_value_are_told_apart_from_empty_ones() -> None:
    narrator = Narrator()
    narrator.set_aside(narrator.write("retail.ordering.orders.v1", None, b"", 0), "payments.payments", "key is missing")
    (aside,) = read(narrator)
    text = list(quarantine.lines(aside))
    assert "  key         none" in text
    assert "  value       0 bytes" in text

"""A program that is not ours answers a question about the shop, from nothing but the log and a descriptor image."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from backbone.adapters.memory import MemoryLog
from backbone.contract import primary_of
from backbone.envelope import decode
from backbone.errors import SettingsError
from backbone.money import minor_units
from backbone.operations import export
from backbone.operations.cloudevents import ATTRIBUTES
from backbone.operations.contracts.image import Image
from backbone.ports import Record
from backbone.v1.meta_pb2 import Meta
from tests import examples as say
from tests.simulation.shop import Plan, Shop

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "protos" / "released" / "1.binpb"
ORDERS = primary_of(type(say.order_confirmed()))
CONFIRMED = "retail.ordering.v1.OrderConfirmed"


@pytest.fixture(scope="module")
def image() -> Image:
    """What was released, read without any generated code."""
    return Image.of(RELEASED.read_bytes())


@pytest.fixture(scope="module")
def lived() -> Iterator[Shop]:
    """A shop that sold something."""
    lives = Shop(Plan(seed=7, of_orders=12, of_faults=0))
    with lives.simulation.running():
        assert lives.open()
        assert lives.trade()
        yield lives


def test_duckdb_answers_from_an_export_what_was_confirmed_where(lived: Shop, image: Image, tmp_path: Path) -> None:
    log = lived.simulation.log
    file = tmp_path / "orders.jsonl"
    done = export.export(log, ORDERS.name, image, file)
    assert done.whole
    question = f"""
        SELECT data.delivery_zone AS zone, count(*) AS orders,
               sum(data.total.units::BIGINT * 100 + coalesce(data.total.nanos, 0) // 10000000)::BIGINT AS minor
        FROM '{file}' WHERE type = '{CONFIRMED}' GROUP BY ALL ORDER BY zone
    """
    with duckdb.connect() as database:
        answer = database.execute(question).fetchall()
    orders, minor = Counter[str](), Counter[str]()
    for record in log.history(ORDERS.name):
        event = decode(ORDERS, record).event
        if event.DESCRIPTOR.full_name == CONFIRMED:
            orders[event.delivery_zone] += 1
            minor[event.delivery_zone] += minor_units(event.total)
    assert orders, "nothing was confirmed: the question is empty"
    assert answer == [(zone, orders[zone], minor[zone]) for zone in sorted(orders)]


def test_duckdb_finds_the_way_of_a_conversation(lived: Shop, image: Image, tmp_path: Path) -> None:
    log = lived.simulation.log
    file = tmp_path / "orders.jsonl"
    export.export(log, ORDERS.name, image, file)
    question = f"SELECT subject, list(sequence::BIGINT ORDER BY sequence) FROM '{file}' GROUP BY subject"
    with duckdb.connect() as database:
        ways = database.execute(question).fetchall()
    assert ways
    assert all(sequences == list(range(1, len(sequences) + 1)) for _, sequences in ways)


def test_every_line_is_a_cloud_event(lived: Shop, image: Image, tmp_path: Path) -> None:
    log = lived.simulation.log
    file = tmp_path / "orders.jsonl"
    export.export(log, ORDERS.name, image, file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        assert line["specversion"] == "1.0"
        assert all(line[name] for name in ("id", "source", "type", "subject", "time"))
        assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in line), line.keys()
        assert line["subject"] == line["data"]["order_id"]
        assert line["source"] == ORDERS.writer
    assert len({line["id"] for line in lines}) == len(lines)


def test_the_mapping_is_written_down_as_it_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", text[text.index("| `Meta` | CloudEvents |") :], re.MULTILINE))
    assert rows == dict(ATTRIBUTES)
    assert {one.name for one in Meta.DESCRIPTOR.fields} - ATTRIBUTES.keys() == {"after", "observed"}


def test_what_the_image_does_not_know_is_told_and_left_out(image: Image) -> None:
    wrapper, strange = export.wrapper_of(image, ORDERS.name), list[str]()
    records = [
        Record(ORDERS.name, 0, 3, b"order-1", b"\xff\x00garbage", 0),
        Record(ORDERS.name, 0, 4, b"order-1", b"", 0),
        Record(ORDERS.name, 0, 5, b"order-1", None, 0),
    ]
    assert list(export.events(records, wrapper, image, strange)) == []
    assert strange == [f"{ORDERS.name}/0@3", f"{ORDERS.name}/0@4"]
    assert f"{ORDERS.name}/0@3" in next(export.Exported(strange=strange).words())


def test_a_topic_that_nobody_knows_is_named(image: Image, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"retail\.ordering\.orders\.v1"):
        export.wrapper_of(image, "orders")
    with pytest.raises(SettingsError, match="the cluster has no topic"):
        export.export(MemoryLog(), ORDERS.name, image, tmp_path / "none.jsonl")

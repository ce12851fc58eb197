"""The audit passes what the loops wrote, and finds what they did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from backbone.contract import primary_of
from backbone.envelope import decode, encode
from backbone.operations.audit import Audit, look_at
from backbone.operations.decoding import Decoder
from backbone.ports import Record
from backbone.v1.meta_pb2 import Meta
from shop import shop
from tests import examples as say
from tests.simulation.shop import Plan, Shop

ORDERS = primary_of(type(say.order_confirmed()))
PLAN = Plan(seed=7, of_orders=12, of_faults=8)


@pytest.fixture(scope="module")
def lived() -> tuple[list[Record], dict[str, str]]:
    """Everything that a shop with faults wrote, and what its log calls its topics."""
    lives = Shop(PLAN)
    with lives.simulation.running():
        assert lives.open()
        assert lives.trade()
        log = lives.simulation.log
        ids = {name: identity for name, (identity, _) in log.topics().items()}
        records = [record for topic in Decoder.of(shop).kinds if topic in ids for record in log.history(topic)]
    return records, ids


def audited(records: Sequence[Record], ids: dict[str, str]) -> Audit:
    return look_at(records, shop, ids)


def last_order(records: Sequence[Record]) -> Record:
    """The last record of orders that was caused by something."""
    return [record for record in records if record.topic == ORDERS.name][-1]


def forged(records: Sequence[Record], change: Callable[[Meta], object], offset: int = 1) -> Record:
    """A record behind the last one of its partition: right writer, key and next sequence, as far as nothing else is said."""
    last = last_order(records)
    meta = decode(ORDERS, last).meta
    key = decode(ORDERS, last).key
    sequence = max(decode(ORDERS, one).meta.sequence for one in records if one.topic == ORDERS.name and one.key == last.key)
    meta.sequence = sequence + 1
    change(meta)
    event = say.order_cancellation_refused(key)
    at = max(one.offset for one in records if (one.topic, one.partition) == (last.topic, last.partition)) + offset
    value = encode(ORDERS.number(type(event)) or 0, event.SerializeToString(), meta.SerializeToString())
    return last._replace(offset=at, value=value)


def another_id(meta: Meta, **fields: object) -> None:
    meta.id = meta.id.rpartition(":")[0] + ":7"
    for name, value in fields.items():
        setattr(meta, name, value)


def far_away(meta: Meta) -> None:
    parts = meta.id.rsplit(":", 4)
    meta.id = ":".join([*parts[:3], "99999999", "0"])


def test_what_the_loops_wrote_is_clean(lived: tuple[list[Record], dict[str, str]]) -> None:
    seen = audited(*lived)
    assert seen.records > 100
    assert [str(one) for one in seen.wrong()] == []


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda meta: setattr(meta, "id", "ordering.orders:made-up"), "no cause"),
        (far_away, "no cause"),
        (another_id, "number"),
        (lambda meta: None, "said twice"),
        (lambda meta: another_id(meta, causation_id="gateway.door:other"), "other cause"),
        (lambda meta: another_id(meta, correlation_id="order-of-another"), "other story"),
        (lambda meta: setattr(meta, "writer", "payments.payments"), "foreign writer"),
        (lambda meta: setattr(meta, "id", "payments.payments:1:2:3:4"), "foreign identity"),
        (lambda meta: another_id(meta, sequence=99), "sequence"),
    ],
    ids=["an id of its own", "a cause that does not exist", "a number without those before", "the id of another", "another cause",
         "another conversation", "another writer", "another writer's id", "a gap"],
)  # fmt: skip
def test_a_planted_forgery_is_found(lived: tuple[list[Record], dict[str, str]], change: Callable[[Meta], object], law: str) -> None:
    records, ids = lived
    forgery = forged(records, change)
    wrong = audited([*records, forgery], ids).wrong()
    assert law in {one.law for one in wrong if one.place == f"{forgery.topic}/{forgery.partition}@{forgery.offset}"}, list(map(str, wrong))


def test_a_cause_its_writer_does_not_hear_is_found(lived: tuple[list[Record], dict[str, str]]) -> None:
    records, ids = lived

    def of_the_catalogue(meta: Meta) -> None:
        meta.id = f"ordering.orders:{ids['retail.ordering.catalogue.v1']}:0:0:0"

    assert "not heard" in {one.law for one in audited([*records, forged(records, of_the_catalogue)], ids).wrong()}


def test_a_copy_that_says_otherwise_is_found(lived: tuple[list[Record], dict[str, str]]) -> None:
    records, ids = lived
    copy = next(record for record in records if record.topic == "retail.ordering.orders-by-zone.v1")
    meta = decode(Decoder.of(shop).topics[copy.topic], copy).meta
    lie = encode(6, say.order_cancelled().SerializeToString(), meta.SerializeToString())
    lying = [one._replace(key=say.ZONE.encode(), value=lie) if one is copy else one for one in records]
    assert "false copy" in {one.law for one in audited(lying, ids).wrong()}


def test_garbage_is_found(lived: tuple[list[Record], dict[str, str]]) -> None:
    records, ids = lived
    garbage = last_order(records)._replace(offset=10**6, value=b"\xff\xff")
    assert "not readable" in {one.law for one in audited([*records, garbage], ids).wrong()}

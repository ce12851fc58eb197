"""What the decide loop sets aside and parks, and what becomes of it when it is released or dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from retail.ordering.v1.catalogue_pb2 import CatalogueEvent, ItemCatalogued
from retail.ordering.v1.order_pb2 import OrderValidated
from retail.ordering.v1.price_pb2 import PriceListed

from backbone import damage
from backbone.declare import Decider, Service, on
from backbone.envelope import encode
from backbone.money import minor_units
from backbone.partitioner import partition_of
from backbone.ports import Change, Fragment
from backbone.v1 import private_pb2
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import Quarantined, Release
from contexts.ordering.orders import service as orders_table
from tests import examples
from tests.loops.deciding import (
    CATALOGUE,
    PARTITIONS,
    PRICES,
    Count,
    World,
    always,
    answers,
    counted,
    idle,
    known,
    orders_world,
    prices,
    pricing_world,
    request,
    sequences,
    steps,
)

STATE = "private.ordering.pricing.state"


def test_a_decision_that_raises_parks_its_key_and_nothing_else() -> None:
    """The record and all later ones of its key are set aside, in order; other keys go on; a restart remembers."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    bad = world.comes(examples.item_catalogued(sku="CD-1", title="bad"))
    behind = world.comes(examples.item_catalogued(sku="CD-1"))
    world.comes(examples.item_catalogued(sku="CD-2"))
    steps(worker, lambda: worker.decided == 3)
    worker.close()
    again = world.worker()
    world.comes(examples.item_catalogued(sku="CD-1"))
    steps(again, lambda: again.decided == 1)
    assert [price.sku for price in prices(world)] == ["CD-2"]
    first, second, third = world.quarantined()
    assert (first.reason, first.value, first.offset) == (private_pb2.QUARANTINE_REASON_RAISED, bad.value, bad.offset)
    assert "one cannot share among none" in first.detail
    assert "ZeroDivisionError" in first.traceback
    assert (second.reason, second.value) == (private_pb2.QUARANTINE_REASON_BEHIND_PARKED, behind.value)
    assert third.reason == private_pb2.QUARANTINE_REASON_BEHIND_PARKED
    assert again.status()["partitions"][bad.partition]["parked"] == ["CD-1"]


def released(world: World, aggregate: str, records: Sequence[Quarantined], dropped: Sequence[Quarantined] = ()) -> None:
    """An operator's word, in the log."""
    release = Release(aggregate=aggregate, records=records, dropped=dropped, operator="ann", because="it is mended")
    partition = (*records, *dropped)[0].partition
    world.raw(world.resolved.private("releases"), aggregate.encode() or b"-", release.SerializeToString(), partition)


def repaired(world: World) -> None:
    """Deploy a build whose decision no longer raises."""

    def forgiving(_: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)

    world.declares(Service("pricing", Decider(Count, counted, on(ItemCatalogued, forgiving))))


def test_what_is_released_is_decided_in_order_as_if_it_had_never_been_parked() -> None:
    """A mended build takes it up: same identities, gapless sequence; later records go on; a restart remembers."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    broken = world.worker()
    bad = world.comes(examples.item_catalogued(title="bad", list_price=examples.usd(1)))
    world.comes(examples.item_catalogued(list_price=examples.usd(2)))
    steps(broken, lambda: len(world.quarantined()) == 2)
    broken.close()
    repaired(world)
    mended = world.worker()
    released(world, "CD-1", world.quarantined())
    steps(mended, lambda: len(prices(world)) == 2)
    world.comes(examples.item_catalogued(list_price=examples.usd(3)))
    steps(mended, lambda: len(prices(world)) == 3)
    mended.close()
    idle(world.worker())
    said = world.said(PRICES, PriceListed)
    assert [minor_units(one.event.unit_price) for one in said] == [1, 2, 3]
    assert sequences(said) == [1, 2, 3]
    assert said[0].meta.id.endswith(f":{bad.partition}:{bad.offset}:0")
    assert len(world.quarantined()) == 2


def test_what_is_dropped_is_never_decided_and_what_was_behind_it_is() -> None:
    """An operator gives a record up; the key goes on."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    world.comes(examples.item_catalogued(title="bad"))
    world.comes(examples.item_catalogued(list_price=examples.usd(2)))
    steps(worker, lambda: len(world.quarantined()) == 2)
    first, behind = world.quarantined()
    released(world, "CD-1", [behind], [first])
    steps(worker, lambda: len(prices(world)) == 1)
    assert minor_units(prices(world)[0].unit_price) == 2
    assert sequences(world.said(PRICES, PriceListed)) == [1]


def test_what_raises_again_is_parked_again_with_all_that_is_behind_it() -> None:
    """A release that comes too early does no harm."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 2)
    released(world, "CD-1", world.quarantined())
    steps(worker, lambda: len(world.quarantined()) == 4)
    assert prices(world) == []
    assert worker.status()["partitions"][partition]["parked"] == ["CD-1"]
    repaired(world)
    worker.close()
    mended = world.worker()
    released(world, "CD-1", world.quarantined()[2:])
    steps(mended, lambda: len(prices(world)) == 2)


def test_a_release_that_does_not_know_of_every_record_behind_is_no_release() -> None:
    """Else a record that came meanwhile would be overtaken, and then forgotten."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    steps(worker, lambda: len(world.quarantined()) == 1)
    known_to_operator = world.quarantined()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 2)
    released(world, "CD-1", (), known_to_operator)
    idle(worker)
    assert worker.status()["partitions"][partition]["parked"] == ["CD-1"]
    assert prices(world) == []


def test_a_record_that_parked_nothing_is_decided_when_it_is_released() -> None:
    """A newer build may understand what an older one could not."""
    world = pricing_world()
    worker = world.worker()
    good = world.comes(examples.item_catalogued(sku="CD-7"))
    steps(worker, lambda: len(prices(world)) == 1)
    world.raw(CATALOGUE, b"CD-8", b"\xff", good.partition)
    steps(worker, lambda: len(world.quarantined()) == 1)
    understood = world.quarantined()
    item = examples.item_catalogued(sku="CD-8")
    understood[0].value = encode(1, item.SerializeToString(), Meta(id="x").SerializeToString())
    released(world, "", understood)
    steps(worker, lambda: len(prices(world)) == 2)
    assert sorted(price.sku for price in prices(world)) == ["CD-7", "CD-8"]


def test_a_record_that_raises_in_the_middle_says_nothing_at_all() -> None:
    """Staging is per record: what it said before it raised is not written."""

    def half(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)
        raise ValueError("and then no more")

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, half)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert prices(world) == []
    assert worker.held("CD-1") is None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        pytest.param(b"CD-1", b"\xff\xff\xff", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="garbage"),
        pytest.param(b"CD-1", None, private_pb2.QUARANTINE_REASON_UNDECODABLE, id="no value"),
        pytest.param(None, b"x", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="no key"),
        pytest.param(b"CD-1", b"", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="nothing in it"),
        pytest.param(b"\xff", b"\x0a\x00", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="key is no text"),
    ],
)
def test_bytes_that_are_no_event_are_set_aside_and_the_record_behind_is_decided(
    key: bytes | None, value: bytes | None, reason: int
) -> None:
    """Coordinates and raw bytes are kept as they were written."""
    world = pricing_world()
    worker = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    bad = world.raw(CATALOGUE, key, value, partition)
    world.comes(examples.item_catalogued(list_price=examples.usd(1)))
    steps(worker, lambda: len(prices(world)) == 2)
    (aside,) = world.quarantined()
    assert (aside.topic, aside.partition, aside.offset) == (CATALOGUE, bad.partition, bad.offset)
    assert (aside.key if aside.HasField("key") else None, aside.value if aside.HasField("value") else None) == (key, value)
    assert aside.reason == reason


def test_a_truncated_event_is_set_aside() -> None:
    """Half a record is none."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    assert whole.value is not None
    world.raw(CATALOGUE, b"CD-1", whole.value[: len(whole.value) // 2], whole.partition)
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert world.quarantined()[0].reason == private_pb2.QUARANTINE_REASON_UNDECODABLE


def test_an_event_of_another_key_than_its_record_is_set_aside() -> None:
    """A record under a foreign key would be decided by the wrong aggregate."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    world.raw(CATALOGUE, b"CD-2", whole.value)
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "its sku is 'CD-1'" in world.quarantined()[0].detail


def test_an_event_that_breaks_its_value_rules_is_set_aside_without_parking_its_key() -> None:
    """Rules are checked where a foreign event enters; nothing of ours was wrong, so the key goes on."""
    world = pricing_world()
    worker = world.worker()
    item = examples.item_catalogued()
    world.comes(ItemCatalogued(sku=item.sku))
    world.comes(item)
    steps(worker, lambda: len(prices(world)) == 1)
    assert [aside.reason for aside in world.quarantined()] == [private_pb2.QUARANTINE_REASON_INVALID]


def test_an_event_this_build_does_not_know_is_set_aside_without_parking_its_key() -> None:
    """A newer writer may say more than we understand."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    newer = CatalogueEvent.FromString(whole.value or b"")
    newer.ClearField("item_catalogued")
    world.raw(CATALOGUE, b"CD-1", b"\x4a\x02\x08\x01" + newer.SerializeToString())
    world.comes(examples.item_catalogued(list_price=examples.usd(1)))
    steps(worker, lambda: len(prices(world)) == 2)
    assert [aside.reason for aside in world.quarantined()] == [private_pb2.QUARANTINE_REASON_UNKNOWN_EVENT]


def test_a_release_that_needs_a_damaged_row_parks_again_instead_of_ending_the_worker() -> None:
    """Else every start would meet it again."""
    world = orders_world()
    known(world)
    partition = request(world).partition
    worker = world.worker()
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    asked = world.records("retail.gateway.order-requests.v1")[-1]
    row = partition_of(b"CD-1", PARTITIONS)
    fragment = Fragment("ordering.orders.price", orders_table.prices.version, row)
    at = world.rows.fetch([(fragment, ())])[0].watermark or 0
    assert world.rows.apply(fragment, Change(at, at, {"CD-1": damage.mark("it fell")})) is None
    again = Quarantined(
        topic=asked.topic, partition=partition, offset=asked.offset, key=asked.key, value=asked.value, aggregate=examples.ORDER
    )
    released(world, "", [again])
    steps(worker, lambda: bool(world.quarantined()))
    assert "it fell" in world.quarantined()[0].detail


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(b"k", b"\xff\xfe garbage", id="no key of ours"),
        pytest.param(b"4:CD-1,9:aggregate,", b"\xff\xfe garbage", id="in the place of an aggregate"),
        pytest.param(b"4:CD-1,9:aggregate,", b"\x08\x01\x1a\x05\x08\x09\x12\x01\xc1", id="an aggregate that cannot be unpacked"),
        pytest.param(b"0:,9:positions,", b"\xff", id="in the place of the positions"),
    ],
)
def test_garbage_in_the_state_topic_stops_nothing_and_is_set_aside_once(key: bytes, value: bytes) -> None:
    """The own topic is the truth and is folded again; the next start meets no garbage."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    steps(first, lambda: len(prices(world)) == 1)
    first.close()
    bad = world.raw(STATE, key, value, partition)
    for times in (2, 3):
        worker = world.worker()
        world.comes(examples.item_catalogued())
        steps(worker, lambda times=times: len(prices(world)) == times)  # type: ignore[misc]
        worker.close()
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    (aside,) = world.quarantined()
    assert (aside.topic, aside.partition, aside.offset, aside.value) == (STATE, partition, bad.offset, value)


def test_an_aggregate_whose_mark_cannot_be_read_stays_parked() -> None:
    """Else what waits behind it would be overtaken."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    steps(first, lambda: len(world.quarantined()) == 1)
    first.close()
    world.raw(STATE, b"4:CD-1,6:parked,", b"\xff", partition)
    for times in (3, 4):
        worker = world.worker()
        world.comes(examples.item_catalogued())
        steps(worker, lambda times=times: len(world.quarantined()) == times)  # type: ignore[misc]
        worker.close()
    assert prices(world) == []

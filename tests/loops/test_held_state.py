"""What a decider holds: a fold of its own events, by version, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.price_pb2 import PriceListed

from backbone.declare import Context, Decider, Service, on
from backbone.envelope import split_entry_key
from backbone.money import minor_units
from backbone.parts import Part
from tests import examples
from tests.loops.deciding import (
    CATALOGUE,
    PRICES,
    Count,
    World,
    always,
    counted,
    counted_by,
    idle,
    prices,
    pricing_world,
    steps,
)


def test_a_newer_version_folds_its_own_events_again() -> None:
    """State of an older fold is not believed."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    older = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    steps(older, lambda: len(prices(world)) == 2)
    older.close()
    world.declares(Service("pricing", Decider(Count, counted_by(10), on(ItemCatalogued, always), version=2)))
    newer = world.worker()
    idle(newer)
    held = newer.held("CD-1")
    assert held is not None
    assert (held.state, held.sequence) == (Count(20), 2)
    newer.close()
    written = len(world.records("private.ordering.pricing.state"))
    idle(world.worker())
    assert len(world.records("private.ordering.pricing.state")) == written


def test_an_older_build_keeps_off_a_partition_with_newer_state_and_says_so() -> None:
    """What it would decide would be decided on less than there is to know."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always), version=2))
    newer = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    steps(newer, lambda: len(prices(world)) == 1)
    newer.close()
    world.declares(Service("pricing", Decider(Count, counted, on(ItemCatalogued, always), version=1)))
    older = world.worker()
    world.comes(examples.item_catalogued())
    idle(older)
    assert len(prices(world)) == 1
    status = older.status()["partitions"][partition]
    assert "version 2" in status["frozen"]
    assert older._consumer.positions()[CATALOGUE, partition] == status["positions"][CATALOGUE], "it is not even fetched"
    assert not older.ready


def test_a_fold_takes_each_event_of_its_own_topic_once_and_leaves_out_what_is_no_event() -> None:
    """A forged repetition of a sequence, or garbage, does not change what a newer version folds."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    older = world.worker()
    world.comes(examples.item_catalogued())
    steps(older, lambda: len(prices(world)) == 1)
    older.close()
    own = world.records(PRICES)[0]
    world.raw(PRICES, own.key, b"\xff\xff", own.partition)
    world.raw(PRICES, own.key, own.value, own.partition)
    world.declares(Service("pricing", Decider(Count, counted_by(10), on(ItemCatalogued, always), version=2)))
    newer = world.worker()
    idle(newer)
    held = newer.held("CD-1")
    assert held is not None
    assert (held.state, held.sequence) == (Count(10), 1)


@dataclass(frozen=True)
class Sold:
    """How many of a SKU were sold, by order."""

    by_order: Part[str, int] = field(default_factory=Part)


def sold(state: Sold, event: PriceListed) -> Sold:
    """One more order; the price tells how many."""
    return Sold(state.by_order.set(f"order-{len(state.by_order) + 1}", minor_units(event.unit_price)))


def test_parts_are_kept_entry_by_entry_and_taken_up_again() -> None:
    """A large aggregate writes what changed, not all of it."""

    def say(_: Sold, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)

    service = Service("pricing", Decider(Sold, sold, on(ItemCatalogued, say)))
    world = World(Context("ordering", service), service)
    first = world.worker(BACKBONE_BATCH="1")
    for cents in (100, 200):
        world.comes(examples.item_catalogued(list_price=examples.usd(cents)))
    steps(first, lambda: len(prices(world)) == 2)
    first.close()
    state = world.records("private.ordering.pricing.state")
    assert [split_entry_key(record.key or b"")[1].split("/")[0] for record in state] == [
        "by_order", "aggregate", "positions", "by_order", "aggregate", "positions",
    ]  # fmt: skip
    second = world.worker()
    idle(second)
    held = second.held("CD-1")
    assert held is not None
    expected: Part[str, int] = Part()
    assert held.state == Sold(expected.set("order-1", 100).set("order-2", 200))

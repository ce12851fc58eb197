"""Releasing and dropping what lies in quarantine, with a worker that runs meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.price_pb2 import PriceListed

from backbone.declare import Context, Decider, Service, on
from backbone.loops.decide import Decide
from backbone.operations import quarantine
from backbone.operations.decoding import Decoder
from backbone.operations.quarantine import Aside, NotQuarantined
from backbone.operations.release import NotReleased, Released, release
from backbone.ports import Place
from backbone.settings import Settings
from tests import examples
from tests.loops.deciding import PARTITIONS, Count, World, always, counted, prices, steps


@pytest.fixture
def world() -> World:
    """A pricing service that refuses what is called bad."""
    service = Service("pricing", Decider(Count, counted, on(ItemCatalogued, always)))
    return World(Context("ordering", service), service)


@contextmanager
def at_work(worker: Decide) -> Iterator[None]:
    """A worker on a thread of its own."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            worker.step(0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


def asides(world: World) -> Sequence[Aside]:
    """All that lies in quarantine."""
    return quarantine.read(world.log, Decoder.of(world.context), Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)}))


def word(world: World, name: str, *, drop: bool = False) -> Released:
    """An operator's word about one record."""

    def committed(group: str) -> Mapping[Place, int]:
        return dict(world.log.groups[group].committed)

    return release(world.log, lambda: asides(world), name, drop=drop, operator="ann", because="it is mended", committed=committed)


def mended(world: World) -> Decide:
    """A worker of a build that refuses nothing."""

    def forgiving(_: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)

    world.declares(Service("pricing", Decider(Count, counted, on(ItemCatalogued, forgiving))))
    return world.worker()


def parked(world: World) -> list[str]:
    """A bad record and one behind it are set aside; their names."""
    worker = world.worker()
    world.comes(examples.item_catalogued(title="bad"))
    world.comes(examples.item_catalogued(list_price=examples.usd(2)))
    steps(worker, lambda: len(world.quarantined()) == 2)
    worker.close()
    return [aside.name for aside in asides(world)]


def test_releasing_one_record_releases_all_of_its_aggregate(world: World) -> None:
    """They are decided in the order in which they came."""
    first, behind = parked(world)
    with at_work(mended(world)):
        came = word(world, behind)
    assert (came.records, came.dropped, came.parked_again) == (2, 0, "")
    assert len(prices(world)) == 2
    with pytest.raises(NotReleased, match="is not parked"):
        word(world, first)


def test_dropping_a_record_decides_what_is_behind_it(world: World) -> None:
    """The build is as it was; the record is given up."""
    first, _ = parked(world)
    with at_work(world.worker()):
        came = word(world, first, drop=True)
    assert (came.records, came.dropped, came.parked_again) == (1, 1, "")
    assert len(prices(world)) == 1


def test_a_release_before_the_defect_is_mended_parks_again_and_says_so(world: World) -> None:
    """Nothing is lost by trying."""
    first, _ = parked(world)
    with at_work(world.worker()):
        came = word(world, first)
    assert "one cannot share among none" in came.parked_again
    assert prices(world) == []
    names = [aside.name for aside in asides(world)]
    with at_work(mended(world)):
        assert word(world, names[-1]).parked_again == ""
    assert len(prices(world)) == 2


def test_a_record_is_released_once(world: World) -> None:
    """A second word would say everything twice."""
    worker = world.worker()
    good = world.comes(examples.item_catalogued())
    world.raw(good.topic, b"CD-1", b"\xff", good.partition)
    steps(worker, lambda: len(world.quarantined()) == 1)
    (aside,) = asides(world)
    with at_work(worker):
        assert word(world, aside.name, drop=True).dropped == 1
    with pytest.raises(NotReleased, match="released before, by ann"):
        word(world, aside.name)


def test_a_name_that_is_not_there_is_told(world: World) -> None:
    """The remedy is the list."""
    with pytest.raises(NotQuarantined, match="quarantine list"):
        word(world, "ordering.pricing/0@99")

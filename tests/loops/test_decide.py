"""The decide loop, over a log in memory: what is said, what is remembered, and what happens when a worker ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from retail.fulfilment.v1.stock_pb2 import StockByOrderEvent
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.order_pb2 import OrderConfirmed, OrderValidated
from retail.ordering.v1.price_pb2 import PriceListed
from retail.payments.effects.v1.payment_pb2 import AssessRisk

from backbone.adapters.memory import MemoryLog, MemoryProducer
from backbone.contract import topic_of
from backbone.declare import Context, Decider, Service, happened_at, on
from backbone.envelope import encode, split_entry_key
from backbone.errors import Fenced, WorkerEnded
from backbone.loops import decide as decide_loop
from backbone.loops.decide import Decide
from backbone.loops.repartition import Repartition
from backbone.partitioner import partition_of
from backbone.ports import Place, Record
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta
from contexts.fulfilment.stock.service import stock
from contexts.payments.context import payments as payments_context
from contexts.payments.payments.service import payments
from tests import examples
from tests.loops.deciding import (
    CATALOGUE,
    ORDERS,
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


def test_what_is_said_follows_from_its_cause_in_every_field() -> None:
    """Identity from the coordinate, conversation and cause from the meta, time from the log, and what it comes after."""
    world = pricing_world()
    worker = world.worker(BACKBONE_BUILD="b7")
    came = world.comes(examples.item_catalogued(), correlation_id="order-9")
    steps(worker, lambda: len(prices(world)) == 1)
    said = world.said(PRICES, PriceListed)[0]
    topic_id = world.log.topics()[CATALOGUE][0]
    assert said.meta.id == f"ordering.pricing:{topic_id}:{came.partition}:{came.offset}:0"
    assert said.meta.causation_id == "ordering.catalogue:request-1"
    assert (said.meta.correlation_id, said.meta.writer, said.meta.build) == ("order-9", "ordering.pricing", "b7")
    assert said.meta.occurred_at.ToMilliseconds() == came.timestamp_ms
    after = said.meta.after[0]
    assert (after.topic, after.partition, after.next_offset) == (CATALOGUE, came.partition, came.offset + 1)
    assert said.meta.sequence == 1


def test_sequence_counts_the_events_of_one_aggregate_across_restarts() -> None:
    """A second worker takes the state up where the first left it."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    steps(first, lambda: len(prices(world)) == 2)
    first.close()
    second = world.worker()
    world.comes(examples.item_catalogued())
    steps(second, lambda: len(prices(world)) == 3)
    idle(second)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    held = second.held("CD-1")
    assert held is not None
    assert held.state == Count(3)


def test_a_repetition_is_silence() -> None:
    """The same price again says nothing."""
    world = pricing_world()
    worker = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued(sku="CD-2"))
    steps(worker, lambda: worker.decided == 3)
    assert sorted(price.sku for price in prices(world)) == ["CD-1", "CD-2"]


def test_copies_hold_the_same_bytes_under_their_own_keys() -> None:
    """One transaction writes the primary and its copies."""
    world = World(Context("fulfilment", stock), stock)
    worker = world.worker()
    world.comes(examples.goods_received())
    steps(worker, lambda: bool(world.records("retail.fulfilment.stock-by-sku.v1")))
    primary = {record.value for record in world.records("retail.fulfilment.stock.v1")}
    copies = world.records("retail.fulfilment.stock-by-sku.v1")
    assert {record.value for record in copies} < primary
    assert [record.key for record in copies] == [examples.goods_received().sku.encode()]


def test_a_command_lies_in_the_partition_of_its_aggregate_under_its_id() -> None:
    """The key holds aggregate and command id; the command's id is the idempotency key."""
    world = World(payments_context, payments)
    worker = world.worker()
    came = world.comes(examples.order_validated(), ORDERS)
    steps(worker, lambda: bool(world.records("private.payments.payments.commands")))
    command = world.records("private.payments.payments.commands")[0]
    decoded = world.said("private.payments.payments.commands", AssessRisk)[0]
    assert command.partition == came.partition
    assert split_entry_key(command.key or b"") == (examples.ORDER, decoded.meta.id)


def test_a_record_that_was_decided_is_not_decided_again_when_it_is_delivered_again() -> None:
    """The recorded position counts, also where the group's offsets were lost."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    world.comes(examples.item_catalogued())
    steps(first, lambda: len(prices(world)) == 1)
    first.close()
    world.log.groups.clear()
    second = world.worker()
    idle(second)
    assert len(prices(world)) == 1


def test_positions_that_moved_over_what_nobody_hears_are_committed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a service that hears little would read everything again after each start."""
    monkeypatch.setattr(decide_loop, "IDLE_COMMIT_S", 0.05)
    world = orders_world()
    worker = world.worker()
    came = world.comes(examples.payment_captured(), "retail.payments.payments.v1")
    place = (came.topic, came.partition)
    steps(worker, lambda: world.log.groups["ordering.orders"].committed.get(place) == came.offset + 1)


def test_saying_an_event_of_another_aggregate_is_a_defect() -> None:
    """A decider decides the aggregate whose record came, and no other."""

    def elsewhere(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku="another", unit_price=item.list_price)

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, elsewhere)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "another sku" in world.quarantined()[0].detail


def test_saying_an_event_that_breaks_its_rules_is_a_defect() -> None:
    """Rules are checked where a record is born."""

    def wrong(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku)

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, wrong)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "unit_price" in world.quarantined()[0].detail


def test_a_zombie_cannot_write_after_its_slot_was_started_again() -> None:
    """The transactional id of the slot fences it."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    zombie = world.worker()
    world.comes(examples.item_catalogued())
    steps(zombie, lambda: len(prices(world)) == 1)
    successor = world.worker()
    world.comes(examples.item_catalogued())
    with pytest.raises((Fenced, WorkerEnded)):
        steps(zombie, lambda: False)
    steps(successor, lambda: len(prices(world)) == 2)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2]


class FailsOnce(MemoryLog):
    """A log whose next commit fails, before or after it counted."""

    fails: bool = False
    counts: bool = False

    def producer(self, transactional_id: str) -> MemoryProducer:
        """A producer of this log."""
        return _FailsOnce(self, transactional_id)


class _FailsOnce(MemoryProducer):
    def __init__(self, log: FailsOnce, transactional_id: str) -> None:
        super().__init__(log, transactional_id)
        self._failing = log

    def commit(self) -> None:
        """Commit, or fail as told."""
        if not self._failing.fails:
            super().commit()
            return
        self._failing.fails = False
        if self._failing.counts:
            super().commit()
        raise WorkerEnded("whether it was done is unknown")


@pytest.mark.parametrize("counts", [False, True], ids=["it was not done", "it was done"])
def test_after_a_commit_of_unknown_outcome_everything_is_said_exactly_once(counts: bool) -> None:
    """Memory follows the log: the worker takes over again and neither repeats nor forgets."""
    service = Service("pricing", Decider(Count, counted, on(ItemCatalogued, always)))
    log = FailsOnce()
    log.counts = counts
    world = World(Context("ordering", service), service, log)
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(prices(world)) == 1)
    world.comes(examples.item_catalogued())
    log.fails = True
    steps(worker, lambda: worker.recovered == 1)
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(prices(world)) == 3)
    idle(worker)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    assert worker.recovered == 1


def test_what_is_said_comes_after_all_that_its_cause_came_after() -> None:
    """Positions are merged along the conversation, so that a reader of any topic on the way can be compared."""
    world = orders_world()
    known(world)
    worker = world.worker()
    asked = request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    validated = world.said(ORDERS, OrderValidated)[0]
    topic = topic_of(StockByOrderEvent)
    meta = Meta(id="fulfilment.stock:1", correlation_id=examples.ORDER, after=validated.meta.after)
    reserved = examples.items_reserved()
    world.raw(topic.name, examples.ORDER.encode(), encode(2, reserved.SerializeToString(), meta.SerializeToString()))
    steps(worker, lambda: len(world.said(ORDERS, OrderValidated)) == 2)
    after = [(one.topic, one.partition) for one in world.said(ORDERS, OrderValidated)[1].meta.after]
    assert after == [(asked.topic, asked.partition), (topic.name, asked.partition)]


def test_workers_share_the_partitions_and_hand_them_over_without_a_gap() -> None:
    """One worker, then two, then the other one alone: every event is said once, in sequence, whoever decides."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    skus = [f"CD-{number}" for number in range(20)]

    def all_come(times: int, *workers: Decide) -> None:
        for sku in skus:
            world.comes(examples.item_catalogued(sku=sku))
        deadline = time.monotonic() + 20
        while len(prices(world)) < times * len(skus):
            assert time.monotonic() < deadline, [worker.status() for worker in workers]
            for worker in workers:
                worker.step(0.01)

    first = world.worker(BACKBONE_SLOT="0")
    all_come(1, first)
    second = world.worker(BACKBONE_SLOT="1")
    all_come(2, first, second)
    held = [set(worker.status()["partitions"]) for worker in (first, second)]
    assert held[0] | held[1] == set(range(PARTITIONS))
    assert not held[0] & held[1]
    assert all(held)
    first.close()
    world.log.session_timeout_s = 0.0
    all_come(3, second)
    by_sku: dict[str, list[int]] = {}
    for said in world.said(PRICES, PriceListed):
        by_sku.setdefault(said.key, []).append(said.meta.sequence)
    assert by_sku == {sku: [1, 2, 3] for sku in skus}


def test_a_partition_that_stays_through_a_rebalance_reads_only_what_was_written_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """State is kept with its position and topped up; it is not read from the start again."""
    monkeypatch.setattr(decide_loop, "KNOWN_EVERY_S", 0.0)
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker(BACKBONE_SLOT="0")
    sku = next(f"CD-{n}" for n in range(100) if partition_of(f"CD-{n}".encode(), PARTITIONS) == 0)
    for times in (1, 2):
        world.comes(examples.item_catalogued(sku=sku))
        steps(worker, lambda times=times: len(prices(world)) == times)  # type: ignore[misc]
    starts: list[int] = []
    reading = world.log.read

    def noted(place: Place, start: int, stop: int) -> Iterator[Record]:
        if place == ("private.ordering.pricing.state", 0):
            starts.append(start)
        return reading(place, start, stop)

    world.log.read = noted  # type: ignore[method-assign]
    other = world.worker(BACKBONE_SLOT="1")
    deadline = time.monotonic() + 20
    while set(worker.status()["partitions"]) != {0, 1}:
        assert time.monotonic() < deadline
        worker.step(0.01)
        other.step(0.01)
    assert len(starts) == 1
    assert starts[0] > 0
    world.comes(examples.item_catalogued(sku=sku))
    steps(worker, lambda: len(prices(world)) == 3)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]


def test_events_with_a_key_reach_the_aggregates_they_are_about() -> None:
    """One order is about many SKUs: each of them hears it, once, through the repartition topic."""

    def skus(order: OrderConfirmed) -> list[str]:
        return [line.sku for line in order.lines]

    def one_each(count: Count, order: OrderConfirmed, now: datetime) -> Iterator[PriceListed]:
        heard.append(now)
        yield PriceListed(sku=order.lines[len(heard) - 1].sku, unit_price=order.lines[0].unit_price)

    heard: list[datetime] = []
    world = pricing_world(Decider(Count, counted, on(OrderConfirmed, one_each, key=skus, look_up=happened_at)))
    relay = Repartition(world.resolved, world.log, Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)}))
    came = world.comes(examples.order_confirmed(lines=[("CD-1", 1, 5), ("CD-1", 2, 5)]))
    while not world.records("private.ordering.pricing.repartition"):
        relay.step(0.01)
    worker = world.worker()
    steps(worker, lambda: len(prices(world)) == 1)
    assert [price.sku for price in prices(world)] == ["CD-1"]
    assert [moment.timestamp() for moment in heard] == [came.timestamp_ms / 1000]

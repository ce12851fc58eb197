"""What decisions look up: what they record of it, and when they wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from retail.ordering.v1.order_pb2 import OrderRejected, OrderValidated, RejectionReason

from backbone.adapters.memory_rows import MemoryRows
from backbone.errors import Unavailable
from backbone.partitioner import partition_of
from backbone.ports import Fetched, Fragment
from tests import examples
from tests.loops.deciding import (
    ORDERS,
    PARTITIONS,
    answers,
    idle,
    known,
    orders_world,
    request,
    shown,
    steps,
)


def test_a_decision_records_what_it_looked_up() -> None:
    """What did it know? The events say: view, version, partition, watermark and keys."""
    world = orders_world()
    known(world)
    worker = world.worker()
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    observed = world.said(ORDERS, OrderValidated)[0].meta.observed
    assert {one.view for one in observed} == {"ordering.orders.availability", "ordering.orders.price"}
    assert sorted(key for one in observed for key in one.keys) == ["CD-1", "CD-1", "CD-2", "CD-2"]
    assert all(one.watermark > 0 for one in observed)


def test_rows_behind_the_end_seen_at_the_start_make_a_decision_wait_and_say_why() -> None:
    """A view that was flushed does not mislead: nobody is told that a known SKU is unknown."""
    world = orders_world()
    known(world)
    world.rows.flush()
    worker = world.worker()
    request(world)
    idle(worker, 20)
    assert world.records(ORDERS) == []
    waiting = [p for p in worker.status()["partitions"].values() if p["waiting"]]
    assert len(waiting) == 1
    assert "must reach" in waiting[0]["waits_for"]
    shown(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))


def test_rows_flushed_in_the_middle_of_work_are_waited_for() -> None:
    """What a worker has used once it will not do without."""
    world = orders_world()
    worker = world.worker()
    known(world)
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    world.rows.flush()
    request(world, "order-2")
    idle(worker, 20)
    assert len(world.said(ORDERS, OrderValidated)) == 1
    shown(world)
    steps(worker, lambda: len(answers(world, OrderValidated)) == 2)


def test_a_row_that_may_merely_be_late_is_waited_for() -> None:
    """The price was said before the order, and the view has not folded it yet: that is no unknown SKU."""
    world = orders_world()
    worker = world.worker()
    known(world, show=False)
    request(world)
    idle(worker, 20)
    assert world.records(ORDERS) == []
    shown(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))


def test_a_row_that_is_absent_at_the_end_of_its_topic_is_absent() -> None:
    """Waiting ends where the log ends: then the SKU is unknown."""
    world = orders_world()
    worker = world.worker()
    known(world)
    request(world, lines=[("CD-9", 1, 100)])
    steps(worker, lambda: bool(answers(world, OrderRejected)))
    (rejected,) = answers(world, OrderRejected)
    assert isinstance(rejected, OrderRejected)
    assert rejected.reason == RejectionReason.REJECTION_REASON_UNKNOWN_SKU


class Unreachable(MemoryRows):
    """Rows that do not answer."""

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Nothing comes."""
        raise Unavailable("Redis is down")


def test_while_redis_is_down_decisions_wait_and_what_needs_no_rows_goes_on() -> None:
    """Only partitions whose records look something up are paused."""
    world = orders_world()
    known(world)
    worker = world.worker(rows=Unreachable())
    asked = request(world)
    elsewhere = next(f"order-{n}" for n in range(100) if partition_of(f"order-{n}".encode(), PARTITIONS) != asked.partition)
    world.comes(examples.order_cancellation_requested(order_id=elsewhere))
    steps(worker, lambda: len(world.records(ORDERS)) == 1)
    assert worker.status()["partitions"][asked.partition]["waits_for"] == "Redis is down"


def test_records_behind_one_that_waits_keep_their_order() -> None:
    """A cancellation does not overtake the request it cancels."""
    world = orders_world()
    known(world)
    world.rows.flush()
    worker = world.worker()
    request(world)
    world.comes(examples.order_cancellation_requested())
    idle(worker, 10)
    shown(world)
    steps(worker, lambda: len(world.said(ORDERS, OrderValidated)) == 2)
    assert [type(decoded.event).__name__ for decoded in world.said(ORDERS, OrderValidated)] == ["OrderValidated", "OrderCancelled"]

"""Deadlines: the clock of a worker says when to look, the clock of the log whether the time has come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from retail.ordering.v1.order_pb2 import OrderConfirmed, OrderRejected, OrderValidated, RejectionReason

from backbone.adapters.memory import MemoryLog
from backbone.declare import Context
from backbone.errors import Unavailable
from backbone.ports import Place
from contexts.ordering.orders import service as orders_table
from tests import examples
from tests.loops.deciding import (
    DAY_S,
    ORDERS,
    World,
    answers,
    idle,
    known,
    orders_world,
    request,
    steps,
)


class NotNow(MemoryLog):
    """A log that tells no ends while it is told so."""

    silent: bool = False

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The ends, or nothing."""
        if self.silent:
            raise Unavailable("Kafka does not answer")
        return super().high_watermarks(places)


def test_a_deadline_that_passes_while_kafka_is_silent_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a tick once the ends of the inputs are known again."""
    moment_ms = [1_700_000_000_000]
    log = NotNow(now_ms=lambda: moment_ms[0])
    world = World(Context("ordering", orders_table.orders), orders_table.orders, log)
    known(world)
    clock = Clock(moment_ms[0] / 1000)
    worker = world.worker(clock=clock)
    expires_at = datetime.fromtimestamp(clock.now, tz=UTC) + timedelta(minutes=15)
    world.comes(examples.order_requested(expires_at=expires_at))
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    clock.now += DAY_S
    moment_ms[0] += DAY_S * 1000
    log.silent = True
    idle(worker)
    log.silent = False
    steps(worker, lambda: bool(answers(world, OrderRejected)))


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float

    def __call__(self) -> float:
        return self.now


def test_an_order_that_waits_past_its_deadline_is_rejected_once() -> None:
    """The tick is a record, and the expiry a decision on it."""
    clock = Clock(time.time())
    world = orders_world(clock)
    known(world)
    worker = world.worker(clock=clock)
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    idle(worker)
    assert world.records("private.ordering.orders.ticks") == []
    clock.now += 2 * DAY_S
    steps(worker, lambda: bool(answers(world, OrderRejected)))
    idle(worker)
    assert len(world.records("private.ordering.orders.ticks")) == 1
    (rejected,) = [d for d in world.said(ORDERS, OrderValidated) if isinstance(d.event, OrderRejected)]
    assert rejected.event.reason == RejectionReason.REJECTION_REASON_OVERDUE
    assert rejected.meta.correlation_id == examples.ORDER


def test_an_answer_that_lies_in_the_log_when_the_deadline_passes_is_heard_first() -> None:
    """An outage of ours does not expire orders whose answers are waiting."""
    world = orders_world()
    known(world)
    clock = Clock(time.time())
    first = world.worker(clock=clock)
    request(world)
    steps(first, lambda: bool(answers(world, OrderValidated)))
    first.close()
    world.comes(examples.items_reserved(), "retail.fulfilment.stock-by-order.v1")
    world.comes(examples.payment_authorized(), "retail.payments.payments.v1")
    clock.now += 2 * DAY_S
    second = world.worker(clock=clock)
    steps(second, lambda: bool(answers(world, OrderConfirmed)))
    idle(second, 20)
    assert answers(world, OrderRejected) == []


def test_a_fast_clock_expires_nothing_and_the_tick_is_written_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's clock only says when to look; whether the time has come, the log's clock says."""
    log_clock = Clock(time.time())
    world = orders_world(log_clock)
    known(world)
    worker = world.worker(clock=lambda: log_clock() + 2 * DAY_S)
    request(world)
    steps(worker, lambda: len(world.records("private.ordering.orders.ticks")) == 1)
    idle(worker, 20)
    assert answers(world, OrderRejected) == []
    assert len(world.records("private.ordering.orders.ticks")) == 1
    log_clock.now += 2 * DAY_S
    monkeypatch.setattr("backbone.loops.deadlines.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * DAY_S))
    steps(worker, lambda: bool(answers(world, OrderRejected)))

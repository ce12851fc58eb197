"""Workers come, go, die and start anew while customers order: nothing is lost, and nobody hears another answer.

`make scaling ROUNDS=20` does it all so many times over.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle

import grpc
import httpx
import pytest
from retail.gateway.v1.order_service_pb2 import Order, OrderStatus

from laws.entries import Entry
from tests.e2e.client import Customer
from tests.e2e.running import ZONES, Shop
from tests.e2e.test_losses import different_rows
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CONTEXTS = ("ordering", "payments", "fulfilment")
DECIDERS = ("ordering.orders.decide", "payments.payments.decide", "fulfilment.stock.decide")
PENDING, CONFIRMED = OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CONFIRMED
ROUNDS = int(os.environ.get("ROUNDS", "1"))
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Codes after which the same key is tried again; a door that closes cancels what does not end in time."""
ANSWERED_WITHIN_S = 120.0
"""Workers that leave for good keep their partitions for a session timeout of 6 s, and a busy machine takes its time."""
PAUSE_S = 0.1
"""Between a refusal and the next try."""


@dataclass
class Stream:
    """Customers who order one thing after the other, at any door, until they are told to stop.

    Attributes:
        answers: by idempotency key, what each customer was told, by whichever door.
        defects: what should not have happened.
    """

    doors: Callable[[], Sequence[str]]
    answers: dict[str, Order] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def customer(self, number: int) -> None:
        """Order, hear the answer, ask another door whether it says the same, and order again."""
        zones = cycle(ZONES[number % len(ZONES) :] + ZONES[: number % len(ZONES)])
        name = f"streaming-{number}-{uuid.uuid4().hex[:8]}"
        while not self.stop.is_set():
            key, zone = uuid.uuid4().hex, next(zones)
            order = self._answered(name, key, zone, number)
            if order is None:
                self.defects.append(f"{key} had no answer")
                return
            self.answers[key] = order
            again = self._answered(name, key, zone, number + 1)
            if again is None or (again.order_id, again.status) != (order.order_id, order.status):
                self.defects.append(f"{key} was answered {order.status} first and then {again.status if again else 'not at all'}")

    def _answered(self, name: str, key: str, zone: str, number: int) -> Order | None:
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        while time.monotonic() < deadline:
            doors = self.doors()
            try:
                with Customer(doors[number % len(doors)], name) as customer:
                    order = customer.place([("T-MANY", 1, 1000)], zone, key, wait_s=10.0)
            except grpc.RpcError as error:
                code = error.code()
                if code not in PASSING:
                    self.defects.append(f"{key}: {code}: {error}")
                    return None
                time.sleep(PAUSE_S)
                continue
            if order.status != PENDING:
                return order
        return None

    def until(self, more: int) -> None:
        """Wait until so many more orders are answered."""
        wanted = len(self.answers) + more
        wait_until(lambda: len(self.answers) >= wanted or bool(self.defects), 120.0, f"{more} more orders are answered")


@pytest.fixture
def stream(shop_up: Shop) -> Iterator[Stream]:
    """Six customers, two at each of the gateway's doors; afterwards every order has been confirmed and every law holds."""

    def doors() -> Sequence[str]:
        return [shop_up.here.door(slot) for slot in range(shop_up.here.slots.count("gateway"))]

    streaming = Stream(doors)
    with ThreadPoolExecutor(6) as pool:
        customers = [pool.submit(streaming.customer, number) for number in range(6)]
        try:
            streaming.until(5)
            yield streaming
        finally:
            streaming.stop.set()
            for context in (*CONTEXTS, "gateway"):
                if shop_up.here.slots.count(context) > 1:
                    shop_up.here.slots.scale(context, 1)
        for customer in customers:
            customer.result(330.0)
    assert streaming.defects == []
    assert {order.status for order in streaming.answers.values()} == {CONFIRMED}
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0
    assert different_rows(shop_up) == []
    confirmed = [entry.event.order_id for entry in named(shop_up, "OrderConfirmed")]
    assert len(confirmed) == len(set(confirmed))
    assert {order.order_id for order in streaming.answers.values()} <= set(confirmed)


def named(shop: Shop, name: str) -> Iterator[Entry]:
    """Events of a name, in the whole log."""
    return (entry for entry in shop.entries() if entry.name == name and entry.place.topic == "retail.ordering.orders.v1")


def shares(shop: Shop, context: str) -> list[set[str]]:
    """The partitions that the decider of each worker of a context holds and knows all of."""
    decider = next(name for name in DECIDERS if name.startswith(f"{context}."))
    return [share(shop, name, decider) for name in shop.here.slots.names(context)]


def share(shop: Shop, name: str, decider: str) -> set[str]:
    """The partitions of one worker; none if it is not ready or does not answer."""
    try:
        status = shop.status(name)
    except httpx.HTTPError:
        return set()
    return set(status["loops"][decider].get("partitions", {})) if status["ready"] else set()


def is_shared(shop: Shop, context: str, workers: int) -> bool:
    """Whether so many workers have all partitions among them, each of them some."""
    found = shares(shop, context)
    every = [number for share in found for number in share]
    return len(found) == workers and all(found) and sorted(every) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("_", range(ROUNDS))
def test_every_context_grows_to_three_workers_loses_one_and_shrinks_again(shop_up: Shop, stream: Stream, _: int) -> None:
    """The gateway to two doors. A killed worker is back in its own slot before anybody else gets its partitions."""
    here, supervisor = shop_up.here, shop_up.here.stack.supervisor
    here.slots.scale("gateway", 2)
    for context in CONTEXTS:
        here.slots.scale(context, 3)
    for context in CONTEXTS:
        wait_until(lambda context=context: is_shared(shop_up, context, 3), 60.0, f"three workers share {context}")  # type: ignore[misc]
    stream.until(30)
    for context in CONTEXTS:
        held, victim = shares(shop_up, context)[1], f"{context}.1"
        before = supervisor.restarts(victim)
        supervisor.processes[victim].kill()
        wait_until(lambda victim=victim, before=before: supervisor.restarts(victim) > before, 10.0, f"{victim} is started again")  # type: ignore[misc]
        wait_until(lambda context=context, held=held: shares(shop_up, context)[1] == held, 30.0, f"{victim} has its share again")  # type: ignore[misc]
        stream.until(5)
    for context in CONTEXTS:
        here.slots.scale(context, 1)
    for context in CONTEXTS:
        wait_until(lambda context=context: is_shared(shop_up, context, 1), 60.0, f"one worker has all of {context}")  # type: ignore[misc]
    here.slots.scale("gateway", 1)
    stream.until(10)


@pytest.mark.parametrize("_", range(ROUNDS))
def test_every_worker_may_be_started_anew_one_after_the_other(shop_up: Shop, stream: Stream, _: int) -> None:
    """A rolling restart of all contexts and of both doors; each leaves in order, with nothing left open."""
    here, supervisor = shop_up.here, shop_up.here.stack.supervisor
    for context in (*CONTEXTS, "gateway"):
        here.slots.scale(context, 2)
    stream.until(10)
    for context in (*CONTEXTS, "gateway"):
        before = {name: supervisor.processes[name].pid for name in here.slots.names(context)}
        here.slots.roll(context)
        assert all(supervisor.processes[name].pid != pid for name, pid in before.items())
        stream.until(5)
    for context in CONTEXTS:
        for name in here.slots.names(context):
            assert events_of(shop_up, name) == ["stopping", "edges closed", "consumer closed", "producer closed", "stopped"]


def events_of(shop: Shop, name: str) -> list[str]:
    """What a process wrote about its last end: of the process and of its decider, in order."""
    ending = ("stopping", "edges closed", "consumer closed", "producer closed", "stopped")
    said = [json.loads(line) for line in shop.here.stack.supervisor.processes[name].log.read_text().splitlines() if line.startswith("{")]
    about = [line["event"] for line in said if line["event"] in ending and f"{line.get('service', '')}.decide" in (*DECIDERS, ".decide")]
    return about[-len(ending) :]


def test_who_waits_when_a_door_closes_goes_with_the_handle(shop_up: Shop) -> None:
    """Payments stands still, so the order waits; the door is told to stop, and the customer hears PENDING and where to ask."""
    with shop_up.stopped("payments"):
        with ThreadPoolExecutor(1) as pool, shop_up.customer() as customer:
            placed = pool.submit(customer.place, [("T-MANY", 1, 1000)], wait_s=25.0)
            wait_until(
                lambda: any(entry.event.customer_id == customer.name for entry in named(shop_up, "OrderValidated")), 20.0, "it waits"
            )
            shop_up.here.stack.supervisor.stop(["gateway"])
            order = placed.result(10.0)
            assert (order.status, bool(order.order_id)) == (PENDING, True)
        shop_up.here.stack.supervisor.resume(["gateway"])
    with shop_up.customer(customer.name) as again:
        assert again.await_(order.order_id).status == CONFIRMED

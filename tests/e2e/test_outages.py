"""What customers see while something is down or slow, and that nothing of it is left behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from retail.gateway.v1.order_service_pb2 import Order, OrderStatus

from tests.e2e.client import Customer
from tests.e2e.running import Shop
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CONFIRMED, PENDING, CANCELLED = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CANCELLED


def answered(customer: Customer, order: Order, within_s: float = 40.0) -> Order:
    """The answer of an order that had none."""
    deadline = time.monotonic() + within_s
    while order.status == PENDING and time.monotonic() < deadline:
        try:
            order = customer.await_(order.order_id, 5.0)
        except grpc.RpcError as error:
            # A request that was not acknowledged is not in the log yet.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            time.sleep(0.1)
    return order


def test_while_payments_is_stopped_orders_wait_and_can_be_taken_back(shop_up: Shop) -> None:
    """They answer PENDING; started again, payments takes up what waits, and leaves alone what was taken back."""
    with shop_up.customer() as customer:
        with shop_up.stopped("payments"):
            waiting = [customer.place([("T-WAIT", 1, 1000)], wait_s=1.0) for _ in range(3)]
            regretted = customer.place([("T-CANCEL", 1, 1000)], wait_s=1.0)
            assert {order.status for order in (*waiting, regretted)} == {PENDING}
            response = customer.cancel(regretted.order_id)
            assert (response.order.status, response.refused, response.undecided) == (CANCELLED, False, False)
        assert {answered(customer, order).status for order in waiting} == {CONFIRMED}
        assert customer.get(regretted.order_id).status == CANCELLED
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert {shop_up.books(order.order_id) == [("authorized", 1000), ("captured", 1000)] for order in waiting} == {True}
    assert not [kind for kind, _ in shop_up.books(regretted.order_id) if kind in ("authorized", "captured")]


def test_while_the_provider_is_down_orders_wait(shop_up: Shop) -> None:
    """Every command is tried again until the provider answers, and is done once."""
    with shop_up.customer() as customer:
        with shop_up.misbehaving({"kind": "down"}):
            waiting = [customer.place([("T-OUTAGE", 1, 1000)], wait_s=1.5) for _ in range(3)]
            assert {order.status for order in waiting} == {PENDING}
        assert {answered(customer, order).status for order in waiting} == {CONFIRMED}
    shop_up.rest()
    assert [shop_up.books(order.order_id) for order in waiting] == [[("authorized", 1000), ("captured", 1000)]] * 3


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "hold", "seconds": 0.5, "then": "close", "next": 2},
        {"kind": "hold", "seconds": 7.0, "next": 1},
        {"kind": "fail", "status": 502, "next": 3},
        {"kind": "duplicate_answer"},
    ],
    ids=["answer lost", "time-out, then success", "bad gateway", "duplicate answer"],
)
def test_what_was_done_and_not_answered_is_not_done_again(shop_up: Shop, rule: dict[str, object]) -> None:
    """The provider did it, or not, and did not say so: exactly one authorisation stands in its books."""
    with shop_up.customer() as customer, shop_up.misbehaving({**rule, "customer": customer.name, "operations": ["authorize"]}):
        order = answered(customer, customer.place([("T-LOST", 1, 1000)]))
        assert order.status == CONFIRMED
        assert rule["kind"] == "duplicate_answer" or shop_up.applied() == [rule["next"]]
    shop_up.rest()
    assert shop_up.books(order.order_id) == [("authorized", 1000), ("captured", 1000)]


def test_customers_who_wait_get_their_answer_from_a_gateway_that_was_killed_meanwhile(shop_up: Shop) -> None:
    """Their calls break; asking again with the same key finds the same order, whoever took it."""
    customers = [shop_up.customer() for _ in range(5)]

    def insist(customer: Customer) -> Order:
        deadline = time.monotonic() + 60.0
        while True:
            try:
                order = customer.place([("T-DOOR", 1, 1000)], key="insisted", wait_s=5.0)
                if order.status != PENDING or time.monotonic() > deadline:
                    return order
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                broken.add(customer.name)
                time.sleep(0.2)

    broken: set[str] = set()
    with ThreadPoolExecutor(len(customers)) as pool:
        with shop_up.stopped("payments"):
            waiting = [pool.submit(insist, customer) for customer in customers]
            wait_until(lambda: requested(shop_up) == len(customers), 20.0, "all have asked")
            shop_up.kill("gateway")
        orders = [one.result(90.0) for one in waiting]
    assert {order.status for order in orders} == {CONFIRMED}
    assert broken == {customer.name for customer in customers}
    assert len({order.order_id for order in orders}) == len(customers)
    assert shop_up.verdict().violations == ()


def requested(shop: Shop) -> int:
    """How many asked for T-DOOR, by the log."""
    return sum(entry.name == "OrderRequested" and entry.event.lines[0].sku == "T-DOOR" for entry in shop.entries())

"""Kafka and Redis stand still or die while customers order: waits are bounded, and everything recovers by itself."""

from __future__ import annotations

import time

import grpc
import pytest
from retail.gateway.v1.order_service_pb2 import OrderStatus

from tests.e2e.conftest import FLUSHED, KILLED
from tests.e2e.running import Shop
from tests.e2e.test_losses import Customers, different_rows
from tests.e2e.test_outages import answered

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

CONFIRMED, PENDING = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PENDING


def test_an_order_that_kafka_did_not_acknowledge_in_time_is_pending_and_delivered_later(shop_up: Shop) -> None:
    """It may or may not be in the log: the answer is a handle, within the time that was asked for; asking again is the same order."""
    with shop_up.customer() as customer:
        assert customer.place([("T-ONE", 1, 1000)]).status == CONFIRMED
        with shop_up.frozen("kafka"):
            began = time.monotonic()
            unknown = customer.place([("T-ONE", 1, 1000)], key="unknown", wait_s=1.0)
            assert unknown.status == PENDING
            assert time.monotonic() - began < 6.0
        assert answered(customer, unknown).status == CONFIRMED
        again = customer.place([("T-ONE", 1, 1000)], key="unknown")
        assert (again.order_id, again.status) == (unknown.order_id, CONFIRMED)
    shop_up.rest()
    assert shop_up.books(unknown.order_id) == [("authorized", 1000), ("captured", 1000)]


def test_without_the_gateways_redis_reads_are_unavailable_and_orders_are_still_answered(shop_up: Shop) -> None:
    """Reads say when to ask again; an order needs the log only."""
    with shop_up.customer() as customer:
        before = customer.place([("T-ONE", 1, 1000)])
        assert before.status == CONFIRMED
        with shop_up.frozen("valkey.gateway"):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                customer.get(before.order_id)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 9.0
            assert customer.place([("T-ONE", 1, 1000)]).status == CONFIRMED
        assert customer.get(before.order_id).status == CONFIRMED


def test_every_redis_may_die_and_kafka_stop_while_customers_order(shop_up: Shop) -> None:
    """Each comes back in its slot with what it had acknowledged; nobody else has to be restarted by hand."""
    purchases = shop_up.purchases[KILLED + FLUSHED :]
    customers = Customers(shop_up, purchases, at_once=6)
    customers.until_answered(len(purchases) // 4)
    victims = [f"valkey.{context}" for context in shop_up.here.stack.state.redis]
    shop_up.here.stack.supervisor.kill(victims)
    # Stopped, not killed: after `kill -9` Kafka 4.4 may lose the markers of transactions it ends while it starts, and leaves them open.
    shop_up.here.stack.supervisor.stop(["kafka"])
    shop_up.here.stack.supervisor.resume(["kafka", *victims])
    assert not customers.done, "all were served before the end of the world"
    customers.leave()
    assert customers.progress.defects == {}
    assert customers.progress.confirmed == len(purchases), customers.progress.reasons()
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0
    assert different_rows(shop_up) == []

"""Kafka and Redis stand still or die while customers order: waits are bounded, and everything recovers by itself."""

from __future__ import annotations

import time
from functools import partial

import grpc
import pytest
from confluent_kafka import KafkaException
from retail.gateway.v1.order_service_pb2 import OrderStatus

from tests.e2e.conftest import CRASHED, FLUSHED, KILLED
from tests.e2e.running import Shop
from tests.e2e.test_losses import Customers, different_rows
from tests.e2e.test_outages import answered
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

VICTIMS = ("ordering", "payments", "fulfilment")
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
    purchases = shop_up.purchases[KILLED + FLUSHED : KILLED + FLUSHED + CRASHED]
    customers = Customers(shop_up, purchases, at_once=6)
    customers.until_answered(len(purchases) // 4)
    victims = [f"valkey.{context}" for context in shop_up.here.stack.state.redis]
    shop_up.here.stack.supervisor.kill(victims)
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


def test_kafka_may_be_killed_in_the_middle_of_transactions(shop_up: Shop) -> None:
    """Once in one of each context: it comes back in its slot by itself, and no transaction stays open."""
    purchases = shop_up.purchases[KILLED + FLUSHED + CRASHED :]
    restarts = shop_up.here.stack.supervisor.restarts("kafka")
    customers = Customers(shop_up, purchases, at_once=6)
    for kill, context in enumerate(VICTIMS, start=1):
        customers.until_answered(kill * len(purchases) // (len(VICTIMS) + 2))
        wait_until(partial(_killed_in_the_middle, shop_up, context), 60.0, f"a transaction of {context} is open")
        assert not customers.done, "all were served before the end of the world"
    customers.leave()
    assert shop_up.here.stack.supervisor.restarts("kafka") == restarts + len(VICTIMS)
    assert customers.progress.defects == {}
    assert customers.progress.confirmed == len(purchases), customers.progress.reasons()
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0
    assert [place for context in VICTIMS for place in shop_up.open_transactions(context)] == []
    assert different_rows(shop_up) == []


def _killed_in_the_middle(shop: Shop, context: str) -> bool:
    """Stop a context where it stands; kill Kafka if it answers and a transaction of this context is open."""
    with shop.frozen(context):
        try:
            found = bool(shop.open_transactions(context))
        except KafkaException:  # it is not back yet
            return False
        if found:
            shop.here.stack.supervisor.processes["kafka"].kill()
    return found

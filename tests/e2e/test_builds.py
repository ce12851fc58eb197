"""Two builds of one context run side by side on one log: state and rows of the next version grow beside those of the last."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import grpc
import pytest
from redis import Redis
from retail.gateway.v1.order_service_pb2 import Order, OrderStatus
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest
from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceStub

from backbone.operations import status
from backbone.operations.checkout import find_checkout
from backbone.partitioner import partition_of
from contexts.ordering.orders.service import decider
from contexts.payments.risk.service import histories
from tests.conftest import scratch
from tests.e2e.client import Customer
from tests.e2e.newer import WEIGHT
from tests.e2e.running import Shop, a_shop
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PENDING, CONFIRMED = OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CONFIRMED
DECIDER = "ordering.orders.decide"
PARTITIONS = 4


@pytest.fixture(scope="module")
def two_builds() -> Iterator[Shop]:
    """A shop of its own: what a newer build has written, no older one may go on with."""
    with scratch("builds") as folder, a_shop(folder) as shop:
        yield shop


def start_newer(shop: Shop, context: str, slot: int) -> None:
    """Put the newer build of a context into a slot; an older build in it is stopped first."""
    here, count = shop.here, shop.here.slots.count(context)
    if slot < count:
        name = here.slots.names(context)[slot]
        here.stack.supervisor.stop([name])
        spec = here.stack.supervisor.processes[name].spec
    else:
        [spec] = here.slots.specs({context: slot + 1})
    newer = replace(
        spec, argv=(sys.executable, "-m", "tests.e2e.newer", context), environment={**spec.environment, "BACKBONE_BUILD": "newer"}
    )
    here.stack.run([newer])
    here.slots.started({context: max(count, slot + 1)})


def place_one_in_every_partition(customer: Customer, until_s: float) -> dict[int, Order]:
    """An order in each partition, as it stands after so many seconds."""
    placed: dict[int, Order] = {}
    while len(placed) < PARTITIONS:
        order = customer.place([("T-MANY", 1, 1000)], wait_s=until_s)
        placed.setdefault(partition_of(order.order_id.encode(), PARTITIONS), order)
    return placed


def partitions(shop: Shop, name: str) -> Mapping[str, Any]:
    """What the decider of a process says of its partitions."""
    found: Mapping[str, Any] = shop.status(name)["loops"][DECIDER].get("partitions", {})
    return found


def lines(shop: Shop, name: str, event: str) -> list[dict[str, Any]]:
    """What a process has logged under a name."""
    log = shop.here.stack.supervisor.processes[name].log.read_text().splitlines()
    return [line for line in map(json.loads, (line for line in log if line.startswith("{"))) if line["event"] == event]


def test_state_of_the_next_version_is_folded_beside_the_last_and_kept_from_it(two_builds: Shop) -> None:
    """The newer folds its partitions from its own events; the older keeps its hands off them and says so; nothing is lost or said twice."""
    shop, here = two_builds, two_builds.here
    with shop.customer() as customer:
        placed = [*place_one_in_every_partition(customer, 20.0).values()]

        start_newer(shop, "ordering", 1)
        wait_until(lambda: sorted([*partitions(shop, "ordering"), *partitions(shop, "ordering.1")]) == list("0123"), 30.0, "both have some")
        taken = set(partitions(shop, "ordering.1"))
        assert {line["partition"] for line in lines(shop, "ordering.1", "refolded")} == set(map(int, taken)), "what the older had written"
        assert {line["version"] for line in lines(shop, "ordering.1", "refolded")} == {decider.version + 1}
        placed += place_one_in_every_partition(customer, 20.0).values()

        here.slots.scale("ordering", 1)
        wait_until(lambda: len(partitions(shop, "ordering")) == PARTITIONS, 30.0, "the older has them all again")
        frozen = {number: one["frozen"] for number, one in partitions(shop, "ordering").items() if one["frozen"]}
        assert set(frozen) == taken
        why = (
            f"its state is of version {decider.version + 1} (build newer), this build folds version {decider.version}: run the newer build"
        )
        assert set(frozen.values()) == {why}
        assert {line["partition"] for line in lines(shop, "ordering", "partition paused")} == set(map(int, taken))
        told = "\n".join(status.lines(status.look(replace(find_checkout(), folder=here.stack.folder, variables={}))))
        assert f"p{min(taken)}: {why}" in told
        waiting = place_one_in_every_partition(customer, 3.0)
        held = [order.order_id for number, order in waiting.items() if str(number) in taken]
        others = [order.order_id for number, order in waiting.items() if str(number) not in taken]
        assert [customer.await_(order_id).status for order_id in others] == [CONFIRMED] * len(others), "the others go on"
        assert [customer.get(order_id).status for order_id in held] == [PENDING] * len(taken)

        start_newer(shop, "ordering", 1)
        assert all(customer.await_(order.order_id).status == CONFIRMED for order in waiting.values())
        start_newer(shop, "ordering", 0)
        placed += [*waiting.values(), *place_one_in_every_partition(customer, 20.0).values()]
        assert {customer.await_(order.order_id).status for order in placed} == {CONFIRMED}
    verdict = shop.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0
    answers = [
        one.event.order_id for one in shop.entries() if one.name == "OrderConfirmed" and one.place.topic == "retail.ordering.orders.v1"
    ]
    assert len(answers) == len(set(answers))


def test_rows_of_the_next_version_grow_beside_the_last_and_both_are_answered_from(two_builds: Shop) -> None:
    """Each build answers from its own rows, the newer as soon as it has caught up, and both hear what comes."""
    shop, here = two_builds, two_builds.here
    with shop.customer() as customer:
        for _ in range(3):
            assert customer.place([("T-MANY", 1, 1000)]).status == CONFIRMED
        shop.rest()
        assert asked(shop, 0, customer.name).authorized == 3

        start_newer(shop, "payments", 1)
        assert asked(shop, 1, customer.name).authorized == 3 * WEIGHT
        assert asked(shop, 0, customer.name).authorized == 3, "the older still answers from its own"
        assert customer.place([("T-MANY", 1, 1000)]).status == CONFIRMED
        shop.rest()
        assert (asked(shop, 0, customer.name).authorized, asked(shop, 1, customer.name).authorized) == (4, 4 * WEIGHT)
        assert versions(here.stack.state.redis["payments"]) == {histories.version, histories.version + 1}

        start_newer(shop, "payments", 0)
        here.slots.scale("payments", 1)
        assert asked(shop, 0, customer.name).authorized == 4 * WEIGHT
    assert shop.verdict().violations == ()


def asked(shop: Shop, slot: int, customer: str) -> CustomerHistory:
    """What one worker of payments answers."""
    port = shop.here.stack.port("payments.grpc" if not slot else f"payments.{slot}.grpc")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return RiskViewServiceStub(channel).GetCustomerHistory(GetCustomerHistoryRequest(customer_id=customer), timeout=10).row


def versions(redis_url: str) -> set[int]:
    """Versions of the rows of customers' histories that lie in a Redis."""
    with Redis.from_url(redis_url) as redis:
        keys = [key.decode() for key in redis.scan_iter("{payments.risk.customer_history.v*}:rows")]
    return {int(key.split(".v")[1].split(".")[0]) for key in keys}

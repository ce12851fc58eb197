"""The door as a process of its own, on real Kafka and Valkey; the rest of the shop is played by the test, on the log."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import pytest
import redis
from google.protobuf.message import Message
from google.rpc import code_pb2
from grpc_status import rpc_status
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    CancelOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    OrderStatus,
    PlaceOrderResponse,
)
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from backbone import envelope
from backbone.adapters.kafka import KafkaLog
from backbone.contract import primary_of
from backbone.declare import Platform
from backbone.local.kafka import Kafka
from backbone.local.ports import free_port
from backbone.local.processes import Process, ProcessSpec
from backbone.local.valkey import Valkey
from backbone.operations import topics
from backbone.ownership import BROKER
from backbone.settings import Settings
from contexts.ordering.context import ordering
from gateway.context import gateway
from tests.conftest import scratch
from tests.gateway.fakes import an_order, cancellation_refused, confirmed, line
from tests.local.waiting import wait_until

pytestmark = pytest.mark.integration

CONFIRMED, PENDING = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PENDING
REQUESTS = primary_of(OrderRequested)
NUMBERS = count(1)


@dataclass
class Scene:
    """A broker, a Valkey and a gateway; and the pen of orders."""

    kafka: Kafka
    valkey: Valkey
    door: Process
    address: str
    log: KafkaLog
    channels: list[grpc.Channel] = field(default_factory=list)

    def stub(self) -> Any:
        """A client of its own."""
        self.channels.append(grpc.insecure_channel(self.address, options=(("grpc.initial_reconnect_backoff_ms", 100),)))
        return OrderServiceStub(self.channels[-1])

    def say(self, event: Message) -> None:
        """Write an event as its owner would."""
        topic = primary_of(type(event))
        meta = envelope.root_meta(
            writer=topic.writer, build="test", request_id=f"said-{next(NUMBERS)}", correlation_id="", occurred_at_ms=0
        ).SerializeToString()
        appender = self.log.appender()
        try:
            number = topic.number(type(event)) or 0
            value = envelope.encode(number, event.SerializeToString(), meta)
            appender.append(topic.name, getattr(event, topic.key).encode(), value).result(10)
        finally:
            appender.close()

    def asked(self, principal: str) -> list[Any]:
        """What this principal has asked for, as the log has it."""
        found = []
        places = [(REQUESTS.name, partition) for partition in range(4)]
        ends = self.log.high_watermarks(places)
        for place in places:
            for record in self.log.read(place, 0, ends[place]):
                event = envelope.decode(REQUESTS, record).event
                if event.customer_id == principal:
                    found.append(event)
        return found

    def asked_once(self, principal: str) -> OrderRequested:
        """The one order this principal has asked for, as soon as it is in the log."""
        wait_until(lambda: bool(self.asked(principal)), 15, f"a request of {principal} is in the log")
        (event,) = self.asked(principal)
        assert isinstance(event, OrderRequested)
        return event


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A gateway on a log of its own: its topics have the names of the real ones."""
    with scratch("gateway") as folder, Kafka(folder) as kafka, Valkey(folder) as valkey:
        ports = {name: free_port() for name in ("grpc", "http", "health")}
        environment = {
            **kafka.variables,
            "REDIS_URL": valkey.url,
            "GRPC_PORT": str(ports["grpc"]),
            "HTTP_PORT": str(ports["http"]),
            "BACKBONE_HEALTH_PORT": str(ports["health"]),
            "ORDER_ID_KEY_FILE": str(folder / "order-id.key"),
            "GATEWAY_IN_FLIGHT": "1200",
            "GATEWAY_ORDERS_LEAST": "1200",
            "GATEWAY_ORDERS_MOST": "1200",
        }
        settings = Settings.read(environment)
        topics.apply(Platform(ordering, gateway=gateway), settings)
        log = KafkaLog(settings, BROKER)
        door = Process(
            ProcessSpec(
                "gateway",
                (sys.executable, "-m", "backbone", "run", "gateway"),
                environment,
                ready=f"http://127.0.0.1:{ports['health']}/readyz",
            ),
            folder,
        )
        made = Scene(kafka, valkey, door, f"127.0.0.1:{ports['grpc']}", log)
        try:
            door.start()
            door.await_ready()
            yield made
        finally:
            for channel in made.channels:
                channel.close()
            door.kill()
            log.close()


def by(principal: str, key: str = "k") -> Any:
    """The metadata of a caller."""
    return (("x-principal", principal), ("idempotency-key", key))


def placed_soon(scene: Scene, principal: str, wait_s: float = 20) -> Future[PlaceOrderResponse]:
    """A call that waits for its answer."""
    return scene.stub().PlaceOrder.future(an_order(wait_s=wait_s), metadata=by(principal))  # type: ignore[no-any-return]


def unavailable(call: Callable[[], object]) -> bool:
    """Whether a call is refused for now."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def answers(call: Callable[[], object]) -> bool:
    """Whether a call succeeds."""
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def test_the_answer_comes_from_the_log(scene: Scene) -> None:
    call = placed_soon(scene, "ann")
    event = scene.asked_once("ann")
    scene.say(confirmed_whole(event))
    response = call.result(10)

    assert (response.order.status, response.order.order_id) == (CONFIRMED, event.order_id)
    (position,) = response.position.positions
    assert (position.topic, position.next_offset) == (REQUESTS.name, 1)
    assert response.position.cluster_id == scene.kafka.cluster_id

    stub = scene.stub()
    again = stub.PlaceOrder(an_order(wait_s=10), metadata=by("ann"))
    assert (again.order.order_id, again.order.status) == (event.order_id, CONFIRMED)
    with pytest.raises(grpc.RpcError) as other:
        stub.PlaceOrder(an_order(line("other")), metadata=by("ann"))
    assert rpc_status.from_call(other.value).code == code_pb2.ALREADY_EXISTS  # type: ignore[arg-type]
    assert len(scene.asked("ann")) == 1

    shown = stub.GetOrder(GetOrderRequest(order_id=event.order_id), metadata=by("ann")).order
    assert shown.HasField("requested_at")
    assert shown.HasField("answered_at")
    assert [order.order_id for order in stub.ListOrders(ListOrdersRequest(), metadata=by("ann")).orders] == [event.order_id]


def confirmed_whole(event: OrderRequested) -> Message:
    """A confirmation that keeps its contract."""
    answer = confirmed(event)
    answer.delivery_zone = event.delivery_zone
    answer.total.CopyFrom(event.lines[0].unit_price)
    for asked in event.lines:
        answer.lines.add(sku=asked.sku, quantity=asked.quantity, unit_price=asked.unit_price)
    return answer


def test_a_wish_to_cancel_goes_through_the_log(scene: Scene) -> None:
    stub = scene.stub()
    order_id = stub.PlaceOrder(an_order(wait_s=0), metadata=by("carl")).order.order_id
    call = stub.CancelOrder.future(CancelOrderRequest(order_id=order_id), metadata=by("carl"))
    wait_until(lambda: any(isinstance(event, OrderCancellationRequested) for event in scene.asked("carl")), 10, "the wish is in the log")
    scene.say(cancellation_refused(order_id, "carl"))
    assert call.result(10).refused


def test_a_gateway_that_dies_while_clients_wait_loses_no_order(scene: Scene) -> None:
    call = placed_soon(scene, "dora")
    event = scene.asked_once("dora")
    scene.door.kill()
    with pytest.raises(grpc.RpcError):
        call.result(10)
    scene.say(confirmed_whole(event))
    scene.door.start()
    scene.door.await_ready()

    again = scene.stub().PlaceOrder(an_order(wait_s=10), metadata=by("dora"), wait_for_ready=True, timeout=20)

    assert (again.order.order_id, again.order.status) == (event.order_id, CONFIRMED)
    assert len(scene.asked("dora")) == 1


def test_a_gateway_that_stops_lets_clients_go_with_a_handle(scene: Scene) -> None:
    call = placed_soon(scene, "emil")
    event = scene.asked_once("emil")
    started = time.monotonic()
    os.kill(scene.door.pid, signal.SIGTERM)
    assert (call.result(10).order.order_id, call.result().order.status) == (event.order_id, PENDING)
    assert scene.door.wait(10)
    assert time.monotonic() - started < 10
    scene.door.start()
    scene.door.await_ready()


def test_a_request_that_kafka_takes_after_the_deadline_is_pending_and_then_answered(scene: Scene) -> None:
    stub = scene.stub()
    stub.ListOrders(ListOrdersRequest(), metadata=by("fay"), wait_for_ready=True, timeout=20)
    os.kill(scene.kafka.process.pid, signal.SIGSTOP)
    try:
        response = stub.PlaceOrder(an_order(wait_s=1), metadata=by("fay"), timeout=10)
    finally:
        os.kill(scene.kafka.process.pid, signal.SIGCONT)
    assert response.order.status == PENDING
    assert not response.HasField("position")

    event = scene.asked_once("fay")
    assert event.order_id == response.order.order_id
    scene.say(confirmed_whole(event))
    wish = AwaitOrderRequest(order_id=event.order_id)
    wish.wait.FromSeconds(20)
    assert stub.AwaitOrder(wish, metadata=by("fay"), timeout=25).order.status == CONFIRMED


def test_while_redis_is_down_orders_are_answered_and_reads_refused(scene: Scene) -> None:
    stub = scene.stub()
    order_id = stub.PlaceOrder(an_order(wait_s=0), metadata=by("gil", "before"), wait_for_ready=True, timeout=20).order.order_id
    scene.valkey.kill()
    try:
        call = placed_soon(scene, "hal")
        scene.say(confirmed_whole(scene.asked_once("hal")))
        assert call.result(15).order.status == CONFIRMED
        assert unavailable(lambda: stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=by("gil"), timeout=10))
        assert unavailable(lambda: stub.ListOrders(ListOrdersRequest(), metadata=by("gil"), timeout=10))
    finally:
        scene.valkey.start()
    get = lambda: stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=by("gil"), timeout=10)  # noqa: E731
    wait_until(lambda: answers(get), 20, "the views are read again")


def test_flushed_views_heal_and_no_repetition_becomes_an_order(scene: Scene) -> None:
    stub = scene.stub()
    first = stub.PlaceOrder(an_order(wait_s=0), metadata=by("ida"), wait_for_ready=True, timeout=20).order
    get = lambda: stub.GetOrder(GetOrderRequest(order_id=first.order_id), metadata=by("ida"), timeout=10)  # noqa: E731
    wait_until(lambda: answers(get), 20, "the views show the order")
    before = stub.ListOrders(ListOrdersRequest(), metadata=by("ida"))
    redis.Redis.from_url(scene.valkey.url).flushall()

    def healed() -> bool:
        try:
            return bool(stub.ListOrders(ListOrdersRequest(), metadata=by("ida"), timeout=10) == before)
        except grpc.RpcError:
            return False

    wait_until(healed, 30, "the views hold what they held")
    assert stub.PlaceOrder(an_order(wait_s=0), metadata=by("ida")).order.order_id == first.order_id
    assert len(scene.asked("ida")) == 1


def test_a_thousand_waiters_get_their_answers_from_the_log(scene: Scene) -> None:
    stub = scene.stub()
    stub.ListOrders(ListOrdersRequest(), metadata=by("load"), wait_for_ready=True, timeout=20)
    calls = [stub.PlaceOrder.future(an_order(wait_s=30), metadata=by("load", str(n)), timeout=60) for n in range(1000)]
    wait_until(lambda: len(scene.asked("load")) == 1000, 60, "a thousand requests are in the log")
    topic = primary_of(type(confirmed(scene.asked("load")[0])))
    appender = scene.log.appender()
    said = []
    for event in scene.asked("load"):
        answer = confirmed_whole(event)
        meta = envelope.root_meta(writer=topic.writer, build="test", request_id=event.order_id, correlation_id="", occurred_at_ms=0)
        value = envelope.encode(topic.number(type(answer)) or 0, answer.SerializeToString(), meta.SerializeToString())
        said.append(appender.append(topic.name, event.order_id.encode(), value))
    for one in said:
        one.result(20)
    appender.close()
    assert {call.result(60).order.status for call in calls} == {CONFIRMED}

"""The door over real sockets: gRPC and Connect JSON, codes and details."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest
import structlog
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from retail.gateway.v1.order_request_pb2 import OrderRequested
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    CancelOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    OrderLine,
    OrderStatus,
    PlaceOrderRequest,
    WatchOrderRequest,
)
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from backbone.errors import Overloaded, SettingsError, Unavailable
from gateway import requests
from tests.gateway.fakes import Platform, an_order, confirmed, confirming, line, serve, validated
from tests.gateway.test_use_cases import requested, until

Detail = TypeVar("Detail", bound=Message)
# The stubs' types are those of the synchronous client.
Stub: Any = OrderServiceStub
HealthStub: Any = health_pb2_grpc.HealthStub
ReflectionStub: Any = reflection_pb2_grpc.ServerReflectionStub
ANN = (("x-principal", "ann"), ("idempotency-key", "k1"))
PATH = "/retail.gateway.v1.OrderService"
CONFIRMED, PENDING = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PENDING


@asynccontextmanager
async def door(platform: Platform, folder: Path, **settings: Any) -> AsyncIterator[tuple[Any, httpx.AsyncClient, grpc.aio.Channel]]:
    """The open door with a client at each of its ports."""
    async with (
        serve(platform.bound(folder, **settings)) as addresses,
        grpc.aio.insecure_channel(addresses["grpc"]) as channel,
        httpx.AsyncClient(base_url=addresses["http"], trust_env=False, timeout=10) as browser,
    ):
        yield Stub(channel), browser, channel


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def detail(error: grpc.aio.AioRpcError, kind: type[Detail]) -> Detail:
    """A detail of an error; fails if it is not there."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")


def violated(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields a refusal names."""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert detail(error, ErrorInfo).domain == "gateway.retail"
    return [violation.field for violation in detail(error, BadRequest).field_violations]


async def test_an_order_goes_through_grpc(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (stub, _, _channel):
        placed = await stub.PlaceOrder(an_order(), metadata=ANN)
        assert placed.order.status == CONFIRMED
        order_id = placed.order.order_id
        assert (await stub.AwaitOrder(AwaitOrderRequest(order_id=order_id), metadata=ANN)).order.status == CONFIRMED
        assert (await stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=ANN)).order.order_id == order_id
        assert [o.order_id for o in (await stub.ListOrders(ListOrdersRequest(), metadata=ANN)).orders] == [order_id]
        assert [step.step async for step in stub.WatchOrder(WatchOrderRequest(order_id=order_id), metadata=ANN)] == [5]
        assert (await stub.CancelOrder(CancelOrderRequest(order_id=order_id), metadata=ANN)).refused


INVALID: Mapping[str, tuple[PlaceOrderRequest, list[str]]] = {
    "no lines": (PlaceOrderRequest(delivery_zone="north"), ["lines"]),
    "quantity 0": (an_order(line(), line(quantity=0)), ["lines[1].quantity"]),
    "quantity 10^9": (an_order(line(quantity=10**9)), ["lines[0].quantity"]),
    "1000 lines": (an_order(*[line(str(n)) for n in range(1000)]), ["lines"]),
    "mixed currencies": (an_order(line(), line(currency="EUR")), [""]),
    "no price": (an_order(OrderLine(sku="a", quantity=1)), ["lines[0].unit_price"]),
    "a negative price": (an_order(line(units=-1, nanos=0)), ["lines[0].unit_price"]),
    "a fraction of a cent": (an_order(line(nanos=1)), ["lines[0].unit_price"]),
    "a price beyond any sum": (an_order(line(units=2**62, nanos=0)), ["lines[0].unit_price"]),
    "no currency": (an_order(line(currency="")), ["lines[0].unit_price"]),
    "no zone": (an_order(zone=""), ["delivery_zone"]),
    "a name of 257 bytes": (an_order(line("x" * 257)), ["lines[0].sku"]),
    "a wait of an hour": (an_order(wait_s=3600), ["wait"]),
    "200 kB of text": (an_order(zone="x" * 200_000), [""]),
    "just over 64 KiB": (an_order(zone="x" * (64 * 1024)), [""]),
}


@pytest.mark.parametrize("name", INVALID)
async def test_what_breaks_the_contract_is_refused_before_anything_is_produced(name: str, tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    request, fields = INVALID[name]
    async with door(platform, tmp_path) as (stub, browser, _):
        error = await refused(stub.PlaceOrder(request, metadata=ANN))
        answer = await browser.post(
            f"{PATH}/PlaceOrder", content=request.SerializeToString(), headers={**dict(ANN), "content-type": "application/proto"}
        )
    assert violated(error) == fields
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert [v.field for v in told(answer, BadRequest).field_violations] == fields
    assert platform.log == []


def told(answer: httpx.Response, kind: type[Detail]) -> Detail:
    """A detail of a Connect error."""
    for entry in answer.json()["details"]:
        if entry["type"] == kind.DESCRIPTOR.full_name:
            value = entry["value"]
            return kind.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
    raise AssertionError(f"no {kind.__name__} in {answer.json()}")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"\x12\x02\xff\xfe", "bad UTF-8"),
        (b"\x0a\xff", "a truncated request"),
        (b"\xff" * 40, "garbage"),
    ],
)
async def test_bytes_that_are_no_request_are_refused(raw: bytes, name: str, tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (_, browser, channel):
        call: Any = channel.unary_unary(f"{PATH}/PlaceOrder", request_serializer=None, response_deserializer=None)
        error = await refused(call(raw, metadata=ANN))
        answer = await browser.post(f"{PATH}/PlaceOrder", content=raw, headers={**dict(ANN), "content-type": "application/proto"})
    assert violated(error) == [""]
    assert (answer.status_code, told(answer, ErrorInfo).reason) == (400, "INVALID_REQUEST")
    assert platform.log == []


@pytest.mark.parametrize("text", ['{"lines": 3}', "{", "[]", '{"deliveryZone": "\\ud800"}', "[" * 20000], ids=range(5))
async def test_text_that_is_no_request_is_refused(text: str, tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (_, browser, _channel):
        answer = await browser.post(f"{PATH}/PlaceOrder", content=text, headers={**dict(ANN), "content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert told(answer, BadRequest).field_violations
    assert platform.log == []


async def test_an_order_needs_a_caller_and_a_key(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (stub, browser, _):
        nobody = await refused(stub.PlaceOrder(an_order(), metadata=(("idempotency-key", "k"),)))
        keyless = await refused(stub.PlaceOrder(an_order(), metadata=(("x-principal", "ann"),)))
        long = await refused(stub.PlaceOrder(an_order(), metadata=(("x-principal", "ann"), ("idempotency-key", "k" * 257))))
        nameless = await browser.post(f"{PATH}/ListOrders", json={})
        unkeyed = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "ann"})
    assert nobody.code() is grpc.StatusCode.UNAUTHENTICATED
    assert detail(nobody, ErrorInfo).reason == "NO_PRINCIPAL"
    assert violated(keyless) == violated(long) == ["idempotency-key"]
    assert (nameless.status_code, nameless.json()["code"]) == (401, "unauthenticated")
    assert [v.field for v in told(unkeyed, BadRequest).field_violations] == ["idempotency-key"]
    assert platform.log == []


async def test_another_order_under_a_used_key_already_exists(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (stub, browser, _):
        placed = await stub.PlaceOrder(an_order(), metadata=ANN)
        error = await refused(stub.PlaceOrder(an_order(line("other")), metadata=ANN))
        answer = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers=dict(ANN))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert detail(error, ErrorInfo).metadata["order_id"] == placed.order.order_id
    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
    assert len(platform.log) == 1


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Unavailable("Kafka does not answer", 2.5), grpc.StatusCode.UNAVAILABLE, 503),
        (Overloaded("the queue is full", 2.5), grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    ],
)
async def test_who_is_refused_for_now_is_told_when_to_try_again(
    error: Unavailable, code: grpc.StatusCode, status: int, tmp_path: Path
) -> None:
    platform = Platform(refuses=error)
    async with door(platform, tmp_path) as (stub, browser, _):
        refusal = await refused(stub.PlaceOrder(an_order(), metadata=ANN))
        answer = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers=dict(ANN))
    assert refusal.code() is code
    assert detail(refusal, RetryInfo).retry_delay.ToMilliseconds() == 2500
    assert answer.status_code == status
    assert told(answer, RetryInfo).retry_delay.ToMilliseconds() == 2500


async def test_over_the_in_flight_limit_a_call_is_refused_before_producing(tmp_path: Path) -> None:
    platform = Platform()
    async with door(platform, tmp_path, in_flight=1) as (stub, browser, _):
        waiting = stub.PlaceOrder(an_order(), metadata=ANN)
        await until(lambda: len(platform.log) == 1, "the first order is in the log")
        error = await refused(stub.PlaceOrder(an_order(), metadata=(("x-principal", "bob"), ("idempotency-key", "k"))))
        answer = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "eve", "idempotency-key": "k"})
        platform.say(confirmed(requested(platform)))
        assert (await waiting).order.status == CONFIRMED
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (detail(error, ErrorInfo).reason, dict(detail(error, ErrorInfo).metadata)) == (
        "TOO_MANY_CALLS",
        {"limit": "calls", "most": "1", "share": "1"},
    )
    assert detail(error, RetryInfo).retry_delay.ToMilliseconds() > 0
    assert (answer.status_code, told(answer, RetryInfo).retry_delay.ToMilliseconds() > 0) == (429, True)
    assert len(platform.log) == 1


async def test_who_has_more_than_a_fair_share_of_the_orders_is_turned_away_before_producing(tmp_path: Path) -> None:
    platform = Platform()
    async with door(platform, tmp_path, orders_least=4, orders_most=4) as (stub, browser, _):
        greedy = [stub.PlaceOrder(an_order(), metadata=(("x-principal", "greedy"), ("idempotency-key", f"{n}"))) for n in range(4)]
        await until(lambda: len(platform.log) == 4, "all places are taken")
        await refused(stub.PlaceOrder(an_order(), metadata=ANN))
        first = platform.log[0]
        assert isinstance(first, OrderRequested)
        platform.say(confirmed(first))
        await until(lambda: platform.shown()["under_way"] == 3, "a place is free")
        error = await refused(stub.PlaceOrder(an_order(), metadata=(("x-principal", "greedy"), ("idempotency-key", "more"))))
        answer = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "greedy", "idempotency-key": "most"})
        anns = stub.PlaceOrder(an_order(), metadata=ANN)
        await until(lambda: len(platform.log) == 5, "her order is in the log")
        assert {**platform.shown(), "answer_s": 0} == {
            "limit": 4, "limit_least": 4, "limit_most": 4, "under_way": 4, "calls": 4, "principals": 2, "answer_s": 0, "refused": 3,
        }  # fmt: skip
        for call in (*greedy, anns):
            call.cancel()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, RetryInfo).retry_delay.ToMilliseconds() > 0
    assert (detail(error, ErrorInfo).reason, detail(error, ErrorInfo).metadata["share"]) == ("SHARE_OF_ORDERS", "2")
    assert (answer.status_code, told(answer, ErrorInfo).reason) == (429, "SHARE_OF_ORDERS")
    assert {event.customer_id for event in platform.log if isinstance(event, OrderRequested)} == {"greedy", "ann"}
    assert len(platform.log) == 5


async def test_a_megabyte_of_text_is_refused_as_too_large(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    large = an_order(zone="x" * 1_000_000)
    async with door(platform, tmp_path) as (stub, browser, _):
        error = await refused(stub.PlaceOrder(large, metadata=ANN))
        headers = {**dict(ANN), "content-type": "application/proto"}
        answer = await browser.post(f"{PATH}/PlaceOrder", content=large.SerializeToString(), headers=headers)
    assert (error.code(), answer.status_code) == (grpc.StatusCode.INVALID_ARGUMENT, 400)
    assert "at most 65536 bytes" in detail(error, BadRequest).field_violations[0].description
    assert "at most 65536 bytes" in told(answer, BadRequest).field_violations[0].description
    assert platform.log == []


@pytest.mark.parametrize("body", [b"null", b"[]", b"7"])
async def test_json_that_is_no_object_is_refused_as_that(tmp_path: Path, body: bytes) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (_, browser, _):
        headers = {**dict(ANN), "content-type": "application/json"}
        answer = await browser.post(f"{PATH}/PlaceOrder", content=body, headers=headers)
    assert answer.status_code == 400
    assert "a request in JSON is an object" in told(answer, BadRequest).field_violations[0].description


async def test_what_is_far_too_large_is_refused_before_the_servers_hold_it(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    huge = an_order(zone="x" * (requests.MAX_MESSAGE_BYTES + 1))
    async with door(platform, tmp_path) as (stub, browser, _):
        error = await refused(stub.PlaceOrder(huge, metadata=ANN))
        headers = {**dict(ANN), "content-type": "application/proto"}
        answer = await browser.post(f"{PATH}/PlaceOrder", content=huge.SerializeToString(), headers=headers)
    assert (error.code(), answer.status_code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 429)
    assert platform.log == []


async def test_a_call_that_is_cancelled_frees_its_place(tmp_path: Path) -> None:
    platform = Platform()
    async with door(platform, tmp_path, in_flight=1) as (stub, browser, _):
        waiting = stub.PlaceOrder(an_order(), metadata=ANN)
        await until(lambda: len(platform.log) == 1, "the first order is in the log")
        waiting.cancel()
        order_id = requested(platform).order_id

        async def freed() -> bool:
            wish = AwaitOrderRequest(order_id=order_id)
            wish.wait.FromMilliseconds(1)
            try:
                return bool((await stub.AwaitOrder(wish, metadata=ANN)).order.status == PENDING)
            except grpc.aio.AioRpcError:
                return False

        await eventually(freed)

        with pytest.raises(httpx.ReadTimeout):
            await browser.post(f"{PATH}/AwaitOrder", json={"orderId": order_id}, headers=dict(ANN), timeout=0.3)
        await eventually(freed)


async def eventually(true: Any) -> None:
    """Wait for a condition that takes asking, at most five seconds."""
    for _ in range(250):
        if await true():
            return
        await asyncio.sleep(0.02)
    pytest.fail("never came true")


JSON_ORDER = {
    "lines": [{"sku": "cd-9", "quantity": 2, "unitPrice": {"currencyCode": "USD", "units": "11", "nanos": 770000000}}],
    "deliveryZone": "north",
}


async def test_an_order_goes_through_json(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (_, browser, _channel):
        placed = (await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers=dict(ANN))).json()["order"]
        assert placed["status"] == "ORDER_STATUS_CONFIRMED"
        assert placed["total"] == {"currencyCode": "USD", "units": "23", "nanos": 540000000}
        named = {"orderId": placed["orderId"]}
        for call in ("AwaitOrder", "GetOrder", "CancelOrder"):
            answer = await browser.post(f"{PATH}/{call}", json=named, headers=dict(ANN))
            assert (answer.status_code, answer.json()["order"]["orderId"]) == (200, placed["orderId"])
        listed = await browser.post(f"{PATH}/ListOrders", json={}, headers=dict(ANN))
        assert [order["orderId"] for order in listed.json()["orders"]] == [placed["orderId"]]
        missing = await browser.post(f"{PATH}/GetOrder", json={"orderId": "nothing"}, headers={**dict(ANN), "connect-timeout-ms": "400"})
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_a_client_with_a_deadline_gets_pending_over_both_ports(tmp_path: Path) -> None:
    platform = Platform()
    async with door(platform, tmp_path) as (stub, browser, _):
        assert (await stub.PlaceOrder(an_order(), metadata=ANN, timeout=1)).order.status == PENDING
        answer = await browser.post(
            f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "bob", "idempotency-key": "k", "connect-timeout-ms": "700"}
        )
        assert answer.json()["order"]["status"] == "ORDER_STATUS_PENDING"


async def test_stopping_says_not_serving_and_lets_everybody_go_with_a_handle(tmp_path: Path) -> None:
    platform = Platform()
    async with serve(platform.bound(tmp_path)) as addresses:
        channel = grpc.aio.insecure_channel(addresses["grpc"])
        browser = httpx.AsyncClient(base_url=addresses["http"], trust_env=False, timeout=10)
        stub = Stub(channel)
        watching = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="retail.gateway.v1.OrderService"))
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        waiting = asyncio.ensure_future(stub.PlaceOrder(an_order(), metadata=ANN))
        browsing = asyncio.ensure_future(
            browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "b", "idempotency-key": "k"})
        )
        await until(lambda: len(platform.log) == 2, "both orders are in the log")
        started = asyncio.get_running_loop().time()
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    pending = await waiting
    (asked,) = [event for event in platform.log if isinstance(event, OrderRequested) and event.customer_id == "ann"]
    assert (pending.order.status, pending.order.order_id) == (PENDING, asked.order_id)
    assert (await browsing).json()["order"]["status"] == "ORDER_STATUS_PENDING"
    assert asyncio.get_running_loop().time() - started < 8
    await channel.close()
    await browser.aclose()


async def test_the_api_describes_itself(tmp_path: Path) -> None:
    async with door(Platform(), tmp_path) as (_, _browser, channel):
        stub = ReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
    assert {"retail.gateway.v1.OrderService", "grpc.health.v1.Health"} <= names


async def test_a_watcher_follows_an_order_over_grpc(tmp_path: Path) -> None:
    platform = Platform()
    async with door(platform, tmp_path) as (stub, _, _channel):
        order_id = (await stub.PlaceOrder(an_order(wait_s=0), metadata=ANN)).order.order_id
        steps = []
        async for response in stub.WatchOrder(WatchOrderRequest(order_id=order_id), metadata=ANN):
            steps.append(response.step)
            event = requested(platform)
            platform.say(validated(event) if response.step == 1 else confirmed(event))
    assert steps == [1, 2, 5]


async def test_the_same_key_gives_the_same_order_after_a_restart(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (stub, _, _channel):
        first = await stub.PlaceOrder(an_order(), metadata=ANN)
    async with door(platform, tmp_path) as (stub, _, _channel):
        again = await stub.PlaceOrder(an_order(), metadata=ANN)
    assert first.order.order_id == again.order.order_id
    assert len(platform.log) == 1


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async with serve(Platform().bound(tmp_path)) as addresses:
        for setting, address in (("grpc_port", addresses["grpc"]), ("http_port", addresses["http"])):
            port = int(address.rpartition(":")[2])
            with pytest.raises(SettingsError, match=str(port)):
                async with serve(Platform().bound(tmp_path, **{setting: port})):
                    pass


async def test_the_start_says_that_callers_are_believed(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serve(Platform().bound(tmp_path)):
            pass
    assert [entry["log_level"] for entry in logs if "DEVELOPMENT MODE" in entry["event"]] == ["warning"]


async def test_without_a_place_for_the_secret_the_door_stays_shut(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ORDER_ID_KEY_FILE"):
        async with serve(Platform().bound(tmp_path, order_id_key_file="")):
            pass


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_callers_trace_goes_on_and_nonsense_does_not(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (stub, browser, _):
        await stub.PlaceOrder(an_order(), metadata=(*ANN, ("traceparent", TRACE)))
        for number, trace in enumerate((TRACE, "x" * 5000)):
            await browser.post(
                f"{PATH}/PlaceOrder", json=JSON_ORDER, headers={"x-principal": "b", "idempotency-key": str(number), "traceparent": trace}
            )
    assert [meta["traceparent"] for meta in platform.metas] == [TRACE, TRACE, ""]


@pytest.mark.parametrize("name", [b"\xff\xfe", "\u00e4nn".encode(), b"a" * 257, b""])
async def test_a_caller_with_an_unusable_name_is_refused(name: bytes, tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path) as (_, browser, _channel):
        answer = await browser.post(f"{PATH}/PlaceOrder", json=JSON_ORDER, headers=[(b"x-principal", name), (b"idempotency-key", b"k")])
    assert answer.status_code in (400, 401)
    assert platform.log == []


def test_every_canonical_code_has_a_name_in_both_worlds() -> None:
    assert {code.value[0] for code in grpc.StatusCode} == set(code_pb2.Code.values())

"""The HTTP port speaks Connect and gRPC-Web, one answer or many, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from retail.gateway.v1 import order_service_pb2 as api

from tests.gateway.fakes import Platform, an_order, confirmed, confirming, line, serve, validated
from tests.gateway.test_use_cases import requested, until
from tests.rpc.transports import Method, answer, frame, over_connect, over_grpc_web, split

SERVICE = api.DESCRIPTOR.services_by_name["OrderService"]
PLACE, WATCH, GET = (Method.of(SERVICE, name) for name in ("PlaceOrder", "WatchOrder", "GetOrder"))
ANN = {"x-principal": "ann", "idempotency-key": "k1"}
OVER = [over_connect, over_grpc_web]


@pytest.fixture
def platform() -> Platform:
    """A shop that says nothing by itself."""
    return Platform()


@pytest.fixture
async def browser(platform: Platform, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the HTTP port."""
    async with (
        serve(platform.bound(tmp_path)) as addresses,
        httpx.AsyncClient(base_url=addresses["http"], trust_env=False, timeout=10) as client,
    ):
        yield client


@pytest.mark.parametrize("over", OVER)
async def test_one_answer_comes_over_http(over: Any, platform: Platform, browser: httpx.AsyncClient) -> None:
    platform.shop = confirming
    placed = await answer(over(browser), PLACE, an_order(), ANN)
    assert placed.status == "OK"
    (response,) = placed.messages
    assert isinstance(response, api.PlaceOrderResponse)
    assert response.order.status == api.ORDER_STATUS_CONFIRMED


@pytest.mark.parametrize("over", OVER)
async def test_each_step_of_an_order_comes_when_it_happens(over: Any, platform: Platform, browser: httpx.AsyncClient) -> None:
    placed = (await answer(over(browser), PLACE, an_order(wait_s=0), ANN)).messages[0]
    assert isinstance(placed, api.PlaceOrderResponse)
    steps = []
    async for response in over(browser)(WATCH, api.WatchOrderRequest(order_id=placed.order.order_id), ANN):
        steps.append(response.step)
        event = requested(platform)
        platform.say(validated(event) if response.step == 1 else confirmed(event))
    assert steps == [1, 2, 5]


@pytest.mark.parametrize("over", OVER)
async def test_a_stream_goes_on_behind_the_step_that_was_seen(over: Any, platform: Platform, browser: httpx.AsyncClient) -> None:
    platform.shop = confirming
    placed = (await answer(over(browser), PLACE, an_order(), ANN)).messages[0]
    assert isinstance(placed, api.PlaceOrderResponse)
    again = await answer(over(browser), WATCH, api.WatchOrderRequest(order_id=placed.order.order_id, after_step=2), ANN)
    assert [one.step for one in again.messages if isinstance(one, api.WatchOrderResponse)] == [5]


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize(
    ("method", "request_", "status", "reason"),
    [
        (PLACE, an_order(line(quantity=0)), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (WATCH, api.WatchOrderRequest(), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (WATCH, api.WatchOrderRequest(order_id="nothing"), "NOT_FOUND", "UNKNOWN_ORDER"),
        (GET, api.GetOrderRequest(order_id="nothing"), "NOT_FOUND", "UNKNOWN_ORDER"),
    ],
)
async def test_a_refusal_is_told_with_its_reason(
    over: Any, method: Method, request_: Any, status: str, reason: str, browser: httpx.AsyncClient
) -> None:
    refused = await answer(over(browser), method, request_, ANN)
    assert (refused.status, list(refused.messages)) == (status, [])
    info = refused.details["ErrorInfo"]
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain) == (reason, "gateway.retail")
    assert refused.text


@pytest.mark.parametrize("over", OVER)
async def test_who_closes_the_page_frees_his_place(over: Any, platform: Platform, browser: httpx.AsyncClient) -> None:
    placed = (await answer(over(browser), PLACE, an_order(wait_s=0), ANN)).messages[0]
    assert isinstance(placed, api.PlaceOrderResponse)
    async with aclosing(over(browser)(WATCH, api.WatchOrderRequest(order_id=placed.order.order_id), ANN)) as steps:
        async for _ in steps:
            assert platform.shown()["calls"] == 1
            break
    await until(lambda: platform.shown()["calls"] == 0, "the door knows that nobody watches any more")


async def test_a_stream_that_the_door_ends_says_how_to_go_on(platform: Platform, tmp_path: Path) -> None:
    seen = []
    for over in OVER:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as browser:
            async with serve(platform.bound(tmp_path)) as addresses:
                browser.base_url = httpx.URL(addresses["http"])
                placed = (await answer(over(browser), PLACE, an_order(wait_s=0), ANN)).messages[0]
                assert isinstance(placed, api.PlaceOrderResponse)
                watched = asyncio.ensure_future(
                    answer(over(browser), WATCH, api.WatchOrderRequest(order_id=placed.order.order_id), ANN),
                )
                await until(lambda: platform.shown()["calls"] == 1, "somebody watches")
            seen.append(await watched)
    assert [(one.status, len(one.messages)) for one in seen] == [("UNAVAILABLE", 1)] * 2
    assert all("RetryInfo" in one.details for one in seen)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (frame(0, b"\xff" * 8), code_pb2.INVALID_ARGUMENT),
        (frame(0, b"")[:3], code_pb2.INVALID_ARGUMENT),
        (frame(4, b""), code_pb2.INVALID_ARGUMENT),
        (b"", code_pb2.UNIMPLEMENTED),
        (frame(0, b"") + frame(0, b""), code_pb2.UNIMPLEMENTED),
        (b"\x00\xff\xff\xff\xff", code_pb2.RESOURCE_EXHAUSTED),
    ],
    ids=["garbage", "half a frame", "flags nobody knows", "no message", "two messages", "a frame of 4 GiB"],
)
async def test_frames_that_are_no_request_are_refused(sent: bytes, status: int, platform: Platform, browser: httpx.AsyncClient) -> None:
    response = await browser.post(PLACE.path, content=sent, headers={**ANN, "content-type": "application/grpc-web+proto"})
    assert response.status_code == 200
    told = response.headers.get("grpc-status") or b"".join(data for _, data in split(response.content)).decode()
    assert told.removeprefix("grpc-status: ").split()[0] == str(status)
    assert platform.log == []


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc-web-text", "text/plain"])
async def test_what_this_port_does_not_speak_is_refused_as_such(kind: str, browser: httpx.AsyncClient) -> None:
    response = await browser.post(PLACE.path, content=b"", headers={**ANN, "content-type": kind})
    assert response.status_code == 415
    assert "application/json" in response.headers["accept-post"]


async def test_pages_of_named_origins_may_call_and_read_the_status(platform: Platform, tmp_path: Path) -> None:
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-grpc-web,x-principal"}
    async with (
        serve(platform.bound(tmp_path, origins="https://shop.example http://127.0.0.1:5173")) as addresses,
        httpx.AsyncClient(base_url=addresses["http"], trust_env=False, timeout=10) as browser,
    ):
        allowed = await browser.options(PLACE.path, headers={"origin": "https://shop.example", **asking})
        strange = await browser.options(PLACE.path, headers={"origin": "https://evil.example", **asking})
        headers = {**ANN, "content-type": "application/grpc-web+proto", "origin": "https://shop.example"}
        answered = await browser.post(GET.path, content=frame(0, b"\x0a\x07nothing"), headers=headers)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://shop.example")
    assert "x-grpc-web" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in strange.headers
    assert answered.headers["access-control-allow-origin"] == "https://shop.example"
    assert {"grpc-status", "grpc-message"} <= {name.strip() for name in answered.headers["access-control-expose-headers"].split(",")}


async def test_without_a_named_origin_no_foreign_page_may_call(browser: httpx.AsyncClient) -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    response = await browser.options(PLACE.path, headers=headers)
    assert "access-control-allow-origin" not in response.headers

"""Answers tell what they know, clients may demand that others know it too, and nobody is taken in by a token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from retail.gateway.v1.order_service_pb2 import AwaitOrderRequest, CancelOrderRequest, GetOrderRequest, ListOrdersRequest, WatchOrderRequest

from backbone.ports import Place
from backbone.tokens import MOST_CHARACTERS, Wrong, key_of, sign, verify
from gateway import ids
from gateway.freshness import CODE, MOST_TOKENS, Tokens
from gateway.refusals import Refusal
from gateway.requests import caller_of
from tests.gateway.fakes import ORDERS, REQUESTS, Platform, an_order, by, confirmed, confirming
from tests.gateway.test_servers import ANN, PATH, detail, door, refused, told
from tests.gateway.test_use_cases import requested, until

CLUSTER = "cluster"


def key(folder: Path) -> bytes:
    """The key of the doors over a folder."""
    return key_of(ids.secret_key(folder / "order-id.key"))


def token(folder: Path, vector: Mapping[Place, int], principal: str = "ann", cluster: str = CLUSTER) -> str:
    """A token of a door over a folder."""
    made = sign(key(folder), principal, cluster, vector)
    assert made is not None
    return made


def demanding(*tokens: str) -> Any:
    """The metadata of ann, who demands something."""
    return (*ANN, *(("backbone-at-least", one) for one in tokens))


async def knows(folder: Path, call: Any) -> tuple[dict[Place, int], dict[Place, int], int]:
    """What an answer over gRPC rests on, as of when, and how old."""
    await call
    found = {key: str(value) for key, value in await call.trailing_metadata()}
    position, as_of = (verify(key(folder), "ann", CLUSTER, found[name]) for name in ("backbone-position", "backbone-as-of"))
    return position, as_of, int(found["backbone-age-ms"])


async def test_every_answer_tells_what_it_rests_on_as_of_when_and_how_old_it_is(tmp_path: Path) -> None:
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (stub, _, _channel):
        placed = stub.PlaceOrder(an_order(), metadata=ANN)
        order_id = (await placed).order.order_id
        # The request is record 1; the answer is the fourth thing orders said.
        assert (await knows(tmp_path, placed))[0] == {(REQUESTS, 0): 1, (ORDERS, 0): 4}
        for call in (
            stub.AwaitOrder(AwaitOrderRequest(order_id=order_id), metadata=ANN),
            stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=ANN),
            stub.ListOrders(ListOrdersRequest(), metadata=ANN),
        ):
            known = {(REQUESTS, 0): 1, (ORDERS, 0): 4}
            assert await knows(tmp_path, call) == (known, known, 7)
        cancelled = stub.CancelOrder(CancelOrderRequest(order_id=order_id), metadata=ANN)
        assert (await knows(tmp_path, cancelled))[0] == {(REQUESTS, 0): 2, (ORDERS, 0): 5}, "the wish and its refusal"
        watching = stub.WatchOrder(WatchOrderRequest(order_id=order_id), metadata=ANN)
        assert [step.step async for step in watching] == [5]
        trailing = {key: str(value) for key, value in await watching.trailing_metadata()}
        assert verify(key(tmp_path), "ann", CLUSTER, trailing["backbone-position"])[ORDERS, 0] == 5


async def test_what_was_heard_while_waiting_counts_though_the_view_does_not_know_it_yet(tmp_path: Path) -> None:
    """Another replica that reads the view may not fall behind this answer."""
    platform = Platform()
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (stub, _, _channel):
        call = stub.PlaceOrder(an_order(wait_s=20), metadata=ANN)
        await until(lambda: bool(platform.log), "asked")
        platform.projecting = False
        platform.say(confirmed(requested(platform)))
        order_id = (await call).order.order_id
        position, as_of, _ = await knows(tmp_path, call)
        assert position == {(REQUESTS, 0): 1, (ORDERS, 0): 1}
        assert as_of[ORDERS, 0] == 1
        demand = demanding(dict(await call.trailing_metadata())["backbone-position"])
        error = await refused(stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=demand))
        assert (error.code(), detail(error, ErrorInfo).reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET")


async def test_the_same_over_http(tmp_path: Path) -> None:
    """In headers, over any door that shares the key; several tokens are one demand."""
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (_, browser, _first), door(platform, tmp_path, cluster_id=CLUSTER) as second:
        body = '{"lines": [{"sku": "a", "quantity": 1, "unitPrice": {"currencyCode": "USD", "units": "1"}}], "deliveryZone": "z"}'
        placed = await json(browser, "PlaceOrder", body)
        position = placed.headers["backbone-position"]
        assert verify(key(tmp_path), "ann", CLUSTER, position) == {(REQUESTS, 0): 1, (ORDERS, 0): 4}
        order = f'{{"orderId": "{placed.json()["order"]["orderId"]}"}}'
        shown = await json(second[1], "GetOrder", order, f"{position}, {placed.headers['backbone-as-of']}")
        assert shown.json()["order"]["status"] == "ORDER_STATUS_CONFIRMED"
        assert shown.headers["backbone-age-ms"] == "7"
        behind = await json(second[1], "GetOrder", order, position, token(tmp_path, {(ORDERS, 0): 5}))
        assert (behind.status_code, told(behind, ErrorInfo).reason) == (503, "NOT_YET")
        watched = await json(second[1], "WatchOrder", order, position, stream=True)
        assert b'"backbone-position"' in watched.content.lower()


async def json(browser: httpx.AsyncClient, rpc: str, body: str, *tokens: str, stream: bool = False) -> httpx.Response:
    """Call an RPC as Connect does it in JSON."""
    kind = "application/connect+json" if stream else "application/json"
    headers = [*ANN, ("content-type", kind), *(("backbone-at-least", one) for one in tokens)]
    raw = body.encode()
    return await browser.post(f"{PATH}/{rpc}", content=b"\0" + len(raw).to_bytes(4, "big") + raw if stream else raw, headers=headers)


async def test_what_is_not_known_in_time_or_by_nobody_is_told_with_its_reason(tmp_path: Path) -> None:
    """How far it is, when to try again; and that waiting is of no use."""
    platform = Platform(shop=confirming)
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (stub, _, _channel):
        order_id = (await stub.PlaceOrder(an_order(), metadata=ANN)).order.order_id

        async def watched(request: WatchOrderRequest, metadata: Any) -> None:
            await stub.WatchOrder(request, metadata=metadata).read()

        calls = {
            "GetOrder": (stub.GetOrder, GetOrderRequest(order_id=order_id)),
            "ListOrders": (stub.ListOrders, ListOrdersRequest()),
            "AwaitOrder": (stub.AwaitOrder, AwaitOrderRequest(order_id=order_id)),
            "WatchOrder": (watched, WatchOrderRequest(order_id=order_id)),
            "CancelOrder": (stub.CancelOrder, CancelOrderRequest(order_id=order_id)),
        }
        for name, (call, request) in calls.items():
            error = await refused(call(request, metadata=demanding(token(tmp_path, {(ORDERS, 0): 50}))))
            assert (error.code(), detail(error, ErrorInfo).reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET"), name
            assert dict(detail(error, ErrorInfo).metadata) == {"position": f"{ORDERS}/0", "demanded": "50", "reached": "4"}
            assert detail(error, RetryInfo).retry_delay.nanos
            error = await refused(call(request, metadata=demanding(token(tmp_path, {("retail.fulfilment.stock.v1", 0): 1}))))
            assert (error.code(), detail(error, ErrorInfo).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_COMPARABLE"), name
    assert len(platform.log) == 1, "who is not answered has asked for nothing"


async def test_what_a_customer_had_seen_is_what_the_request_comes_after(tmp_path: Path) -> None:
    """The log then tells it to everybody who hears of the order."""
    platform = Platform(shop=confirming)
    seen: dict[Place, int] = {(ORDERS, 2): 17, ("retail.payments.payments.v1", 1): 3}
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (stub, _, _channel):
        await stub.PlaceOrder(an_order(), metadata=demanding(token(tmp_path, seen)))
    assert platform.afters == [seen]


def bad(folder: Path) -> dict[Wrong, str]:
    """A token that is not taken, by why."""
    good = token(folder, {(ORDERS, 0): 1})
    return {
        Wrong.TOO_LONG: "A" * (MOST_CHARACTERS + 1),
        Wrong.MALFORMED: "no token!",
        Wrong.TRUNCATED: good[:-9],
        Wrong.NEWER: "A" + "g" + good[2:],
        Wrong.FORGED: good[:20] + ("A" if good[20] != "A" else "B") + good[21:],
        Wrong.OF_ANOTHER_CLUSTER: token(folder, {(ORDERS, 0): 1}, cluster="another"),
        Wrong.OF_ANOTHER_PRINCIPAL: token(folder, {(ORDERS, 0): 1}, principal="bob"),
    }


@pytest.mark.parametrize("wrong", Wrong, ids=lambda wrong: wrong.name)
async def test_a_bad_token_is_refused_for_its_own_reason(wrong: Wrong, tmp_path: Path) -> None:
    """Over both doors, before anything is read or produced."""
    platform = Platform(shop=confirming)
    text = bad(tmp_path)[wrong]
    async with door(platform, tmp_path, cluster_id=CLUSTER) as (stub, browser, _):
        error = await refused(stub.PlaceOrder(an_order(), metadata=demanding(text)))
        answer = await json(browser, "GetOrder", '{"orderId": "x"}', text)
    code = CODE.get(wrong, code_pb2.INVALID_ARGUMENT)
    assert (error.code().value[0], detail(error, ErrorInfo).reason) == (code, f"TOKEN_{wrong.name}")
    assert told(answer, ErrorInfo).reason == f"TOKEN_{wrong.name}"
    assert platform.log == []
    assert platform.requests.reads == 0


def test_too_many_tokens_are_refused() -> None:
    """Each costs a signature."""
    tokens = Tokens(b"k" * 32, CLUSTER)
    one = sign(b"k" * 32, "ann", CLUSTER, {(ORDERS, 0): 1}) or ""
    assert tokens.read("ann", [one] * MOST_TOKENS) == {(ORDERS, 0): 1}
    with pytest.raises(Refusal, match="at most 8 tokens"):
        tokens.read("ann", [one] * (MOST_TOKENS + 1))


async def test_without_a_deadline_or_wait_a_demand_still_counts() -> None:
    """Who does not want to wait is told at once."""
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order())).order.order_id
    request = AwaitOrderRequest(order_id=order_id)
    request.wait.FromSeconds(0)
    made = Tokens(b"k" * 32, CLUSTER)
    ahead = sign(b"k" * 32, "ann", CLUSTER, {(ORDERS, 0): 99}) or ""
    caller = caller_of({"x-principal": "ann"}, [ahead], None, made)
    with pytest.raises(Exception, match="behind"):
        await asyncio.wait_for(orders.await_(caller, request), 5)

"""What a customer can do with orders, without servers."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    CancelOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    OrderRejectionReason,
    OrderStatus,
    WatchOrderRequest,
)
from retail.ordering.v1.order_pb2 import OrderPaid, OrderReserved, RejectionReason

from backbone.errors import Overloaded, Unavailable, Unconfirmed
from gateway import ids
from gateway.refusals import Refusal
from tests.gateway.fakes import (
    KEY,
    NOW,
    Platform,
    an_order,
    by,
    cancellation_refused,
    cancelled,
    confirmed,
    confirming,
    line,
    rejecting,
    validated,
)

CONFIRMED, PENDING = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PENDING


async def until(true: Any, what: str) -> None:
    """Wait for a condition, at most five seconds."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"never came true: {what}")


def requested(platform: Platform) -> OrderRequested:
    """The one request in the log."""
    (event,) = [event for event in platform.log if isinstance(event, OrderRequested)]
    return event


async def test_an_order_is_raised_once_and_answered() -> None:
    platform = Platform(shop=confirming)
    orders, waiters = platform.use_cases()

    response = await orders.place(by(), an_order(line("a", 3, 2, 500_000_000), line("b", 1, 0, 10_000_000)))

    event = requested(platform)
    assert event.order_id == ids.order_id(KEY, "ann", "k1") == response.order.order_id
    assert event.customer_id == "ann"
    assert event.expires_at.ToDatetime(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=900)
    assert platform.metas[0]["correlation_id"] == event.order_id
    assert response.order.status == CONFIRMED
    assert (response.order.reserved, response.order.paid) == (True, True)
    assert (response.order.total.units, response.order.total.nanos) == (7, 510_000_000)
    assert [(p.topic, p.next_offset) for p in response.position.positions] == [("retail.gateway.order-requests.v1", 1)]
    assert len(waiters) == 0


async def test_a_rejected_order_says_why() -> None:
    platform = Platform(shop=rejecting(RejectionReason.REJECTION_REASON_OUT_OF_STOCK, "a"))
    orders, _ = platform.use_cases()

    order = (await orders.place(by(), an_order(line("a"), line("b")))).order

    assert order.status == OrderStatus.ORDER_STATUS_REJECTED
    assert order.rejection_reason == OrderRejectionReason.ORDER_REJECTION_REASON_OUT_OF_STOCK
    assert list(order.rejected_skus) == ["a"]


def test_every_reason_to_reject_can_be_told() -> None:
    told = {value.name.removeprefix("ORDER_") for value in OrderRejectionReason.DESCRIPTOR.values}
    assert told == {value.name for value in RejectionReason.DESCRIPTOR.values}


async def test_the_same_key_and_order_gives_the_same_answer_without_a_second_request() -> None:
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()

    first = await orders.place(by(), an_order())
    again = await orders.place(by(), an_order(wait_s=0))

    assert (again.order.order_id, again.order.status) == (first.order.order_id, CONFIRMED)
    assert len(platform.log) == 1


async def test_the_same_key_with_another_order_is_refused_without_effect() -> None:
    platform = Platform(shop=confirming)
    orders, waiters = platform.use_cases()
    await orders.place(by(), an_order(line("a")))

    with pytest.raises(Refusal) as refused:
        await orders.place(by(), an_order(line("b")))

    assert refused.value.code == code_pb2.ALREADY_EXISTS
    assert len(platform.log) == 1
    assert len(waiters) == 0


async def test_of_two_orders_that_race_under_one_key_the_second_is_refused_by_the_answer() -> None:
    platform = Platform(projecting=False)
    orders, _ = platform.use_cases()
    calls = [asyncio.create_task(orders.place(by(), an_order(line(sku)))) for sku in ("a", "b")]
    await until(lambda: len(platform.log) == 2, "both are in the log, for neither was in the view")

    first = platform.log[0]
    assert isinstance(first, OrderRequested)
    platform.say(confirmed(first))

    assert (await calls[0]).order.status == CONFIRMED
    with pytest.raises(Refusal) as refused:
        await calls[1]
    assert refused.value.code == code_pb2.ALREADY_EXISTS
    assert platform.metas[0]["request_id"] != platform.metas[1]["request_id"]


async def test_another_principal_has_another_order_under_the_same_key() -> None:
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()

    one = await orders.place(by("ann"), an_order())
    other = await orders.place(by("bob"), an_order())

    assert one.order.order_id != other.order.order_id


async def test_without_an_answer_in_time_the_order_is_pending_and_its_id_the_handle() -> None:
    platform = Platform()
    orders, waiters = platform.use_cases()

    order = (await orders.place(by(), an_order(wait_s=0.05))).order
    assert (order.status, len(waiters)) == (PENDING, 0)

    waiting = asyncio.create_task(orders.await_(by(), AwaitOrderRequest(order_id=order.order_id)))
    await until(lambda: len(waiters) == 1, "somebody waits")
    platform.say(confirmed(requested(platform)))
    assert (await waiting).order.status == CONFIRMED


async def test_who_does_not_wait_for_the_answer_still_waits_for_the_acknowledgement() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()

    response = await orders.place(by(), an_order(wait_s=0))

    assert response.order.status == PENDING
    assert response.position.positions[0].next_offset == 1


async def test_a_client_with_a_deadline_gets_its_handle_before_it() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()

    async with asyncio.timeout(0.5):
        response = await orders.place(by(time_left_s=0.5), an_order(wait_s=30))

    assert response.order.status == PENDING


@pytest.mark.parametrize("error", [Unavailable("Kafka does not answer"), Overloaded("the queue is full")])
async def test_what_cannot_have_been_accepted_is_refused(error: Unavailable) -> None:
    platform = Platform(refuses=error)
    orders, waiters = platform.use_cases()

    with pytest.raises(type(error)):
        await orders.place(by(), an_order())

    assert len(waiters) == 0


async def test_an_unconfirmed_request_is_pending_and_answered_when_it_arrives_after_all() -> None:
    platform = Platform(refuses=Unconfirmed("no acknowledgement"))
    orders, _ = platform.use_cases()

    placed = await orders.place(by(), an_order(wait_s=0.05))
    assert placed.order.status == PENDING
    assert not placed.HasField("position")

    platform.refuses = None
    again = asyncio.create_task(orders.place(by(), an_order()))
    await until(lambda: len(platform.log) == 1, "the repetition is in the log")
    platform.append(requested(platform))  # and now the first one gets there too
    platform.say(confirmed(platform.log[0]))  # type: ignore[arg-type]
    assert (await again).order.order_id == placed.order.order_id
    assert (await again).order.status == CONFIRMED


async def test_a_pending_order_whose_request_never_arrives_is_unknown_until_it_is_placed_again() -> None:
    platform = Platform(shop=confirming, refuses=Unconfirmed("no acknowledgement"))
    orders, _ = platform.use_cases()
    placed = await orders.place(by(), an_order(wait_s=0.05))
    assert (placed.order.status, placed.HasField("position")) == (PENDING, False)

    with pytest.raises(Refusal) as refused:
        await orders.get(by(), GetOrderRequest(order_id=placed.order.order_id))
    assert refused.value.code == code_pb2.NOT_FOUND

    platform.refuses = None
    again = await orders.place(by(), an_order())
    assert (again.order.order_id, again.order.status, len(platform.log)) == (placed.order.order_id, CONFIRMED, 1)


async def test_an_answer_counts_though_the_acknowledgement_never_came() -> None:
    platform = Platform(shop=confirming, silent=True)
    orders, _ = platform.use_cases()

    response = await orders.place(by(), an_order())

    assert response.order.status == CONFIRMED
    assert not response.HasField("position")


async def test_orders_are_placed_and_answered_while_redis_is_down() -> None:
    platform = Platform(shop=confirming)
    platform.requests.down = platform.orders.down = True
    orders, _ = platform.use_cases()

    assert (await orders.place(by(), an_order())).order.status == CONFIRMED


async def test_reads_are_refused_while_redis_is_down() -> None:
    platform = Platform(shop=confirming)
    orders, waiters = platform.use_cases()
    order_id = (await orders.place(by(), an_order())).order.order_id
    platform.requests.down = True

    with pytest.raises(Unavailable):
        await orders.get(by(), GetOrderRequest(order_id=order_id))
    with pytest.raises(Unavailable):
        await orders.list_(by(), ListOrdersRequest())
    with pytest.raises(Unavailable):
        await orders.await_(by(), AwaitOrderRequest(order_id=order_id))
    assert len(waiters) == 0


@pytest.mark.parametrize("ask", ["await", "list"])
async def test_redis_that_says_nothing_is_not_waited_for_where_nothing_must_be_known(ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's patience is for views that are behind what he demands; one that holds still for so long is down."""
    platform = Platform()
    orders, _ = platform.use_cases()

    async def silent(*_: object) -> Any:
        await asyncio.Event().wait()

    for name in ("get", "newest"):
        monkeypatch.setattr(platform.requests, name, silent)
    caller = by(time_left_s=60.0)
    async with asyncio.timeout(5.0):
        with pytest.raises(Unavailable, match="views do not answer"):
            await (orders.await_(caller, AwaitOrderRequest(order_id="o")) if ask == "await" else orders.list_(caller, ListOrdersRequest()))


async def test_an_answer_missed_in_a_stall_is_found_by_looking_again() -> None:
    platform = Platform(deaf=True)
    orders, waiters = platform.use_cases()
    waiting = asyncio.create_task(orders.place(by(), an_order()))
    await until(lambda: platform.log, "the request is in the log")
    platform.say(confirmed(requested(platform)))

    for stalled in platform.stalls:
        stalled()

    async with asyncio.timeout(0.3):
        assert (await waiting).order.status == CONFIRMED
    assert len(waiters) == 0


async def test_an_answer_given_before_a_late_view_shows_it_is_found_by_looking_again() -> None:
    platform = Platform(projecting=False, shop=confirming)
    orders, _ = platform.use_cases()
    event_order = (await orders.place(by(), an_order())).order
    platform.shop = lambda platform, event: None  # a repetition is silence
    waiting = asyncio.create_task(orders.place(by(), an_order()))
    await until(lambda: len(platform.log) == 2, "the repetition is in the log: the view knew nothing")

    platform.projecting, platform.deaf = True, True
    platform.say(confirmed(platform.log[0]))  # type: ignore[arg-type]

    async with asyncio.timeout(3):
        again = (await waiting).order
    assert (again.order_id, again.status) == (event_order.order_id, CONFIRMED)


async def test_over_the_limit_nothing_is_raised() -> None:
    platform = Platform()
    orders, waiters = platform.use_cases(limit=1)
    waiting = asyncio.create_task(orders.place(by(key="one"), an_order()))
    await until(lambda: len(platform.log) == 1, "the first is in the log")

    with pytest.raises(Refusal) as refusal:
        await orders.place(by(key="two"), an_order())

    assert refusal.value.reason == "TOO_MANY_CALLS"
    assert len(platform.log) == 1
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert len(waiters) == 0


async def test_a_client_that_leaves_leaves_no_waiter_but_its_order() -> None:
    platform = Platform(silent=True)
    orders, waiters = platform.use_cases()
    waiting = asyncio.create_task(orders.place(by(), an_order()))
    await until(lambda: platform.log, "the request is in the log")

    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting

    assert len(waiters) == 0
    assert (await orders.get(by(), GetOrderRequest(order_id=requested(platform).order_id))).order.status == PENDING


async def test_a_closing_door_lets_everybody_go_with_a_handle_and_nobody_in() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()
    waiting = [asyncio.create_task(orders.place(by(key=str(n)), an_order())) for n in range(3)]
    await until(lambda: len(platform.log) == 3, "all are in the log")

    orders.close()

    async with asyncio.timeout(0.5):
        assert [response.order.status for response in await asyncio.gather(*waiting)] == [PENDING] * 3
    with pytest.raises(Unavailable):
        await orders.place(by(key="late"), an_order())
    assert len(platform.log) == 3


async def test_orders_of_others_do_not_exist() -> None:
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by("ann"), an_order())).order.order_id

    for call in (
        orders.get(by("bob"), GetOrderRequest(order_id=order_id)),
        orders.await_(by("bob"), AwaitOrderRequest(order_id=order_id)),
        orders.cancel(by("bob"), CancelOrderRequest(order_id=order_id)),
        anext(orders.watch(by("bob"), WatchOrderRequest(order_id=order_id))),
    ):
        with pytest.raises(Refusal) as refused:
            await call
        assert refused.value.code == code_pb2.NOT_FOUND
    assert len(platform.log) == 1
    assert len((await orders.list_(by("bob"), ListOrdersRequest())).orders) == 0


async def test_an_order_that_the_view_shows_a_moment_later_is_found() -> None:
    platform = Platform(projecting=False)
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    reading = asyncio.create_task(orders.get(by(), GetOrderRequest(order_id=order_id)))
    await until(lambda: platform.requests.reads >= 1, "it was looked for and not found")

    platform.projecting = True
    platform.append(requested(platform))

    assert (await reading).order.order_id == order_id


async def test_an_order_that_may_only_be_late_is_not_said_to_be_unknown() -> None:
    platform = Platform(projecting=False)
    orders, waiters = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id

    with pytest.raises(Unavailable):
        await orders.await_(by(), AwaitOrderRequest(order_id=order_id))
    assert len(waiters) == 0


async def test_a_customer_sees_the_newest_fifty_orders_newest_first() -> None:
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()
    placed = [(await orders.place(by(key=str(n)), an_order())).order.order_id for n in range(55)]

    listed = (await orders.list_(by(), ListOrdersRequest())).orders
    assert [order.order_id for order in listed] == placed[:4:-1]
    assert {order.status for order in listed} == {CONFIRMED}
    assert len((await orders.list_(by(), ListOrdersRequest(page_size=3))).orders) == 3


async def test_a_watcher_sees_every_step_once() -> None:
    platform = Platform()
    orders, waiters = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    event = requested(platform)
    seen = []
    async for response in orders.watch(by(), WatchOrderRequest(order_id=order_id)):
        seen.append((response.step, response.order.status))
        following: list[Message] = [validated(event), OrderPaid(order_id=order_id), OrderReserved(order_id=order_id), confirmed(event)]
        if response.step < 5:
            platform.say(following[response.step - 1])

    assert seen == [(1, PENDING), (2, PENDING), (3, PENDING), (4, PENDING), (5, CONFIRMED)]
    assert len(waiters) == 0


async def test_a_watcher_resumes_after_the_last_step_it_saw() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    platform.say(validated(requested(platform)))
    platform.say(OrderReserved(order_id=order_id))

    watching = orders.watch(by(), WatchOrderRequest(order_id=order_id, after_step=2))
    assert (await anext(watching)).step == 3
    await watching.aclose()

    platform.say(confirmed(requested(platform)))
    again = [response.step async for response in orders.watch(by(), WatchOrderRequest(order_id=order_id, after_step=3))]
    assert again == [5]
    assert [r async for r in orders.watch(by(), WatchOrderRequest(order_id=order_id, after_step=5))] == []


async def test_a_watcher_at_a_closing_door_is_told_to_resume() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    watching = orders.watch(by(), WatchOrderRequest(order_id=order_id))
    await anext(watching)

    orders.close()

    with pytest.raises(Refusal) as refused:
        await anext(watching)
    assert (refused.value.code, refused.value.retry_after_s is not None) == (code_pb2.UNAVAILABLE, True)


async def test_an_unanswered_order_is_cancelled() -> None:
    platform = Platform()
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    event = requested(platform)
    platform.shop = lambda platform, wish: platform.say(cancelled(event))

    response = await orders.cancel(by(), CancelOrderRequest(order_id=order_id))

    assert response.order.status == OrderStatus.ORDER_STATUS_CANCELLED
    assert not response.refused
    assert not response.undecided
    assert platform.log[-1] == OrderCancellationRequested(order_id=order_id, customer_id="ann")


async def test_an_answered_order_stays_and_the_refusal_is_told_once_and_again() -> None:
    platform = Platform(shop=confirming)
    orders, _ = platform.use_cases()
    order_id = (await orders.place(by(), an_order())).order.order_id

    first = await orders.cancel(by(), CancelOrderRequest(order_id=order_id))
    again = await orders.cancel(by(), CancelOrderRequest(order_id=order_id))

    assert first == again
    assert (first.order.status, first.refused) == (CONFIRMED, True)
    assert len([event for event in platform.log if isinstance(event, OrderCancellationRequested)]) == 1


async def test_a_wish_without_a_decision_in_time_is_undecided() -> None:
    platform = Platform()
    orders, waiters = platform.use_cases()
    order_id = (await orders.place(by(), an_order(wait_s=0))).order.order_id
    wish = CancelOrderRequest(order_id=order_id)
    wish.wait.FromMilliseconds(30)

    response = await orders.cancel(by(), wish)
    assert (response.order.status, response.undecided, response.refused) == (PENDING, True, False)

    platform.shop = lambda platform, event: platform.say(cancellation_refused(order_id, "ann"))
    assert (await orders.cancel(by(), wish)).refused
    assert len(waiters) == 0


async def test_a_thousand_waiters_get_each_its_own_answer() -> None:
    platform = Platform()
    orders, waiters = platform.use_cases(limit=1000)
    waiting = [asyncio.create_task(orders.place(by(f"c{n}"), an_order(line(quantity=n % 9 + 1)))) for n in range(1000)]
    await until(lambda: len(platform.log) == 1000, "all are in the log")

    for event in reversed(list(platform.log)):
        platform.say(confirmed(event))  # type: ignore[arg-type]

    answers = await asyncio.gather(*waiting)
    assert {answer.order.status for answer in answers} == {CONFIRMED}
    assert [answer.order.lines[0].quantity for answer in answers] == [n % 9 + 1 for n in range(1000)]
    assert len(waiters) == 0

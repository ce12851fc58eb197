"""What a customer can do with orders, whatever the transport: place, await, watch, get, list, cancel."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime, timedelta

import structlog
from google.protobuf.message import Message
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested, RequestedLine
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    AwaitOrderResponse,
    CancelOrderRequest,
    CancelOrderResponse,
    GetOrderRequest,
    GetOrderResponse,
    ListOrdersRequest,
    ListOrdersResponse,
    Order,
    OrderRejectionReason,
    OrderStatus,
    PlaceOrderRequest,
    PlaceOrderResponse,
    WatchOrderRequest,
    WatchOrderResponse,
)
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow
from retail.ordering.v1.order_pb2 import OrderCancellationRefused, OrderCancelled, OrderConfirmed, OrderRejected, RejectionReason

from backbone import positions
from backbone.declare import Heard, Raise
from backbone.errors import Unconfirmed
from backbone.ports import Place
from backbone.v1.meta_pb2 import Positions
from gateway import ids, view
from gateway.admission import Door
from gateway.awaiting import Signal, Waiter, Waiters
from gateway.following import Following, Views
from gateway.refusals import another_order, interrupted, unknown_order
from gateway.requests import Caller, idempotency_key_of

PAGE = 50
# An acknowledgement takes milliseconds; it is waited for even by those who do not wait for the answer.
ACKNOWLEDGED_S = 2.0
# A stream ends after this at the latest and can be resumed.
WATCH_S = 900.0

STATUS: Mapping[int, OrderStatus.ValueType] = {
    OrderStanding.ORDER_STANDING_CONFIRMED: OrderStatus.ORDER_STATUS_CONFIRMED,
    OrderStanding.ORDER_STANDING_REJECTED: OrderStatus.ORDER_STATUS_REJECTED,
    OrderStanding.ORDER_STANDING_CANCELLED: OrderStatus.ORDER_STATUS_CANCELLED,
}
REASON: Mapping[int, OrderRejectionReason.ValueType] = {
    RejectionReason.REJECTION_REASON_UNKNOWN_SKU: OrderRejectionReason.ORDER_REJECTION_REASON_UNKNOWN_SKU,
    RejectionReason.REJECTION_REASON_PRICE_CHANGED: OrderRejectionReason.ORDER_REJECTION_REASON_PRICE_CHANGED,
    RejectionReason.REJECTION_REASON_OUT_OF_STOCK: OrderRejectionReason.ORDER_REJECTION_REASON_OUT_OF_STOCK,
    RejectionReason.REJECTION_REASON_PAYMENT_DECLINED: OrderRejectionReason.ORDER_REJECTION_REASON_PAYMENT_DECLINED,
    RejectionReason.REJECTION_REASON_OVERDUE: OrderRejectionReason.ORDER_REJECTION_REASON_OVERDUE,
}

log = structlog.get_logger()


class Orders:
    """The use cases of the door.

    Args:
        key: the secret of the order ids.
        raise_: appends a request to the log.
        views: the gateway's own.
        waiters: who waits for which order; the answers are told to them.
        door: who may enter.
        answer_within: how long an order may stay without an answer.
        cluster_id: the Kafka cluster of the positions we give out; may be empty.
        now: the clock of the door.
    """

    def __init__(
        self,
        *,
        key: bytes,
        raise_: Raise,
        views: Views,
        waiters: Waiters[Heard],
        door: Door,
        answer_within: timedelta,
        cluster_id: str,
        now: Callable[[], datetime],
    ) -> None:
        self._key = key
        self._raise = raise_
        self._views = views
        self._waiters = waiters
        self._door = door
        self._answer_within = answer_within
        self._cluster_id = cluster_id
        self._now = now
        self._raising: set[asyncio.Task[Mapping[Place, int]]] = set()

    async def place(self, caller: Caller, request: PlaceOrderRequest) -> PlaceOrderResponse:
        """Ask for an order and wait for its answer; PENDING if there is none in time.

        Raises:
            Refusal: the key stands for another order, or too much is under way.
            Unavailable: nothing was done.
        """
        order_id = ids.order_id(self._key, caller.principal, idempotency_key_of(caller))
        fingerprint = ids.fingerprint(request)
        until = _until(caller, request)
        asked: OrderRequested | None = None
        raised: _Raised | None = None
        with (
            self._door.call(caller.principal),
            self._door.order(caller.principal, order_id) as place,
            self._waiters.waiter(order_id, _decides) as waiter,
        ):
            order = Following(order_id, self._views, waiter, caller.knowing)
            await order.look(if_asked=True)
            if not order.fingerprint:
                place.raised = True
                asked = self._requested(order_id, fingerprint, caller, request)
                raised = self._raise_soon(asked, f"{order_id}:{fingerprint[:16]}", caller, waiter)
            while True:
                if order.fingerprint not in ("", fingerprint):
                    raise another_order(order_id)
                if order.answered or not await order.more(until if raised is None else max(until, raised.patience)):
                    break
                if raised is not None:
                    place.raised = not raised.refused
                    raised.check()
            if order.answered:
                self._door.heard(order_id)
            if order.fingerprint not in ("", fingerprint):
                raise another_order(order_id)
        response = PlaceOrderResponse(order=_joined(order_id, order.request or _row(asked), order.order))
        log.info("order answered", order_id=order_id, status=OrderStatus.Name(response.order.status), repeated=raised is None)
        position = None if raised is None else raised.position
        if position is not None:
            caller.knowing.wrote(position)
            response.position.CopyFrom(Positions(cluster_id=self._cluster_id, positions=positions.to_proto(position)))
        return response

    async def await_(self, caller: Caller, request: AwaitOrderRequest) -> AwaitOrderResponse:
        """Wait for the answer of an order; PENDING if there is none in time.

        Raises:
            Refusal: the caller has no such order, or too much is under way.
            Unavailable: the views do not answer.
        """
        until = _until(caller, request)
        with self._door.call(caller.principal), self._waiters.waiter(request.order_id, _decides) as waiter:
            order = await self._found(caller, request.order_id, waiter, until)
            while not order.answered and await order.more(until):
                pass
        return AwaitOrderResponse(order=_joined(order.order_id, order.request, order.order))

    async def watch(self, caller: Caller, request: WatchOrderRequest) -> AsyncGenerator[WatchOrderResponse]:
        """Every step of an order after the given one, until its answer.

        Raises:
            Refusal: the caller has no such order; too much is under way; or the stream ends before the order and is to be resumed.
            Unavailable: the views do not answer.
        """
        until = asyncio.get_running_loop().time() + WATCH_S
        seen = request.after_step
        with self._door.call(caller.principal), self._waiters.waiter(request.order_id) as waiter:
            order = await self._found(caller, request.order_id, waiter)
            while True:
                step = _step(order)
                if step > seen:
                    seen = step
                    yield WatchOrderResponse(step=step, order=_joined(order.order_id, order.request, order.order))
                if order.answered:
                    return
                if not await order.more(until):
                    raise interrupted()

    async def get(self, caller: Caller, request: GetOrderRequest) -> GetOrderResponse:
        """Where an order stands.

        Raises:
            Refusal: the caller has no such order, or too much is under way.
            Unavailable: the views do not answer.
        """
        with self._door.call(caller.principal):
            asked, stands = await self._of(caller, request.order_id, caller.reading_patience)
        return GetOrderResponse(order=_joined(request.order_id, asked, stands))

    async def list_(self, caller: Caller, request: ListOrdersRequest) -> ListOrdersResponse:
        """The caller's newest orders, newest first.

        Raises:
            Refusal: too much is under way.
            Unavailable: the views do not answer.
        """
        with self._door.call(caller.principal):
            rows = await self._views.newest(caller.principal, caller.knowing, request.page_size or PAGE, caller.reading_patience)
        return ListOrdersResponse(orders=[_joined(asked.order_id, asked, stands) for asked, stands in rows])

    async def cancel(self, caller: Caller, request: CancelOrderRequest) -> CancelOrderResponse:
        """Take an order back: raise the wish and wait for its decision, which is not ours. A wish that was decided is not raised again.

        Raises:
            Refusal: the caller has no such order, or too much is under way.
            Unavailable: the views or the log do not answer, nothing was done.
        """
        until = _until(caller, request)
        with self._door.call(caller.principal), self._waiters.waiter(request.order_id, _decides) as waiter:
            order = await self._found(caller, request.order_id, waiter, until)
            if not order.cancellation_decided():
                wish = OrderCancellationRequested(order_id=request.order_id, customer_id=caller.principal)
                raised = self._raise_soon(wish, f"{request.order_id}:cancel", caller, waiter)
                while not order.cancellation_decided() and await order.more(max(until, raised.patience)):
                    raised.check()
                caller.knowing.wrote(raised.position or {})
            # The refusal may be heard before the answer it speaks of is known here.
            while order.cancellation_decided() and not order.answered and await order.more(until):
                pass
        undecided = not order.cancellation_decided()
        stands = _joined(order.order_id, order.request, order.order)
        refused = not undecided and stands.status != OrderStatus.ORDER_STATUS_CANCELLED
        return CancelOrderResponse(order=stands, refused=refused, undecided=undecided)

    def close(self) -> None:
        """Let everybody go with what they know, and nobody in any more."""
        self._door.closed = True
        self._waiters.close()

    def _requested(self, order_id: str, fingerprint: str, caller: Caller, request: PlaceOrderRequest) -> OrderRequested:
        event = OrderRequested(
            order_id=order_id,
            customer_id=caller.principal,
            lines=[RequestedLine(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price) for line in request.lines],
            delivery_zone=request.delivery_zone,
            fingerprint=fingerprint,
        )
        event.expires_at.FromDatetime(self._now() + self._answer_within)
        return event

    def _raise_soon(self, event: Message, request_id: str, caller: Caller, waiter: Waiter[Heard]) -> _Raised:
        """Append an event, whether or not the caller stays: it may be in the log already when he leaves."""
        order_id = request_id.partition(":")[0]
        task = asyncio.ensure_future(
            self._raise(
                event,
                request_id=request_id,
                correlation_id=order_id,
                traceparent=caller.traceparent,
                after=caller.knowing.at_least,
            ),
        )
        self._raising.add(task)

        def settled(done: asyncio.Task[Mapping[Place, int]]) -> None:
            self._raising.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                log.warning("not acknowledged", order_id=order_id, said=event.DESCRIPTOR.name, error=str(error))
            waiter.tell(Signal.SETTLED)

        task.add_done_callback(settled)
        return _Raised(task)

    async def _found(self, caller: Caller, order_id: str, waiter: Waiter[Heard], until: float | None = None) -> Following:
        order = Following(order_id, self._views, waiter, caller.knowing)
        wait_s = caller.reading_patience if until is None else max(until - asyncio.get_running_loop().time(), 0.0)
        order.know(*await self._of(caller, order_id, wait_s))
        return order

    async def _of(self, caller: Caller, order_id: str, wait_s: float) -> tuple[RequestRow | None, OrderRow | None]:
        """Both rows of the caller's order, knowing what the caller demands within `wait_s` seconds; that a view does not have it yet is not
        taken for its absence."""
        asked, stands = await self._views.find(order_id, caller.knowing, wait_s=wait_s)
        if asked is None and stands is None:
            asked = await self._views.late(order_id)
        customers = {row.customer_id for row in (asked, stands) if row is not None and row.customer_id}
        if customers != {caller.principal}:
            raise unknown_order(order_id)
        return asked, stands


def _decides(heard: Heard) -> bool:
    """Whether this is what all but watchers wait for."""
    return is_answer(heard.event) or isinstance(heard.event, OrderCancellationRefused)


def is_answer(event: Message) -> bool:
    """Whether this is the answer of an order."""
    return isinstance(event, OrderConfirmed | OrderRejected | OrderCancelled)


class _Raised:
    """An event on its way into the log.

    Attributes:
        patience: until when to wait for its acknowledgement at least, on the event loop's clock; -inf once it is settled.
    """

    def __init__(self, task: asyncio.Task[Mapping[Place, int]]) -> None:
        self._task = task
        self._since = asyncio.get_running_loop().time()

    @property
    def patience(self) -> float:
        return -math.inf if self._task.done() else self._since + ACKNOWLEDGED_S

    @property
    def refused(self) -> BaseException | None:
        """Why the event is not in the log and will not be; None if it is, may be, or may still get there."""
        error = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        return None if isinstance(error, Unconfirmed) else error

    def check(self) -> None:
        """Go on if the event is in the log, may be, or may still get there.

        Raises:
            Unavailable: it is not, and will not be.
        """
        if (error := self.refused) is not None:
            raise error

    @property
    def position(self) -> Mapping[Place, int] | None:
        """The position after the event; None if it is not known."""
        if self._task.done() and not self._task.cancelled() and self._task.exception() is None:
            return self._task.result()
        return None


def _until(caller: Caller, request: PlaceOrderRequest | AwaitOrderRequest | CancelOrderRequest) -> float:
    return asyncio.get_running_loop().time() + caller.patience(request.wait if request.HasField("wait") else None)


def _row(event: OrderRequested | None) -> RequestRow | None:
    """What the view will hold of a request, as far as it is known already."""
    if event is None:
        return None
    return RequestRow(lines=event.lines, total=view.total(event.lines), delivery_zone=event.delivery_zone)


def _step(order: Following) -> int:
    """How far an order is, as WatchOrder counts."""
    stands = order.order
    if stands is None or not stands.standing:
        return 1
    if view.answered(stands):
        return 5
    return 2 + stands.reserved + stands.paid


def _joined(order_id: str, asked: RequestRow | None, stands: OrderRow | None) -> Order:
    """An order as its customer sees it, from what was asked and where it stands."""
    order = Order(order_id=order_id, status=OrderStatus.ORDER_STATUS_PENDING)
    if asked is not None:
        for line in asked.lines:
            order.lines.add(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price)
        order.total.CopyFrom(asked.total)
        order.delivery_zone = asked.delivery_zone
        if asked.HasField("requested_at"):
            order.requested_at.CopyFrom(asked.requested_at)
    if stands is not None:
        order.status = STATUS.get(stands.standing, OrderStatus.ORDER_STATUS_PENDING)
        order.rejection_reason = REASON.get(stands.rejection_reason, OrderRejectionReason.ORDER_REJECTION_REASON_UNSPECIFIED)
        order.rejected_skus.extend(stands.skus)
        order.reserved = stands.reserved
        order.paid = stands.paid
        if stands.HasField("answered_at"):
            order.answered_at.CopyFrom(stands.answered_at)
    return order

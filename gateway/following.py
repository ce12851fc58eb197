"""One order, followed: what the gateway's views know of it and what it hears while somebody waits."""

from __future__ import annotations

import asyncio
import math
from typing import TypeAlias

import structlog
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow
from retail.ordering.v1.order_pb2 import (
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
)

from backbone.declare import Reader
from backbone.errors import DataLoss, Unavailable
from gateway import view
from gateway.awaiting import Signal, Waiter

Step: TypeAlias = OrderValidated | OrderReserved | OrderPaid | OrderConfirmed | OrderRejected | OrderCancelled | OrderCancellationRefused

# A read of two rows takes a millisecond; a Redis that takes this long is down.
LOOK_S = 0.5
# After a look that failed nobody looks for so long who can do without.
REST_S = 1.0
# The last look before PENDING: what the client still waits for is the way back.
LAST_LOOK_S = 0.1
# While somebody waits, the view is looked at again after this and then after twice as long each time: an answer that was given before
# the waiter was there, and that the view did not have yet, is not told again.
AGAIN_S = 0.5

log = structlog.get_logger()


class Views:
    """The gateway's own views."""

    def __init__(self, requests: Reader[RequestRow], orders: Reader[OrderRow]) -> None:
        self._requests = requests
        self._orders = orders
        self._rest_until = -math.inf

    @property
    def resting(self) -> bool:
        """Whether the last look failed, a moment ago."""
        return asyncio.get_running_loop().time() < self._rest_until

    async def find(self, order_id: str, within_s: float = LOOK_S) -> tuple[RequestRow | None, OrderRow | None]:
        """Both rows of an order.

        Raises:
            Unavailable: they cannot be read now.
        """
        try:
            async with asyncio.timeout(within_s):
                found = await self._requests.get(order_id), await self._orders.get(order_id)
        except (TimeoutError, Unavailable) as error:
            self._rest_until = asyncio.get_running_loop().time() + REST_S
            raise Unavailable(str(error) or "the gateway's views do not answer") from error
        self._rest_until = -math.inf
        return found

    async def newest(self, customer_id: str, limit: int) -> list[tuple[RequestRow, OrderRow | None]]:
        """A customer's newest orders, newest first.

        Raises:
            Unavailable: they cannot be read now.
        """
        try:
            async with asyncio.timeout(LOOK_S):
                requests = await self._requests.newest(view.NEWEST, customer_id, limit)
                orders = await self._orders.get_many([request.order_id for request in requests])
        except TimeoutError:
            raise Unavailable("the gateway's views do not answer") from None
        return [(request, orders.get(request.order_id)) for request in requests]


class Following:
    """What is known of one order while somebody waits for it.

    Attributes:
        request: what was asked, if known.
        order: where it stands, if known.
    """

    def __init__(self, order_id: str, views: Views, waiter: Waiter[Step]) -> None:
        self.order_id = order_id
        self.request: RequestRow | None = None
        self.order: OrderRow | None = None
        self._views = views
        self._waiter = waiter
        self._pause = AGAIN_S
        self._again_at = asyncio.get_running_loop().time() + self._pause

    @property
    def fingerprint(self) -> str:
        """Digest of what was asked; empty if nobody is known to have asked."""
        return (self.request.fingerprint if self.request else "") or (self.order.fingerprint if self.order else "")

    @property
    def customer_id(self) -> str:
        """Whose order it is; empty if that is not known."""
        return (self.request.customer_id if self.request else "") or (self.order.customer_id if self.order else "")

    @property
    def answered(self) -> bool:
        """Whether the order has its answer."""
        return self.order is not None and view.answered(self.order)

    def cancellation_decided(self) -> bool:
        """Whether a wish to cancel was granted or refused."""
        return self.order is not None and (
            self.order.cancellation_refusal != 0 or self.order.standing == OrderStanding.ORDER_STANDING_CANCELLED
        )

    async def look(self, within_s: float = LOOK_S) -> None:
        """Learn what the views know.

        Raises:
            Unavailable: they cannot be read now.
        """
        self.know(*await self._views.find(self.order_id, within_s))

    def know(self, request: RequestRow | None, order: OrderRow | None) -> None:
        """Take in what the views knew a moment ago."""
        self.request = request or self.request
        if order is not None:
            self.order = view.merged(order, self.order) if self.order is not None else order

    async def look_if_possible(self, within_s: float = LOOK_S) -> None:
        """Learn what the views know, or go on without: the answer comes by listening too."""
        if self._views.resting:
            return
        try:
            await self.look(within_s)
        except (Unavailable, DataLoss) as error:
            log.warning("views unavailable, listening only", order_id=self.order_id, error=str(error))

    async def more(self, until: float) -> bool:
        """Wait until something may be new.

        Args:
            until: when to give up, on the event loop's clock.

        Returns:
            False when there is nothing to wait for any more: the time is over, or this door closes.
        """
        news = await self._waiter.next(min(until, self._again_at))
        if news is Signal.CLOSING:
            return False
        if news is None or news is Signal.LOOK_AGAIN:
            now = asyncio.get_running_loop().time()
            if news is None:
                self._pause *= 2
            self._again_at = now + self._pause
            await self.look_if_possible(LOOK_S if now < until else LAST_LOOK_S)
            return now < until
        if isinstance(news, Signal):
            return True
        self.order = view.after(self.order, news)
        return True

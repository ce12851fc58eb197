"""One order, followed: what the gateway's views know of it and what it hears while somebody waits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow

from backbone.declare import Asking, Heard, Reader, View
from backbone.errors import DataLoss, NotYet, Unavailable
from backbone.positions import Vector
from gateway import view
from gateway.awaiting import Signal, Waiter
from gateway.freshness import Knowing

# A read of two rows takes a millisecond; a Redis that takes this long is down.
LOOK_S = 0.5
# A view is milliseconds behind; one that needs longer than this to catch up is being rebuilt or stuck.
LATE_S = 3.0
# After a look that failed nobody looks for so long who can do without.
REST_S = 1.0
# The last look before PENDING: what the client still waits for is the way back.
LAST_LOOK_S = 0.1
# While somebody waits, the view is looked at again after this and then after twice as long each time: an answer that was given before
# the waiter was there, and that the view did not have yet, is not told again.
AGAIN_S = 0.5

log = structlog.get_logger()


class Views:
    """The gateway's own views.

    Args:
        asking: makes a question to both of so many seconds, held to these positions.
        requests: what was asked.
        orders: where orders stand.
        requests_of_now: a reader of requests that knows all that is in the log when it is called for.
    """

    def __init__(
        self,
        asking: Callable[[float, Vector], Asking],
        requests: View[RequestRow],
        orders: View[OrderRow],
        requests_of_now: Callable[[], Awaitable[Reader[RequestRow]]],
    ) -> None:
        self._asking = asking
        self._requests = requests
        self._orders = orders
        self._requests_of_now = requests_of_now
        self._rest_until = -math.inf

    @property
    def resting(self) -> bool:
        """Whether the last look failed, a moment ago."""
        return asyncio.get_running_loop().time() < self._rest_until

    async def find(
        self, order_id: str, knowing: Knowing, within_s: float = LOOK_S, *, wait_s: float | None = None, if_asked: bool = False
    ) -> tuple[RequestRow | None, OrderRow | None]:
        """Both rows of an order.

        Args:
            knowing: learns what the answer knows.
            within_s: how long it may take.
            wait_s: how long to wait for what must be known; without, nothing must be.
            if_asked: where the order stands is only looked up if it is known that somebody asked for it.

        Raises:
            Unavailable: they cannot be read now; NotYet if they do not know enough.
            NotComparable: nobody can tell whether they do.
        """
        asking, patience_s = self._question(knowing, within_s, wait_s)
        requests, orders = asking.reader(self._requests), asking.reader(self._orders)

        async def both() -> tuple[RequestRow | None, OrderRow | None]:
            request = await requests.get(order_id)
            return request, await orders.get(order_id) if request is not None or not if_asked else None

        try:
            async with asyncio.timeout(patience_s):
                request, order = await asking.answer(both)
        except NotYet:
            raise
        except (TimeoutError, Unavailable) as error:
            if within_s >= LOOK_S:
                self._rest_until = asyncio.get_running_loop().time() + REST_S
            raise Unavailable(str(error) or "the gateway's views do not answer") from error
        self._rest_until = -math.inf
        knowing.read(asking)
        return request, order

    def _question(self, knowing: Knowing, within_s: float, wait_s: float | None) -> tuple[Asking, float]:
        """A question, and how long its answer may take: only what must be known is waited for."""
        if wait_s is None or not knowing.at_least:
            return self._asking(within_s, {}), within_s
        return self._asking(wait_s, knowing.at_least), within_s + wait_s

    async def late(self, order_id: str) -> RequestRow | None:
        """What was asked, found also when the view is behind; None if nobody has asked.

        Raises:
            Unavailable: the view does not catch up in time, so that nobody knows.
        """
        try:
            async with asyncio.timeout(LATE_S):
                return await (await self._requests_of_now()).get(order_id)
        except TimeoutError:
            raise Unavailable("the gateway's views are behind") from None

    async def newest(self, customer_id: str, knowing: Knowing, limit: int, wait_s: float) -> list[tuple[RequestRow, OrderRow | None]]:
        """A customer's newest orders, newest first.

        Args:
            knowing: what the answer must know; learns what it knows.
            wait_s: how long to wait for that.

        Raises:
            Unavailable: they cannot be read now; NotYet if they do not know enough.
            NotComparable: nobody can tell whether they do.
        """
        asking, patience_s = self._question(knowing, LOOK_S, wait_s)
        requests, orders = asking.reader(self._requests), asking.reader(self._orders)

        async def both() -> list[tuple[RequestRow, OrderRow | None]]:
            asked = await requests.newest(view.NEWEST, customer_id, limit)
            stands = await orders.get_many([request.order_id for request in asked])
            return [(request, stands.get(request.order_id)) for request in asked]

        try:
            async with asyncio.timeout(patience_s):
                found = await asking.answer(both)
        except TimeoutError:
            raise Unavailable("the gateway's views do not answer") from None
        knowing.read(asking)
        return found


class Following:
    """What is known of one order while somebody waits for it.

    Attributes:
        request: what was asked, if known.
        order: where it stands, if known.
    """

    def __init__(self, order_id: str, views: Views, waiter: Waiter[Heard], knowing: Knowing) -> None:
        self.order_id = order_id
        self.request: RequestRow | None = None
        self.order: OrderRow | None = None
        self._views = views
        self._waiter = waiter
        self._knowing = knowing
        self._pause = AGAIN_S
        self._again_at = asyncio.get_running_loop().time() + self._pause

    @property
    def fingerprint(self) -> str:
        """Digest of what was asked; empty if nobody is known to have asked."""
        return (self.request.fingerprint if self.request else "") or (self.order.fingerprint if self.order else "")

    @property
    def answered(self) -> bool:
        """Whether the order has its answer."""
        return self.order is not None and view.answered(self.order)

    def cancellation_decided(self) -> bool:
        """Whether a wish to cancel was granted or refused."""
        return self.order is not None and (
            self.order.cancellation_refusal != 0 or self.order.standing == OrderStanding.ORDER_STANDING_CANCELLED
        )

    def know(self, request: RequestRow | None, order: OrderRow | None) -> None:
        """Take in what the views knew a moment ago."""
        self.request = request or self.request
        if order is not None:
            self.order = view.merged(order, self.order) if self.order is not None else order

    async def look(self, within_s: float = LOOK_S, *, if_asked: bool = False) -> None:
        """Learn what the views know, or go on without: the answer comes by listening too. Arguments as for `Views.find`."""
        if self._views.resting:
            return
        try:
            self.know(*await self._views.find(self.order_id, self._knowing, within_s, if_asked=if_asked))
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
            await self.look(LOOK_S if now < until else LAST_LOOK_S)
            return now < until
        if isinstance(news, Signal):
            return True
        self.order = view.after(self.order, news.event, news.at)
        self._knowing.heard(news.position)
        return True

"""Who waits for news of which order. Register first, then look, then wait: what is said in between is not missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Generic, TypeVar

News = TypeVar("News")

# An order has fewer than ten events; who is further behind than this reads the view instead.
BACKLOG = 32


class Signal(Enum):
    """What a waiter is told besides news."""

    LOOK_AGAIN = "something may have been missed: the view knows"
    SETTLED = "the log has acknowledged what was raised, or refused it"
    CLOSING = "this door closes: no more news here"


class Waiter(Generic[News]):
    """One who waits for news of one order.

    Args:
        wakes: whether news are worth waking up for; others are kept and read together with the next that are.
    """

    __slots__ = ("_backlog", "_closing", "_sleeper", "_wakes")

    def __init__(self, wakes: Callable[[News], bool]) -> None:
        self._wakes = wakes
        self._backlog: deque[News | Signal] = deque()
        self._closing = False
        self._sleeper: asyncio.Future[None] | None = None

    def tell(self, news: News | Signal) -> None:
        """Hand over news; who has too much unread is told to look again instead."""
        if news is Signal.CLOSING:
            self._closing = True
        elif len(self._backlog) < BACKLOG:
            self._backlog.append(news)
        else:
            self._backlog.clear()
            self._backlog.append(Signal.LOOK_AGAIN)
            self._wake()
            return
        if isinstance(news, Signal) or self._wakes(news):
            self._wake()

    async def next(self, until: float) -> News | Signal | None:
        """The oldest news not read yet; waits for it.

        Args:
            until: when to give up, on the event loop's clock.

        Returns:
            None if there was none in time; `Signal.CLOSING` from the moment the door closes.
        """
        if not self._backlog and not self._closing:
            loop = asyncio.get_running_loop()
            if until <= loop.time():
                return None
            self._sleeper = loop.create_future()
            alarm = loop.call_at(until, self._wake)
            try:
                await self._sleeper
            finally:
                alarm.cancel()
                self._sleeper = None
        if self._backlog:
            return self._backlog.popleft()
        return Signal.CLOSING if self._closing else None

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)


class Waiters(Generic[News]):
    """Who waits for news of which order, at this door; as many as calls are let in."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiter[News]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def waiter(self, order_id: str, wakes: Callable[[News], bool] = lambda _: True) -> Iterator[Waiter[News]]:
        """Wait for news of an order, until the context is left, however it is left.

        Args:
            wakes: which news are worth waking up for; all if not given.
        """
        waiter: Waiter[News] = Waiter(wakes)
        self._waiting.setdefault(order_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            others = self._waiting[order_id]
            others.discard(waiter)
            if not others:
                del self._waiting[order_id]

    def heard(self, order_id: str, news: News) -> None:
        """Tell all who wait for this order."""
        for waiter in self._waiting.get(order_id, ()):
            waiter.tell(news)

    def look_again(self) -> None:
        """Tell everybody that something may have been missed."""
        self._tell_all(Signal.LOOK_AGAIN)

    def close(self) -> None:
        """Tell everybody to go with what they know."""
        self._tell_all(Signal.CLOSING)

    def _tell_all(self, signal: Signal) -> None:
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.tell(signal)

"""Who waits is told: news, that something was missed, that the door closes; and nobody who left stays in the books."""

from __future__ import annotations

import asyncio

import pytest

from gateway.awaiting import BACKLOG, Signal, Waiters


def soon(seconds: float = 5.0) -> float:
    """A moment on the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


async def test_news_that_comes_before_the_wait_is_kept() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a") as waiter:
        waiters.heard("a", "one")
        waiters.heard("b", "not mine")
        waiters.heard("a", "two")
        assert [await waiter.next(soon()), await waiter.next(soon()), await waiter.next(soon(0))] == ["one", "two", None]


async def test_news_wakes_everybody_who_waits_for_the_order() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a") as one, waiters.waiter("a") as two:
        waiting = [asyncio.ensure_future(waiter.next(soon())) for waiter in (one, two)]
        await asyncio.sleep(0)
        waiters.heard("a", "news")
        assert [await each for each in waiting] == ["news", "news"]


async def test_a_wait_ends_at_its_deadline() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a") as waiter:
        started = asyncio.get_running_loop().time()
        assert await waiter.next(started + 0.05) is None
        assert asyncio.get_running_loop().time() - started >= 0.05


async def test_after_a_stall_everybody_is_told_to_look_again() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a") as one, waiters.waiter("b") as two:
        waiters.look_again()
        assert [await one.next(soon()), await two.next(soon())] == [Signal.LOOK_AGAIN] * 2


async def test_a_closing_door_is_told_after_the_news_and_for_good() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a") as waiter:
        waiters.heard("a", "news")
        waiters.close()
        assert [await waiter.next(soon()) for _ in range(3)] == ["news", Signal.CLOSING, Signal.CLOSING]


async def test_news_that_are_not_worth_waking_are_read_with_those_that_are() -> None:
    waiters: Waiters[str] = Waiters()
    with waiters.waiter("a", lambda news: news == "answer") as waiter:
        waiting = asyncio.ensure_future(waiter.next(soon()))
        await asyncio.sleep(0)
        waiters.heard("a", "step")
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiters.heard("a", "answer")
        assert [await waiting, await waiter.next(soon(0)), await waiter.next(soon(0))] == ["step", "answer", None]


async def test_a_waiter_that_does_not_read_is_told_to_look_instead() -> None:
    waiters: Waiters[int] = Waiters()
    with waiters.waiter("a") as waiter:
        for number in range(BACKLOG + 1):
            waiters.heard("a", number)
        assert [await waiter.next(soon()), await waiter.next(soon(0))] == [Signal.LOOK_AGAIN, None]


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    waiters: Waiters[str] = Waiters()

    async def wait() -> None:
        with waiters.waiter("a") as waiter:
            await waiter.next(soon())

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert len(waiters) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(waiters) == 0
    waiters.heard("a", "nobody listens")
    with waiters.waiter("b"):
        pass

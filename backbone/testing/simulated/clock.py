"""Virtual time: a clock that only moves when it is told to, the loops under it, and asyncio under it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from random import Random
from selectors import BaseSelector, SelectorKey
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import structlog

from backbone.errors import Unavailable, Unconfirmed, WorkerEnded

P = ParamSpec("P")
T = TypeVar("T")

EPOCH_S = 1_772_452_800.0
"""When a simulation begins, in seconds since the epoch: 2026-03-02 12:00 UTC."""

ENDS_WITHIN = 200
"""Turns of its event loop within which a task that was cancelled must end."""


class Clock:
    """Stands in for the module `time`.

    Attributes:
        now_s: seconds since the simulation began.
        skew_s: how far the wall clock of the workers is ahead of the log's.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.skew_s = 0.0

    def monotonic(self) -> float:
        """Seconds; never goes back."""
        return self.now_s

    def time(self) -> float:
        """What a worker takes for now, in seconds since the epoch; may jump."""
        return EPOCH_S + self.now_s + self.skew_s

    def time_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self.time() * 1e9)

    def log_ms(self) -> int:
        """The clock of append times, in milliseconds since the epoch; never jumps."""
        return int((EPOCH_S + self.now_s) * 1000)


class InTurn:
    """Stands in for `OwnThread`: calls functions in the event loop's own thread, other tasks run before and after."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it."""
        await asyncio.sleep(0)
        try:
            return function(*args, **kwargs)
        except (Unavailable, Unconfirmed) as error:
            raise WorkerEnded(f"the log failed: {error}") from error

    async def last(self, function: Callable[[], T]) -> T:
        """Call it as the last thing."""
        return await self(function)


@contextmanager
def virtual(clock: Clock, lot: Random) -> Iterator[None]:
    """Put every loop under a virtual clock and a drawn chance, with all of its calls in this one thread; nothing is logged meanwhile."""
    kept: list[tuple[Any, str, Any]] = []
    stand_ins = {"time": (time, clock), "random": (sys.modules["random"], lot), "OwnThread": (None, InTurn)}
    for name, module in list(sys.modules.items()):
        if not name.startswith("backbone.loops."):
            continue
        for attribute, (original, stand_in) in stand_ins.items():
            found = getattr(module, attribute, None)
            if found is not None and (original is None or found is original) and not name.endswith("own_thread"):
                kept.append((module, attribute, found))
                setattr(module, attribute, stand_in)
    logging_before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**logging_before)
        for module, attribute, found in kept:
            setattr(module, attribute, found)


class _Blind(BaseSelector):
    """Watches nothing and never waits."""

    def __init__(self) -> None:
        self._keys: dict[Any, SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = self._keys[fileobj] = SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        return []

    def get_map(self) -> Any:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a clock's and which runs one turn when it is told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Blind())
        self._clock = clock

    def time(self) -> float:
        """Virtual seconds."""
        return self._clock.now_s

    def _write_to_self(self) -> None:
        """Nobody sleeps in `select`, so nobody is woken."""

    def turn(self) -> None:
        """Run what is ready, also from within a task of another loop."""
        outer = events._get_running_loop()
        events._set_running_loop(None)
        try:
            self.call_soon(self.stop)
            self.run_forever()
        finally:
            events._set_running_loop(outer)


class Edge:
    """An asynchronous edge, driven turn by turn like a loop.

    Args:
        run: what it does until the event is set.
        moved: counts what it did so far; tells whether a step did anything.
    """

    def __init__(self, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], clock: Clock, moved: Callable[[], int]) -> None:
        self._loop = VirtualLoop(clock)
        self._moved = moved
        self._stop = asyncio.Event()
        self._main = self._loop.create_task(run(self._stop))

    def step(self, timeout_s: float) -> bool:
        """One turn.

        Returns:
            Whether it did anything.

        Raises:
            BaseException: whatever ended it.
        """
        before = self._moved()
        if not self._main.done():
            self._loop.turn()
        if self._main.done() and (error := self._main.exception()) is not None:
            raise error
        return self._moved() != before

    @property
    def ended(self) -> bool:
        """Whether it is through."""
        return self._main.done()

    def ask_to_stop(self) -> None:
        """Let it finish; it takes some more steps."""
        self._stop.set()

    def close(self) -> None:
        """Let go of what is left of it; to be called once its ports are dead, or when it has ended."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        for _ in range(ENDS_WITHIN):
            if not asyncio.all_tasks(self._loop):
                break
            self._loop.turn()
        with suppress(BaseException):
            self._main.exception()
        self._loop.close()

"""The one thread on which an asynchronous edge makes its blocking calls of the log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

from backbone.errors import Unavailable, Unconfirmed, WorkerEnded

P = ParamSpec("P")
T = TypeVar("T")

HANGS_S = 120.0
"""What takes longer hangs in a client library (every call of ours is bounded, and the longest, a takeover behind another worker's open
transaction, by 22 s)."""

LAST_S = 5.0
"""How long an edge that ends waits for its last call, in seconds; also for one that is under way before it."""

JOIN_S = 1.0
"""How long a thread has to end that has nothing to do any more, in seconds."""


class _Call(NamedTuple):
    """What is to be called, and who waits for it."""

    function: Callable[[], Any]
    answered: Callable[[Any, BaseException | None], None]


class OwnThread:
    """Calls functions one after the other on a thread of its own; the event loop is woken once for each call.

    A consumer and a transactional producer belong to one thread, and one that is called in turns needs no locks: between two calls
    everything may be touched by the event loop. A call that hangs is left behind with its thread, which does not keep the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lost = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._calls.put(None)
        if not self._lost:
            self._thread.join(JOIN_S)

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it there.

        Raises:
            WorkerEnded: the log did not do what it was asked, or the call hangs: no edge goes on after that, its slot starts again.
        """
        return await self._call(lambda: function(*args, **kwargs), function, HANGS_S)

    async def last(self, function: Callable[[], T]) -> T:
        """Call it there as the last thing, before the thread ends.

        Raises:
            WorkerEnded: as ever; it or what is still under way takes too long.
        """
        return await self._call(function, function, LAST_S)

    async def _call(self, function: Callable[[], T], named: Callable[..., T], within_s: float) -> T:
        if self._lost:
            raise WorkerEnded(self._lost)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        def give_up() -> None:
            self._lost = f"{getattr(named, '__name__', 'a call').strip('_')} on thread {self._name} has taken {within_s:g} s: it hangs"
            settle(None, WorkerEnded(self._lost))

        def answered(result: Any, error: BaseException | None) -> None:
            with suppress(RuntimeError):  # the event loop may have ended meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        hangs = loop.call_later(within_s, give_up)
        self._calls.put(_Call(function, answered))
        try:
            return await answer
        except (Unavailable, Unconfirmed) as error:
            raise WorkerEnded(f"the log failed: {error}") from error
        finally:
            hangs.cancel()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                result = call.function()
            except BaseException as error:  # noqa: BLE001 - it is raised where it was called
                call.answered(None, error)
            else:
                call.answered(result, None)

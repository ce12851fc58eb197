"""The one thread on which an asynchronous edge makes its blocking calls of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from backbone.errors import Unavailable, Unconfirmed, WorkerEnded

P = ParamSpec("P")
T = TypeVar("T")


class OwnThread:
    """Calls functions one after the other on a thread of its own; the event loop is woken once for each call.

    A consumer and a transactional producer belong to one thread, and one that is called in turns needs no locks: between two calls
    everything may be touched by the event loop.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it there.

        Raises:
            WorkerEnded: the log did not do what it was asked: no edge goes on after that, its slot starts again.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except (Unavailable, Unconfirmed) as error:
            raise WorkerEnded(f"the log failed: {error}") from error

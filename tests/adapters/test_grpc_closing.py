"""What becomes of calls when a gRPC server closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from backbone.adapters.grpc_closing import Closing

DRAIN_S = 0.3
INTERRUPTED = (grpc.StatusCode.UNAVAILABLE, "interrupted; call again")


class Server:
    """A server whose calls end when they are told to."""

    def __init__(self) -> None:
        self.closing = Closing()
        self.server = grpc.aio.server(interceptors=(self.closing,))
        self.go = asyncio.Event()
        self._entered = asyncio.Semaphore(0)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Ask": grpc.unary_unary_rpc_method_handler(self._ask),
            "Lose": grpc.unary_unary_rpc_method_handler(self._lose),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))

    async def open(self) -> Any:
        """A channel to it, once it listens."""
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def until_entered(self, count: int) -> None:
        """Wait until so many calls are under way."""
        async with asyncio.timeout(5.0):
            for _ in range(count):
                await self._entered.acquire()

    async def _ask(self, request: bytes, _: Any) -> bytes:
        self._entered.release()
        await self.go.wait()
        return request

    async def _lose(self, request: bytes, _: Any) -> bytes:
        awaited: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        awaited.cancel()
        return await awaited

    async def _watch(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        self._entered.release()
        yield request
        await self.go.wait()


async def told(call: Any) -> Any:
    """The status a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()


async def all_of(stream: Any) -> list[bytes]:
    """Everything that comes in a stream."""
    return [one async for one in stream]


async def test_a_call_that_outlasts_the_server_is_told_that_it_closes() -> None:
    """Not CANCELLED, which no client would try again."""
    server = Server()
    async with await server.open() as channel:
        asked = channel.unary_unary("/test.Service/Ask")(b"x", timeout=20)
        watched = all_of(channel.unary_stream("/test.Service/Watch")(b"x", timeout=20))
        ends = asyncio.gather(told(asked), told(watched))
        await server.until_entered(2)
        await server.closing.stop(server.server, DRAIN_S)
        assert list(await ends) == [INTERRUPTED, INTERRUPTED]


async def test_a_call_that_is_cancelled_inside_is_told_so() -> None:
    """Gone wrong in what the handler waits for, or in an event loop that ends: the client need not wait for its own deadline."""
    server = Server()
    async with await server.open() as channel:
        asked = asyncio.create_task(told(channel.unary_unary("/test.Service/Lose")(b"x", timeout=20)))
        async with asyncio.timeout(5.0):
            assert await asked == INTERRUPTED
        await server.closing.stop(server.server, DRAIN_S)


async def test_a_call_that_ends_in_time_is_answered() -> None:
    server = Server()
    async with await server.open() as channel:
        asked = channel.unary_unary("/test.Service/Ask")(b"x", timeout=20)
        await server.until_entered(1)
        stopping = asyncio.create_task(server.closing.stop(server.server, 20.0))
        server.go.set()
        assert await asked == b"x"
        await stopping


async def test_a_client_that_leaves_ends_its_call_and_no_other() -> None:
    server = Server()
    async with await server.open() as channel:
        left, stays = (channel.unary_unary("/test.Service/Ask")(b"x", timeout=20) for _ in range(2))
        await server.until_entered(2)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        server.go.set()
        assert await stays == b"x"
        await server.closing.stop(server.server, DRAIN_S)

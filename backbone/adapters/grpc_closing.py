"""No call ends without a word of the server. Left to gRPC, a call whose handler is cancelled, as when the event loop ends, gets CANCELLED,
as if the client had left, or no answer at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

SPOKEN_TO = 2 / 3
"""The part of the drain after which calls are let go; the rest is for telling them."""

OWN = "/grpc."
"""Health and reflection look after themselves."""

Context = grpc.aio.ServicerContext[Any, Any]


class Closing(grpc.aio.ServerInterceptor):
    """Ends what was cancelled by anybody but its client as UNAVAILABLE, and cancels what outlasts the server."""

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[Any]] = set()

    async def stop(self, server: grpc.aio.Server, drain_s: float) -> None:
        """Take no calls any more, wait for those under way, and let go what does not end within `drain_s` seconds."""
        stopping = asyncio.ensure_future(server.stop(drain_s))
        await asyncio.wait((stopping,), timeout=drain_s * SPOKEN_TO)
        for call in self._calls:
            call.cancel()
        await stopping

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Watch over each call with one request."""
        found = await continuation(handler_call_details)
        if found is None or found.request_streaming or handler_call_details.method.startswith(OWN):
            return found
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(found.unary_stream), found.request_deserializer, found.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(self._unary(found.unary_unary), found.request_deserializer, found.response_serializer)

    def _unary(self, answer: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def answered(request: Any, context: Context) -> Any:
            async with self._under_way(context):
                return await answer(request, context)

        return answered

    def _stream(self, answer: Callable[[Any, Context], AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def answered(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._under_way(context):
                async for one in answer(request, context):
                    yield one

        return answered

    @asynccontextmanager
    async def _under_way(self, context: Context) -> AsyncIterator[None]:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        try:
            yield
        except asyncio.CancelledError:
            if context.cancelled():  # the client left
                raise
            call.uncancel()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "interrupted; call again")
        finally:
            self._calls.discard(call)

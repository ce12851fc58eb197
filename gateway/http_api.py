"""The door for browsers and curl: the same API as Connect (JSON or protobuf over plain HTTP) and as gRPC-Web, streams among it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeVar

import structlog
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.request import RequestContext
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from protobuf.wkt import Any as AnyMessage
from retail.gateway.v1 import order_service_pb2 as api
from retail.gateway.v1.order_service_connect import OrderServiceASGIApplication

from backbone.errors import BackboneError
from backbone.http_server import http_server
from backbone.positions import AT_LEAST
from gateway import requests
from gateway.browsing import for_pages_of, without_native_grpc
from gateway.freshness import Tokens
from gateway.orders import Orders
from gateway.refusals import Refusal, refusal_of
from gateway.requests import MAX_MESSAGE_BYTES

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Context = RequestContext[Any, Any]

log = structlog.get_logger()


def serving(
    orders: Orders, tokens: Tokens, host: str, port: int, calls: int, origins: Sequence[str] = ()
) -> AbstractAsyncContextManager[str]:
    """An HTTP server for as long as the context is held; it yields its URL.

    Args:
        tokens: reads and writes positions.
        port: 0 takes a free one.
        calls: how many calls the door lets in; what is refused gets as many connections again.
        origins: whose pages may call besides the door's own.

    Raises:
        SettingsError: the port is taken.
    """
    codecs = [Checked(codec) for codec in google_protobuf_codecs()]
    app = OrderServiceASGIApplication(Browsers(orders, tokens), read_max_bytes=MAX_MESSAGE_BYTES, codecs=codecs)
    reached = for_pages_of(origins, without_native_grpc(_with_readable_headers(app)))
    return http_server(reached, host, port, at_once=2 * calls + 64)


def _with_readable_headers(app: Any) -> Any:
    """The application, without the headers that it could not decode and that mean nothing to us."""

    async def readable(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "headers": [header for header in scope["headers"] if header[1].isascii()]}, receive, send)

    return readable


class Checked:
    """A codec that tells the client in our words what is wrong with its bytes."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def name(self) -> str:
        """The content type it stands for."""
        return str(self._codec.name())

    def encode(self, message: Message) -> bytes:
        """The bytes of a response."""
        return bytes(self._codec.encode(message))

    def decode(self, data: bytes | bytearray, message_class: type[Request]) -> Request:
        """A request from its bytes."""
        try:
            requests.check_size(message_class, len(data))
            if self.name() == "json" and data.strip()[:1] != b"{":
                raise requests.unreadable(message_class, "a request in JSON is an object")
            return self._codec.decode(data, message_class)  # type: ignore[no-any-return]
        except (DecodeError, ParseError, UnicodeDecodeError, RecursionError) as error:
            if isinstance(error, ParseError):
                raise _told(requests.unreadable(message_class, str(error))) from error
            raise _told(requests.unreadable(message_class)) from error
        except Refusal as refusal:
            raise _told(refusal) from refusal


class Browsers:
    """The service as connectrpc wants it."""

    def __init__(self, orders: Orders, tokens: Tokens) -> None:
        self._orders = orders
        self._tokens = tokens

    async def place_order(self, request: api.PlaceOrderRequest, ctx: Context, /) -> api.PlaceOrderResponse:
        return await self._answer(self._orders.place, request, ctx)

    async def await_order(self, request: api.AwaitOrderRequest, ctx: Context, /) -> api.AwaitOrderResponse:
        return await self._answer(self._orders.await_, request, ctx)

    async def watch_order(self, request: api.WatchOrderRequest, ctx: Context, /) -> AsyncIterator[api.WatchOrderResponse]:
        try:
            caller = self._entered(request, ctx)
            async with aclosing(self._orders.watch(caller, request)) as steps:
                async for step in steps:
                    yield step
            _tell(ctx.response_trailers, self._tokens.told(caller.principal, caller.knowing))
        except (Refusal, BackboneError) as error:
            raise _told(error) from error

    async def get_order(self, request: api.GetOrderRequest, ctx: Context, /) -> api.GetOrderResponse:
        return await self._answer(self._orders.get, request, ctx)

    async def list_orders(self, request: api.ListOrdersRequest, ctx: Context, /) -> api.ListOrdersResponse:
        return await self._answer(self._orders.list_, request, ctx)

    async def cancel_order(self, request: api.CancelOrderRequest, ctx: Context, /) -> api.CancelOrderResponse:
        return await self._answer(self._orders.cancel, request, ctx)

    async def _answer(self, answer: Callable[[requests.Caller, Request], Awaitable[Response]], request: Request, ctx: Context) -> Response:
        try:
            caller = self._entered(request, ctx)
            response = await answer(caller, request)
        except (Refusal, BackboneError) as error:
            raise _told(error) from error
        _tell(ctx.response_headers, self._tokens.told(caller.principal, caller.knowing))
        return response

    def _entered(self, request: Message, ctx: Context) -> requests.Caller:
        time_left_s = None if ctx.timeout_ms is None else ctx.timeout_ms / 1000
        caller = requests.caller_of(ctx.request_headers, ctx.request_headers.getall(AT_LEAST), time_left_s, self._tokens)
        requests.check(request)
        return caller


def _tell(headers: MutableMapping[str, str], told: Sequence[tuple[str, str]]) -> None:
    for name, value in told:
        headers[name] = value


def _told(error: Refusal | BackboneError) -> ConnectError:
    refusal = error if isinstance(error, Refusal) else refusal_of(error)
    if refusal.reason == "DEFECT":
        log.error("defect", error=str(error), exc_info=error)
    details = [
        ErrorDetail(AnyMessage(type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=detail.SerializeToString()))
        for detail in refusal.details()
    ]
    return ConnectError(Code(code_pb2.Code.Name(refusal.code).lower()), refusal.text, details)

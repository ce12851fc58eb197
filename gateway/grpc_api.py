"""The door for programs: native gRPC with health and reflection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from retail.gateway.v1 import order_service_pb2 as api

from backbone.adapters.grpc_closing import Closing
from backbone.errors import BackboneError, SettingsError
from backbone.positions import AT_LEAST
from gateway import requests
from gateway.freshness import Tokens
from gateway.orders import Orders
from gateway.refusals import Refusal, refusal_of
from gateway.requests import MAX_MESSAGE_BYTES

SERVICE = api.DESCRIPTOR.services_by_name["OrderService"].full_name
# Who waits is let go before; what is left are reads, bounded far below this, and streams of health that never end.
DRAIN_S = 1.5

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

log = structlog.get_logger()


@dataclass(frozen=True)
class Programs:
    """The open gRPC server.

    Attributes:
        address: host:port.
    """

    address: str
    health: HealthServicer

    async def refuse_health(self) -> None:
        """Tell load balancers to go elsewhere."""
        await self.health.enter_graceful_shutdown()


@asynccontextmanager
async def serving(orders: Orders, tokens: Tokens, host: str, port: int, calls: int) -> AsyncIterator[Programs]:
    """A gRPC server for as long as the context is held.

    Args:
        tokens: reads and writes positions.
        port: 0 takes a free one.
        calls: how many calls the door lets in; what is refused, health and reflection get as many again before gRPC refuses unseen.

    Raises:
        SettingsError: the port is taken.
    """
    closing = Closing()
    server = grpc.aio.server(
        interceptors=(closing,),
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ),
        maximum_concurrent_rpcs=2 * calls + 64,
    )
    server.add_generic_rpc_handlers((_handlers(orders, tokens),))
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    try:
        chosen = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise SettingsError(f"GRPC_PORT={port} on {host} cannot be used: {error}; name another one, or 0 for any") from error
    await server.start()
    for name in ("", SERVICE):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield Programs(f"{host}:{chosen}", health)
    finally:
        await closing.stop(server, DRAIN_S)


def _handlers(orders: Orders, tokens: Tokens) -> grpc.GenericRpcHandler:
    """The service over raw bytes, so that what cannot be read is told to the client in our words."""
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "PlaceOrder": _unary(api.PlaceOrderRequest, orders.place, tokens),
            "AwaitOrder": _unary(api.AwaitOrderRequest, orders.await_, tokens),
            "WatchOrder": _stream(api.WatchOrderRequest, orders.watch, tokens),
            "GetOrder": _unary(api.GetOrderRequest, orders.get, tokens),
            "ListOrders": _unary(api.ListOrdersRequest, orders.list_, tokens),
            "CancelOrder": _unary(api.CancelOrderRequest, orders.cancel, tokens),
        },
    )


def _unary(
    kind: type[Request], answer: Callable[[requests.Caller, Request], Awaitable[Message]], tokens: Tokens
) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def answered(raw: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            caller, request = _entered(kind, raw, context, tokens)
            response = await answer(caller, request)
        except (Refusal, BackboneError) as error:
            await _refuse(context, error)
        context.set_trailing_metadata(tuple(tokens.told(caller.principal, caller.knowing)))
        return response.SerializeToString()

    return grpc.unary_unary_rpc_method_handler(answered)


def _stream(
    kind: type[Request], answer: Callable[[requests.Caller, Request], AsyncGenerator[Message]], tokens: Tokens
) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def answered(raw: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            caller, request = _entered(kind, raw, context, tokens)
            async with aclosing(answer(caller, request)) as steps:
                async for step in steps:
                    yield step.SerializeToString()
            context.set_trailing_metadata(tuple(tokens.told(caller.principal, caller.knowing)))
        except (Refusal, BackboneError) as error:
            await _refuse(context, error)

    return grpc.unary_stream_rpc_method_handler(answered)


def _entered(
    kind: type[Request], raw: bytes, context: grpc.aio.ServicerContext[bytes, bytes], tokens: Tokens
) -> tuple[requests.Caller, Request]:
    pairs = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    at_least = [value for key, value in pairs if key == AT_LEAST]
    caller = requests.caller_of(dict(pairs), at_least, context.time_remaining(), tokens)
    request = requests.read(kind, raw)
    requests.check(request)
    return caller, request


async def _refuse(context: grpc.aio.ServicerContext[bytes, bytes], error: Refusal | BackboneError) -> NoReturn:
    refusal = error if isinstance(error, Refusal) else refusal_of(error)
    if refusal.reason == "DEFECT":
        log.error("defect", error=str(error), exc_info=error)
    status = Status(code=refusal.code, message=refusal.text)
    for detail in refusal.details():
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    sent = rpc_status.to_status(status)
    await context.abort(sent.code, sent.details, sent.trailing_metadata)

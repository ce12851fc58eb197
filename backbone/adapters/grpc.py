"""Query views over gRPC: the server of a process's views, and the channel by which a sibling asks it.

Metadata of a question, all optional:

    backbone-at-least    positions the answer must know, as `positions.encode` writes them; several are merged
    backbone-elsewhere   "ignore" leaves positions on topics aside that no view asked folds; siblings say so, since they do not know
    backbone-cluster     the Kafka cluster of these positions; another one than ours is refused

and of its answer: `backbone-as-of` (how far the views had read), `backbone-position` (what the answer rests on; to be demanded elsewhere),
`backbone-age-ms` (so long ago the log held no more than the answer knows), `backbone-cluster`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from backbone.adapters.grpc_closing import Closing
from backbone.because import because
from backbone.contract import ResolvedService
from backbone.declare import On, Query
from backbone.errors import DataLoss, NotComparable, NotYet, SettingsError, Unavailable
from backbone.loops.serve import PATIENCE_S, Question, Views
from backbone.positions import AGE_MS, AS_OF, AT_LEAST, POSITION, decode, encode, merge
from backbone.rules import BreaksRules, check
from backbone.settings import Settings

ELSEWHERE, IGNORE = "backbone-elsewhere", "ignore"
CLUSTER = "backbone-cluster"
TRACEPARENT = "traceparent"
DOMAIN = "backbone"

ANSWER_S = 2.0
"""How long a sibling is waited for, in seconds."""

SPARE_S = 0.05
"""What is left of a caller's deadline when we say why there is no answer, in seconds."""

SHARED = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
"""Questions go in turn to all replicas whose health says that they serve."""

STOP_S = 2.0
LOOK_EVERY_S = 0.1
AT_ONCE = 1000
LARGEST_BYTES = 256 * 1024

Stub = TypeVar("Stub")
log = structlog.get_logger()


class Serve:
    """The gRPC server of a process's query views, with health and reflection.

    Args:
        services: whose RPCs are answered.
        views: their views.
        settings: host and port are used.
    """

    def __init__(self, services: Sequence[ResolvedService], views: Views, settings: Settings) -> None:
        self._services = services
        self._views = views
        self._host = settings.host
        self._port = settings.grpc_port
        self._cluster_id = settings.cluster_id
        self._answered = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Answer as long as the block runs. NOT_SERVING until every view has caught up.

        Yields:
            The address, host:port.

        Raises:
            SettingsError: the port cannot be used.
        """
        closing = Closing()
        server = grpc.aio.server(
            interceptors=(closing,),
            maximum_concurrent_rpcs=AT_ONCE,
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", LARGEST_BYTES)],
        )
        names = self._add_answers(server)
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        try:
            port = server.add_insecure_port(f"{self._host}:{self._port}")
        except RuntimeError as error:
            raise SettingsError(
                f"port {self._port} on {self._host} cannot be used for GRPC_PORT; name another one, or 0 for any"
            ) from error
        for name in ("", *names):
            await servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        opening = asyncio.create_task(self._open(servicer, ("", *names)))
        try:
            yield f"{self._host}:{port}"
        finally:
            opening.cancel()
            await servicer.enter_graceful_shutdown()
            await closing.stop(server, STOP_S)
            with contextlib.suppress(asyncio.CancelledError):
                await opening

    def status(self) -> dict[str, Any]:
        """How many questions were answered, and whether the views may be asked."""
        return {**self._views.status(), "answered": self._answered}

    async def _open(self, servicer: health.aio.HealthServicer, names: Sequence[str]) -> None:
        while True:
            if await self._views.caught_up():
                for name in names:
                    await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _question(self, context: grpc.aio.ServicerContext[Any, Any]) -> Question:
        """What the caller demands.

        Raises:
            ValueError: `backbone-at-least` is no position vector.
            _AnotherCluster: it is one of another log.
        """
        told = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
        cluster = dict(told).get(CLUSTER, "")
        if cluster and self._cluster_id and cluster != self._cluster_id:
            raise _AnotherCluster(f"these positions are of cluster {cluster}, these views are of {self._cluster_id}")
        at_least = merge(*(decode(value) for key, value in told if key == AT_LEAST))
        left = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
        within_s = PATIENCE_S if left is None else max(left - SPARE_S, 0.0)
        return self._views.question(within_s, at_least, ignores_elsewhere=dict(told).get(ELSEWHERE) == IGNORE)

    def _add_answers(self, server: grpc.aio.Server) -> list[str]:
        answers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for service in self._services:
            for method, line in service.rpcs.items():
                query = next(query for query in service.service.queries if line in query.table)
                _, name, rpc = method.split("/")
                answers.setdefault(name, {})[rpc] = grpc.unary_unary_rpc_method_handler(
                    self._answer(query, line, _response_of(name, rpc)),
                    request_deserializer=line.hears.FromString,
                    response_serializer=_serialize,
                )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, rpcs) for name, rpcs in answers.items()])
        return sorted(answers)

    def _answer(
        self, query: Query, line: On[Any, Any], response_class: type[Message]
    ) -> Callable[[Message, grpc.aio.ServicerContext[Any, Any]], Awaitable[Message]]:
        async def answer(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            try:
                question = self._question(context)
                check(request)
            except (BreaksRules, ValueError) as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except _AnotherCluster as error:
                await _refuse(context, code_pb2.FAILED_PRECONDITION, "ANOTHER_CLUSTER", error)
            readers = tuple(self._views.reader(view, question) for view in query.views)
            try:
                response = await self._views.answer(question, lambda: line.function(readers if query.joined else readers[0], request))
            except NotYet as error:
                facts = {"position": error.place, "demanded": str(error.demanded), "reached": str(error.reached)}
                await _refuse(context, code_pb2.UNAVAILABLE, "NOT_YET", error, facts)
            except NotComparable as error:
                await _refuse(context, code_pb2.FAILED_PRECONDITION, "NOT_COMPARABLE", error, {"topic": error.topic})
            except Unavailable as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except DataLoss as error:
                await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
            except Exception as error:
                log.exception("query raised", query=repr(line))
                await context.abort(grpc.StatusCode.INTERNAL, f"{line} raised {type(error).__name__}")
            if not isinstance(response, response_class):
                await context.abort(grpc.StatusCode.INTERNAL, f"{line} gave no {response_class.DESCRIPTOR.name}")
            self._answered += 1
            context.set_trailing_metadata((
                (AS_OF, encode(question.as_of)),
                (POSITION, encode(question.position)),
                (AGE_MS, str(self._views.age_ms(question.as_of))),
                *(((CLUSTER, self._cluster_id),) if self._cluster_id else ()),
            ))  # fmt: skip
            return response

        return answer


class _AnotherCluster(Exception):
    """The positions demanded are of another log."""


async def _refuse(
    context: grpc.aio.ServicerContext[Any, Any], code: int, reason: str, error: Exception, facts: Mapping[str, str] | None = None
) -> NoReturn:
    """End a call with a reason that a program can read."""
    info = AnyMessage()
    info.Pack(ErrorInfo(reason=reason, domain=DOMAIN, metadata=dict(facts or {})))
    sent = rpc_status.to_status(Status(code=code, message=str(error), details=[info]))
    await context.abort(sent.code, sent.details, sent.trailing_metadata)


def _response_of(service: str, rpc: str) -> type[Message]:
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[rpc]
    return GetMessageClass(method.output_type)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class _Because(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every question a deadline, the position it depends on and the trace it belongs to."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Ask with what `because` says."""
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        cause = because.get()
        if cause is not None and cause.after:
            metadata.add(AT_LEAST, encode(cause.after))
            metadata.add(ELSEWHERE, IGNORE)
        if cause is not None and cause.traceparent:
            metadata.add(TRACEPARENT, cause.traceparent)
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=ANSWER_S if client_call_details.timeout is None else client_call_details.timeout,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


@asynccontextmanager
async def connect_sibling(settings: Settings, stub: Callable[[Any], Stub]) -> AsyncIterator[Stub]:
    """A stub of the own context's view server: 2 s per question unless the caller says otherwise, round robin over its addresses.

    Args:
        settings: `views_target` is used.
        stub: class of the stub.

    Raises:
        SettingsError: it is not said where the views are.
    """
    if not settings.views_target:
        raise SettingsError("VIEWS_TARGET is not set: where do the views of this context answer?")
    channel = grpc.aio.insecure_channel(
        settings.views_target,
        options=[
            ("grpc.service_config", json.dumps(SHARED)),
            # A server that restarts is found again within a second, not within gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ],
        interceptors=[_Because()],
    )
    async with channel:
        yield stub(channel)

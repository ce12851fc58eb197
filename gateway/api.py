"""The servers of the door: gRPC for programs, HTTP for everybody else, over the same use cases."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from retail.gateway.views.v1.rows_pb2 import OrderRow, RequestRow

from backbone.declare import Bound, Heard, Tail, View
from backbone.errors import SettingsError
from backbone.tokens import key_of
from gateway import ids
from gateway.admission import Door, Limit
from gateway.awaiting import Waiters
from gateway.following import Views
from gateway.freshness import Tokens
from gateway.orders import Orders, is_answer

# What keys everything the door hears.
KEY = "order_id"

log = structlog.get_logger()


@asynccontextmanager
async def serve(bound: Bound, *, requests: View[RequestRow], orders: View[OrderRow], answers: Tail) -> AsyncIterator[Mapping[str, str]]:
    """Open both servers for as long as the context is held. Leaving it tells clients to go elsewhere, lets those who wait go with PENDING
    and their handle, and then closes.

    Yields:
        The addresses: grpc (host:port) and http (URL).

    Raises:
        SettingsError: a port is taken, or the key of the order ids cannot be used.
    """
    # Both pull in a client library; a table that is only printed or checked needs neither.
    from gateway import grpc_api, http_api

    settings = bound.settings
    if not settings.order_id_key_file:
        raise SettingsError("ORDER_ID_KEY_FILE is not set: where lies the secret of the order ids? It is made there if it is missing")
    origins = settings.origins.split()
    secret = ids.secret_key(Path(settings.order_id_key_file))
    tokens = Tokens(key_of(secret), settings.cluster_id)
    limit = Limit(settings.orders_least, settings.orders_most, settings.orders_late_after_s)
    door = Door(settings.in_flight, limit, time.monotonic, random.random)
    bound.shows(door.status)
    waiters: Waiters[Heard] = Waiters()
    use_cases = Orders(
        key=secret,
        raise_=bound.raise_(),
        views=Views(bound.asking, requests, orders, lambda: bound.reader_of_now(requests)),
        waiters=waiters,
        door=door,
        answer_within=timedelta(seconds=settings.answer_within_s),
        cluster_id=settings.cluster_id,
        now=lambda: datetime.now(UTC),
    )

    def heard(all_heard: Sequence[Heard]) -> None:
        for one in all_heard:
            order_id = getattr(one.event, KEY)
            waiters.heard(order_id, one)
            if is_answer(one.event):
                door.heard(order_id)

    log.warning("DEVELOPMENT MODE: the gateway believes whoever a caller says it is (metadata x-principal); keep it off open networks")
    with bound.tail(answers, heard, waiters.look_again):
        async with (
            grpc_api.serving(use_cases, tokens, settings.host, settings.grpc_port, settings.in_flight) as programs,
            http_api.serving(use_cases, tokens, settings.host, settings.http_port, settings.in_flight, origins) as browsers,
        ):
            try:
                yield {"grpc": programs.address, "http": browsers}
            finally:
                await programs.refuse_health()
                use_cases.close()

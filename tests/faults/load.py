"""Customers who order until they are told to stop, insist on their answers, look after their orders, and write down all of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
from retail.gateway.v1.order_service_pb2 import AwaitOrderRequest, CancelOrderRequest, GetOrderRequest, Order, OrderStatus
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from demo.placing import PASSING, asked
from demo.purchases import Line
from laws.history import Recorder
from tests.e2e.client import duration

if TYPE_CHECKING:
    from retail.gateway.v1.order_service_pb2_grpc import OrderServiceAsyncStub

POSITION = "backbone-position"
"""Metadata in which an answer tells what it rests on, to be demanded of the next one."""
PENDING = OrderStatus.ORDER_STATUS_PENDING
ZONES = ("zone-1", "zone-2", "zone-3")
WAIT_S = 10.0
AGAIN_S = 0.25
GIVES_UP_S = 150.0
AGAIN, LOOKS, CANCELS = 0.1, 0.2, 0.05
"""How often a customer asks again under the same key, looks at the order, or takes it back."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One order that has its answer, whose it is, and when it was placed and answered, by the monotonic clock."""

    customer: int
    order_id: str
    began_s: float
    ended_s: float
    status: str


class Load:
    """Customers at work, in a thread of their own. Use it in a `with`; leaving it lets them finish.

    Args:
        address: the gateway's gRPC server.
        articles: SKU and price in cents of what may be ordered.
        at_once: how many customers there are.

    Attributes:
        answered: orders with their answers, in the order in which they came.
        defects: what ended a customer's order without an answer.
    """

    def __init__(self, address: str, history: Recorder, articles: Sequence[tuple[str, int]], seed: int, at_once: int = 8) -> None:
        self.answered: list[Answered] = []
        self.defects: list[str] = []
        self._address = address
        self._history = history
        self._articles = articles
        self._seed = seed
        self._at_once = at_once
        self._tokens: dict[str, tuple[int, str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="customers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(GIVES_UP_S + 30.0)
        if self._thread.is_alive():
            self.defects.append("customers do not come to an end")

    def recovered_s(self, since_s: float) -> float | None:
        """How long after a moment every customer had the answer to an order that was placed after it; None if somebody waits still."""
        first: dict[int, float] = {}
        for one in list(self.answered):
            if one.began_s >= since_s:
                first.setdefault(one.customer, one.ended_s - since_s)
        return max(first.values()) if len(first) == self._at_once else None

    async def _run(self) -> None:
        async with grpc.aio.insecure_channel(
            self._address, options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        ) as channel:
            stub: OrderServiceAsyncStub = OrderServiceStub(channel)
            await asyncio.gather(*(self._customer(stub, number) for number in range(self._at_once)))

    async def _customer(self, stub: OrderServiceAsyncStub, number: int) -> None:
        lot = Random(f"{self._seed}/{number}")
        count = 0
        while not self._stop.is_set():
            count += 1
            name = f"customer-{number}-{count % 25}"
            try:
                await self._order(stub, lot, number, name, f"{self._seed}-{number}-{count}")
            except grpc.aio.AioRpcError as error:
                self.defects.append(f"{name}: {error.code().name}: {error.details()}")

    async def _order(self, stub: OrderServiceAsyncStub, lot: Random, number: int, name: str, key: str) -> None:
        chosen = lot.sample(list(self._articles), lot.choice((1, 1, 2)))
        lines = tuple(Line(sku, lot.choice((1, 1, 2)), cents) for sku, cents in chosen)
        zone = lot.choice(ZONES)
        began_s = time.monotonic()
        cancels = lot.random() < CANCELS
        self._tokens.pop(name, None)
        order = await self._insist(stub, name, key, lines, zone, 0.0 if cancels else WAIT_S)
        if order is None:
            self.defects.append(f"{name}: no answer to {key} within {GIVES_UP_S:.0f} s")
            return
        if cancels and order.status == PENDING:
            await self._cancel(stub, name, order.order_id)
            order = await self._insist(stub, name, key, lines, zone, WAIT_S) or order
        if order.status != PENDING:
            status = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
            self.answered.append(Answered(number, order.order_id, began_s, time.monotonic(), status))
        if lot.random() < AGAIN:
            await self._insist(stub, name, key, lines, zone, WAIT_S)
        if lot.random() < LOOKS:
            await self._look(stub, name, order.order_id)

    async def _insist(
        self, stub: OrderServiceAsyncStub, name: str, key: str, lines: tuple[Line, ...], zone: str, wait_s: float
    ) -> Order | None:
        """Place under one key until there is an answer, or until it is taken if nobody waits for one."""
        caller = (("x-principal", name), ("idempotency-key", key))
        payload = f"{zone} {sorted((line.sku, line.quantity, line.cents) for line in lines)}"
        until = time.monotonic() + GIVES_UP_S
        while time.monotonic() < until:
            try:
                with self._history.calling("place", name, key=key, payload=payload, wait_s=wait_s) as call:
                    asking = stub.PlaceOrder(asked(lines, zone, wait_s), metadata=caller, timeout=wait_s + 5)
                    told = await asking
                    call.told(told.order, told.position)
                    token = next((value for key, value in await asking.trailing_metadata() or () if key == POSITION), None)
                    if isinstance(token, str):
                        self._tokens[name] = (call.number, token)
                if told.order.status != PENDING or not wait_s:
                    return told.order
                await self._await(stub, name, told.order.order_id)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    raise
                await asyncio.sleep(AGAIN_S)
        return None

    async def _await(self, stub: OrderServiceAsyncStub, name: str, order_id: str) -> None:
        try:
            with self._history.calling("await", name, order_id=order_id, wait_s=WAIT_S) as call:
                request = AwaitOrderRequest(order_id=order_id, wait=duration(WAIT_S))
                call.told((await stub.AwaitOrder(request, metadata=(("x-principal", name),), timeout=WAIT_S + 5)).order)
        except grpc.aio.AioRpcError as error:
            # What was not acknowledged may not be in the log: asking again under the same key makes it the same order.
            if error.code() not in (*PASSING, grpc.StatusCode.NOT_FOUND):
                raise
            await asyncio.sleep(AGAIN_S)

    async def _cancel(self, stub: OrderServiceAsyncStub, name: str, order_id: str) -> None:
        try:
            with self._history.calling("cancel", name, order_id=order_id, wait_s=WAIT_S) as call:
                request = CancelOrderRequest(order_id=order_id, wait=duration(WAIT_S))
                told = await stub.CancelOrder(request, metadata=(("x-principal", name),), timeout=WAIT_S + 5)
                call.told(told.order)
                call.refused, call.undecided = told.refused, told.undecided
        except grpc.aio.AioRpcError as error:
            if error.code() not in (*PASSING, grpc.StatusCode.NOT_FOUND):
                raise

    async def _look(self, stub: OrderServiceAsyncStub, name: str, order_id: str) -> None:
        try:
            number, token = self._tokens.get(name, (0, ""))
            caller = (("x-principal", name), *([("backbone-at-least", token)] if token else []))
            with self._history.calling("get", name, order_id=order_id, demands=number) as call:
                told = await stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=caller, timeout=10.0)
                call.told(told.order)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (*PASSING, grpc.StatusCode.NOT_FOUND):
                raise

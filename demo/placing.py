"""Customers: place orders through the gateway, many at once, and wait for every answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    Order,
    OrderLine,
    OrderRejectionReason,
    OrderStatus,
    PlaceOrderRequest,
)
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from demo.purchases import Line, Purchase, money
from laws.history import Recorder

if TYPE_CHECKING:
    from retail.gateway.v1.order_service_pb2_grpc import OrderServiceAsyncStub

WAIT_S = 25
"""How long one call waits for the answer; the gateway allows 30."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Pauses between tries of what was refused for a passing reason, with jitter."""
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(slots=True)
class Progress:
    """How far the customers are.

    Attributes:
        answers: the answer to each purchase, by its ref.
        latencies: seconds from the first try to the answer.
        tries_again: calls that had to be made again, for a passing reason.
        defects: what ended a customer, by ref.
    """

    wanted: int
    placed: int = 0
    waiting: int = 0
    answers: dict[str, Order] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    tries_again: int = 0
    defects: dict[str, str] = field(default_factory=dict)
    first_confirmed_at: float | None = None

    def count(self, status: OrderStatus.ValueType) -> int:
        """How many have this answer."""
        return sum(order.status == status for order in list(self.answers.values()))

    @property
    def confirmed(self) -> int:
        """How many are confirmed."""
        return self.count(OrderStatus.ORDER_STATUS_CONFIRMED)

    @property
    def rejected(self) -> int:
        """How many are rejected."""
        return self.count(OrderStatus.ORDER_STATUS_REJECTED)

    def reasons(self) -> dict[str, int]:
        """Rejected orders by reason."""
        found: dict[str, int] = {}
        for order in list(self.answers.values()):
            if order.status == OrderStatus.ORDER_STATUS_REJECTED:
                reason = OrderRejectionReason.Name(order.rejection_reason).removeprefix("ORDER_REJECTION_REASON_").lower()
                found[reason] = found.get(reason, 0) + 1
        return found

    def quantile(self, share: float) -> float:
        """The latency that this share of the answered stayed below, in seconds; 0 before the first answer."""
        known = sorted(self.latencies)
        return known[min(len(known) - 1, int(share * len(known)))] if known else 0.0


def asked(lines: Iterable[Line], zone: str, wait_s: float = WAIT_S) -> PlaceOrderRequest:
    """The request for some lines."""
    request = PlaceOrderRequest(
        lines=[OrderLine(sku=line.sku, quantity=line.quantity, unit_price=money(line.cents)) for line in lines],
        delivery_zone=zone,
    )
    request.wait.FromMilliseconds(int(wait_s * 1000))
    return request


async def place_all(
    address: str,
    purchases: Sequence[Purchase],
    progress: Progress,
    at_once: int,
    answer_within_s: float,
    history: Recorder | None = None,
) -> None:
    """Place every purchase once and wait for every answer.

    Args:
        address: the gateway's gRPC server, host:port.
        progress: is kept up to date.
        at_once: how many customers there are at a time.
        answer_within_s: after how long a customer without an answer leaves, in seconds.
        history: gets every call.
    """
    queue = deque(purchases)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: OrderServiceAsyncStub = OrderServiceStub(channel)
        await asyncio.gather(*(_customers(stub, queue, progress, answer_within_s, history or Recorder()) for _ in range(at_once)))


async def _customers(
    stub: OrderServiceAsyncStub, queue: deque[Purchase], progress: Progress, answer_within_s: float, history: Recorder
) -> None:
    while queue:
        purchase = queue.popleft()
        began = time.monotonic()
        progress.placed += 1
        progress.waiting += 1
        try:
            order = await _answer(stub, purchase, progress, began + answer_within_s, history)
        except grpc.aio.AioRpcError as error:
            progress.defects[purchase.ref] = f"{error.code().name}: {error.details()}"
            continue
        finally:
            progress.waiting -= 1
        if order is None:
            progress.defects[purchase.ref] = f"no answer within {answer_within_s:.0f} s"
            continue
        progress.answers[purchase.ref] = order
        progress.latencies.append(time.monotonic() - began)
        if progress.first_confirmed_at is None and order.status == OrderStatus.ORDER_STATUS_CONFIRMED:
            progress.first_confirmed_at = time.monotonic()


async def _answer(stub: OrderServiceAsyncStub, purchase: Purchase, progress: Progress, deadline: float, history: Recorder) -> Order | None:
    """The answer to a purchase; None if there is none in time."""
    caller = (("x-principal", purchase.customer), ("idempotency-key", purchase.ref))
    order: Order | None = None
    pause = FIRST_PAUSE_S
    while (left := deadline - time.monotonic()) > 0:
        wait = min(float(WAIT_S), left)
        try:
            if order is None:
                request = asked(purchase.lines, purchase.zone, wait)
                with history.calling("place", purchase.customer, key=purchase.ref, payload=_payload(purchase), wait_s=wait) as call:
                    placed = await stub.PlaceOrder(request, metadata=caller, timeout=wait + 5)
                    call.told(placed.order, placed.position)
                order = placed.order
            else:
                again = AwaitOrderRequest(order_id=order.order_id, wait=Duration(seconds=int(wait)))
                with history.calling("await", purchase.customer, order_id=order.order_id, wait_s=wait) as call:
                    order = (await stub.AwaitOrder(again, metadata=caller, timeout=wait + 5)).order
                    call.told(order)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and order is not None:
                order = None  # its request never reached the log: the same key makes it the same order
            elif error.code() not in PASSING:
                raise
            progress.tries_again += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            continue
        if order.status != OrderStatus.ORDER_STATUS_PENDING:
            return order
    return None


def _payload(purchase: Purchase) -> str:
    return f"{purchase.zone} {sorted((line.sku, line.quantity, line.cents) for line in purchase.lines)}"

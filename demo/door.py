"""Customers who order all at once, each once, and come back with their handle for what was not answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration
from retail.gateway.v1.order_service_pb2 import AwaitOrderRequest, Order, OrderRejectionReason, OrderStatus, PlaceOrderResponse
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from demo.placing import asked
from demo.purchases import Purchase

PENDING = OrderStatus.ORDER_STATUS_PENDING
LONGEST_WAIT_S = 25.0
"""What the gateway allows for one call, and a little less."""
SPARE_S = 10.0
"""How much longer than it asks the gateway to wait a call lasts at most."""


class Door:
    """The gateway, as its customers meet it."""

    def __init__(self, address: str) -> None:
        """`address` is host:port."""
        self._channel = grpc.insecure_channel(address)
        self._stub = OrderServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()

    def order(self, purchase: Purchase, wait_s: float) -> grpc.Future[PlaceOrderResponse]:
        """Order, and stay on the line for so many seconds at most."""
        request = asked(purchase.lines, purchase.zone, wait_s)
        metadata = (("x-principal", purchase.customer), ("idempotency-key", purchase.ref))
        return self._stub.PlaceOrder.future(request, metadata=metadata, timeout=wait_s + SPARE_S)

    def place(self, purchases: Sequence[Purchase], wait_s: float) -> list[Order]:
        """Order all of it at once; what was not answered within `wait_s` seconds is PENDING.

        Raises:
            grpc.RpcError: the gateway refuses one.
        """
        calls = [self.order(purchase, wait_s) for purchase in purchases]
        return [call.result().order for call in calls]

    def answers(self, purchases: Sequence[Purchase], orders: Sequence[Order], within_s: float) -> list[Order]:
        """The answers of orders that had none, by their handles; PENDING for what has none after `within_s` seconds.

        Raises:
            grpc.RpcError: the gateway refuses one.
        """
        deadline = time.monotonic() + within_s
        found = list(orders)
        while (waiting := [at for at, order in enumerate(found) if order.status == PENDING]) and time.monotonic() < deadline:
            wait_s = min(LONGEST_WAIT_S, max(0.0, deadline - time.monotonic()))
            calls = [
                self._stub.AwaitOrder.future(
                    AwaitOrderRequest(order_id=found[at].order_id, wait=Duration(seconds=int(wait_s))),
                    metadata=(("x-principal", purchases[at].customer),),
                    timeout=wait_s + SPARE_S,
                )
                for at in waiting
            ]
            for at, call in zip(waiting, calls, strict=True):
                found[at] = call.result().order
        return found


def stand(orders: Sequence[Order]) -> str:
    """How many orders stand how."""
    counted: dict[str, int] = {}
    for order in orders:
        word = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_").lower()
        if order.rejection_reason:
            word += f" ({OrderRejectionReason.Name(order.rejection_reason).removeprefix('ORDER_REJECTION_REASON_').lower()})"
        counted[word] = counted.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counted.items()))

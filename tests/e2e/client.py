"""A customer with a gRPC client."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.type.money_pb2 import Money
from retail.gateway.v1.order_service_pb2 import (
    AwaitOrderRequest,
    CancelOrderRequest,
    CancelOrderResponse,
    GetOrderRequest,
    ListOrdersRequest,
    Order,
    OrderLine,
    PlaceOrderRequest,
)
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from laws.history import Recorder

Lines = Sequence[tuple[str, int, int]]
"""SKU, quantity and price in cents."""


def duration(seconds: float) -> Duration:
    """Seconds as protobuf."""
    wait = Duration()
    wait.FromMilliseconds(int(seconds * 1000))
    return wait


def order_of(lines: Lines, zone: str, wait_s: float) -> PlaceOrderRequest:
    """A request for an order."""
    return PlaceOrderRequest(
        lines=[
            OrderLine(sku=sku, quantity=quantity, unit_price=Money(currency_code="USD", units=cents // 100, nanos=cents % 100 * 10_000_000))
            for sku, quantity, cents in lines
        ],
        delivery_zone=zone,
        wait=duration(wait_s),
    )


class Customer:
    """One customer at the gateway; every call has a deadline a little longer than it asks the gateway to wait, and is recorded."""

    def __init__(self, address: str, name: str = "", history: Recorder | None = None) -> None:
        """`address` is host:port; a name of its own if none is given."""
        self._history = history or Recorder()
        self.name = name or f"customer-{uuid.uuid4().hex[:12]}"
        self._channel = grpc.insecure_channel(address)
        self._stub = OrderServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()

    def place(self, lines: Lines, zone: str = "zone-1", key: str = "", wait_s: float = 20.0) -> Order:
        """Place an order and wait for its answer."""
        request = order_of(lines, zone, wait_s)
        key = key or uuid.uuid4().hex
        with self._history.calling("place", self.name, key=key, payload=f"{zone} {sorted(lines)}", wait_s=wait_s) as call:
            response = self._stub.PlaceOrder(request, metadata=self._metadata(key), timeout=wait_s + 10)
            call.told(response.order, response.position)
        return response.order

    def await_(self, order_id: str, wait_s: float = 20.0) -> Order:
        """Wait for the answer of an order."""
        request = AwaitOrderRequest(order_id=order_id, wait=duration(wait_s))
        with self._history.calling("await", self.name, order_id=order_id, wait_s=wait_s) as call:
            order = self._stub.AwaitOrder(request, metadata=self._metadata(), timeout=wait_s + 10).order
            call.told(order)
        return order

    def get(self, order_id: str) -> Order:
        """Where an order stands."""
        with self._history.calling("get", self.name, order_id=order_id) as call:
            order = self._stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=self._metadata(), timeout=10).order
            call.told(order)
        return order

    def orders(self) -> list[Order]:
        """The newest orders."""
        with self._history.calling("list", self.name) as call:
            orders = list(self._stub.ListOrders(ListOrdersRequest(), metadata=self._metadata(), timeout=10).orders)
            call.listed(orders)
        return orders

    def cancel(self, order_id: str, wait_s: float = 20.0) -> CancelOrderResponse:
        """Take an order back."""
        request = CancelOrderRequest(order_id=order_id, wait=duration(wait_s))
        with self._history.calling("cancel", self.name, order_id=order_id, wait_s=wait_s) as call:
            response = self._stub.CancelOrder(request, metadata=self._metadata(), timeout=wait_s + 10)
            call.told(response.order)
            call.refused, call.undecided = response.refused, response.undecided
        return response

    def _metadata(self, key: str = "") -> tuple[tuple[str, str], ...]:
        caller = (("x-principal", self.name),)
        return (*caller, ("idempotency-key", key)) if key else caller

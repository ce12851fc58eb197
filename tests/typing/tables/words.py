"""Functions and rows from which the tables of this folder are made. All of it type-checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from retail.fulfilment.v1.stock_pb2 import ItemsReserved, ReservationRefused, StockLevelChanged
from retail.gateway.v1.order_request_pb2 import OrderRequested
from retail.ordering.v1.order_pb2 import OrderCancelled, OrderConfirmed, OrderRejected, OrderValidated
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.effects.v1.payment_pb2 import AssessRisk, CaptureCard, CardCaptured, RiskAssessed
from retail.payments.views.v1.risk_pb2 import GetCustomerHistoryRequest, GetCustomerHistoryResponse
from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceAsyncStub

from backbone.declare import Reader, Table, Tick, command_id, happened_at
from backbone.settings import Settings

Event = OrderValidated | OrderConfirmed | OrderRejected
MoreEvents = Event | OrderCancelled

now = happened_at
identity = command_id


@dataclass(frozen=True)
class Order:
    """A state."""

    paid: bool = False


@dataclass(frozen=True)
class Parcel:
    """Another state."""


def due(order: Order) -> datetime | None:
    """When an order is due."""
    return None


def sent(parcel: Parcel) -> datetime | None:
    """When a parcel is due."""
    return None


def answer(order: Order) -> Order | None:
    """What is kept of an order that has ended."""
    return order if order.paid else None


def delivered(parcel: Parcel) -> Parcel | None:
    """What is kept of a parcel that has ended."""
    return parcel


def expire(order: Order, tick: Tick) -> Iterator[Event]:
    """Decides on a tick."""
    yield OrderRejected()


def skus_of(request: OrderRequested) -> list[str]:
    """Keys of a request."""
    return [line.sku for line in request.lines]


def skus_in(refusal: ReservationRefused) -> list[str]:
    """Keys of something else."""
    return [line.sku for line in refusal.short]


def validate(
    order: Order, request: OrderRequested, stock: Mapping[str, Availability], prices: Mapping[str, Price], now: datetime
) -> Iterator[Event]:
    """Decides with three look-ups."""
    yield OrderValidated()


def reserved(order: Order, event: ItemsReserved) -> Iterator[Event]:
    """Decides on an event."""
    yield OrderConfirmed()


def stamped(order: Order, event: ItemsReserved, now: datetime) -> Iterator[Event]:
    """Decides with one look-up."""
    yield OrderConfirmed()


def foreign(order: Order, event: ItemsReserved) -> Iterator[ItemsReserved]:
    """Says what the decider does not own."""
    yield event


def packed(parcel: Parcel, event: ItemsReserved) -> Iterator[Event]:
    """Decides on another state."""
    yield OrderConfirmed()


def level_changed(rows: Table[Availability], event: StockLevelChanged) -> None:
    """Fills a row."""
    rows[event.sku].available[event.pool_id] = event.on_hand


def listed(rows: Table[Price], event: PriceListed) -> None:
    """Fills another row."""
    rows[event.sku].unit_price.CopyFrom(event.unit_price)


async def get_history(rows: Reader[Price], request: GetCustomerHistoryRequest) -> GetCustomerHistoryResponse:
    """Answers from prices."""
    return GetCustomerHistoryResponse()


async def get_level(rows: Reader[Availability], request: GetCustomerHistoryRequest) -> GetCustomerHistoryResponse:
    """Answers from levels."""
    return GetCustomerHistoryResponse()


def connect(settings: Settings) -> AbstractAsyncContextManager[str]:
    """Opens a tool that is a text."""
    return nullcontext("a tool")


async def capture(tool: str, command: CaptureCard, key: str) -> CardCaptured:
    """Does a command with a text."""
    return CardCaptured(order_id=command.order_id)


async def assess(risk: RiskViewServiceAsyncStub, command: AssessRisk) -> RiskAssessed:
    """Asks a sibling."""
    await risk.GetCustomerHistory(GetCustomerHistoryRequest(customer_id=command.customer_id))
    return RiskAssessed()


def gave_up(command: AssessRisk | CaptureCard, error: str) -> RiskAssessed:
    """Gives up."""
    return RiskAssessed()


def dial(settings: Settings) -> AbstractAsyncContextManager[int]:
    """Opens a tool that is a number."""
    return nullcontext(1)


def zone_of(event: OrderValidated) -> str:
    """A key of an event."""
    return event.delivery_zone


def pool_of(event: ItemsReserved) -> str:
    """A key of another event."""
    return event.pool_id


def noted(order: Order, event: OrderValidated) -> Iterator[Event]:
    """Decides on an event of another key."""
    yield OrderConfirmed()


def evolve(order: Order, event: Event) -> Order:
    """The state after an event."""
    return order


def evolve_parcel(parcel: Parcel, event: Event) -> Parcel:
    """Another state after an event."""
    return parcel

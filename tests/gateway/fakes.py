"""What the door leans on, in memory: a log that takes requests, rows that can be down or late, a tail that can stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.gateway.v1.order_service_pb2 import OrderLine, PlaceOrderRequest
from retail.gateway.views.v1.rows_pb2 import OrderRow, RequestRow
from retail.ordering.v1.order_pb2 import (
    CancellationRefusalReason,
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
    RejectionReason,
)

from backbone.declare import Asking, Bound, Heard, Raise, Reader, Tail, View
from backbone.errors import NotComparable, NotYet, Unavailable
from backbone.ports import Place
from backbone.settings import Settings
from gateway import api, view
from gateway.admission import Door, Limit
from gateway.awaiting import Waiters
from gateway.following import Views
from gateway.orders import Orders, is_answer
from gateway.requests import Caller
from gateway.service import answers, orders, requests

Row = TypeVar("Row", bound=Message)
Result = TypeVar("Result")
REQUESTS = "retail.gateway.order-requests.v1"
ORDERS = "retail.ordering.orders.v1"
KEY = b"k" * 32
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Rows(Generic[Row]):
    """Rows of one view."""

    def __init__(self, row: type[Row]) -> None:
        self.row = row
        self.rows: dict[str, Row] = {}
        self.down = False
        self.reads = 0

    def __getitem__(self, key: str) -> Row:
        if key not in self.rows:
            self.rows[key] = self.row(order_id=key)
        return self.rows[key]

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __delitem__(self, key: str) -> None:
        del self.rows[key]

    async def get(self, key: str) -> Row | None:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("Redis does not answer")
        found = self.rows.get(key)
        return None if found is None else self.row.FromString(found.SerializeToString())

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Row]:
        found = {key: await self.get(key) for key in keys}
        return {key: row for key, row in found.items() if row is not None}

    async def newest(self, index: str, group: str, limit: int) -> Sequence[Row]:
        assert index == view.NEWEST
        if self.down:
            raise Unavailable("Redis does not answer")
        entries = [(view.newest(row)[1], row) for row in self.rows.values() if isinstance(row, RequestRow) and row.customer_id == group]
        return [row for _, row in sorted(entries, key=lambda entry: -entry[0])][:limit]


Shop = Callable[["Platform", Message], None]


@dataclass
class Platform:
    """All that is outside the door.

    Attributes:
        shop: what the rest of the platform does about a request.
        projecting: whether the views take in what is in the log.
        refuses: what raising an event raises; the event is not in the log then.
        silent: no acknowledgement comes, though the event is in the log.
        known: how far the views are.
        said: what orders has said.
    """

    shop: Shop = lambda platform, event: None
    projecting: bool = True
    refuses: Exception | None = None
    silent: bool = False
    log: list[Message] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)
    metas: list[dict[str, str]] = field(default_factory=list)
    afters: list[dict[Place, int]] = field(default_factory=list)
    requests: Rows[RequestRow] = field(default_factory=lambda: Rows(RequestRow))
    orders: Rows[OrderRow] = field(default_factory=lambda: Rows(OrderRow))
    listeners: list[Callable[[Sequence[Heard]], None]] = field(default_factory=list)
    stalls: list[Callable[[], None]] = field(default_factory=list)
    deaf: bool = False
    known: dict[Place, int] = field(default_factory=lambda: {(REQUESTS, 0): 0, (ORDERS, 0): 0})
    shown: Callable[[], Mapping[str, float]] = dict

    async def raise_(
        self, event: Message, *, request_id: str, correlation_id: str, traceparent: str = "", after: Mapping[Place, int] | None = None
    ) -> Mapping[Place, int]:
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        self.metas.append({"request_id": request_id, "correlation_id": correlation_id, "traceparent": traceparent})
        self.afters.append(dict(after or {}))
        self.append(event)
        if self.silent:
            await asyncio.Event().wait()
        return {(REQUESTS, 0): len(self.log)}

    def append(self, event: Message) -> None:
        """A request gets into the log."""
        self.log.append(event)
        if self.projecting and isinstance(event, OrderRequested):
            view.requested(self.requests, event, NOW + timedelta(seconds=len(self.log)))
            self.known[REQUESTS, 0] = len(self.log)
        self.shop(self, event)

    def say(self, event: Message) -> None:
        """Orders says something: the view folds it, the tail hears it."""
        self.said.append(event)
        if self.projecting:
            fold(self.orders, event)
            self.known[ORDERS, 0] = len(self.said)
        if not self.deaf:
            for heard in self.listeners:
                heard([Heard(event, NOW, {(ORDERS, 0): len(self.said)})])

    def asking(self, within_s: float, at_least: Mapping[Place, int]) -> Asking:
        """A question to both views."""
        return _Asking(self, at_least)

    async def requests_of_now(self) -> Rows[RequestRow]:
        """The view, once it has taken in what is in the log."""
        for _ in range(200):
            if self.projecting:
                return self.requests
            await asyncio.sleep(0.01)
        raise Unavailable("the view is behind")

    def bound(self, folder: Path, **settings: Any) -> Bound:
        """The door's pieces, bound to this platform."""
        # what tests wait for on purpose must not count as late
        settings.setdefault("orders_late_after_s", 60.0)
        return _Bound(self, Settings.model_validate({"order_id_key_file": str(folder / "order-id.key"), **settings}))

    def use_cases(self, *, limit: int = 100) -> tuple[Orders, Waiters[Heard]]:
        """The use cases without servers."""
        waiters: Waiters[Heard] = Waiters()
        door = Door(limit, Limit(limit, limit, 60.0), time.monotonic, lambda: 0.5)

        def heard(events: Sequence[Heard]) -> None:
            for one in events:
                waiters.heard(getattr(one.event, api.KEY), one)
                if is_answer(one.event):
                    door.heard(getattr(one.event, api.KEY))

        self.listeners.append(heard)
        self.stalls.append(waiters.look_again)
        made = Orders(
            key=KEY,
            raise_=self.raise_,
            views=Views(self.asking, requests, orders, self.requests_of_now),
            waiters=waiters,
            door=door,
            answer_within=timedelta(seconds=900),
            cluster_id="cluster",
            now=lambda: NOW,
        )
        return made, waiters


def fold(rows: Rows[OrderRow], event: Message) -> None:
    """As the projector does, by the table of the service."""
    for line in orders.table:
        if isinstance(event, line.hears):
            line.function(rows, event, *[NOW for _ in line.look_ups])


@dataclass
class _Asking:
    """A question to views that know `known`, and nothing of any other topic."""

    platform: Platform
    at_least: Mapping[Place, int]

    def reader(self, view: View[Any]) -> Reader[Any]:
        return self.platform.requests if view is requests else self.platform.orders

    async def answer(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        for place, wanted in self.at_least.items():
            if place not in self.platform.known:
                raise NotComparable(place[0])
            if (reached := self.platform.known[place]) < wanted:
                raise NotYet("the view is behind", f"{place[0]}/{place[1]}", wanted, reached)
        return await ask()

    @property
    def as_of(self) -> Mapping[Place, int]:
        return self.platform.known

    @property
    def position(self) -> Mapping[Place, int]:
        return self.platform.known

    def age_ms(self, as_of: Mapping[Place, int]) -> int:
        return 7


@dataclass
class _Bound:
    platform: Platform
    settings: Settings

    def raise_(self) -> Raise:
        return self.platform.raise_

    def reader(self, view: View[Any]) -> Reader[Any]:
        return self.platform.requests if view is requests else self.platform.orders

    def asking(self, within_s: float, at_least: Mapping[Place, int]) -> Asking:
        return self.platform.asking(within_s, at_least)

    async def reader_of_now(self, view: View[Any]) -> Reader[Any]:
        assert view is requests
        return await self.platform.requests_of_now()

    def shows(self, status: Callable[[], Mapping[str, float]]) -> None:
        self.platform.shown = status

    @contextmanager
    def tail(self, tail: Tail, heard: Callable[[Sequence[Heard]], None], stalled: Callable[[], None]) -> Iterator[None]:
        assert tail is answers
        self.platform.listeners.append(heard)
        self.platform.stalls.append(stalled)
        try:
            yield
        finally:
            self.platform.listeners.remove(heard)
            self.platform.stalls.remove(stalled)


def serve(bound: Bound) -> Any:
    """The door as its table opens it."""
    return api.serve(bound, requests=requests, orders=orders, answers=answers)


def confirming(platform: Platform, event: Message) -> None:
    """A shop that confirms everything, step by step, and cancels what it has not answered. A repetition is silence."""
    assert isinstance(event, OrderRequested | OrderCancellationRequested)
    row = platform.orders.rows.get(event.order_id)
    if isinstance(event, OrderCancellationRequested):
        platform.say(cancellation_refused(event.order_id, event.customer_id))
    elif row is None:
        platform.say(validated(event))
        platform.say(OrderReserved(order_id=event.order_id))
        platform.say(OrderPaid(order_id=event.order_id))
        platform.say(confirmed(event))


def rejecting(reason: RejectionReason.ValueType, *skus: str) -> Shop:
    """A shop that rejects everything."""

    def shop(platform: Platform, event: Message) -> None:
        assert isinstance(event, OrderRequested)
        platform.say(
            OrderRejected(order_id=event.order_id, customer_id=event.customer_id, fingerprint=event.fingerprint, reason=reason, skus=skus)
        )

    return shop


def validated(event: OrderRequested) -> OrderValidated:
    return OrderValidated(order_id=event.order_id, customer_id=event.customer_id, fingerprint=event.fingerprint)


def confirmed(event: OrderRequested) -> OrderConfirmed:
    return OrderConfirmed(order_id=event.order_id, customer_id=event.customer_id, fingerprint=event.fingerprint)


def cancelled(event: OrderRequested) -> OrderCancelled:
    return OrderCancelled(order_id=event.order_id, customer_id=event.customer_id, fingerprint=event.fingerprint)


def cancellation_refused(order_id: str, customer_id: str) -> OrderCancellationRefused:
    reason = CancellationRefusalReason.CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED
    return OrderCancellationRefused(order_id=order_id, customer_id=customer_id, reason=reason)


def line(sku: str = "cd-1", quantity: int = 2, units: int = 11, nanos: int = 770_000_000, currency: str = "USD") -> OrderLine:
    """One line of an order."""
    return OrderLine(sku=sku, quantity=quantity, unit_price=Money(currency_code=currency, units=units, nanos=nanos))


def an_order(*lines: OrderLine, zone: str = "north", wait_s: float | None = None) -> PlaceOrderRequest:
    """A request for an order."""
    request = PlaceOrderRequest(lines=lines or [line()], delivery_zone=zone)
    if wait_s is not None:
        request.wait.FromTimedelta(timedelta(seconds=wait_s))
    return request


def by(principal: str = "ann", key: str = "k1", time_left_s: float | None = None) -> Caller:
    """A caller."""
    return Caller(principal, key, time_left_s=time_left_s)

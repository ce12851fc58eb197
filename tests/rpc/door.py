"""The public API: what clients ask of the door, and a platform behind it that does as each case wants."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.message import Message
from retail.gateway.v1 import order_service_pb2 as api
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.ordering.v1.order_pb2 import OrderPaid, OrderReserved, RejectionReason

from backbone.errors import BackboneError, Overloaded, Unavailable, WorkerEnded
from tests.gateway.fakes import KEY, Platform, Shop, an_order, cancelled, confirmed, confirming, line, rejecting, serve, validated
from tests.rpc.golden import Case
from tests.rpc.transports import Method, Transport, over_connect, over_grpc, over_grpc_web

SERVICE = api.DESCRIPTOR.services_by_name["OrderService"]
METHODS = {name: Method.of(SERVICE, name) for name in SERVICE.methods_by_name}
OVER = ("grpc", "connect", "grpc-web")


@dataclass
class Stage:
    """The platform behind the door while the cases are played."""

    platform: Platform

    def ask(self, customer: str, number: int = 1, shop: Shop = confirming) -> None:
        """A customer asked for an order some time ago, and this came of it."""
        event = OrderRequested(order_id=f"{customer}-{number}", customer_id=customer, delivery_zone="north", fingerprint="f")
        event.lines.add(sku=f"cd-{number}", quantity=1, unit_price=line().unit_price)
        self.platform.shop = shop
        self.platform.append(event)

    def say_next(self, customer: str, step: int) -> None:
        """What comes after a step of a customer's order."""
        (event,) = [one for one in self.platform.log if isinstance(one, OrderRequested) and one.customer_id == customer]
        order_id = event.order_id
        after: dict[int, Message] = {
            1: validated(event), 2: OrderReserved(order_id=order_id), 3: OrderPaid(order_id=order_id), 4: confirmed(event),
        }  # fmt: skip
        if step in after:
            self.platform.say(after[step])


@asynccontextmanager
async def played(folder: Path) -> AsyncGenerator[tuple[Stage, dict[str, Transport]]]:
    """The open door with a fixed secret, and a client of each transport."""
    secret = folder / "order-id.key"
    secret.write_bytes(KEY)
    secret.chmod(0o600)
    platform = Platform()
    async with (
        serve(platform.bound(folder, order_id_key_file=str(secret))) as addresses,
        grpc.aio.insecure_channel(addresses["grpc"]) as channel,
        httpx.AsyncClient(base_url=addresses["http"], trust_env=False) as browser,
    ):
        yield Stage(platform), {"grpc": over_grpc(channel), "connect": over_connect(browser), "grpc-web": over_grpc_web(browser)}


def by(customer: str, key: str = "k1") -> dict[str, str]:
    """Metadata of a caller."""
    return {"x-principal": customer, **({"idempotency-key": key} if key else {})}


def doing(shop: Shop) -> Callable[[Stage], None]:
    """The platform does so from now on."""
    return lambda stage: setattr(stage.platform, "shop", shop)


def silent(platform: Platform, event: Message) -> None:
    """Nobody answers."""


def cancelling(platform: Platform, event: Message) -> None:
    """Whatever is asked to be cancelled is."""
    if isinstance(event, OrderCancellationRequested):
        asked = next(one for one in platform.log if isinstance(one, OrderRequested) and one.order_id == event.order_id)
        platform.say(cancelled(asked))


def asked(customer: str, shop: Shop = confirming, number: int = 1) -> Callable[[Stage], None]:
    """A customer has an order."""
    return lambda stage: stage.ask(customer, number, shop)


def refusing(error: Exception) -> Callable[[Stage], None]:
    """Nothing gets into the log."""
    return lambda stage: setattr(stage.platform, "refuses", error)


def views_down(down: bool) -> Callable[[Stage], None]:
    """Redis is gone, or back."""

    def set_down(stage: Stage) -> None:
        stage.platform.requests.down = stage.platform.orders.down = down

    return set_down


def none_wrong(stage: Stage) -> None:
    """All is well again."""
    stage.platform.refuses = None
    views_down(False)(stage)


def watching(customer: str) -> Callable[[Stage, Message], None]:
    """Whenever a step is seen, the next one happens."""

    def next_step(stage: Stage, response: Message) -> None:
        assert isinstance(response, api.WatchOrderResponse)
        stage.say_next(customer, response.step)

    return next_step


def many(customer: str, count: int) -> Callable[[Stage], None]:
    """A customer with so many orders."""

    def ask_all(stage: Stage) -> None:
        for number in range(1, count + 1):
            stage.ask(customer, number, confirming if number % 2 else silent)

    return ask_all


def with_wait(request: Any, seconds: int) -> Any:
    """A request of somebody who waits so long."""
    request.wait.FromSeconds(seconds)
    return request


def placing(name: str, request: api.PlaceOrderRequest, customer: str, shop: Shop = confirming, **rest: Any) -> Case:
    """A case of PlaceOrder."""
    return replace(Case(name, "PlaceOrder", request, by(customer), before=doing(shop)), **rest)


def invalid(name: str, request: api.PlaceOrderRequest) -> Case:
    """An order that breaks its contract."""
    return placing(f"refused: {name}", request, "ann")


def failing(name: str, error: BackboneError) -> Case:
    """An order that does not get into the log."""
    return placing(name, an_order(), f"failing-{type(error).__name__}", before=refusing(error), after=none_wrong)


REASONS = [(name.removeprefix("REJECTION_REASON_").lower(), number) for name, number in RejectionReason.items() if number]

PLACE: Sequence[Case] = [
    placing("confirmed", an_order(), "place-1"),
    placing("the same again under the same key", an_order(), "place-1"),
    placing("another order under the same key", an_order(line("other")), "place-1"),
    placing("several lines", an_order(line("cd-1"), line("cd-2", quantity=3, units=0, nanos=50_000_000)), "place-2"),
    placing("free of charge", an_order(line(units=0, nanos=0)), "place-3"),
    placing("not answered in time", an_order(wait_s=0), "place-4", silent),
    *(placing(f"rejected: {name}", an_order(), f"place-{name}", rejecting(number, "cd-1")) for name, number in REASONS),
    placing("refused: nobody", an_order(), "", metadata={"idempotency-key": "k1"}),
    placing("refused: no key", an_order(), "ann", metadata=by("ann", "")),
    placing("refused: a key of 257 bytes", an_order(), "ann", metadata=by("ann", "k" * 257)),
    invalid("no lines", api.PlaceOrderRequest(delivery_zone="north")),
    invalid("quantity 0", an_order(line(), line(quantity=0))),
    invalid("quantity 1001", an_order(line(quantity=1001))),
    invalid("no name", an_order(line(""))),
    invalid("no price", an_order(api.OrderLine(sku="cd-1", quantity=1))),
    invalid("a fraction of a cent", an_order(line(nanos=1))),
    invalid("two currencies", an_order(line(), line(currency="EUR"))),
    invalid("no zone", an_order(zone="")),
    invalid("a wait of 31 s", an_order(wait_s=31)),
    failing("Kafka does not answer", Unavailable("Kafka does not answer", 2.5)),
    failing("too much waits for Kafka", Overloaded("the queue is full", 2.5)),
    failing("the gateway starts again", WorkerEnded("ended")),
    failing("a defect", BackboneError("something we did not think of")),
]

AWAIT: Sequence[Case] = [
    Case("answered", "AwaitOrder", api.AwaitOrderRequest(order_id="await-1-1"), by("await-1"), asked("await-1")),
    Case(
        "not answered in time",
        "AwaitOrder",
        with_wait(api.AwaitOrderRequest(order_id="await-2-1"), 0),
        by("await-2"),
        asked("await-2", silent),
    ),
    Case("refused: unknown", "AwaitOrder", api.AwaitOrderRequest(order_id="nothing"), by("await-3")),
    Case("refused: of somebody else", "AwaitOrder", api.AwaitOrderRequest(order_id="await-1-1"), by("await-4")),
    Case("refused: no id", "AwaitOrder", api.AwaitOrderRequest(), by("await-5")),
    Case("refused: nobody", "AwaitOrder", api.AwaitOrderRequest(order_id="await-1-1")),
]

WATCH: Sequence[Case] = [
    Case(
        "every step",
        "WatchOrder",
        api.WatchOrderRequest(order_id="watch-1-1"),
        by("watch-1"),
        asked("watch-1", silent),
        watching("watch-1"),
    ),
    Case("resumed", "WatchOrder", api.WatchOrderRequest(order_id="watch-1-1", after_step=3), by("watch-1")),
    Case("nothing left", "WatchOrder", api.WatchOrderRequest(order_id="watch-1-1", after_step=5), by("watch-1")),
    Case("refused: unknown", "WatchOrder", api.WatchOrderRequest(order_id="nothing"), by("watch-2")),
    Case("refused: a step before the first", "WatchOrder", api.WatchOrderRequest(order_id="watch-1-1", after_step=-1), by("watch-1")),
    Case("refused: nobody", "WatchOrder", api.WatchOrderRequest(order_id="watch-1-1")),
]

OUT_OF_STOCK = rejecting(RejectionReason.REJECTION_REASON_OUT_OF_STOCK, "cd-1")
GET: Sequence[Case] = [
    Case("confirmed", "GetOrder", api.GetOrderRequest(order_id="get-1-1"), by("get-1"), asked("get-1")),
    Case("rejected", "GetOrder", api.GetOrderRequest(order_id="get-2-1"), by("get-2"), asked("get-2", OUT_OF_STOCK)),
    Case("pending", "GetOrder", api.GetOrderRequest(order_id="get-3-1"), by("get-3"), asked("get-3", silent)),
    Case("refused: unknown", "GetOrder", api.GetOrderRequest(order_id="nothing"), by("get-4")),
    Case("refused: of somebody else", "GetOrder", api.GetOrderRequest(order_id="get-1-1"), by("get-5")),
    Case("refused: no id", "GetOrder", api.GetOrderRequest(), by("get-6")),
    Case("refused: nobody", "GetOrder", api.GetOrderRequest(order_id="get-1-1")),
    Case("Redis does not answer", "GetOrder", api.GetOrderRequest(order_id="get-1-1"), by("get-1"), views_down(True), after=none_wrong),
]

LIST: Sequence[Case] = [
    Case("nothing", "ListOrders", api.ListOrdersRequest(), by("list-1")),
    Case("newest first", "ListOrders", api.ListOrdersRequest(), by("list-2"), many("list-2", 3)),
    Case("a page of two", "ListOrders", api.ListOrdersRequest(page_size=2), by("list-2")),
    Case("fifty if nobody says how many", "ListOrders", api.ListOrdersRequest(), by("list-3"), many("list-3", 52)),
    Case("refused: a page of 51", "ListOrders", api.ListOrdersRequest(page_size=51), by("list-2")),
    Case("refused: a page of less than none", "ListOrders", api.ListOrdersRequest(page_size=-1), by("list-2")),
    Case("refused: nobody", "ListOrders", api.ListOrdersRequest()),
]

CANCEL: Sequence[Case] = [
    Case("cancelled", "CancelOrder", api.CancelOrderRequest(order_id="cancel-1-1"), by("cancel-1"), asked("cancel-1", cancelling)),
    Case("refused, since it was answered", "CancelOrder", api.CancelOrderRequest(order_id="cancel-2-1"), by("cancel-2"), asked("cancel-2")),
    Case(
        "not decided in time",
        "CancelOrder",
        with_wait(api.CancelOrderRequest(order_id="cancel-3-1"), 0),
        by("cancel-3"),
        asked("cancel-3", silent),
    ),
    Case("refused: unknown", "CancelOrder", api.CancelOrderRequest(order_id="nothing"), by("cancel-4")),
    Case("refused: of somebody else", "CancelOrder", api.CancelOrderRequest(order_id="cancel-1-1"), by("cancel-5")),
    Case("refused: a wait of less than none", "CancelOrder", with_wait(api.CancelOrderRequest(order_id="x"), -1), by("cancel-5")),
    Case("refused: nobody", "CancelOrder", api.CancelOrderRequest(order_id="cancel-1-1")),
]

CASES: Sequence[Case] = [*PLACE, *AWAIT, *WATCH, *GET, *LIST, *CANCEL]

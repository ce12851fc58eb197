"""What the machines of the shop's deciders need to know: few keys, rows that often fit, outcomes that often answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from retail.fulfilment.v1.stock_pb2 import ItemsReserved
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.ordering.v1.order_pb2 import OrderCancelled, OrderConfirmed, OrderRejected, OrderValidated
from retail.payments.effects.v1.payment_pb2 import (
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    CommandGaveUp,
    GivenUpCommand,
    RiskAssessed,
)
from retail.payments.v1.payment_pb2 import PaymentAuthorized

from backbone.contract import check_platform
from backbone.moments import stamp
from backbone.money import money_of
from backbone.testing.machine import BEGAN, World
from contexts.ordering.orders import service as orders
from contexts.payments.payments import decisions as payments
from shop import shop
from tests import examples as say
from tests.successors import SUCCESSORS

ORDERS = ("order-1", "order-2", "order-3", "order-4")
CUSTOMERS, ZONES, SKUS = ("customer-1", "customer-2"), ("north", "south"), ("CD-1", "CD-2")
COMMANDS = [number for number in GivenUpCommand.values() if number]
PRICE = {"CD-1": 1234, "CD-2": 999}

POOLS = {
    "order_id": st.sampled_from(ORDERS),
    "customer_id": st.sampled_from(CUSTOMERS),
    "delivery_zone": st.sampled_from(ZONES),
    "pool_id": st.sampled_from(ZONES),
    "sku": st.sampled_from(SKUS),
    "receipt_id": st.sampled_from(("note-1/1", "note-1/2", "note-1/3")),
    "expires_at": st.integers(0, 3000).map(lambda seconds: stamp(BEGAN + timedelta(seconds=seconds))),
    "answer_by": st.integers(0, 3000).map(lambda seconds: stamp(BEGAN + timedelta(seconds=seconds))),
    "command": st.sampled_from(COMMANDS),
    "google.type.Money": st.sampled_from([0, 999, 1234, 3467]).map(say.usd),
}


@st.composite
def fitting_request(draw: Callable[[SearchStrategy[Any]], Any]) -> OrderRequested:
    """A request at the prices of the catalogue, for a little."""
    skus = draw(st.lists(st.sampled_from(SKUS), min_size=1, max_size=3))
    return say.order_requested(
        draw(st.sampled_from(ORDERS)),
        draw(st.sampled_from(CUSTOMERS)),
        [(sku, draw(st.integers(1, 3)), PRICE[sku]) for sku in skus],
        draw(st.sampled_from(ZONES)),
        BEGAN + timedelta(hours=draw(st.integers(1, 48))),
    )


def fitting_payment(states: Mapping[str, Any]) -> SearchStrategy[PaymentAuthorized]:
    """An authorisation of exactly what an order costs."""
    open_ = [(key, order) for key, order in states.items() if order.currency and not order.paid]
    known = [one for one in open_ if one[1].reserved] or open_
    if not known:
        return st.builds(say.payment_authorized, st.sampled_from(ORDERS))
    return st.sampled_from(known).map(lambda one: say.payment_authorized(one[0], total=money_of(one[1].total, one[1].currency)))


def fitting_reservation(states: Mapping[str, Any]) -> SearchStrategy[ItemsReserved]:
    """Stock holds an order, if there is one a paid one."""
    paid = [key for key, order in states.items() if order.paid]
    return st.sampled_from(paid or standing(states, "validated")).map(lambda order: say.items_reserved(order_id=order))


def cancellation(states: Mapping[str, Any]) -> SearchStrategy[OrderCancellationRequested]:
    """A wish of the one who ordered."""
    known = [(key, order.customer_id) for key, order in states.items() if order.customer_id] or [(ORDERS[0], CUSTOMERS[0])]
    return st.sampled_from(known).map(lambda one: say.order_cancellation_requested(*one))


def of_order(build: Callable[..., Message], *statuses: str) -> Callable[[Mapping[str, Any]], SearchStrategy[Any]]:
    """A message about one of the orders, the builder's example otherwise.

    Args:
        statuses: of the orders it is about; any if none of them stands so.
    """
    return lambda states: st.sampled_from(standing(states, *statuses)).map(lambda order: build(order_id=order))


def standing(states: Mapping[str, Any], *statuses: str) -> list[str]:
    """Keys of what stands so."""
    return [key for key, one in states.items() if getattr(one, "status", None) in statuses] or list(ORDERS)


def given_up(states: Mapping[str, Any]) -> SearchStrategy[Any]:
    """A command that was given up while its payment stood so that it matters."""
    matters = (
        (GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK, "started"),
        (GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD, "assessed"),
        (GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD, "authorized"),
        (GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD, "abandoned"),
    )
    fitting = [(command, order) for command, status in matters for order in states if states[order].status == status]
    return st.sampled_from(fitting or [(command, order) for command in COMMANDS for order in ORDERS]).map(
        lambda one: say.command_gave_up(*one)
    )


def available(sku: str) -> SearchStrategy[Any]:
    """Much, little or nothing known of a SKU."""
    levels = [say.availability(sku, north=quantity, south=quantity) for quantity in (100, 100, 100, 100, 2, 0)]
    return st.sampled_from([*levels, None])


def priced(sku: str) -> SearchStrategy[Any]:
    """The catalogue's price, mostly."""
    right = say.price(sku, say.usd(PRICE.get(sku, 1)))
    return st.sampled_from([*[right] * 8, say.price(sku, say.usd(1)), None])


ORDERS_WORLD = World(
    given=POOLS,
    successors=SUCCESSORS["ordering.orders"],
    comes={
        OrderRequested: lambda _: fitting_request(),
        OrderCancellationRequested: cancellation,
        PaymentAuthorized: fitting_payment,
        ItemsReserved: fitting_reservation,
    },
    rows={orders.availability: available, orders.prices: priced},
    again=frozenset({OrderCancellationRequested}),
    # An authorisation of another amount than the order's total contradicts the contract between contexts.
    defects=(ValueError,),
)

PAYMENTS_WORLD = World(
    given=POOLS,
    successors=SUCCESSORS["payments.payments"],
    comes={
        OrderValidated: of_order(say.order_validated),
        OrderConfirmed: of_order(say.order_confirmed, "authorized"),
        OrderRejected: of_order(say.order_rejected, "started", "assessed", "authorized"),
        OrderCancelled: of_order(say.order_cancelled, "started", "assessed", "authorized"),
        CardAuthorized: of_order(say.card_authorized, "assessed", "declined", "abandoned"),
        CardRefused: of_order(say.card_refused, "assessed"),
        CardCaptured: of_order(say.card_captured, "authorized"),
        CardVoided: of_order(say.card_voided, "authorized", "declined", "abandoned"),
        RiskAssessed: lambda states: st.builds(
            say.risk_assessed,
            st.sampled_from(standing(states, "started")),
            st.sampled_from((0, 0, 5)),
            st.sampled_from((0, 1, payments.REFUSALS_TO_BE_HOPELESS)),
        ),
        CommandGaveUp: given_up,
    },
    # An order that ended or was confirmed is met with another command as long as the money is out: the effect is idempotent.
    again=frozenset({OrderConfirmed, OrderRejected, OrderCancelled, CommandGaveUp, CardAuthorized}),
)

STOCK_WORLD = World(
    given=POOLS,
    successors=SUCCESSORS["fulfilment.stock"],
    comes={
        OrderValidated: of_order(say.order_validated),
        OrderRejected: of_order(say.order_rejected),
        OrderCancelled: of_order(say.order_cancelled),
    },
)

WORLDS: Mapping[str, World] = {
    "ordering.orders": ORDERS_WORLD,
    "ordering.pricing": World(given=POOLS, successors=SUCCESSORS["ordering.pricing"]),
    "payments.payments": PAYMENTS_WORLD,
    "fulfilment.stock": STOCK_WORLD,
}
"""By decider."""

DECIDERS = {service.name: service for group in check_platform(shop, "retail").values() for service in group if service.decider}

"""A fold that knows every event."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from retail.ordering.v1 import order_pb2 as order

from tests.typing.tables import words


def evolve(state: words.Order, event: words.Event) -> words.Order:
    """The state after an event."""
    match event:
        case order.OrderValidated() | order.OrderConfirmed():
            return replace(state, paid=True)
        case order.OrderRejected():
            return state
        case _:
            assert_never(event)

"""A decider that names the key of what it hears."""

from __future__ import annotations

from retail.ordering.v1 import order_pb2 as order

from backbone.declare import Decider, on
from tests.typing.tables import words

decider = Decider(words.Order, words.evolve, on(order.OrderValidated, words.noted, key=words.pool_of))  # error

"""A decider that hears one event."""

from __future__ import annotations

from retail.fulfilment.v1 import stock_pb2 as stock

from backbone.declare import Decider, on
from tests.typing.tables import words

decider = Decider(words.Order, words.evolve, on(stock.ItemsReserved, words.packed))  # error

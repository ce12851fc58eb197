"""A decision with three look-ups."""

from __future__ import annotations

from retail.fulfilment.v1 import stock_pb2 as stock
from retail.gateway.v1 import order_request_pb2 as gateway
from retail.ordering.v1 import price_pb2 as price
from retail.ordering.views.v1 import rows_pb2 as rows

from backbone.declare import Decider, View, on
from tests.typing.tables import words

levels = View(rows.Availability, on(stock.StockLevelChanged, words.level_changed))
prices = View(rows.Price, on(price.PriceListed, words.listed))
found = (levels.rows(words.skus_of), prices.rows(words.skus_of), words.now)
validated = Decider(words.Order, words.evolve, on(gateway.OrderRequested, words.validate, look_up=found))
stamped = Decider(words.Order, words.evolve, on(stock.ItemsReserved, words.stamped, look_up=words.identity))  # error

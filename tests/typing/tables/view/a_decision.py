"""A view that hears one event."""

from __future__ import annotations

from retail.ordering.v1 import price_pb2 as price
from retail.ordering.views.v1 import rows_pb2 as rows

from backbone.declare import View, on
from tests.typing.tables import words

prices = View(rows.Price, on(price.PriceListed, words.reserved))  # error

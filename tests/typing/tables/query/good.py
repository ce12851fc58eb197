"""A query over one view."""

from __future__ import annotations

from retail.ordering.v1 import price_pb2 as price
from retail.ordering.views.v1 import rows_pb2 as rows
from retail.payments.views.v1 import risk_pb2 as risk

from backbone.declare import Query, View, on
from tests.typing.tables import words

prices = View(rows.Price, on(price.PriceListed, words.listed))
query = Query(prices, on(risk.GetCustomerHistoryRequest, words.get_history))

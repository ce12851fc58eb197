"""What orders knows of others: its own copies of stock and prices, for decisions to look up."""

from __future__ import annotations

from retail.fulfilment.v1.stock_pb2 import StockLevelChanged
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price

from backbone.declare import Table


def level_changed(rows: Table[Availability], level: StockLevelChanged) -> None:
    """A pool can promise what lies there and is not held."""
    rows[level.sku].available[level.pool_id] = level.on_hand - level.reserved


def listed(rows: Table[Price], price: PriceListed) -> None:
    """One costs this much from now on."""
    rows[price.sku].unit_price.CopyFrom(price.unit_price)

"""Stock: what lies in the pools, and for whom. A pool serves one delivery zone and has its name."""

from __future__ import annotations

from retail.fulfilment.v1.receipt_pb2 import GoodsReceived
from retail.ordering.v1.order_pb2 import OrderCancelled, OrderRejected, OrderValidated

from backbone.declare import Decider, Service, on
from contexts.fulfilment.stock import decisions, state

decider = Decider(
    state.Pool,
    state.evolve,
    on(GoodsReceived, decisions.receive),
    on(OrderValidated, decisions.reserve, key="delivery_zone"),
    on(OrderRejected, decisions.release, key="delivery_zone"),
    on(OrderCancelled, decisions.release, key="delivery_zone"),
)

stock = Service("stock", decider)

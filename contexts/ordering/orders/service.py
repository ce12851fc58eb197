"""Orders: a process manager. It joins what stock and payments say to one answer per order."""

from __future__ import annotations

from retail.fulfilment.v1.stock_pb2 import ItemsReserved, ReservationRefused, StockLevelChanged
from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.v1.payment_pb2 import PaymentAuthorized, PaymentDeclined

from backbone.declare import Decider, Service, View, happened_at, on, on_deadline
from contexts.ordering.orders import decisions, state, view

availability = View(Availability, on(StockLevelChanged, view.level_changed))
prices = View(Price, on(PriceListed, view.listed))

decider = Decider(
    state.Order,
    state.evolve,
    on(
        OrderRequested,
        decisions.validate,
        look_up=(availability.rows(decisions.skus_of), prices.rows(decisions.skus_of), happened_at),
    ),
    on(ItemsReserved, decisions.reserved),
    on(ReservationRefused, decisions.refused),
    on(PaymentAuthorized, decisions.paid),
    on(PaymentDeclined, decisions.declined),
    on(OrderCancellationRequested, decisions.cancel),
    on_deadline(state.due, decisions.expire),
    version=2,
    done=state.answer,
    forget_after=state.KEPT,
)

orders = Service("orders", availability, prices, decider)

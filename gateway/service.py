"""The door: takes wishes in as events, listens for answers, and serves clients from what it has heard. It calls no context."""

from __future__ import annotations

from functools import partial

from retail.gateway.v1.order_request_pb2 import OrderCancellationRequested, OrderRequested
from retail.gateway.views.v1.rows_pb2 import OrderRow, RequestRow
from retail.ordering.v1.order_pb2 import (
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
)

from backbone.declare import Api, Index, Intake, Service, Tail, View, happened_at, on
from gateway import api, view

requests = View(
    RequestRow,
    on(OrderRequested, view.requested, look_up=happened_at),
    indexes=(Index(view.NEWEST, view.newest),),
)
orders = View(
    OrderRow,
    on(OrderValidated, view.validated),
    on(OrderReserved, view.reserved),
    on(OrderPaid, view.paid),
    on(OrderConfirmed, view.confirmed, look_up=happened_at),
    on(OrderRejected, view.rejected, look_up=happened_at),
    on(OrderCancelled, view.cancelled, look_up=happened_at),
    on(OrderCancellationRefused, view.cancellation_refused),
)
intake = Intake(OrderRequested, OrderCancellationRequested)
answers = Tail(OrderValidated, OrderReserved, OrderPaid, OrderConfirmed, OrderRejected, OrderCancelled, OrderCancellationRefused)

door = Service("door", requests, orders, intake, answers, Api(partial(api.serve, requests=requests, orders=orders, answers=answers)))

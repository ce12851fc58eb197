"""Risk: how payments went, by customer; asked by payments."""

from __future__ import annotations

from retail.payments.v1.payment_pb2 import PaymentAuthorized, PaymentCaptured, PaymentDeclined, PaymentVoided
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest

from backbone.declare import Query, Service, View, on
from contexts.payments.risk import queries, view

histories = View(
    CustomerHistory,
    on(PaymentAuthorized, view.authorized),
    on(PaymentDeclined, view.declined),
    on(PaymentCaptured, view.captured),
    on(PaymentVoided, view.voided),
)

risk = Service(
    "risk",
    histories,
    Query(histories, on(GetCustomerHistoryRequest, queries.get_customer_history)),
)

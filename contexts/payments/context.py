"""The bounded context payments: the money of an order."""

from __future__ import annotations

from backbone.declare import Context
from contexts.payments.payments.service import payments as orders_money
from contexts.payments.risk.service import risk

payments = Context(
    "payments",
    orders_money,
    risk,
)

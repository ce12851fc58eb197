"""The bounded context fulfilment: what lies where, for whom, and how it gets there."""

from __future__ import annotations

from backbone.declare import Context
from contexts.fulfilment.receiving.service import receiving
from contexts.fulfilment.stock.service import stock

fulfilment = Context(
    "fulfilment",
    receiving,
    stock,
)

"""The shop, the whole system on one page."""

from __future__ import annotations

from backbone.declare import Outside, Platform
from contexts.fulfilment.context import fulfilment
from contexts.ordering.context import ordering
from contexts.payments.context import payments
from gateway.context import gateway

shop = Platform(
    ordering,
    payments,
    fulfilment,
    gateway=gateway,
    outside=(
        Outside(
            "provider",
            module="outside.provider",
            arguments=("--port", "{port}", "--ledger", "{folder}/provider.sqlite"),
            used_by=("payments.payments",),
        ),
        Outside("catalogue", file="catalogue.csv", used_by=("ordering.catalogue",)),
        Outside("receipts", file="receipts.csv", used_by=("fulfilment.receiving",)),
    ),
)

"""The shop, the whole system on one page."""

from __future__ import annotations

from backbone.declare import Platform
from contexts.fulfilment.context import fulfilment
from contexts.ordering.context import ordering
from contexts.payments.context import payments

shop = Platform(ordering, payments, fulfilment)

"""A newer build of a context, as its process runs it: orders fold another state, risk other rows, each of the next version."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from retail.payments.v1.payment_pb2 import PaymentAuthorized
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from backbone import run
from backbone.declare import On, Table
from contexts.ordering.context import ordering
from contexts.ordering.orders import state
from contexts.ordering.orders.service import decider
from contexts.payments.context import payments
from contexts.payments.risk.service import histories

WEIGHT = 1000
"""What one authorisation counts in the newer rows."""


@dataclass(frozen=True)
class NewerOrder(state.Order):
    """An order that also knows how many events it has said."""

    said: int = 0


def evolve(order: NewerOrder, event: state.Event) -> NewerOrder:
    """The order after an event of its own, which it counts."""
    plain = state.evolve(order, event)
    kept: dict[str, Any] = {one.name: getattr(plain, one.name) for one in dataclasses.fields(state.Order)}
    return NewerOrder(**kept, said=order.said + 1)


def authorized(rows: Table[CustomerHistory], payment: PaymentAuthorized) -> None:
    """A success weighs more than it did."""
    rows[payment.customer_id].authorized += WEIGHT


def main(name: str) -> int:
    """Run a context of the newer build with the environment of this process; returns its exit code."""
    newer: Any = decider  # another state under the same table: what a later build of this file would declare
    newer.state, newer.evolve, newer.version = NewerOrder, evolve, decider.version + 1
    histories.version += 1
    histories.table = tuple(On(PaymentAuthorized, authorized) if line.hears is PaymentAuthorized else line for line in histories.table)
    return run.main({"ordering": ordering, "payments": payments}[name])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""A customer takes an order back."""

from __future__ import annotations

import pytest
from retail.ordering.v1.order_pb2 import (
    CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED,
    CANCELLATION_REFUSAL_REASON_UNKNOWN_ORDER,
)

from backbone.testing.scenario import scenario
from contexts.ordering.orders.service import decider
from contexts.ordering.orders.state import Event, Status
from tests.examples import (
    order_cancellation_refused,
    order_cancellation_requested,
    order_cancelled,
    order_confirmed,
    order_paid,
    order_rejected,
    order_reserved,
    order_validated,
)

asked = scenario(decider).when(order_cancellation_requested())
unknown = order_cancellation_refused(reason=CANCELLATION_REFUSAL_REASON_UNKNOWN_ORDER)
too_late = order_cancellation_refused(reason=CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED)


def test_an_order_that_waits_is_cancelled_whatever_it_has_got_so_far() -> None:
    assert asked.given(order_validated()).then(order_cancelled()).status is Status.CANCELLED
    asked.given(order_validated(), order_reserved()).then(order_cancelled())
    asked.given(order_validated(), order_paid()).then(order_cancelled())


def test_an_order_nobody_asked_for_is_unknown() -> None:
    asked.then(unknown)


def test_somebody_elses_order_is_unknown_and_stays_as_it_is() -> None:
    other = asked.when(order_cancellation_requested(customer_id="customer-2"))
    refusal = order_cancellation_refused(customer_id="customer-2", reason=CANCELLATION_REFUSAL_REASON_UNKNOWN_ORDER)
    assert other.given(order_validated()).then(refusal).status is Status.VALIDATED
    other.given(order_validated(), order_confirmed()).then(refusal)


@pytest.mark.parametrize("answer", [order_confirmed(), order_rejected(), order_cancelled()], ids=lambda answer: type(answer).__name__)
def test_an_answered_order_is_not_cancelled(answer: Event) -> None:
    asked.given(order_validated(), answer).then(too_late)


def test_an_order_rejected_at_once_is_answered_too() -> None:
    asked.given(order_rejected()).then(too_late)

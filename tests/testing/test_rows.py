"""The tool that tries views says what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from backbone.rules import BreaksRules
from backbone.testing.rows import rows
from tests.examples import payment_authorized, payment_captured, payment_declined, payment_voided
from tests.loops.histories import WRONG, histories

KNOWN = CustomerHistory(customer_id="a", authorized=2)


def test_events_change_the_rows_that_are_given() -> None:
    """New rows come, old ones are folded on, deleted ones go, others stay."""
    view = rows(histories()).given(KNOWN, CustomerHistory(customer_id="b"), CustomerHistory(customer_id="c", voided=1))
    view.when(payment_authorized("o", "a"), payment_voided("o", "b"), payment_authorized("o", "d")).then(
        {
            "a": CustomerHistory(customer_id="a", authorized=3),
            "c": CustomerHistory(customer_id="c", voided=1),
            "d": CustomerHistory(customer_id="d", authorized=1),
        }
    )


def test_an_event_comes_at_a_time() -> None:
    """The one the view looks up."""
    at = datetime.fromtimestamp(77, UTC)
    rows(histories()).when(payment_declined("o", "a"), at=at).then({"a": CustomerHistory(customer_id="a", declined=77)})


def test_a_row_that_is_not_as_expected_is_shown_beside_what_was() -> None:
    """So are a missing one and one too many; those that are right are not."""
    view = rows(histories()).given(KNOWN, CustomerHistory(customer_id="right"))
    with pytest.raises(AssertionError) as raised:
        view.then({"b": CustomerHistory(customer_id="b"), "right": CustomerHistory(customer_id="right")})
    assert str(raised.value).splitlines()[:6] == [
        "row 'a'",
        '  is       customer_id: "a" authorized: 2',
        "  expected absent",
        "row 'b'",
        "  is       absent",
        '  expected customer_id: "b"',
    ]


def test_what_the_view_does_not_hear_or_cannot_fold_is_raised() -> None:
    """As the projection would set it aside or mark the row."""
    view = rows(histories())
    with pytest.raises(AssertionError, match="does not hear PaymentCaptured"):
        view.when(payment_captured()).then({})
    with pytest.raises(BreaksRules, match="customer_id"):
        view.when(payment_authorized("o", "")).then({})
    with pytest.raises(ArithmeticError):
        view.when(payment_authorized("o", WRONG)).then({})


def test_trying_a_view_twice_gives_the_same() -> None:
    """Nothing is kept from one to the next."""
    view = rows(histories()).given(KNOWN)
    for _ in range(2):
        view.when(payment_authorized("o", "a")).then({"a": CustomerHistory(customer_id="a", authorized=3)})
    view.then({"a": KNOWN})

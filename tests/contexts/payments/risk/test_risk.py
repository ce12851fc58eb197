"""What is known of a customer, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retail.payments.v1.payment_pb2 import DECLINE_REASON_NO_ANSWER, DECLINE_REASON_RISK
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest, GetCustomerHistoryResponse

from backbone.testing.rows import rows_of
from contexts.payments.risk import queries
from contexts.payments.risk.service import histories
from tests.examples import CUSTOMER, payment_authorized, payment_captured, payment_declined, payment_voided, usd


def test_payments_are_counted_by_how_they_went() -> None:
    events = payment_declined("order-1"), payment_authorized("order-2"), payment_captured("order-2")
    rows = rows_of(histories, *events, payment_authorized("order-3"), payment_voided("order-3"))
    assert rows == {CUSTOMER: CustomerHistory(customer_id=CUSTOMER, authorized=2, declined=1, captured=1, voided=1)}


def test_customers_are_kept_apart() -> None:
    rows = rows_of(histories, payment_authorized(customer_id="a"), payment_declined(customer_id="b"))
    assert rows == {"a": CustomerHistory(customer_id="a", authorized=1), "b": CustomerHistory(customer_id="b", declined=1)}


def test_our_own_refusals_and_silences_do_not_count_against_a_customer() -> None:
    assert rows_of(histories, payment_declined(reason=DECLINE_REASON_RISK), payment_declined(reason=DECLINE_REASON_NO_ANSWER)) in (
        {},
        {CUSTOMER: CustomerHistory(customer_id=CUSTOMER)},
    )


def test_a_free_order_says_nothing_about_a_card() -> None:
    free = payment_authorized(total=usd(0), authorization_id=""), payment_captured(total=0)
    assert rows_of(histories, *free, payment_authorized()) == {CUSTOMER: CustomerHistory(customer_id=CUSTOMER, authorized=1)}


class Histories:
    """Rows in a dictionary."""

    def __init__(self, *rows: CustomerHistory) -> None:
        self.rows = {row.customer_id: row for row in rows}

    async def get(self, key: str) -> CustomerHistory | None:
        return self.rows.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, CustomerHistory]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def newest(self, index: str, group: str, limit: int) -> Sequence[CustomerHistory]:
        raise AssertionError("histories have no index")


async def test_a_customers_history_is_told() -> None:
    row = CustomerHistory(customer_id=CUSTOMER, authorized=3)
    answer = await queries.get_customer_history(Histories(row), GetCustomerHistoryRequest(customer_id=CUSTOMER))
    assert answer == GetCustomerHistoryResponse(row=row)


async def test_nobody_is_unknown_some_have_no_history() -> None:
    answer = await queries.get_customer_history(Histories(), GetCustomerHistoryRequest(customer_id=CUSTOMER))
    assert not answer.HasField("row")

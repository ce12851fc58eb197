"""What is known of a customer: how payments went."""

from __future__ import annotations

from retail.payments.v1.payment_pb2 import (
    DECLINE_REASON_PROVIDER_REFUSED,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentVoided,
)
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from backbone.declare import Table
from backbone.money import minor_units


def authorized(rows: Table[CustomerHistory], payment: PaymentAuthorized) -> None:
    """A success; a free order says nothing about a card."""
    if minor_units(payment.total):
        rows[payment.customer_id].authorized += 1


def declined(rows: Table[CustomerHistory], payment: PaymentDeclined) -> None:
    """A refusal of the provider; our own refusals and silences say nothing about the customer."""
    if payment.reason == DECLINE_REASON_PROVIDER_REFUSED:
        rows[payment.customer_id].declined += 1


def captured(rows: Table[CustomerHistory], payment: PaymentCaptured) -> None:
    """The money became ours."""
    if minor_units(payment.total):
        rows[payment.customer_id].captured += 1


def voided(rows: Table[CustomerHistory], payment: PaymentVoided) -> None:
    """The money stayed the customer's."""
    rows[payment.customer_id].voided += 1

"""What payments holds of the payment of one order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import TypeAlias, assert_never

from retail.payments.effects.v1.payment_pb2 import AssessRisk, AuthorizeCard, CaptureCard, VoidCard
from retail.payments.v1.payment_pb2 import (
    PaymentAbandoned,
    PaymentAssessed,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentStarted,
    PaymentVoided,
)

from backbone.moments import EPOCH, moment
from backbone.money import minor_units

Event: TypeAlias = (
    PaymentStarted | PaymentAssessed | PaymentAuthorized | PaymentDeclined | PaymentAbandoned | PaymentCaptured | PaymentVoided
)
Command: TypeAlias = AssessRisk | AuthorizeCard | CaptureCard | VoidCard
Said: TypeAlias = Event | Command


class Status(StrEnum):
    """Where a payment stands."""

    NEW = auto()
    STARTED = auto()
    ASSESSED = auto()
    AUTHORIZED = auto()
    DECLINED = auto()
    ABANDONED = auto()
    CAPTURED = auto()
    VOIDED = auto()


ENDS = (Status.DECLINED, Status.ABANDONED, Status.CAPTURED, Status.VOIDED)

KEPT = timedelta(days=365)
"""How long the end of a payment is remembered after the last word about it. A provider that does not answer is asked again once a week for
as long as it takes, and each time is a word; what it tells twice or too late, it tells within days."""


@dataclass(frozen=True)
class Payment:
    """The payment of one order.

    Attributes:
        total: minor units of `currency`; of a free order 0.
        answer_by: when nobody waits any longer.
    """

    status: Status = Status.NEW
    customer_id: str = ""
    total: int = 0
    currency: str = ""
    answer_by: datetime = EPOCH

    @property
    def free(self) -> bool:
        """Whether the provider need not hear of it."""
        return self.total == 0


def end(payment: Payment) -> Payment | None:
    """What is kept of a payment that asks for no more money: how it ended, and whose it was, to tell what is given back. None before."""
    return Payment(payment.status, payment.customer_id) if payment.status in ENDS else None


def evolve(payment: Payment, said: Said) -> Payment:
    """The payment after an event of its own; a command changes nothing, what comes of it does."""
    match said:
        case PaymentStarted():
            return Payment(Status.STARTED, said.customer_id, minor_units(said.total), said.total.currency_code, moment(said.answer_by))
        case PaymentAssessed():
            return replace(payment, status=Status.ASSESSED)
        case PaymentAuthorized():
            return replace(payment, status=Status.AUTHORIZED)
        case PaymentDeclined():
            return replace(payment, status=Status.DECLINED)
        case PaymentAbandoned():
            return replace(payment, status=Status.ABANDONED)
        case PaymentCaptured():
            return replace(payment, status=Status.CAPTURED)
        case PaymentVoided():
            return replace(payment, status=Status.VOIDED)
        case AssessRisk() | AuthorizeCard() | CaptureCard() | VoidCard():
            return payment
        case _:
            assert_never(said)

"""What payments says to what it hears. A command may be answered late or twice: each status says which answer it still takes, and
money that comes after the end goes back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from retail.ordering.v1.order_pb2 import OrderCancelled, OrderConfirmed, OrderRejected, OrderValidated
from retail.payments.effects.v1.payment_pb2 import (
    AssessRisk,
    AuthorizeCard,
    CaptureCard,
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    CommandGaveUp,
    GivenUpCommand,
    RiskAssessed,
    VoidCard,
)
from retail.payments.v1.payment_pb2 import (
    DECLINE_REASON_NO_ANSWER,
    DECLINE_REASON_PROVIDER_REFUSED,
    DECLINE_REASON_RISK,
    DeclineReason,
    PaymentAbandoned,
    PaymentAssessed,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentStarted,
    PaymentVoided,
)

from backbone.moments import stamp
from backbone.money import minor_units, money_of
from contexts.payments.payments.state import Payment, Said, Status

AFTERWARDS = timedelta(days=7)
"""How long to try what nobody waits for: the order has its answer, and a provider's outage is shorter than a week."""

HOPELESS = 100
REFUSALS_TO_BE_HOPELESS = 3


def start(payment: Payment, order: OrderValidated) -> Iterator[Said]:
    """Begin to get the money; of a free order there is none to get."""
    if payment.status is not Status.NEW:
        return
    yield PaymentStarted(order_id=order.order_id, customer_id=order.customer_id, total=order.total, answer_by=order.answer_by)
    if minor_units(order.total) == 0:
        yield PaymentAuthorized(order_id=order.order_id, customer_id=order.customer_id, total=order.total)
    else:
        yield AssessRisk(order_id=order.order_id, customer_id=order.customer_id, answer_by=order.answer_by)


def weigh(payment: Payment, history: RiskAssessed) -> Iterator[Said]:
    """Ask the provider to hold the money, unless the customer's history is hopeless."""
    if payment.status is not Status.STARTED:
        return
    score = score_of(history.authorized, history.declined)
    accepted = score < HOPELESS
    yield PaymentAssessed(order_id=history.order_id, score=score, accepted=accepted)
    if accepted:
        yield AuthorizeCard(
            order_id=history.order_id,
            customer_id=payment.customer_id,
            total=money_of(payment.total, payment.currency),
            answer_by=stamp(payment.answer_by),
        )
    else:
        yield declined(payment, history.order_id, DECLINE_REASON_RISK)


def score_of(authorized: int, declined: int) -> int:
    """The risk of a customer, from 0 (harmless) to 100 (hopeless: three refusals or more, and never a success).

    Below that it is the share of refusals among all payments, held down by as many silent ones as it takes to be hopeless, so that
    one refusal of a new customer weighs a quarter and not everything. Counts below nothing, which no view gives, count as nothing.
    """
    authorized, declined = max(authorized, 0), max(declined, 0)
    if authorized == 0 and declined >= REFUSALS_TO_BE_HOPELESS:
        return HOPELESS
    return HOPELESS * declined // (authorized + declined + REFUSALS_TO_BE_HOPELESS)


def authorized(payment: Payment, outcome: CardAuthorized, now: datetime) -> Iterator[Said]:
    """Take the money for held; give it back if it comes too late."""
    match payment.status:
        case Status.ASSESSED:
            yield PaymentAuthorized(
                order_id=outcome.order_id,
                customer_id=payment.customer_id,
                total=money_of(payment.total, payment.currency),
                authorization_id=outcome.authorization_id,
            )
        case Status.DECLINED | Status.ABANDONED | Status.VOIDED:
            yield void(outcome.order_id, now)
        case _:
            return


def refused(payment: Payment, outcome: CardRefused) -> Iterator[Said]:
    """Decline what the provider refuses."""
    if payment.status is Status.ASSESSED:
        yield declined(payment, outcome.order_id, DECLINE_REASON_PROVIDER_REFUSED)


def give_up(payment: Payment, outcome: CommandGaveUp, now: datetime) -> Iterator[Said]:
    """Decline what was not answered in time, and undo what may have been done; what must happen is asked for again."""
    match outcome.command, payment.status:
        case GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK, Status.STARTED:
            yield declined(payment, outcome.order_id, DECLINE_REASON_NO_ANSWER)
        case GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD, Status.ASSESSED:
            yield declined(payment, outcome.order_id, DECLINE_REASON_NO_ANSWER)
            yield void(outcome.order_id, now)
        case GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD, Status.AUTHORIZED:
            yield take(payment, outcome.order_id, now)
        case GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD, Status.AUTHORIZED | Status.DECLINED | Status.ABANDONED:
            yield void(outcome.order_id, now)
        case _:
            return


def capture(payment: Payment, order: OrderConfirmed, now: datetime) -> Iterator[Said]:
    """Take the money of a confirmed order."""
    if payment.status is Status.AUTHORIZED:
        yield captured_event(payment, order.order_id) if payment.free else take(payment, order.order_id, now)


def captured(payment: Payment, outcome: CardCaptured) -> Iterator[Said]:
    """Tell that the money is ours."""
    if payment.status is Status.AUTHORIZED:
        yield captured_event(payment, outcome.order_id)


def abandon(payment: Payment, order: OrderRejected | OrderCancelled, now: datetime) -> Iterator[Said]:
    """Give back what is or may be held for an order that ended."""
    match payment.status:
        case Status.STARTED:
            yield PaymentAbandoned(order_id=order.order_id)
        case Status.ASSESSED:
            yield PaymentAbandoned(order_id=order.order_id)
            yield void(order.order_id, now)
        case Status.AUTHORIZED:
            yield voided_event(payment, order.order_id) if payment.free else void(order.order_id, now)
        case _:
            return


def voided(payment: Payment, outcome: CardVoided) -> Iterator[Said]:
    """Tell that nothing is held any more."""
    if payment.status in (Status.AUTHORIZED, Status.DECLINED, Status.ABANDONED):
        yield voided_event(payment, outcome.order_id)


def take(payment: Payment, order_id: str, now: datetime) -> CaptureCard:
    """The command to get the money that is held."""
    return CaptureCard(order_id=order_id, total=money_of(payment.total, payment.currency), answer_by=stamp(now + AFTERWARDS))


def void(order_id: str, now: datetime) -> VoidCard:
    """The command to hold nothing, now or later."""
    return VoidCard(order_id=order_id, answer_by=stamp(now + AFTERWARDS))


def declined(payment: Payment, order_id: str, reason: DeclineReason.ValueType) -> PaymentDeclined:
    """There will be no money."""
    return PaymentDeclined(order_id=order_id, customer_id=payment.customer_id, reason=reason)


def captured_event(payment: Payment, order_id: str) -> PaymentCaptured:
    """The money is ours."""
    return PaymentCaptured(order_id=order_id, customer_id=payment.customer_id, total=money_of(payment.total, payment.currency))


def voided_event(payment: Payment, order_id: str) -> PaymentVoided:
    """The money is the customer's again."""
    return PaymentVoided(order_id=order_id, customer_id=payment.customer_id)

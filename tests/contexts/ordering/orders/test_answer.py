"""Stock and payment are joined to exactly one answer; what comes after it is silence."""

from __future__ import annotations

import pytest
from google.type.money_pb2 import Money
from retail.ordering.v1.order_pb2 import REJECTION_REASON_OUT_OF_STOCK, REJECTION_REASON_OVERDUE, REJECTION_REASON_PAYMENT_DECLINED

from backbone.declare import Tick
from backbone.money import money_of
from backbone.testing.scenario import Scenario, scenario
from contexts.ordering.orders.service import decider
from contexts.ordering.orders.state import Event, Order, Status, due, next_action
from tests.examples import (
    ANSWER_BY,
    LATER,
    items_reserved,
    order_cancelled,
    order_confirmed,
    order_paid,
    order_rejected,
    order_reserved,
    order_validated,
    payment_authorized,
    payment_declined,
    reservation_refused,
    usd,
)

waiting = scenario(decider).given(order_validated())
reserved = waiting.given(order_reserved())
paid = waiting.given(order_paid())

ANSWERS: list[Event] = [order_confirmed(), order_rejected(), order_cancelled()]
answered = pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)


def test_stock_alone_does_not_confirm() -> None:
    assert next_action(waiting.when(items_reserved()).then(order_reserved())) == "await payment"


def test_payment_alone_does_not_confirm() -> None:
    assert next_action(waiting.when(payment_authorized()).then(order_paid())) == "await stock"


def test_payment_after_stock_confirms() -> None:
    assert reserved.when(payment_authorized()).then(order_paid(), order_confirmed()).status is Status.CONFIRMED


def test_stock_after_payment_confirms() -> None:
    assert paid.when(items_reserved()).then(order_reserved(), order_confirmed()).status is Status.CONFIRMED


def test_stock_or_payment_said_twice_is_silence() -> None:
    reserved.when(items_reserved()).then()
    paid.when(payment_authorized()).then()


@pytest.mark.parametrize("amount", [usd(3466), usd(3468), money_of(3467, "EUR")], ids=["less", "more", "another currency"])
def test_an_amount_other_than_the_total_is_a_defect(amount: Money) -> None:
    reserved.when(payment_authorized(total=amount)).then_fails(ValueError, "order-1")


def test_what_stock_refuses_is_rejected_and_names_what_is_short() -> None:
    refusal = reservation_refused(short={"CD-1": 1, "CD-2": 3})
    rejected = order_rejected(reason=REJECTION_REASON_OUT_OF_STOCK, skus=["CD-1", "CD-2"])
    waiting.when(refusal).then(rejected)
    paid.when(refusal).then(rejected)


def test_what_nobody_pays_is_rejected() -> None:
    rejected = order_rejected(reason=REJECTION_REASON_PAYMENT_DECLINED)
    waiting.when(payment_declined()).then(rejected)
    reserved.when(payment_declined()).then(rejected)


def test_an_order_is_due_when_its_customer_no_longer_waits_and_not_once_it_is_answered() -> None:
    assert due(waiting.state()) == due(reserved.state()) == due(paid.state()) == ANSWER_BY
    assert due(Order()) is None
    assert all(due(scenario(decider).given(answer).state()) is None for answer in ANSWERS)


@pytest.mark.parametrize("order", [waiting, reserved, paid], ids=["waiting", "reserved", "paid"])
def test_what_waits_too_long_is_rejected_as_overdue(order: Scenario[Order, Event]) -> None:
    order.when(Tick(due=ANSWER_BY, at=LATER)).then(order_rejected(reason=REJECTION_REASON_OVERDUE))


@answered
def test_after_the_answer_everything_is_silence(answer: Event) -> None:
    end = waiting.given(answer)
    assert next_action(end.state()) == "nothing"
    for late in (items_reserved(), reservation_refused(), payment_authorized(total=usd(1)), payment_declined()):
        end.when(late).then()
    end.when(Tick(due=ANSWER_BY, at=LATER)).then()


@answered
def test_an_answered_order_keeps_nothing_but_its_answer_and_whose_it_was(answer: Event) -> None:
    after = reserved.given(answer).state()
    assert after == Order(status=after.status, order_id="order-1", customer_id="customer-1")


def test_what_is_said_about_an_order_nobody_asked_for_is_silence() -> None:
    nobody = scenario(decider)
    for stray in (items_reserved(), reservation_refused(), payment_authorized(), payment_declined()):
        nobody.when(stray).then()

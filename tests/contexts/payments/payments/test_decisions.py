"""What payments says, by outcome: the money of an order on its way, and back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.message import Message
from retail.payments.effects.v1.payment_pb2 import GivenUpCommand
from retail.payments.v1.payment_pb2 import DECLINE_REASON_NO_ANSWER, DECLINE_REASON_PROVIDER_REFUSED, DECLINE_REASON_RISK

from backbone.testing.scenario import scenario
from contexts.payments.payments.decisions import score_of
from contexts.payments.payments.service import decider
from contexts.payments.payments.state import Status
from tests.examples import (
    NOON,
    assess_risk,
    authorize_card,
    capture_card,
    card_authorized,
    card_captured,
    card_refused,
    card_voided,
    command_gave_up,
    order_cancelled,
    order_confirmed,
    order_rejected,
    order_validated,
    payment_abandoned,
    payment_assessed,
    payment_authorized,
    payment_captured,
    payment_declined,
    payment_started,
    payment_voided,
    risk_assessed,
    usd,
    void_card,
)

FREE = [("CD-0", 1, 0)]

new = scenario(decider).at(NOON)
started = new.given(payment_started(), assess_risk())
assessed = started.given(payment_assessed(), authorize_card())
authorized = assessed.given(payment_authorized())
declined = assessed.given(payment_declined())
abandoned = assessed.given(payment_abandoned(), void_card())
captured = authorized.given(capture_card(), payment_captured())
voided = authorized.given(void_card(), payment_voided())
free = new.given(payment_started(total=0), payment_authorized(total=usd(0), authorization_id=""))

STAGES = {
    "new": new,
    "started": started,
    "assessed": assessed,
    "authorized": authorized,
    "declined": declined,
    "abandoned": abandoned,
    "captured": captured,
    "voided": voided,
}

GAVE_UP = {
    "assess": command_gave_up(GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK),
    "authorize": command_gave_up(GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD),
    "capture": command_gave_up(GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD),
    "void": command_gave_up(GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD),
}


def test_a_validated_order_starts_its_payment_and_the_risk_is_asked_for() -> None:
    assert new.when(order_validated()).then(payment_started(), assess_risk()).status is Status.STARTED


def test_a_free_order_is_authorised_without_asking_anybody() -> None:
    new.when(order_validated(lines=FREE)).then(payment_started(total=0), payment_authorized(total=usd(0), authorization_id=""))


def test_a_harmless_history_lets_the_provider_be_asked() -> None:
    after = started.when(risk_assessed(authorized=9)).then(payment_assessed(score=0, accepted=True), authorize_card())
    assert after.status is Status.ASSESSED


def test_a_hopeless_history_is_declined_without_asking_the_provider() -> None:
    after = started.when(risk_assessed(declined=3)).then(
        payment_assessed(score=100, accepted=False), payment_declined(reason=DECLINE_REASON_RISK)
    )
    assert after.status is Status.DECLINED


def test_a_customer_is_hopeless_after_three_refusals_without_a_success() -> None:
    assert [score_of(0, declined) for declined in range(5)] == [0, 25, 40, 100, 100]


def test_one_success_keeps_a_customer_from_being_hopeless() -> None:
    assert score_of(1, 3) < 100
    assert score_of(1, 1_000_000) < 100


def test_counts_that_no_view_gives_make_no_impossible_score() -> None:
    assert [score_of(*counts) for counts in ((-43_932_708, 711), (-3, 0), (0, -1), (-1, -1))] == [100, 0, 0, 0]


def test_what_the_provider_grants_is_authorised_for_the_exact_total() -> None:
    assert assessed.when(card_authorized()).then(payment_authorized(total=usd(3467))).status is Status.AUTHORIZED


def test_what_the_provider_refuses_is_declined() -> None:
    after = assessed.when(card_refused()).then(payment_declined(reason=DECLINE_REASON_PROVIDER_REFUSED))
    assert after.status is Status.DECLINED


@pytest.mark.parametrize("stage", ["declined", "abandoned", "voided"])
def test_money_granted_after_the_end_goes_back(stage: str) -> None:
    STAGES[stage].when(card_authorized()).then(void_card())


def test_a_risk_nobody_could_assess_in_time_is_declined_and_nothing_needs_to_be_undone() -> None:
    started.when(GAVE_UP["assess"]).then(payment_declined(reason=DECLINE_REASON_NO_ANSWER))


def test_a_provider_that_did_not_answer_in_time_is_told_to_hold_nothing_for_it_may_have_done_it() -> None:
    assessed.when(GAVE_UP["authorize"]).then(payment_declined(reason=DECLINE_REASON_NO_ANSWER), void_card())


def test_what_must_happen_is_asked_for_again_when_it_was_given_up() -> None:
    authorized.when(GAVE_UP["capture"]).then(capture_card())
    for stage in ("authorized", "declined", "abandoned"):
        STAGES[stage].when(GAVE_UP["void"]).then(void_card())


def test_the_money_of_a_confirmed_order_is_taken() -> None:
    authorized.when(order_confirmed()).then(capture_card())


def test_money_that_was_taken_is_ours() -> None:
    assert authorized.given(capture_card()).when(card_captured()).then(payment_captured()).status is Status.CAPTURED


def test_a_free_order_is_captured_at_once() -> None:
    assert free.when(order_confirmed(lines=FREE)).then(payment_captured(total=0)).status is Status.CAPTURED


@pytest.mark.parametrize("end", [order_rejected(), order_cancelled()], ids=["rejected", "cancelled"])
def test_an_order_that_ends_gives_back_what_is_or_may_be_held(end: Message) -> None:
    assert started.when(end).then(payment_abandoned()).status is Status.ABANDONED
    assert assessed.when(end).then(payment_abandoned(), void_card()).status is Status.ABANDONED
    authorized.when(end).then(void_card())
    assert free.when(end).then(payment_voided()).status is Status.VOIDED


@pytest.mark.parametrize("stage", ["authorized", "declined", "abandoned"])
def test_what_is_no_longer_held_is_told(stage: str) -> None:
    assert STAGES[stage].when(card_voided()).then(payment_voided()).status is Status.VOIDED


def test_what_nobody_waits_for_is_tried_for_a_week() -> None:
    late = NOON + timedelta(hours=3)
    authorized.at(late).when(order_confirmed()).then(capture_card(answer_by=late + timedelta(days=7)))
    authorized.at(late).when(order_rejected()).then(void_card(answer_by=late + timedelta(days=7)))


HEARD = {
    "order validated": order_validated(),
    "order confirmed": order_confirmed(),
    "order rejected": order_rejected(),
    "order cancelled": order_cancelled(),
    "risk assessed": risk_assessed(),
    "card authorised": card_authorized(),
    "card refused": card_refused(),
    "card captured": card_captured(),
    "card voided": card_voided(),
    **{f"{command} given up": outcome for command, outcome in GAVE_UP.items()},
}

ANSWERED = {
    "new": {"order validated"},
    "started": {"risk assessed", "order rejected", "order cancelled", "assess given up"},
    "assessed": {"card authorised", "card refused", "order rejected", "order cancelled", "authorize given up"},
    "authorized": {
        "order confirmed",
        "order rejected",
        "order cancelled",
        "card captured",
        "card voided",
        "capture given up",
        "void given up",
    },
    "declined": {"card authorised", "card voided", "void given up"},
    "abandoned": {"card authorised", "card voided", "void given up"},
    "captured": set(),
    "voided": {"card authorised"},
}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_whatever_else_comes_late_or_twice_is_silence(stage: str) -> None:
    for name in sorted(HEARD.keys() - ANSWERED[stage]):
        STAGES[stage].when(HEARD[name]).then()


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_outcome_makes_an_event_a_second_time(stage: str) -> None:
    for name in sorted(ANSWERED[stage]):
        once = STAGES[stage].when(HEARD[name])
        said = once.said()
        again = once.given(*said).said()
        assert not {type(one) for one in said} & {type(one) for one in again if type(one).__name__.startswith("Payment")}, name

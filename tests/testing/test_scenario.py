"""The tool that drives deciders in tests: it must fail where the loop would, and say why."""

from __future__ import annotations

from datetime import timedelta

import pytest
from retail.ordering.v1.order_pb2 import REJECTION_REASON_OVERDUE, OrderConfirmed

from backbone.declare import Decider, Tick, on
from backbone.rules import BreaksRules
from backbone.testing.scenario import scenario
from contexts.ordering.orders import state
from contexts.ordering.orders.service import availability, decider, prices
from contexts.ordering.orders.state import Order, Status
from contexts.payments.payments.service import decider as payments
from tests.examples import (
    ANSWER_BY,
    LATER,
    NOON,
    items_reserved,
    order_confirmed,
    order_paid,
    order_rejected,
    order_requested,
    order_reserved,
    order_validated,
    payment_abandoned,
    payment_started,
    price,
    stock_level_changed,
    usd,
)
from tests.examples import availability as row

waiting = scenario(decider).given(order_validated())


def test_what_is_said_is_compared_in_order_and_the_state_afterwards_is_given_back() -> None:
    after = waiting.given(order_paid()).when(items_reserved()).then(order_reserved(), order_confirmed())
    assert after.status is Status.CONFIRMED
    with pytest.raises(AssertionError):
        waiting.given(order_paid()).when(items_reserved()).then(order_confirmed(), order_reserved())


def test_a_difference_is_shown_as_text_line_by_line() -> None:
    with pytest.raises(AssertionError) as failed:
        waiting.when(Tick(due=ANSWER_BY, at=LATER)).then(order_rejected(reason=REJECTION_REASON_OVERDUE, fingerprint="f2"))
    assert '-  fingerprint: "f2"' in str(failed.value)
    assert '+  fingerprint: "f1"' in str(failed.value)
    assert "   reason: REJECTION_REASON_OVERDUE" in str(failed.value)


def test_silence_that_was_not_expected_is_a_failure_and_so_is_the_contrary() -> None:
    with pytest.raises(AssertionError, match=r"\+\(nothing\)"):
        waiting.given(order_reserved()).when(items_reserved()).then(order_reserved())
    with pytest.raises(AssertionError, match=r"-\(nothing\)"):
        waiting.when(items_reserved()).then()


def test_a_beginning_can_be_continued_in_several_ways() -> None:
    waiting.given(order_reserved())
    assert waiting.state().reserved is False


def test_commands_are_given_and_expected_like_events() -> None:
    begun = scenario(payments).given(payment_started())
    begun.at(NOON).when(order_rejected()).then(payment_abandoned())


def test_rows_and_time_have_to_be_told_when_the_line_looks_them_up() -> None:
    asked = scenario(decider).when(order_requested())
    with pytest.raises(AssertionError, match=r"looks up availability: say \.knowing"):
        asked.then()
    with pytest.raises(AssertionError, match=r"asks when it happened: say \.at"):
        asked.knowing(availability).knowing(prices).then()


def test_only_the_rows_that_are_asked_for_are_handed_over() -> None:
    seen: list[set[str]] = []

    def look(order: Order, request: object, rows: object) -> list[state.Event]:
        assert isinstance(rows, dict)
        seen.append(set(rows))
        return []

    lines = on(type(order_requested()), look, look_up=prices.rows(lambda request: ["CD-1", "CD-8"]))
    scenario(Decider(Order, state.evolve, lines)).when(order_requested()).knowing(prices, price("CD-1"), price("CD-2")).then()
    assert seen == [{"CD-1"}]


def test_rows_of_a_view_can_be_told_bit_by_bit_and_the_last_word_counts() -> None:
    asked = scenario(decider).when(order_requested(lines=[("CD-1", 1, 1234)])).at(NOON)
    asked = (
        asked.knowing(availability, row("CD-1", north=1)).knowing(prices, price("CD-1", usd(1))).knowing(prices, price("CD-1", usd(1234)))
    )
    asked.then(order_validated(lines=[("CD-1", 1, 1234)]))


def test_a_tick_for_another_deadline_than_the_one_that_counts_never_reaches_the_decision() -> None:
    waiting.when(Tick(due=ANSWER_BY + timedelta(seconds=1), at=LATER)).then()


def test_a_tick_for_a_decider_without_a_deadline_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="without a deadline"):
        scenario(payments).when(Tick(due=ANSWER_BY, at=LATER)).then()


def test_an_event_no_line_hears_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="StockLevelChanged is in no line"):
        scenario(decider).when(stock_level_changed()).then()


def test_nothing_can_be_given_that_the_decider_does_not_say() -> None:
    with pytest.raises(AssertionError, match="ItemsReserved is nothing this decider says"):
        scenario(decider).given(items_reserved()).state()  # type: ignore[arg-type]


def test_something_has_to_come() -> None:
    with pytest.raises(AssertionError, match=r"say \.when"):
        waiting.then()


def test_what_comes_and_what_is_said_must_keep_its_contract() -> None:
    with pytest.raises(BreaksRules, match="OrderRequested"):
        scenario(decider).when(order_requested(lines=[])).then()

    def confirm(order: Order, event: object) -> list[state.Event]:
        return [OrderConfirmed()]

    careless = Decider(Order, state.evolve, on(type(items_reserved()), confirm))
    with pytest.raises(BreaksRules, match="OrderConfirmed"):
        scenario(careless).when(items_reserved()).then(OrderConfirmed())


def test_a_decision_that_says_what_its_fold_does_not_know_fails() -> None:
    def echo(order: Order, event: object) -> list[object]:
        return [event]

    foreign: Decider[Order, state.Event] = Decider(Order, state.evolve, on(type(items_reserved()), echo))  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="said a ItemsReserved"):
        scenario(foreign).when(items_reserved()).then()


def test_a_defect_can_be_expected_and_must_then_happen() -> None:
    with pytest.raises(AssertionError, match="raised no ValueError; it said"):
        waiting.when(items_reserved()).then_fails(ValueError)

"""A request is passed on to stock and payment, or answered no at once."""

from __future__ import annotations

from datetime import timedelta

from retail.ordering.v1.order_pb2 import (
    REJECTION_REASON_OUT_OF_STOCK,
    REJECTION_REASON_OVERDUE,
    REJECTION_REASON_PRICE_CHANGED,
    REJECTION_REASON_UNKNOWN_SKU,
)

from backbone.money import money_of
from backbone.testing.scenario import scenario
from contexts.ordering.orders.service import availability, decider, prices
from contexts.ordering.orders.state import Order, next_action
from tests.examples import (
    ANSWER_BY,
    NOON,
    order_cancellation_refused,
    order_rejected,
    order_requested,
    order_validated,
    price,
    usd,
)
from tests.examples import availability as row

PLENTY = row("CD-1", north=2), row("CD-2", north=1)
LISTED = price("CD-1", usd(1234)), price("CD-2", usd(999))

asked = scenario(decider).when(order_requested()).knowing(availability, *PLENTY).knowing(prices, *LISTED).at(NOON)


def test_a_request_that_passes_every_check_is_validated_with_its_total() -> None:
    after = asked.then(order_validated())
    assert next_action(after) == "await stock and payment"
    assert after.total == 3467


def test_a_free_order_is_validated_like_any_other() -> None:
    lines = [("CD-0", 1, 0)]
    asked.when(order_requested(lines=lines)).knowing(availability, row("CD-0", north=1)).knowing(prices, price("CD-0", usd(0))).then(
        order_validated(lines=lines)
    )


def test_a_request_that_comes_when_its_customer_no_longer_waits_is_overdue() -> None:
    asked.at(ANSWER_BY).then(order_rejected(reason=REJECTION_REASON_OVERDUE))


def test_a_request_that_comes_just_in_time_is_validated() -> None:
    asked.at(ANSWER_BY - timedelta(microseconds=1)).then(order_validated())


def test_a_sku_without_a_price_is_unknown_and_named() -> None:
    request = order_requested(lines=[("CD-1", 1, 1234), ("CD-8", 1, 500), ("CD-9", 1, 500), ("CD-8", 1, 500)])
    asked.when(request).then(order_rejected(reason=REJECTION_REASON_UNKNOWN_SKU, skus=["CD-8", "CD-9"]))


def test_a_price_other_than_the_one_shown_is_rejected_and_never_charged() -> None:
    asked.knowing(prices, price("CD-1", usd(1235))).then(order_rejected(reason=REJECTION_REASON_PRICE_CHANGED, skus=["CD-1"]))


def test_a_lower_price_than_the_one_shown_has_changed_too() -> None:
    asked.knowing(prices, price("CD-1", usd(1))).then(order_rejected(reason=REJECTION_REASON_PRICE_CHANGED, skus=["CD-1"]))


def test_the_same_number_in_another_currency_is_another_price() -> None:
    asked.knowing(prices, price("CD-2", money_of(999, "EUR"))).then(order_rejected(reason=REJECTION_REASON_PRICE_CHANGED, skus=["CD-2"]))


def test_what_the_pool_of_the_zone_cannot_promise_is_out_of_stock_and_named() -> None:
    asked.knowing(availability, row("CD-1", north=1)).then(order_rejected(reason=REJECTION_REASON_OUT_OF_STOCK, skus=["CD-1"]))


def test_what_lies_in_another_pool_does_not_help() -> None:
    asked.knowing(availability, row("CD-2", south=100)).then(order_rejected(reason=REJECTION_REASON_OUT_OF_STOCK, skus=["CD-2"]))


def test_what_never_lay_anywhere_is_out_of_stock() -> None:
    request = order_requested(lines=[("CD-3", 1, 100)])
    asked.when(request).knowing(prices, price("CD-3", usd(100))).then(order_rejected(reason=REJECTION_REASON_OUT_OF_STOCK, skus=["CD-3"]))


def test_lines_of_one_sku_are_counted_together() -> None:
    request = order_requested(lines=[("CD-1", 2, 1234), ("CD-1", 1, 1234)])
    asked.when(request).then(order_rejected(reason=REJECTION_REASON_OUT_OF_STOCK, skus=["CD-1"]))


def test_an_unknown_sku_weighs_more_than_a_changed_price_and_that_more_than_missing_stock() -> None:
    request = order_requested(lines=[("CD-1", 9, 1), ("CD-8", 1, 500)])
    asked.when(request).then(order_rejected(reason=REJECTION_REASON_UNKNOWN_SKU, skus=["CD-8"]))
    request = order_requested(lines=[("CD-1", 9, 1), ("CD-2", 9, 999)])
    asked.when(request).then(order_rejected(reason=REJECTION_REASON_PRICE_CHANGED, skus=["CD-1"]))


def test_a_repeated_request_is_silence_wherever_the_order_stands() -> None:
    asked.given(order_validated()).then()
    asked.given(order_rejected()).then()


def test_a_refused_cancellation_of_an_order_that_does_not_exist_yet_does_not_hinder_it() -> None:
    assert asked.given(order_cancellation_refused()).state() == Order()
    asked.given(order_cancellation_refused()).then(order_validated())

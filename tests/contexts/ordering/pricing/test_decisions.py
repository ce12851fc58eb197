"""What pricing says, by outcome."""

from __future__ import annotations

from backbone.money import money_of
from backbone.testing.scenario import scenario
from contexts.ordering.pricing.service import decider
from tests.examples import item_catalogued, price_listed, usd


def test_the_first_price_of_an_item_is_listed() -> None:
    scenario(decider).when(item_catalogued(list_price=usd(1234))).then(price_listed(unit_price=usd(1234)))


def test_another_price_than_the_listed_one_is_listed() -> None:
    scenario(decider).given(price_listed(unit_price=usd(1234))).when(item_catalogued(list_price=usd(1299))).then(
        price_listed(unit_price=usd(1299))
    )


def test_the_same_price_in_another_currency_is_another_price() -> None:
    euros = money_of(1234, "EUR")
    scenario(decider).given(price_listed(unit_price=usd(1234))).when(item_catalogued(list_price=euros)).then(price_listed(unit_price=euros))


def test_the_listed_price_again_is_silence() -> None:
    scenario(decider).given(price_listed(unit_price=usd(1234))).when(item_catalogued(list_price=usd(1234))).then()


def test_a_price_that_came_back_is_listed_again() -> None:
    scenario(decider).given(price_listed(unit_price=usd(1234)), price_listed(unit_price=usd(1299))).when(
        item_catalogued(list_price=usd(1234))
    ).then(price_listed(unit_price=usd(1234)))


def test_an_item_may_be_free() -> None:
    scenario(decider).when(item_catalogued(list_price=usd(0))).then(price_listed(unit_price=usd(0)))

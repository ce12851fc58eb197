"""Our own copies of stock and prices."""

from __future__ import annotations

from backbone.testing.rows import rows_of
from contexts.ordering.orders.service import availability, prices
from tests.examples import availability as row
from tests.examples import price, price_listed, stock_level_changed, usd


def test_a_pool_can_promise_what_lies_there_and_is_not_held() -> None:
    assert rows_of(availability, stock_level_changed(on_hand=5, reserved=2)) == {"CD-1": row(north=3)}


def test_the_last_level_of_a_pool_counts() -> None:
    levels = stock_level_changed(on_hand=5), stock_level_changed(on_hand=5, reserved=5)
    assert rows_of(availability, *levels) == {"CD-1": row(north=0)}


def test_pools_are_kept_apart() -> None:
    levels = stock_level_changed(on_hand=5), stock_level_changed(pool_id="south", on_hand=7)
    assert rows_of(availability, *levels) == {"CD-1": row(north=5, south=7)}


def test_skus_are_kept_apart() -> None:
    levels = stock_level_changed(on_hand=5), stock_level_changed(sku="CD-2", on_hand=1)
    assert rows_of(availability, *levels) == {"CD-1": row("CD-1", north=5), "CD-2": row("CD-2", north=1)}


def test_the_last_listed_price_counts() -> None:
    listed = price_listed(unit_price=usd(1234)), price_listed(unit_price=usd(1299))
    assert rows_of(prices, *listed) == {"CD-1": price(unit_price=usd(1299))}

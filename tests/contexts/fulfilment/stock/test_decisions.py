"""What stock says, by outcome; and that it never holds more than lies in the pool."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backbone.testing.scenario import scenario
from contexts.fulfilment.stock.service import decider
from contexts.fulfilment.stock.state import Event, Level, Pool
from tests.examples import (
    goods_received,
    items_reserved,
    order_cancelled,
    order_rejected,
    order_validated,
    reservation_refused,
    reservation_released,
    stock_level_changed,
    stock_received,
)

full = scenario(decider).given(stock_received(sku="CD-1", quantity=5), stock_received(sku="CD-2", quantity=1, receipt_id="note-1/2"))
held = full.given(items_reserved())


def test_goods_that_came_in_are_counted() -> None:
    after = scenario(decider).when(goods_received(quantity=5)).then(stock_received(quantity=5), stock_level_changed(on_hand=5))
    assert after.level("CD-1") == Level(on_hand=5)


def test_more_of_the_same_is_added() -> None:
    full.when(goods_received("note-2/1", quantity=3)).then(
        stock_received(quantity=3, receipt_id="note-2/1"), stock_level_changed(on_hand=8)
    )


def test_a_receipt_seen_before_is_silence() -> None:
    full.when(goods_received("note-1/1")).then()


def test_an_order_is_held_whole() -> None:
    after = full.when(order_validated()).then(
        items_reserved(),
        stock_level_changed(sku="CD-1", on_hand=5, reserved=2),
        stock_level_changed(sku="CD-2", on_hand=1, reserved=1),
    )
    assert after.held["order-1"] == (("CD-1", 2), ("CD-2", 1))


def test_lines_of_one_sku_are_held_together() -> None:
    full.when(order_validated(lines=[("CD-1", 2, 1234), ("CD-1", 3, 1234)])).then(
        items_reserved(lines={"CD-1": 5}), stock_level_changed(on_hand=5, reserved=5)
    )


def test_the_last_one_can_be_held() -> None:
    full.when(order_validated(lines=[("CD-1", 5, 1234)])).then(
        items_reserved(lines={"CD-1": 5}), stock_level_changed(on_hand=5, reserved=5)
    )


def test_an_order_that_lacks_one_line_is_refused_whole_and_told_how_many_are_missing() -> None:
    after = full.when(order_validated(lines=[("CD-1", 1, 1234), ("CD-2", 3, 999), ("CD-3", 1, 100)])).then(
        reservation_refused(short={"CD-2": 2, "CD-3": 1})
    )
    assert after.level("CD-1") == Level(on_hand=5)
    assert len(after.held) == 0


def test_what_is_held_for_one_order_is_not_there_for_another() -> None:
    held.when(order_validated("order-2", lines=[("CD-2", 1, 999)])).then(reservation_refused(order_id="order-2", short={"CD-2": 1}))


def test_a_rejected_or_cancelled_order_is_released() -> None:
    freed = reservation_released(), stock_level_changed(sku="CD-1", on_hand=5), stock_level_changed(sku="CD-2", on_hand=1)
    assert len(held.when(order_rejected()).then(*freed).held) == 0
    assert len(held.when(order_cancelled()).then(*freed).held) == 0


def test_what_was_released_is_there_for_another() -> None:
    held.given(reservation_released()).when(order_validated("order-2", lines=[("CD-1", 5, 1234)])).then(
        items_reserved(order_id="order-2", lines={"CD-1": 5}), stock_level_changed(on_hand=5, reserved=5)
    )


def test_an_order_that_holds_nothing_has_nothing_to_release() -> None:
    full.when(order_rejected()).then()
    full.given(reservation_refused()).when(order_rejected()).then()
    held.given(reservation_released()).when(order_cancelled()).then()


def test_an_order_is_reserved_once_however_often_it_comes() -> None:
    held.when(order_validated()).then()


def test_an_order_that_was_refused_or_released_is_never_reserved_again() -> None:
    full.given(reservation_refused()).when(order_validated()).then()
    held.given(reservation_released()).when(order_validated()).then()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(
                goods_received, receipt_id=st.sampled_from("abcdef"), sku=st.sampled_from(["CD-1", "CD-2"]), quantity=st.integers(1, 9)
            ),
            st.builds(
                order_validated,
                order_id=st.sampled_from("12345"),
                lines=st.lists(st.tuples(st.sampled_from(["CD-1", "CD-2"]), st.integers(1, 4), st.just(100)), min_size=1, max_size=3),
            ),
            st.builds(order_rejected, order_id=st.sampled_from("12345")),
        ),
        max_size=30,
    )
)
def test_whatever_comes_stock_is_never_negative_and_what_is_reserved_is_what_is_held(came: list[object]) -> None:
    pool, received, receipts = Pool(), 0, set[str]()
    lines = {line.hears: line.function for line in decider.table}
    for one in came:
        said: list[Event] = list(lines[type(one)](pool, one))
        for event in said:
            pool = decider.evolve(pool, event)
        if isinstance(one, type(goods_received())) and one.receipt_id not in receipts:
            receipts.add(one.receipt_id)
            received += one.quantity
        for sku in pool.levels:
            level = pool.level(sku)
            assert 0 <= level.reserved <= level.on_hand
            assert level.reserved == sum(quantity for order in pool.held for held_sku, quantity in pool.held[order] if held_sku == sku)
    assert sum(pool.level(sku).on_hand for sku in pool.levels) == received

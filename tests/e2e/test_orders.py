"""One order through three contexts: what a customer gets, and what it leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from retail.gateway.v1.order_service_pb2 import OrderRejectionReason, OrderStatus

from tests.e2e.running import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CONFIRMED, REJECTED = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_REJECTED


def refused_because(reason: str) -> int:
    """A reason by its short name."""
    return OrderRejectionReason.Value(f"ORDER_REJECTION_REASON_{reason}")


def test_an_order_is_confirmed_held_paid_and_captured(shop_up: Shop) -> None:
    """The happy path, and the money in the provider's books."""
    with shop_up.customer() as customer:
        order = customer.place([("T-ONE", 2, 1000), ("T-TWO", 1, 1000)])
        assert order.status == CONFIRMED
        assert (order.total.units, order.total.nanos, order.total.currency_code) == (30, 0, "USD")
        shop_up.rest()
        assert shop_up.books(order.order_id) == [("authorized", 3000), ("captured", 3000)]
        seen = customer.get(order.order_id)
        assert (seen.status, seen.reserved, seen.paid) == (CONFIRMED, True, True)
        assert [one.order_id for one in customer.orders()] == [order.order_id]


def test_a_free_order_is_confirmed_without_the_provider(shop_up: Shop) -> None:
    """There is nothing to pay, so nobody is asked to."""
    with shop_up.customer() as customer:
        order = customer.place([("T-FREE", 1, 0)])
        shop_up.rest()
        assert order.status == CONFIRMED
        assert shop_up.books(order.order_id) == []


def test_an_unknown_sku_is_refused(shop_up: Shop) -> None:
    """Nobody sells it."""
    with shop_up.customer() as customer:
        order = customer.place([("T-ONE", 1, 1000), ("T-NOBODY-SELLS-IT", 1, 1000)])
        assert (order.status, order.rejection_reason) == (REJECTED, refused_because("UNKNOWN_SKU"))
        assert list(order.rejected_skus) == ["T-NOBODY-SELLS-IT"]


def test_a_price_that_changed_since_it_was_shown_is_refused(shop_up: Shop) -> None:
    """The catalogue file changes under the customer's eyes; the new price is good."""
    with shop_up.customer() as customer:
        assert customer.place([("T-PRICE", 1, 1000)]).status == CONFIRMED
        shop_up.list_price("T-PRICE", 1100)
        late = customer.place([("T-PRICE", 1, 1000)])
        assert (late.status, late.rejection_reason) == (REJECTED, refused_because("PRICE_CHANGED"))
        assert list(late.rejected_skus) == ["T-PRICE"]
        assert customer.place([("T-PRICE", 1, 1100)]).status == CONFIRMED


def test_what_is_gone_is_refused(shop_up: Shop) -> None:
    """Two are there; a third is not, and another zone's pool does not help."""
    with shop_up.customer() as customer:
        assert customer.place([("T-FEW", 2, 700)], zone="zone-2").status == CONFIRMED
        gone = customer.place([("T-FEW", 1, 700), ("T-ONE", 1, 1000)], zone="zone-2")
        assert (gone.status, gone.rejection_reason) == (REJECTED, refused_because("OUT_OF_STOCK"))
        assert list(gone.rejected_skus) == ["T-FEW"]
        shop_up.rest()
        assert sum(amount if kind != "voided" else -amount for kind, amount in shop_up.books(gone.order_id)) == 0


def test_of_many_who_want_the_last_one_exactly_one_gets_it(shop_up: Shop) -> None:
    """Stock alone decides; whoever was authorised in vain gets the money back."""
    customers = [shop_up.customer() for _ in range(6)]
    with ThreadPoolExecutor(len(customers)) as pool:
        orders = list(pool.map(lambda customer: customer.place([("T-LAST", 1, 700)], zone="zone-3"), customers))
    assert sorted(order.status for order in orders) == [CONFIRMED] + [REJECTED] * 5
    assert {order.rejection_reason for order in orders if order.status == REJECTED} == {refused_because("OUT_OF_STOCK")}


def test_what_the_card_does_not_bear_is_refused(shop_up: Shop) -> None:
    """The provider declines at the card's limit; what was held for the order is free again."""
    with shop_up.customer() as customer:
        shop_up.limit_card(customer.name, 1500)
        assert customer.place([("T-CARD", 1, 1000)]).status == CONFIRMED
        declined = customer.place([("T-CARD", 1, 1000)])
        assert (declined.status, declined.rejection_reason) == (REJECTED, refused_because("PAYMENT_DECLINED"))
        shop_up.rest()
        assert shop_up.books(declined.order_id) == [("declined", 1000)]


def test_the_same_key_gives_the_same_order_and_another_payload_is_refused(shop_up: Shop) -> None:
    """Asking twice is safe; a key stands for one order."""
    with shop_up.customer() as customer:
        first = customer.place([("T-KEY", 1, 1000)], key="once")
        again = customer.place([("T-KEY", 1, 1000)], key="once")
        assert (again.order_id, again.status) == (first.order_id, first.status) == (first.order_id, CONFIRMED)
        with pytest.raises(grpc.RpcError) as refused:
            customer.place([("T-KEY", 2, 1000)], key="once")
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        shop_up.rest()
        assert shop_up.books(first.order_id) == [("authorized", 1000), ("captured", 1000)]
        assert len(customer.orders()) == 1
    with shop_up.customer() as other:
        assert other.place([("T-KEY", 2, 1000)], key="once").order_id != first.order_id


def test_the_same_key_at_the_same_time_is_one_order(shop_up: Shop) -> None:
    """Impatient clients race with themselves."""
    customers = [shop_up.customer("impatient") for _ in range(5)]
    with ThreadPoolExecutor(len(customers)) as pool:
        orders = list(pool.map(lambda customer: customer.place([("T-KEY", 1, 1000)], key="raced"), customers))
    assert {(order.order_id, order.status) for order in orders} == {(orders[0].order_id, CONFIRMED)}
    shop_up.rest()
    assert shop_up.books(orders[0].order_id) == [("authorized", 1000), ("captured", 1000)]


def test_a_confirmed_order_cannot_be_taken_back(shop_up: Shop) -> None:
    """The wish is refused and the order stays."""
    with shop_up.customer() as customer:
        order = customer.place([("T-CANCEL", 1, 1000)])
        response = customer.cancel(order.order_id)
        assert (response.refused, response.undecided, response.order.status) == (True, False, CONFIRMED)
    with shop_up.customer() as stranger, pytest.raises(grpc.RpcError) as refused:
        stranger.cancel(order.order_id)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_laws_hold_of_all_that_happened(shop_up: Shop) -> None:
    """Over the whole log and the provider's books."""
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0

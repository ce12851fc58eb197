"""What the gateway's views hold after each event, and that listening and looking agree."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money
from retail.gateway.v1.order_request_pb2 import OrderRequested, RequestedLine
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow
from retail.ordering.v1.order_pb2 import (
    CancellationRefusalReason,
    OrderCancellationRefused,
    OrderCancelled,
    OrderConfirmed,
    OrderLine,
    OrderPaid,
    OrderRejected,
    OrderReserved,
    OrderValidated,
    RejectionReason,
)

from backbone.contract import resolve_context
from backbone.moments import stamp
from backbone.testing.rows import rows, rows_of
from gateway import view
from gateway.context import gateway
from gateway.service import orders, requests
from tests.gateway.fakes import NOW

PRICE = Money(currency_code="USD", units=11, nanos=770_000_000)
ID: dict[str, Any] = {"order_id": "o1"}
WHO: dict[str, Any] = {**ID, "customer_id": "ann", "fingerprint": "f1"}
LATER = NOW + timedelta(minutes=3)
LINES = [OrderLine(sku="a", quantity=2, unit_price=PRICE)]
VALIDATED = OrderValidated(**WHO, lines=LINES, delivery_zone="north", total=PRICE, answer_by=stamp(LATER))
RESERVED, PAID = OrderReserved(**ID), OrderPaid(**ID)
CONFIRMED = OrderConfirmed(**WHO, lines=LINES, delivery_zone="north", total=PRICE)
REJECTED = OrderRejected(**WHO, delivery_zone="north", reason=RejectionReason.REJECTION_REASON_OUT_OF_STOCK, skus=["a"])
CANCELLED = OrderCancelled(**WHO, delivery_zone="north")
REFUSED = OrderCancellationRefused(**ID, customer_id="ann", reason=CancellationRefusalReason.CANCELLATION_REFUSAL_REASON_ALREADY_ANSWERED)


def request(fingerprint: str = "f1", quantity: int = 2) -> OrderRequested:
    """A request of two lines."""
    return OrderRequested(
        order_id="o1",
        customer_id="ann",
        lines=[RequestedLine(sku="a", quantity=quantity, unit_price=PRICE), RequestedLine(sku="b", quantity=1, unit_price=PRICE)],
        delivery_zone="north",
        expires_at=stamp(LATER),
        fingerprint=fingerprint,
    )


def test_the_table_and_its_contracts_agree() -> None:
    (door,) = resolve_context(gateway)
    assert door.name == "gateway.door"
    assert [topic.name for topic in door.raises] == ["retail.gateway.order-requests.v1"]
    assert [resolved.topic.name for resolved in door.views] == ["retail.gateway.order-requests.v1", "retail.ordering.orders.v1"]
    assert [topic.name for topic in door.tails] == ["retail.ordering.orders.v1"]


def test_a_request_is_kept_with_its_sum_and_time() -> None:
    expected = RequestRow(
        order_id="o1",
        customer_id="ann",
        fingerprint="f1",
        requested_at=stamp(NOW),
        expires_at=stamp(LATER),
        lines=request().lines,
        delivery_zone="north",
        total=Money(currency_code="USD", units=35, nanos=310_000_000),
    )
    rows(requests).when(request(), at=NOW).then({"o1": expected})


def test_the_first_request_under_an_id_is_the_order() -> None:
    (first,) = rows(requests).when(request(), at=NOW).folded().values()
    rows(requests).given(first).when(request("f2", 9), request(), at=LATER).then({"o1": first})


def test_a_customers_requests_are_ordered_by_time() -> None:
    earlier, later = (next(iter(rows(requests).when(request(), at=at).folded().values())) for at in (NOW, LATER))
    assert view.newest(earlier)[0] == "ann"
    assert view.newest(earlier)[1] < view.newest(later)[1]


def test_an_order_is_told_step_by_step() -> None:
    known = OrderRow(**WHO, standing=OrderStanding.ORDER_STANDING_VALIDATED)
    rows(orders).when(VALIDATED).then({"o1": known})
    known.reserved = True
    rows(orders).when(VALIDATED, RESERVED).then({"o1": known})
    known.paid = True
    rows(orders).when(VALIDATED, RESERVED, PAID).then({"o1": known})


@pytest.mark.parametrize(
    ("answer", "standing", "held"),
    [
        (CONFIRMED, OrderStanding.ORDER_STANDING_CONFIRMED, True),
        (REJECTED, OrderStanding.ORDER_STANDING_REJECTED, False),
        (CANCELLED, OrderStanding.ORDER_STANDING_CANCELLED, False),
    ],
)
def test_an_answer_ends_the_waiting(answer: Message, standing: OrderStanding.ValueType, held: bool) -> None:
    row = rows(orders).when(VALIDATED, RESERVED, PAID, answer, at=NOW).folded()["o1"]
    assert view.answered(row)
    assert (row.standing, row.reserved, row.paid) == (standing, held, held)
    assert row.answered_at == stamp(NOW)


def test_a_rejection_says_why_and_about_what() -> None:
    row = rows_of(orders, REJECTED)["o1"]
    assert (row.rejection_reason, list(row.skus)) == (RejectionReason.REJECTION_REASON_OUT_OF_STOCK, ["a"])


def test_a_refused_wish_leaves_the_answer() -> None:
    row = rows_of(orders, VALIDATED, CONFIRMED, REFUSED)["o1"]
    assert row.standing == OrderStanding.ORDER_STANDING_CONFIRMED
    assert row.cancellation_refusal == REFUSED.reason


HISTORIES: dict[str, list[Any]] = {
    "confirmed": [VALIDATED, PAID, RESERVED, CONFIRMED, REFUSED],
    "rejected at once": [REJECTED],
    "rejected late": [VALIDATED, RESERVED, REJECTED, REFUSED],
    "cancelled": [VALIDATED, PAID, CANCELLED],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_whatever_was_looked_up_and_whatever_was_heard_together_they_know_the_newest(name: str) -> None:
    history = HISTORIES[name]
    for looked in range(len(history) + 1):
        for first, last in ((a, b) for a in range(len(history)) for b in range(a + 1, len(history) + 1)):
            if first > looked:
                continue  # a waiter is there before it looks, so nothing lies between what it looked up and what it hears
            heard = None
            for event in history[first:last]:
                heard = view.after(heard, event, NOW)
            assert heard is not None
            known = rows_of(orders, *history[:looked])["o1"] if looked else OrderRow(order_id="o1")
            merged = view.merged(known, heard)
            expected = rows_of(orders, *history[: max(looked, last)])["o1"]
            for row in (merged, expected):
                row.ClearField("answered_at")
            assert merged == expected, f"looked up {looked}, heard {first}..{last}"


def test_every_step_of_the_tail_can_be_heard() -> None:
    for history in HISTORIES.values():
        seen = [view.after(None, event, NOW) for event in history]
        assert all(row.order_id == "o1" for row in seen)
    assert {type(event) for history in HISTORIES.values() for event in history} == {line.hears for line in orders.table}


def test_standings_only_grow_along_a_history() -> None:
    for history in HISTORIES.values():
        standings = [rows_of(orders, *history[: n + 1])["o1"].standing for n in range(len(history))]
        assert all(before <= after for before, after in pairwise(standings))

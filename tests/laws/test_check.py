"""Every law holds of a lawful history, and a lie is named by the law it breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
from google.type.money_pb2 import Money

from backbone.v1.meta_pb2 import Meta
from laws.check import AT_REST, LAWS, NotExact, Verdict, check, minor
from laws.entries import WRAPPERS, Entry, take_apart
from tests import examples
from tests.laws.history import COMMANDS, History, a_lawful_history, wrapped

ORDERS, BY_ZONE = "retail.ordering.orders.v1", "retail.ordering.orders-by-zone.v1"


def judged(history: History, *, at_rest: bool = True) -> Verdict:
    """What the laws say of a history."""
    return check(history.entries(), history.books, at_rest=at_rest)


def test_every_law_holds_of_a_lawful_history() -> None:
    """And every law had something to look at."""
    verdict = judged(a_lawful_history())
    assert verdict.violations == ()
    assert verdict.holds
    assert set(verdict.checked) == set(LAWS)
    assert [law for law, checked in verdict.checked.items() if not checked] == []


def test_totals_are_counted_to_the_cent() -> None:
    """Placed = confirmed + rejected + cancelled; captured = confirmed = what the provider gave."""
    totals = judged(a_lawful_history()).totals
    assert (totals.placed, totals.confirmed, totals.cancelled, totals.unanswered, totals.free) == (6, 2, 1, 0, 1)
    assert totals.rejected == {"out_of_stock": 1, "payment_declined": 1, "unknown_sku": 1}
    assert totals.placed_minor == 4 * examples.TOTAL + 100
    assert totals.confirmed_minor == totals.captured_minor == totals.books_captured_minor == examples.TOTAL
    assert totals.rejected_minor == 2 * examples.TOTAL + 100
    assert totals.cancelled_minor == examples.TOTAL
    assert (totals.open_commands, totals.quarantined) == (0, 0)


class Lie(NamedTuple):
    """A lie: the law it breaks, a piece of what must be said about it, how it is planted, and what else it cannot help breaking."""

    law: str
    says: str
    plant: Callable[[History], object]
    also: frozenset[str] = frozenset()


def _topics(place: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.place.topic == place


def changed(topic: str, change: Callable[[Entry], Entry | None], which: int = 0) -> Callable[[History], object]:
    """Change one entry of a topic, or take it out."""

    def at_last(entries: list[Entry]) -> None:
        index = [number for number, entry in enumerate(entries) if entry.place.topic == topic][which]
        new = change(entries[index])
        entries[index : index + 1] = [] if new is None else [new]

    return lambda history: history.at_last.append(at_last)


def _other_meta(entry: Entry) -> Entry:
    meta = Meta()
    meta.CopyFrom(entry.meta)
    meta.build = "forged"
    return take_apart(entry.place, entry.key, wrapped(WRAPPERS[entry.place.topic], entry.event, meta))


def _nobody_asked(history: History) -> None:
    history.lines = [line for line in history.lines if not (line.name == "OrderRequested" and line.event.order_id == "order-6")]
    history.find("OrderRejected", "order-6").cause = ""


def _twice(name: str, order_id: str) -> Callable[[History], object]:
    """Say something once more, under an identity of its own."""

    def plant(history: History) -> None:
        line = history.find(name, order_id)
        history.lines.insert(history.lines.index(line) + 1, replace(line, id=f"{line.id}-again"))

    return plant


def _more_than_there_is(history: History) -> None:
    """Order 1 holds 6 of 5, consistently told."""
    history.find("ItemsReserved", "order-1").event.lines[0].quantity = 6
    for line in history.lines[history.lines.index(history.find("ItemsReserved", "order-1")) :]:
        if line.name == "StockLevelChanged" and line.event.sku == "CD-1":
            line.event.reserved += 4


def _released_unheld(history: History) -> None:
    """Order 2 frees what it never held, consistently told."""
    at = history.lines.index(history.find("ReservationRefused", "order-2"))
    cause = history.lines[at].cause
    history.say(examples.reservation_released(order_id="order-2", lines={"CD-0": 1}), cause)
    history.say(examples.stock_level_changed(sku="CD-0", on_hand=5, reserved=0), cause, "order-2")


def _confirmed_before_paid(history: History) -> None:
    paid = history.find("OrderPaid", "order-1")
    history.lines.remove(paid)
    history.lines.insert(history.lines.index(history.find("OrderConfirmed", "order-1")) + 1, paid)


def _all_cheaper(history: History) -> None:
    """Order 1 is authorised a cent short, and so are its capture and the books."""
    history.find("PaymentAuthorized", "order-1").event.total.CopyFrom(examples.usd(examples.TOTAL - 1))


def _book(index: int, **change: object) -> Callable[[History], object]:
    def plant(history: History) -> None:
        history.books[index] = replace(history.books[index], **change)  # type: ignore[arg-type]

    return plant


def _released_first(history: History) -> None:
    """Order 3 frees what it never held, before anything of that SKU is held; consistently told as far as it can be."""
    line = history.find("OrderValidated", "order-1")
    at = history.lines.index(line)
    released = examples.reservation_released(order_id="order-2", lines={"CD-0": 1})
    held = examples.items_reserved(order_id="order-2", lines={"CD-0": 1})
    history.say(released, history.lines[0].id)
    history.say(held, history.lines[0].id)
    history.lines[at:at] = [history.lines.pop(-2), history.lines.pop()]


def _fraction_of_a_cent(history: History) -> None:
    """Order 6 is asked for at a price that nobody can pay exactly."""
    history.find("OrderRequested", "order-6").event.lines[0].unit_price.nanos += 1


LIES = [
    Lie("readable", "are no amount", _fraction_of_a_cent, frozenset({"cause", "as requested"})),
    Lie(
        "readable",
        "it is no OrderEvent",
        changed(ORDERS, lambda e: take_apart(e.place, e.key, b"\xff\xff\xff")),
        frozenset({"copies", "cause", "sequence"}),
    ),
    Lie("readable", "its key is 'order-9'", changed(BY_ZONE, lambda e: take_apart(e.place, b"order-9", e.value)), frozenset({"copies"})),
    Lie("readable", "its value is missing", changed(BY_ZONE, lambda e: take_apart(e.place, e.key, None)), frozenset({"copies"})),
    Lie(
        "one writer",
        "PaymentCaptured was written by ordering.orders",
        lambda h: setattr(h.find("PaymentCaptured"), "writer", "ordering.orders"),
    ),
    Lie("unique ids", "has the id id-1 of another ItemCatalogued", lambda h: setattr(h.find("PriceListed"), "id", "id-1")),
    Lie("cause", "no-such-id caused 1 facts", lambda h: setattr(h.find("PaymentStarted"), "cause", "no-such-id")),
    Lie("conversation", "belongs to the conversation 'order-2'", lambda h: setattr(h.find("ItemsReserved"), "correlation", "order-2")),
    Lie("sequence", "has sequence 3, not 2", lambda h: setattr(h.find("OrderReserved", "order-1"), "sequence", 3)),
    Lie("sequence", "has sequence 1, not 3", lambda h: setattr(h.find("PaymentCaptured", "order-5"), "sequence", 1)),
    Lie("copies", "differs from its primary", changed(BY_ZONE, _other_meta)),
    Lie("copies", "is missing in retail.ordering.orders-by-zone.v1", changed(BY_ZONE, lambda e: None)),
    Lie("copies", "is copied twice", lambda h: h.at_last.append(lambda es: es.append(next(filter(_topics(BY_ZONE), es))))),
    Lie("copies", "is in no primary", changed(ORDERS, lambda e: None, which=-2), frozenset({"answered"})),
    Lie("stock", "holds 5 of CD-1 and 6 of them are reserved", _more_than_there_is, frozenset({"confirmed"})),
    Lie("stock", "holds 5 of CD-0 and -1 of them are reserved", _released_first, frozenset({"given back"})),
    Lie(
        "levels",
        "to hold 6 of CD-0, 0 of them reserved; it is 5 and 0",
        lambda h: setattr(h.find("StockLevelChanged", "").event, "on_hand", 6),
    ),
    Lie("told", "told was 5 and 0", lambda h: h.lines.remove([line for line in h.lines if line.name == "StockLevelChanged"][-1])),
    Lie("receipts", "came 1 times and was put away 2 times", _twice("StockReceived", ""), frozenset({"levels", "told"})),
    Lie("receipts", "came 0 times and was put away 1 times", lambda h: h.drop("GoodsReceived"), frozenset({"cause"})),
    Lie("receipts", "was not put away as it came", lambda h: setattr(h.find("GoodsReceived").event, "quantity", 4)),
    Lie(
        "one answer",
        "order order-1 has OrderRejected after OrderConfirmed",
        lambda h: h.say(examples.order_rejected("order-1"), h.lines[0].id),
    ),
    Lie("one answer", "order order-3 has OrderPaid after OrderRejected", lambda h: h.say(examples.order_paid("order-3"), h.lines[0].id)),
    Lie("answered", "order order-6 has no answer", lambda h: h.drop("OrderRejected", "order-6")),
    Lie("answered", "the wish to cancel order order-1 has no answer", lambda h: h.drop("OrderCancellationRefused")),
    Lie("as requested", "nobody asked for order order-6", _nobody_asked),
    Lie("as requested", "another customer", lambda h: setattr(h.find("OrderRejected", "order-6").event, "customer_id", "customer-2")),
    Lie(
        "as requested",
        "costs 3468, its lines cost 3467",
        lambda h: h.find("OrderValidated", "order-2").event.total.CopyFrom(examples.usd(3468)),
    ),
    Lie(
        "as requested",
        "other lines than its request",
        lambda h: setattr(h.find("OrderConfirmed", "order-1").event.lines[0], "quantity", 3),
        frozenset({"confirmed"}),
    ),
    Lie("as requested", "which was never its price", lambda h: h.find("PriceListed").event.unit_price.CopyFrom(examples.usd(1))),
    Lie("confirmed", "was held 2 times", _twice("ItemsReserved", "order-1"), frozenset({"levels", "stock", "told"})),
    Lie("confirmed", "was authorised 2 times", _twice("PaymentAuthorized", "order-1")),
    Lie("confirmed", "was authorised 0 times", lambda h: h.drop("PaymentAuthorized", "order-1"), frozenset({"cause", "provider"})),
    Lie("confirmed", "costs 3467, authorised are 3466", _all_cheaper),
    Lie("confirmed", "without an OrderPaid before it", _confirmed_before_paid, frozenset({"one answer"})),
    Lie(
        "confirmed",
        "is held in another zone's pool",
        lambda h: setattr(h.find("OrderConfirmed", "order-5").event, "delivery_zone", "south"),
        frozenset({"as requested"}),
    ),
    Lie(
        "given back",
        "was held 1 times and released 0 times",
        lambda h: h.drop("ReservationReleased", "order-3"),
        frozenset({"levels", "stock", "told"}),
    ),
    Lie("given back", "was held 0 times and released 1 times", _released_unheld),
    Lie("given back", "is still authorised", lambda h: h.drop("PaymentVoided", "order-2")),
    Lie(
        "given back",
        "rejected order order-2 was captured",
        lambda h: h.say(examples.payment_captured("order-2"), h.lines[0].id),
        frozenset({"captured", "provider"}),
    ),
    Lie("captured", "3467 are due and [] were captured", lambda h: h.drop("PaymentCaptured", "order-1"), frozenset({"provider"})),
    Lie("captured", "[3467, 3467] were captured", _twice("PaymentCaptured", "order-1"), frozenset({"provider"})),
    Lie("provider", "the provider knows order-9, which is no order", lambda h: h.book("authorized", "order-9", 1, "a/9")),
    Lie("provider", "the books say: authorized 3467 (a/order-1), captured 3466", _book(1, minor=examples.TOTAL - 1)),
    Lie("provider", "the books say: authorized 3467 (b-1)", _book(0, authorization_id="b-1")),
    Lie("provider", "did not come and go once each", lambda h: h.books.pop(3)),
    Lie("provider", "the provider captured rejected order order-2", lambda h: h.book("captured", "order-2", 1, "a/order-2")),
    Lie("provider", "(0, free) the books say: authorized 1", lambda h: h.book("authorized", "order-5", 1, "a/order-5")),
    Lie(
        "provider",
        "authorised as b-2, which the provider does not know",
        lambda h: setattr(h.find("PaymentAuthorized", "order-2").event, "authorization_id", "b-2"),
    ),
    Lie("done", "a command of order order-1 is open", lambda h: h.command(examples.capture_card("order-1"), None, "order-1")),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie.law}: {lie.says}")
def test_a_planted_lie_is_named_by_its_law(lie: Lie) -> None:
    """Its law turns red and says why; no law turns red that has nothing to do with it."""
    history = a_lawful_history()
    lie.plant(history)
    verdict = judged(history)
    assert not verdict.holds
    told = [violation for violation in verdict.violations if violation.law == lie.law and lie.says in violation.text]
    assert told, verdict.violations
    assert {violation.law for violation in verdict.violations} <= {lie.law} | lie.also


def test_every_law_has_a_lie() -> None:
    """So that no law can stop looking unnoticed."""
    assert {lie.law for lie in LIES} == set(LAWS)


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie.law not in AT_REST], ids=lambda lie: f"{lie.law}: {lie.says}")
def test_a_safety_law_is_also_asked_of_a_shop_at_work(lie: Lie) -> None:
    """Safety holds at every prefix, so it needs no rest."""
    history = a_lawful_history()
    lie.plant(history)
    assert lie.law in {violation.law for violation in judged(history, at_rest=False).violations}


def test_a_prefix_of_a_lawful_history_breaks_no_safety_law() -> None:
    """Whatever is still to come."""
    whole = a_lawful_history()
    for length in range(len(whole.lines)):
        verdict = check(History(lines=whole.lines[:length]).entries(), (), at_rest=False)
        assert verdict.violations == ()


def test_the_same_request_twice_is_one_request_and_another_one_under_its_id_is_not() -> None:
    """A client may ask again: only the times differ."""
    history = a_lawful_history()
    again = history.find("OrderRequested", "order-1")
    later = examples.order_requested("order-1", expires_at=examples.LATER)
    history.lines.append(replace(again, event=later))
    assert judged(history).holds
    history.lines[-1] = replace(again, event=examples.order_requested("order-1", customer_id="customer-2"))
    assert {violation.law for violation in judged(history).violations} == {"unique ids"}


def test_what_lies_in_quarantine_is_counted() -> None:
    """It breaks no law by itself; an order that hangs on it would."""
    history = a_lawful_history()
    history.private.append(("private.payments.payments.quarantine", b"k", b"\x0a\x01x"))
    verdict = judged(history)
    assert verdict.holds
    assert verdict.totals.quarantined == 1


def test_an_open_command_is_witnessed_by_its_place() -> None:
    """Its coordinate says where to look."""
    history = a_lawful_history()
    history.command(examples.capture_card("order-1"), None, "order-1")
    (violation,) = judged(history).violations
    assert violation.witnesses[0].topic == COMMANDS


def test_money_with_fractions_of_a_cent_is_refused() -> None:
    """It cannot be reconciled to the cent."""
    assert minor(Money(currency_code="USD", units=12, nanos=340_000_000)) == 1234
    with pytest.raises(NotExact):
        minor(Money(currency_code="USD", nanos=1))

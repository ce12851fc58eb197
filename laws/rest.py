"""The laws that hold at rest: of causes and copies, of stock, and of every order and its money, here and at the provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from laws.entries import WRAPPERS, BookEntry
from laws.facts import ANSWERS, Fact, OrderBook, lines_of, minor, places_of, quantities_of
from laws.fold import Fold


def settle(fold: Fold, books: Sequence[BookEntry]) -> None:
    """Ask a fold of a log at rest for all that breaks a law of rest.

    Args:
        books: the provider's lines.
    """
    _causes(fold)
    _copies(fold)
    _stock(fold)
    by_reference: dict[str, list[BookEntry]] = {}
    for entry in books:
        by_reference.setdefault(entry.reference, []).append(entry)
    for order_id, book in fold.orders.items():
        _order(fold, order_id, book, by_reference.get(order_id, []))
    for reference in sorted(by_reference.keys() - fold.orders.keys()):
        fold.violated("provider", f"the provider knows {reference}, which is no order")
    totals = fold.totals
    if totals.captured_minor != totals.confirmed_minor:
        fold.violated("captured", f"{totals.captured_minor} cents are captured, confirmed are {totals.confirmed_minor}")
    if totals.books_captured_minor != totals.captured_minor:
        fold.violated("provider", f"the provider gave {totals.books_captured_minor} cents, captured are {totals.captured_minor}")
    for place, order_id in fold.commands.values():
        fold.violated("done", f"a command of order {order_id} is open", place)


def _causes(fold: Fold) -> None:
    for cause, places in fold.causes.items():
        fold.checked["cause"] += len(places)
        if cause not in fold.primaries and cause not in fold.private:
            fold.violated("cause", f"{cause} caused {len(places)} facts and does not exist", *places[:3])


def _copies(fold: Fold) -> None:
    for topic, copies in fold.copies.items():
        wrapper = WRAPPERS[topic]
        expected = {
            id_: (place, digest)
            for id_, (place, digest, name) in fold.primaries.items()
            if place.topic == wrapper.copy_of and name in wrapper.events
        }
        for id_ in expected.keys() - copies.keys():
            fold.violated("copies", f"{id_} is missing in {topic}", expected[id_][0])
        for id_, (place, digest) in copies.items():
            if id_ not in expected:
                fold.violated("copies", f"{id_} is in no primary", place)
            elif expected[id_][1] != digest:
                fold.violated("copies", f"{id_} differs from its primary", place, expected[id_][0])


def _stock(fold: Fold) -> None:
    for (pool, sku), level in fold.levels.items():
        fold.checked["told"] += 1
        if level.told != (level.on_hand, level.reserved):
            told = "nothing" if level.told is None else f"{level.told[0]} and {level.told[1]}"
            what = f"pool {pool} holds {level.on_hand} of {sku}, {level.reserved} of them reserved; told was {told}"
            fold.violated("told", what, level.place)
    for receipt_id in fold.receipts.keys() | fold.received.keys():
        fold.checked["receipts"] += 1
        came, lies = fold.receipts.get(receipt_id), fold.received.get(receipt_id, [])
        places = [fact.place for fact in ((came, *lies) if came else lies)]
        if came is None or len(lies) != 1:
            fold.violated(
                "receipts", f"receipt {receipt_id} came {int(came is not None)} times and was put away {len(lies)} times", *places
            )
        elif (came.event.pool_id, came.event.sku, came.event.quantity) != (
            lies[0].event.pool_id,
            lies[0].event.sku,
            lies[0].event.quantity,
        ):
            fold.violated("receipts", f"receipt {receipt_id} was not put away as it came", *places)


def _order(fold: Fold, order_id: str, book: OrderBook, lines: Sequence[BookEntry]) -> None:
    request, answer = book.first("OrderRequested"), book.first(*ANSWERS)
    wish, refusal = book.first("OrderCancellationRequested"), book.first("OrderCancellationRefused")
    if wish is not None:
        fold.checked["answered"] += 1
        if refusal is None and (answer is None or answer.name != "OrderCancelled"):
            fold.violated("answered", f"the wish to cancel order {order_id} has no answer", wish.place)
    if request is None:
        for fact in [fact for name, facts in book.said.items() if not name.startswith("OrderCancellation") for fact in facts][:1]:
            fold.violated("as requested", f"nobody asked for order {order_id}, which has {fact.name}", fact.place)
        return
    fold.checked["answered"] += 1
    if answer is None:
        fold.violated("answered", f"order {order_id} has no answer", request.place)
        return
    _request(fold, order_id, book, request, answer)
    if answer.name == "OrderConfirmed":
        _confirmed(fold, order_id, book, answer, lines)
    else:
        _refused(fold, order_id, book, answer, lines)


def _request(fold: Fold, order_id: str, book: OrderBook, request: Fact, answer: Fact) -> None:
    fold.checked["as requested"] += 1
    asked = request.event
    lines = lines_of(asked.lines)
    total = sum(quantity * cents for _, quantity, cents, _ in lines)
    for fact in (*book.of("OrderValidated"), answer):
        event = fact.event
        if (event.customer_id, event.delivery_zone, event.fingerprint) != (asked.customer_id, asked.delivery_zone, asked.fingerprint):
            what = f"{fact.name} of order {order_id} has another customer, zone or fingerprint than its request"
            fold.violated("as requested", what, request.place, fact.place)
        if fact.name in ("OrderValidated", "OrderConfirmed"):
            if lines_of(event.lines) != lines:
                fold.violated(
                    "as requested", f"{fact.name} of order {order_id} has other lines than its request", request.place, fact.place
                )
            if minor(event.total) != total or event.total.currency_code != asked.lines[0].unit_price.currency_code:
                what = f"{fact.name} of order {order_id} costs {minor(event.total)}, its lines cost {total}"
                fold.violated("as requested", what, request.place, fact.place)
    if answer.name == "OrderConfirmed":
        for sku, _, cents, currency in lines:
            if (cents, currency) not in fold.prices.get(sku, set()):
                what = f"order {order_id} is confirmed with {sku} at {cents} cents, which was never its price"
                fold.violated("as requested", what, answer.place)


def _confirmed(fold: Fold, order_id: str, book: OrderBook, answer: Fact, lines: Sequence[BookEntry]) -> None:
    fold.checked["confirmed"] += 1
    total, currency = minor(answer.event.total), answer.event.total.currency_code
    held, released = book.of("ItemsReserved"), book.of("ReservationReleased")
    paid, voided = book.of("PaymentAuthorized"), book.of("PaymentVoided")
    wanted: Counter[str] = Counter()
    for line in answer.event.lines:
        wanted[line.sku] += line.quantity
    if len(held) != 1 or released:
        what = f"confirmed order {order_id} was held {len(held)} times and released {len(released)} times"
        fold.violated("confirmed", what, answer.place, *places_of(held, released))
    elif {line.sku: line.quantity for line in held[0].event.lines} != wanted:
        fold.violated("confirmed", f"of confirmed order {order_id} other lines are held", answer.place, held[0].place)
    elif held[0].event.pool_id != answer.event.delivery_zone:
        fold.violated("confirmed", f"confirmed order {order_id} is held in another zone's pool", answer.place, held[0].place)
    if len(paid) != 1 or voided:
        what = f"confirmed order {order_id} was authorised {len(paid)} times and voided {len(voided)} times"
        fold.violated("confirmed", what, answer.place, *places_of(paid, voided))
    elif (minor(paid[0].event.total), paid[0].event.total.currency_code) != (total, currency):
        what = f"confirmed order {order_id} costs {total}, authorised are {minor(paid[0].event.total)}"
        fold.violated("confirmed", what, answer.place, paid[0].place)
    for step, causes in (("OrderReserved", held), ("OrderPaid", paid)):
        before = [fact for fact in book.of(step) if fact.sequence < answer.sequence]
        if len(before) != 1 or before[0].cause not in {fact.id for fact in causes}:
            heard = " or ".join(sorted({fact.name for fact in causes})) or "nothing"
            what = f"order {order_id} is confirmed without an {step} before it that {heard} caused"
            fold.violated("confirmed", what, answer.place, *places_of(before, causes))
    fold.checked["captured"] += 1
    captured = book.of("PaymentCaptured")
    if len(captured) != 1 or (minor(captured[0].event.total), captured[0].event.total.currency_code) != (total, currency):
        what = f"of confirmed order {order_id}, {total} are due and {[minor(fact.event.total) for fact in captured]} were captured"
        fold.violated("captured", what, answer.place, *places_of(captured))
    fold.checked["provider"] += max(1, len(lines))
    authorization = paid[0].event.authorization_id if paid else ""
    moved = (answer.event.customer_id, authorization, currency, total)
    expected = [("authorized", *moved), ("captured", *moved)] if total else []
    found = [(e.kind, e.customer, e.authorization_id, e.currency, e.minor) for e in lines if total == 0 or e.kind != "declined"]
    if found != expected:
        said = ", ".join(f"{entry.kind} {entry.minor} ({entry.authorization_id})" for entry in lines) or "nothing"
        fold.violated("provider", f"of confirmed order {order_id} ({total}, {authorization or 'free'}) the books say: {said}", answer.place)


def _refused(fold: Fold, order_id: str, book: OrderBook, answer: Fact, lines: Sequence[BookEntry]) -> None:
    fold.checked["given back"] += 1
    how = "rejected" if answer.name == "OrderRejected" else "cancelled"
    held, released = book.of("ItemsReserved"), book.of("ReservationReleased")
    if len(held) > 1 or len(held) != len(released):
        what = f"{how} order {order_id} was held {len(held)} times and released {len(released)} times"
        fold.violated("given back", what, answer.place, *places_of(held, released))
    elif held and quantities_of(held[0]) != quantities_of(released[0]):
        fold.violated("given back", f"of {how} order {order_id} not all was released", answer.place, *places_of(held, released))
    paid, voided, captured = book.of("PaymentAuthorized"), book.of("PaymentVoided"), book.of("PaymentCaptured")
    if captured:
        fold.violated("given back", f"{how} order {order_id} was captured", answer.place, *places_of(captured))
    if paid and not voided:
        fold.violated("given back", f"{how} order {order_id} is still authorised", answer.place, *places_of(paid))
    fold.checked["provider"] += len(lines)
    if any(entry.kind == "captured" for entry in lines):
        fold.violated("provider", f"the provider captured {how} order {order_id}", answer.place)
    given = Counter((entry.authorization_id, entry.minor) for entry in lines if entry.kind == "authorized")
    given_back = Counter((entry.authorization_id, entry.minor) for entry in lines if entry.kind == "voided" and entry.authorization_id)
    for authorization_id, cents in (given - given_back) + (given_back - given):
        fold.violated("provider", f"of {how} order {order_id}, {cents} ({authorization_id}) did not come and go once each", answer.place)
    known = {authorization_id for authorization_id, _ in given}
    for fact in paid:
        if fact.event.authorization_id not in known and minor(fact.event.total):
            what = f"order {order_id} was authorised as {fact.event.authorization_id}, which the provider does not know"
            fold.violated("provider", what, fact.place)

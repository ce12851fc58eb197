"""Every view is the fold of its topic, byte for byte, at every instant at which it was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from retail.gateway.views.v1.rows_pb2 import OrderRow, OrderStanding, RequestRow
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.v1.payment_pb2 import DECLINE_REASON_PROVIDER_REFUSED
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from laws.entries import Place
from laws.facts import minor
from tests.checker.seen import ANSWERS, ORDERS, REQUESTS, Said, Seen
from tests.checker.world import Finding, Sample

Fold = Callable[[dict[str, Any], Said], None]

FORM, HEAD, MARK, ENTRY, MOST_PLACES = b"\1", 8, 6, 12, 64
"""How a row lies in its place: form, number of places, own offset; then places by mark; then the row."""

VALIDATED, CONFIRMED, REJECTED, CANCELLED = (
    OrderStanding.ORDER_STANDING_VALIDATED,
    OrderStanding.ORDER_STANDING_CONFIRMED,
    OrderStanding.ORDER_STANDING_REJECTED,
    OrderStanding.ORDER_STANDING_CANCELLED,
)


@dataclass(frozen=True)
class Folded:
    """How a view follows from its topic.

    Attributes:
        hears: names of the events it folds.
        score: group and score of a row in the view's index, if it has one.
    """

    topic: str
    fold: Fold
    hears: tuple[str, ...]
    score: Callable[[Any], tuple[str, float]] | None = None


def _request(rows: dict[str, Any], one: Said) -> None:
    event = one.event
    if event.order_id in rows:
        return
    cents = sum(line.quantity * minor(line.unit_price) for line in event.lines)
    row = RequestRow(
        order_id=event.order_id,
        customer_id=event.customer_id,
        fingerprint=event.fingerprint,
        expires_at=event.expires_at,
        lines=event.lines,
        delivery_zone=event.delivery_zone,
        total=Money(currency_code=event.lines[0].unit_price.currency_code, units=cents // 100, nanos=cents % 100 * 10_000_000),
    )
    row.requested_at.FromMilliseconds(one.at_ms)
    rows[event.order_id] = row


def _order(rows: dict[str, Any], one: Said) -> None:
    event = one.event
    row = rows.setdefault(event.order_id, OrderRow(order_id=event.order_id))
    standing = {"OrderValidated": VALIDATED, "OrderConfirmed": CONFIRMED, "OrderRejected": REJECTED, "OrderCancelled": CANCELLED}
    if one.name == "OrderReserved":
        row.reserved = True
    elif one.name == "OrderPaid":
        row.paid = True
    elif one.name == "OrderCancellationRefused":
        row.cancellation_refusal = event.reason
    elif one.name in standing:
        row.customer_id, row.fingerprint = event.customer_id, event.fingerprint
        if one.name == "OrderValidated":
            row.standing = max(row.standing, VALIDATED)
            return
        row.standing = standing[one.name]
        row.reserved = row.paid = one.name == "OrderConfirmed"
        row.answered_at.FromMilliseconds(one.at_ms)
        if one.name == "OrderRejected":
            row.rejection_reason = event.reason
            row.skus[:] = event.skus


def _availability(rows: dict[str, Any], one: Said) -> None:
    row = rows.setdefault(one.event.sku, Availability(sku=one.event.sku))
    row.available[one.event.pool_id] = one.event.on_hand - one.event.reserved


def _price(rows: dict[str, Any], one: Said) -> None:
    rows[one.event.sku] = Price(sku=one.event.sku, unit_price=one.event.unit_price)


def _history(rows: dict[str, Any], one: Said) -> None:
    event = one.event
    counted = {"PaymentAuthorized": "authorized", "PaymentDeclined": "declined", "PaymentCaptured": "captured", "PaymentVoided": "voided"}
    free = one.name in ("PaymentAuthorized", "PaymentCaptured") and not minor(event.total)
    if one.name not in counted or free or (one.name == "PaymentDeclined" and event.reason != DECLINE_REASON_PROVIDER_REFUSED):
        return
    row = rows.setdefault(event.customer_id, CustomerHistory(customer_id=event.customer_id))
    setattr(row, counted[one.name], getattr(row, counted[one.name]) + 1)


VIEWS: Mapping[str, Folded] = {
    "gateway.door.request_row": Folded(
        REQUESTS, _request, ("OrderRequested",), lambda row: (row.customer_id, row.requested_at.ToNanoseconds() / 1e9)
    ),
    "gateway.door.order_row": Folded(
        ORDERS, _order, ("OrderValidated", "OrderReserved", "OrderPaid", *ANSWERS, "OrderCancellationRefused")
    ),
    "ordering.orders.availability": Folded("retail.fulfilment.stock-by-sku.v1", _availability, ("StockLevelChanged",)),
    "ordering.orders.price": Folded("retail.ordering.prices.v1", _price, ("PriceListed",)),
    "payments.risk.customer_history": Folded(
        "retail.payments.payments-by-customer.v1",
        _history,
        ("PaymentAuthorized", "PaymentDeclined", "PaymentCaptured", "PaymentVoided"),
    ),
}
"""Every view, by name."""


def view(seen: Seen) -> Iterator[Finding]:
    """What was found in a view is what its topic says up to the view's watermark; at rest that is the whole topic."""
    for sample in seen.world.samples:
        folded = VIEWS.get(sample.view)
        if folded is None:
            yield Finding("view", f"nobody here knows a view {sample.view}")
            continue
        said = [one for one in seen.by_topic.get(folded.topic, ()) if one.place.partition == sample.partition]
        yield from _judged(seen, sample, folded, said)


@dataclass(slots=True)
class _Row:
    """What lies in the place of a row: what it comes after, and the row itself. backbone/stored.py draws the picture."""

    own: int | None
    places: dict[bytes, int]
    row: bytes

    @classmethod
    def read(cls, raw: bytes) -> _Row:
        """Take it apart."""
        if raw[:1] != FORM:
            return cls(None, {}, raw)  # it does not say
        end = HEAD + raw[1] * ENTRY
        entries = range(HEAD, end, ENTRY)
        places = {raw[at : at + MARK]: int.from_bytes(raw[at + MARK : at + ENTRY], "big") for at in entries}
        return cls(int.from_bytes(raw[2:HEAD], "big"), places, raw[end:])


def _judged(seen: Seen, sample: Sample, folded: Folded, said: list[Said]) -> Iterator[Finding]:
    name, mark = f"{sample.view}/{sample.partition}", sample.watermark or 0
    rows: dict[str, Message] = {}
    after: dict[str, _Row] = {}
    last: dict[str, Place] = {}
    for one in said:
        if one.place.offset >= mark or one.event is None or one.name not in folded.hears:
            continue
        key = (one.entry.key or b"").decode()
        folded.fold(rows, one)
        last[key] = one.place
        if key not in rows:
            after.pop(key, None)
            continue
        held = after.setdefault(key, _Row(0, {}, b""))
        held.own = one.place.offset + 1
        for place in one.meta.after:
            if place.topic != folded.topic and not place.topic.startswith("private."):
                called = sha256(f"{place.topic}/{place.partition}".encode()).digest()[:MARK]
                held.places[called] = max(held.places.get(called, 0), place.next_offset)
    if sample.final and seen.world.at_rest and (behind := next((one for one in said if one.place.offset >= mark), None)) is not None:
        yield Finding("view", f"{name} has come to {mark} only", (behind.place,))
    for key in sorted(rows.keys() | sample.rows.keys()):
        wrong = _wrong(rows.get(key), after.get(key), sample.rows.get(key))
        if wrong:
            yield Finding("view", f"at {mark}, row {key} of {name} {wrong}", (last[key],) if key in last else ())
            break
    if folded.score is None or sample.scores is None:
        return
    scores: dict[str, dict[str, float]] = {}
    for key, row in rows.items():
        group, score = folded.score(row)
        scores.setdefault(group, {})[key] = score
    if {group: of for group, of in sample.scores.items() if of} != scores:
        yield Finding("view", f"at {mark}, the index of {name} is not the fold of its topic")


def _wrong(expected: Message | None, after: _Row | None, raw: bytes | None) -> str:
    if raw is None or expected is None or after is None:
        return "is missing" if raw is None else "should not be there"
    stored = _Row.read(raw)
    if stored.row != expected.SerializeToString(deterministic=True):
        return "differs"
    if stored.own is None:
        return ""
    if stored.own != after.own:
        return f"says that it comes after {stored.own}, it comes after {after.own}"
    return "does not remember what it comes after" if len(after.places) < MOST_PLACES and stored.places != after.places else ""

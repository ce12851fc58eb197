"""A small history of the shop in which every law holds, and in which a lie can be planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from retail.ordering.v1.order_pb2 import (
    REJECTION_REASON_OUT_OF_STOCK,
    REJECTION_REASON_PAYMENT_DECLINED,
    REJECTION_REASON_UNKNOWN_SKU,
)
from retail.payments.effects.v1.payment_pb2 import PaymentCommand, PaymentOutcome

from backbone.v1.meta_pb2 import Meta
from laws.books import BookEntry
from laws.entries import WRAPPERS, Entry, Place, Wrapper, take_apart
from tests import examples

COMMANDS = "private.payments.payments.commands"
OUTCOMES = "private.payments.payments.outcomes"
SEQUENCED = ("ordering.orders", "ordering.pricing", "payments.payments", "fulfilment.stock")


@dataclass
class Line:
    """One thing that was said, before it lies in a topic.

    Attributes:
        sequence: None: the next one of its aggregate.
    """

    event: Any
    id: str
    cause: str
    correlation: str
    writer: str
    sequence: int | None = None

    @property
    def name(self) -> str:
        """Name of the event."""
        return str(self.event.DESCRIPTOR.name)


@dataclass
class History:
    """What was said, in order; what the provider wrote; and what is done to the entries at last."""

    lines: list[Line] = field(default_factory=list)
    books: list[BookEntry] = field(default_factory=list)
    private: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)
    at_last: list[Callable[[list[Entry]], None]] = field(default_factory=list)

    def say(self, event: Message, because: str = "", correlation: str = "") -> str:
        """Say an event and give its id."""
        identity = f"id-{len(self.lines) + 1}"
        writer = primary_of(event).writer
        self.lines.append(Line(event, identity, because, correlation or getattr(event, "order_id", "") or "goods", writer))
        return identity

    def command(self, command: Message, outcome: Message | None, order_id: str) -> str:
        """Give a command and, if it is done, tell what came of it; gives the id of the outcome."""
        number = len(self.private)
        key = f"{order_id}/{number}".encode()
        asked = PaymentCommand(meta=Meta(id=f"command-{number}", correlation_id=order_id))
        _put(asked, command)
        self.private.append((COMMANDS, key, asked.SerializeToString()))
        if outcome is None:
            return ""
        told = PaymentOutcome(meta=Meta(id=f"outcome-{number}", correlation_id=order_id, causation_id=f"command-{number}"))
        _put(told, outcome)
        self.private.append((OUTCOMES, key, told.SerializeToString()))
        self.private.append((COMMANDS, key, None))
        return f"outcome-{number}"

    def book(self, kind: str, reference: str, minor: int = 0, name: str = "", customer: str = examples.CUSTOMER) -> None:
        """Let the provider write a line."""
        currency = "USD" if minor else ""
        self.books.append(BookEntry(len(self.books) + 1, kind, reference, customer, name, currency, minor))

    def find(self, name: str, order_id: str = "") -> Line:
        """The first line of that event, of an order if one is given."""
        return next(line for line in self.lines if line.name == name and order_id in ("", getattr(line.event, "order_id", "")))

    def drop(self, name: str, order_id: str = "") -> None:
        """Let a line never have been said."""
        self.lines.remove(self.find(name, order_id))

    def entries(self) -> list[Entry]:
        """What lies in the log."""
        offsets: dict[str, int] = {}
        sequences: dict[tuple[str, str], int] = {}
        entries: list[Entry] = []

        def append(topic: str, key: bytes, value: bytes | None) -> None:
            entries.append(take_apart(Place(topic, 0, offsets.setdefault(topic, 0)), key, value))
            offsets[topic] += 1

        for line in self.lines:
            primary = primary_of(line.event)
            aggregate = (primary.topic, getattr(line.event, primary.key))
            sequences[aggregate] = sequence = line.sequence if line.sequence is not None else sequences.get(aggregate, 0) + 1
            meta = Meta(
                id=line.id,
                causation_id=line.cause,
                correlation_id=line.correlation,
                writer=line.writer,
                sequence=sequence if primary.writer in SEQUENCED else 0,
            )
            for wrapper in (primary, *copies_of(primary, line.name)):
                append(wrapper.topic, getattr(line.event, wrapper.key).encode(), wrapped(wrapper, line.event, meta))
        for topic, key, value in self.private:
            append(topic, key, value)
        for change in self.at_last:
            change(entries)
        return entries


def wrapped(wrapper: Wrapper, event: Message, meta: Meta) -> bytes:
    """The bytes of a wrapper."""
    holds = wrapper.message(meta=meta)
    _put(holds, event)
    return holds.SerializeToString()


def _put(holds: Any, event: Message) -> None:
    (fields,) = holds.DESCRIPTOR.oneofs
    name = next(field.name for field in fields.fields if field.message_type.full_name == event.DESCRIPTOR.full_name)
    getattr(holds, name).CopyFrom(event)


def primary_of(event: Message) -> Wrapper:
    """The primary wrapper of an event."""
    return next(wrapper for wrapper in WRAPPERS.values() if not wrapper.copy_of and event.DESCRIPTOR.name in wrapper.events)


def copies_of(primary: Wrapper, name: str) -> Sequence[Wrapper]:
    """The wrappers that copy an event."""
    return [wrapper for wrapper in WRAPPERS.values() if wrapper.copy_of == primary.topic and name in wrapper.events]


def a_lawful_history() -> History:
    """Five orders: confirmed, out of stock, declined, cancelled and free; one of a SKU nobody sells; one wish that came too late."""
    history = History()
    for sku, cents in (("CD-0", 0), ("CD-1", 1234), ("CD-2", 999)):
        catalogued = history.say(examples.item_catalogued(sku, list_price=examples.usd(cents)), correlation=sku)
        history.say(examples.price_listed(sku, examples.usd(cents)), catalogued, sku)
        note = history.say(examples.goods_received(f"note/{sku}", sku=sku), correlation=sku)
        history.say(examples.stock_received(sku=sku, receipt_id=f"note/{sku}"), note, sku)
        history.say(examples.stock_level_changed(sku=sku, on_hand=5), note, sku)
    _confirmed(history)
    _out_of_stock(history)
    _declined(history)
    _cancelled(history)
    _free(history)
    asked = history.say(examples.order_requested("order-6", lines=[("CD-9", 1, 100)]))
    history.say(examples.order_rejected("order-6", reason=REJECTION_REASON_UNKNOWN_SKU, skus=["CD-9"]), asked)
    late = history.say(examples.order_cancellation_requested("order-1"))
    history.say(examples.order_cancellation_refused("order-1"), late)
    return history


def _started(history: History, order_id: str, cents: int) -> str:
    """Requested and validated, payment begun; gives the id of OrderValidated."""
    lines = examples.LINES if cents else [("CD-0", 1, 0)]
    asked = history.say(examples.order_requested(order_id, lines=lines))
    validated = history.say(examples.order_validated(order_id, lines=lines), asked)
    history.say(examples.payment_started(order_id, total=cents), validated)
    return validated


def _authorized(history: History, order_id: str) -> str:
    outcome = history.command(examples.authorize_card(order_id), examples.card_authorized(order_id, f"a/{order_id}"), order_id)
    history.book("authorized", order_id, examples.TOTAL, f"a/{order_id}")
    return history.say(examples.payment_authorized(order_id, authorization_id=f"a/{order_id}"), outcome)


def _voided(history: History, order_id: str) -> None:
    outcome = history.command(examples.void_card(order_id), examples.card_voided(order_id), order_id)
    history.book("voided", order_id, examples.TOTAL, f"a/{order_id}")
    history.say(examples.payment_voided(order_id), outcome)


def _held(history: History, order_id: str, cause: str, reserved: int) -> str:
    held = history.say(examples.items_reserved(order_id=order_id), cause)
    for sku, quantity in examples.HELD.items():
        history.say(examples.stock_level_changed(sku=sku, on_hand=5, reserved=quantity * reserved), cause, order_id)
    return held


def _confirmed(history: History) -> None:
    validated = _started(history, "order-1", examples.TOTAL)
    held = _held(history, "order-1", validated, reserved=1)
    paid = _authorized(history, "order-1")
    history.say(examples.order_reserved("order-1"), held)
    history.say(examples.order_paid("order-1"), paid)
    history.say(examples.order_confirmed("order-1"), paid)
    outcome = history.command(examples.capture_card("order-1"), examples.card_captured("order-1"), "order-1")
    history.book("captured", "order-1", examples.TOTAL, "a/order-1")
    history.say(examples.payment_captured("order-1"), outcome)


def _out_of_stock(history: History) -> None:
    validated = _started(history, "order-2", examples.TOTAL)
    refused = history.say(examples.reservation_refused(order_id="order-2"), validated)
    paid = _authorized(history, "order-2")
    history.say(examples.order_paid("order-2"), paid)
    history.say(examples.order_rejected("order-2", reason=REJECTION_REASON_OUT_OF_STOCK), refused)
    _voided(history, "order-2")


def _declined(history: History) -> None:
    validated = _started(history, "order-3", examples.TOTAL)
    held = _held(history, "order-3", validated, reserved=2)
    history.say(examples.order_reserved("order-3"), held)
    outcome = history.command(examples.authorize_card("order-3"), examples.card_refused("order-3"), "order-3")
    history.book("declined", "order-3", examples.TOTAL)
    declined = history.say(examples.payment_declined("order-3"), outcome)
    rejected = history.say(examples.order_rejected("order-3", reason=REJECTION_REASON_PAYMENT_DECLINED), declined)
    _released(history, "order-3", rejected)


def _released(history: History, order_id: str, cause: str) -> None:
    history.say(examples.reservation_released(order_id=order_id), cause)
    for sku, quantity in examples.HELD.items():
        history.say(examples.stock_level_changed(sku=sku, on_hand=5, reserved=quantity), cause, order_id)


def _cancelled(history: History) -> None:
    validated = _started(history, "order-4", examples.TOTAL)
    _held(history, "order-4", validated, reserved=2)
    _authorized(history, "order-4")
    wish = history.say(examples.order_cancellation_requested("order-4"))
    cancelled = history.say(examples.order_cancelled("order-4"), wish)
    _released(history, "order-4", cancelled)
    _voided(history, "order-4")


def _free(history: History) -> None:
    validated = _started(history, "order-5", 0)
    held = history.say(examples.items_reserved(order_id="order-5", lines={"CD-0": 1}), validated)
    history.say(examples.stock_level_changed(sku="CD-0", on_hand=5, reserved=1), validated, "order-5")
    paid = history.say(examples.payment_authorized("order-5", total=examples.usd(0), authorization_id=""), validated)
    history.say(examples.order_paid("order-5"), paid)
    history.say(examples.order_reserved("order-5"), held)
    confirmed = history.say(examples.order_confirmed("order-5", lines=[("CD-0", 1, 0)]), held)
    history.say(examples.payment_captured("order-5", total=0), confirmed)

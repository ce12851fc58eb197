"""A record of the log taken apart, from the generated messages alone, and a line of the provider's books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from retail.fulfilment.v1 import receipt_pb2, stock_pb2
from retail.gateway.v1 import order_request_pb2
from retail.ordering.v1 import catalogue_pb2, order_pb2, price_pb2
from retail.payments.v1 import payment_pb2

from backbone.v1 import options_pb2
from backbone.v1.meta_pb2 import Meta

META_FIELD = 15
LENGTH_DELIMITED = 2


class Place(NamedTuple):
    """Coordinate of a record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What the contract of one public topic says.

    Attributes:
        key: name of the field that keys the record.
        copy_of: name of the primary topic; empty for a primary.
        events: names of the events the topic may hold.
    """

    topic: str
    message: type[Message]
    key: str
    writer: str
    copy_of: str
    events: frozenset[str]


def _wrapper(message: type[Message]) -> Wrapper:
    option = message.DESCRIPTOR.GetOptions().Extensions[options_pb2.topic]
    oneof: Any = message.DESCRIPTOR.oneofs_by_name["event"]
    events = frozenset(field.message_type.name for field in oneof.fields)
    return Wrapper(option.name, message, option.key, option.writer, option.copy_of, events)


WRAPPERS: Mapping[str, Wrapper] = {
    wrapper.topic: wrapper
    for wrapper in map(
        _wrapper,
        (
            order_request_pb2.OrderRequestEvent,
            catalogue_pb2.CatalogueEvent,
            price_pb2.PriceEvent,
            order_pb2.OrderEvent,
            order_pb2.OrderByZoneEvent,
            order_pb2.OrderByCustomerEvent,
            payment_pb2.PaymentEvent,
            payment_pb2.PaymentByCustomerEvent,
            receipt_pb2.ReceiptEvent,
            stock_pb2.StockEvent,
            stock_pb2.StockByOrderEvent,
            stock_pb2.StockBySkuEvent,
        ),
    )
}
"""Every public topic of the shop, by name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record.

    Attributes:
        place: where it lies.
        key: raw key.
        value: raw value; None for a tombstone.
        name: name of the event; empty in a private topic and where it could not be understood.
        event: the event; None where there is no name.
        meta: its meta; empty where there is none.
        wrong: why it could not be understood.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    name: str = ""
    event: Any = None
    meta: Meta = field(default_factory=Meta)
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class BookEntry:
    """One line of the provider's books.

    Attributes:
        sequence: its number.
        kind: authorized, captured, voided or declined.
        reference: what the shop calls it: the order id.
        minor: amount in minor units; 0 with an empty currency where nothing moved.
    """

    sequence: int
    kind: str
    reference: str
    customer: str = ""
    authorization_id: str = ""
    currency: str = ""
    minor: int = 0


def take_apart(place: Place, key: bytes | None, value: bytes | None) -> Entry:
    """The entry of a record, of a public topic by its wrapper, of any other by its meta."""
    wrapper = WRAPPERS.get(place.topic)
    if wrapper is None:
        return Entry(place, key, value, meta=_meta_in(value) if value else Meta())
    if key is None or value is None:
        return Entry(place, key, value, wrong=f"its {'key' if key is None else 'value'} is missing")
    try:
        holds: Any = wrapper.message.FromString(value)
        raw_key = key.decode()
    except (DecodeError, UnicodeDecodeError) as error:
        return Entry(place, key, value, wrong=f"it is no {wrapper.message.DESCRIPTOR.name}: {error}")
    which = holds.WhichOneof("event")
    if which is None:
        return Entry(place, key, value, wrong=f"it holds no event of {wrapper.message.DESCRIPTOR.name}")
    event = getattr(holds, which)
    if getattr(event, wrapper.key) != raw_key:
        return Entry(place, key, value, wrong=f"its key is {raw_key!r}, its {wrapper.key} is {getattr(event, wrapper.key)!r}")
    return Entry(place, key, value, event.DESCRIPTOR.name, event, holds.meta)


def _meta_in(value: bytes) -> Meta:
    """Field 15 of any message, without knowing the message; empty if there is none."""
    at = 0
    found = Meta()
    try:
        while at < len(value):
            tag, at = _varint(value, at)
            if tag & 7 != LENGTH_DELIMITED:
                return found
            size, at = _varint(value, at)
            if tag >> 3 == META_FIELD:
                found.MergeFromString(value[at : at + size])
            at += size
    except (DecodeError, IndexError):
        return Meta()
    return found


def _varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at

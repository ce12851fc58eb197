"""Records of a platform for people: what each one says, whatever topic it lies in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from backbone.contract import Topic
from backbone.declare import Context, Platform
from backbone.envelope import Undecodable, UnknownEvent, decode, moment_of_ms, split_entry_key
from backbone.money import minor_units
from backbone.ports import Place, Record
from backbone.topology import contract_topics, topology
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import Quarantined, QuarantineReason
from backbone.v1.private_pb2 import Tick as TickRecord

ITEMS_SHOWN = 3
TEXT_SHOWN = 40


class Kind(StrEnum):
    """What a record is."""

    EVENT = "event"
    COMMAND = "command"
    OUTCOME = "outcome"
    TICK = "tick"
    QUARANTINED = "quarantined"


KINDS = {
    "events": Kind.EVENT,
    "copy": Kind.EVENT,
    "commands": Kind.COMMAND,
    "outcomes": Kind.OUTCOME,
    "ticks": Kind.TICK,
    "quarantine": Kind.QUARANTINED,
}
"""What the topics of a purpose hold; state and cursors are no part of any conversation."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and what it says.

    Attributes:
        name: of the message; the reason for what was quarantined.
        message: what it says; None if it cannot be understood.
        key: the aggregate it is about.
        copy_of: the primary topic, for a copy.
        problem: why it cannot be understood, or why it was set aside.
    """

    kind: Kind
    name: str
    message: Message | None
    meta: Meta
    key: str
    record: Record
    copy_of: str = ""
    problem: str = ""

    @property
    def at(self) -> datetime:
        """When it was appended."""
        return moment_of_ms(self.record.timestamp_ms)

    @property
    def place(self) -> str:
        """Its coordinate."""
        return coordinate(self.record)


def coordinate(record: Record) -> str:
    """topic/partition@offset."""
    return f"{record.topic}/{record.partition}@{record.offset}"


@dataclass(frozen=True)
class Decoder:
    """Understands every record of a platform that belongs to a conversation.

    Attributes:
        kinds: what each topic holds, by name.
        topics: contracts of those that hold wrappers, by name.
    """

    kinds: dict[str, Kind]
    topics: dict[str, Topic] = field(repr=False)

    @classmethod
    def of(cls, declared: Platform | Context) -> Decoder:
        """The decoder of a platform or context.

        Raises:
            ContractError: a table or contract lies.
        """
        nodes = topology(declared).topics
        return cls({node.name: KINDS[node.purpose] for node in nodes if node.purpose in KINDS}, contract_topics(declared))

    def places(self, partitions: int, kinds: Iterable[Kind] = tuple(Kind)) -> list[Place]:
        """Every partition of the topics of some kinds."""
        wanted = set(kinds)
        return [(name, number) for name, kind in self.kinds.items() if kind in wanted for number in range(partitions)]

    def decode(self, record: Record) -> Entry | None:
        """What a record says; None for a tombstone, which says that a command is done or a key is gone."""
        kind = self.kinds[record.topic]
        if record.value is None and kind is not Kind.EVENT:
            return None
        if kind is Kind.TICK:
            return self._tick(record)
        if kind is Kind.QUARANTINED:
            return self._quarantined(record)
        topic = self.topics[record.topic]
        try:
            found = decode(topic, record)
            key = split_entry_key(record.key or b"")[0] if topic.private else found.key
        except (Undecodable, UnknownEvent) as error:
            return Entry(kind, "?", None, Meta(), _text(record.key), record, topic.copy_of, str(error))
        return Entry(kind, found.event.DESCRIPTOR.name, found.event, found.meta, key, record, topic.copy_of)

    def _tick(self, record: Record) -> Entry:
        try:
            tick = TickRecord.FromString(record.value or b"")
        except DecodeError as error:
            return Entry(Kind.TICK, "?", None, Meta(), _text(record.key), record, "", f"not a Tick: {error}")
        return Entry(Kind.TICK, "Tick", tick, tick.meta, tick.key, record)

    def _quarantined(self, record: Record) -> Entry:
        try:
            aside = Quarantined.FromString(record.value or b"")
        except DecodeError as error:
            return Entry(Kind.QUARANTINED, "?", None, Meta(), _text(record.key), record, "", f"not a Quarantined: {error}")
        inner = self.inside(aside)
        caused = inner.meta if inner is not None else Meta()
        meta = Meta(
            id=f"{aside.service}:quarantine:{aside.topic}/{aside.partition}@{aside.offset}",
            correlation_id=caused.correlation_id,
            causation_id=caused.id,
            writer=aside.service,
            build=aside.build,
        )
        return Entry(Kind.QUARANTINED, reason_name(aside.reason), aside, meta, aside.aggregate, record, "", aside.detail)

    def inside(self, aside: Quarantined) -> Entry | None:
        """What was set aside, if it can be understood after all."""
        if aside.topic not in self.kinds:
            return None
        key = aside.key if aside.HasField("key") else None
        value = aside.value if aside.HasField("value") else None
        appended_ms = aside.appended_at.seconds * 1000 + aside.appended_at.nanos // 1_000_000
        return self.decode(Record(aside.topic, aside.partition, aside.offset, key, value, appended_ms))


def reason_name(reason: QuarantineReason.ValueType) -> str:
    """The reason without its prefix, e.g. "UNDECODABLE"; the number of one this build does not know."""
    try:
        return QuarantineReason.Name(reason).removeprefix("QUARANTINE_REASON_")
    except ValueError:
        return str(reason)


def brief(message: Message, leave_out: Sequence[str] = ()) -> str:
    """A message in one line: fields that are set, money as money, long texts shortened, a few of many items.

    Args:
        leave_out: values that the reader knows already; fields that hold one of them are left out.
    """
    shown = []
    for described, value in message.ListFields():
        if described.name == "meta" or (isinstance(value, str) and value in leave_out):
            continue
        shown.append(f"{described.name}={_brief_field(described, value)}")
    return " ".join(shown)


def _brief_field(described: FieldDescriptor, value: Any) -> str:
    if not described.is_repeated:
        return _brief_value(described, value)
    items = list(value)
    shown = [_brief_value(described, item) for item in items[:ITEMS_SHOWN]]
    more = [f"+{len(items) - ITEMS_SHOWN}"] if len(items) > ITEMS_SHOWN else []
    return f"[{', '.join(shown + more)}]"


def _brief_value(described: FieldDescriptor, value: Any) -> str:
    if isinstance(value, Timestamp):
        return value.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Money):
        return money(value)
    if isinstance(value, Message):
        return f"({brief(value)})"
    if described.enum_type is not None:
        known = described.enum_type.values_by_number.get(value)
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", described.enum_type.name).upper() + "_"
        return known.name.removeprefix(prefix) if known is not None else str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = str(value)
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 1]}…"


def money(amount: Money) -> str:
    """An amount with its currency; as it lies there if it is none."""
    try:
        minor = minor_units(amount)
    except ValueError:
        return f"{amount.units} units {amount.nanos} nanos {amount.currency_code}"
    return f"{'-' if minor < 0 else ''}{abs(minor) // 100}.{abs(minor) % 100:02} {amount.currency_code}"


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode(errors="backslashreplace")

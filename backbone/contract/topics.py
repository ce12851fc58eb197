"""Protobuf options -> topics, keys and writers."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from backbone.errors import ContractError
from backbone.v1 import options_pb2
from backbone.v1.meta_pb2 import Meta

META_FIELD = 15


@dataclass(frozen=True)
class Topic:
    """One topic as its wrapper declares it.

    Attributes:
        key: field of every event that keys the record.
        writer: <context>.<service>.
        copy_of: name of the primary, empty for a primary.
        wrapper: class of the wrapper.
        oneof: name of its oneof.
        events: class of each event by its field number in the oneof.
        fields: name of each event's field by its number.
    """

    name: str
    key: str
    writer: str
    copy_of: str
    wrapper: type[Message]
    oneof: str
    events: Mapping[int, type[Message]]
    fields: Mapping[int, str]

    @property
    def private(self) -> bool:
        """Whether only its writer may read it."""
        return self.name.startswith("private.")

    def number(self, event: type[Message]) -> int | None:
        """Field number of an event in the oneof; None if the topic does not hold it."""
        for number, held in self.events.items():
            if held.DESCRIPTOR.full_name == event.DESCRIPTOR.full_name:
                return number
        return None


def place(descriptor: Any) -> str:
    """Where a message is declared, for people."""
    return f"{descriptor.file.name}: {descriptor.full_name}"


def _class_of(descriptor: Any) -> type[Message]:
    return GetMessageClass(descriptor)


def topic_of(wrapper: type[Message]) -> Topic:
    """The topic a wrapper declares.

    Raises:
        ContractError: the wrapper's form is not that of a wrapper.
    """
    descriptor = wrapper.DESCRIPTOR
    option = descriptor.GetOptions().Extensions[options_pb2.topic]
    where = place(descriptor)
    missing = [name for name in ("name", "key", "writer") if not getattr(option, name)]
    if missing:
        raise ContractError(where, f"its topic option lacks {', '.join(missing)}", "Give it name, key and writer.")
    if len(descriptor.oneofs) != 1 or len(descriptor.fields) != len(descriptor.oneofs[0].fields) + 1:
        raise ContractError(where, "a wrapper has one oneof and meta, nothing else", "Move other fields into the events.")
    meta = descriptor.fields_by_number.get(META_FIELD)
    if meta is None or meta.message_type is None or meta.message_type.full_name != Meta.DESCRIPTOR.full_name:
        raise ContractError(where, f"field {META_FIELD} is not backbone.v1.Meta meta", "Add it.")
    members = descriptor.oneofs[0].fields
    for member in members:
        if member.message_type is None:
            raise ContractError(where, f"{member.name} is not a message", "Events are messages.")
        key = member.message_type.fields_by_name.get(option.key)
        if key is None or key.type != key.TYPE_STRING or key.is_repeated:
            raise ContractError(where, f"{member.message_type.name} has no string field {option.key!r}", "Every event carries its key.")
    return Topic(
        name=option.name,
        key=option.key,
        writer=option.writer,
        copy_of=option.copy_of,
        wrapper=wrapper,
        oneof=descriptor.oneofs[0].name,
        events={member.number: _class_of(member.message_type) for member in members},
        fields={member.number: member.name for member in members},
    )


def is_wrapper(descriptor: Any) -> bool:
    """Whether a message declares a topic."""
    return bool(descriptor.GetOptions().HasExtension(options_pb2.topic))


@cache
def topics_in(file: FileDescriptor) -> tuple[Topic, ...]:
    """The topics a proto file declares."""
    return tuple(topic_of(_class_of(descriptor)) for descriptor in file.message_types_by_name.values() if is_wrapper(descriptor))


def topics_holding(event: type[Message]) -> list[Topic]:
    """The primary topic of an event first, then its copies. Wrappers live in the file of their events."""
    found = [topic for topic in topics_in(event.DESCRIPTOR.file) if topic.number(event) is not None]
    return sorted(found, key=lambda topic: (topic.copy_of != "", topic.name))


def primary_of(event: type[Message]) -> Topic:
    """The one primary topic of an event.

    Raises:
        ContractError: it is in no wrapper, or in two primaries.
    """
    primaries = [topic for topic in topics_holding(event) if not topic.copy_of]
    where = place(event.DESCRIPTOR)
    if not primaries:
        raise ContractError(where, "is in no wrapper", "Add it to the oneof of the wrapper of its topic, in the same file.")
    if len(primaries) > 1:
        names = " and ".join(topic.name for topic in primaries)
        raise ContractError(where, f"is in two primary topics, {names}", "Make one of them a copy (copy_of).")
    return primaries[0]


def copies_of(topic: Topic) -> list[Topic]:
    """The copies of a primary."""
    return [copy for copy in topics_in(topic.wrapper.DESCRIPTOR.file) if copy.copy_of == topic.name]


def row_key(row: type[Message]) -> str:
    """The field that keys a row.

    Raises:
        ContractError: the row does not say, or names a field it does not have.
    """
    descriptor = row.DESCRIPTOR
    key = descriptor.GetOptions().Extensions[options_pb2.row].key
    if not key:
        raise ContractError(place(descriptor), "is no row", 'Add option (backbone.v1.row) = {key: "..."}.')
    named = descriptor.fields_by_name.get(key)
    if named is None or named.type != named.TYPE_STRING:
        raise ContractError(place(descriptor), f"has no string field {key!r} to key it", "Name a string field of the row.")
    return str(key)


def is_effect(message: type[Message]) -> bool:
    """Whether a message is a command or an outcome: it lives in a private `effects` package."""
    return ".effects." in message.DESCRIPTOR.full_name


def context_of(message: type[Message]) -> str | None:
    """The context whose private package (`views`, `effects`) a message lives in; None for what all may know."""
    parts = message.DESCRIPTOR.full_name.split(".")
    for private in ("views", "effects"):
        if private in parts[:-1]:
            return parts[parts.index(private) - 1]
    return None


def files_under(package: str) -> Iterator[FileDescriptor]:
    """Every proto file whose generated module lies in a package, e.g. "retail"; none if there is no such package."""
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and (package == error.name or package.startswith(f"{error.name}.")):
            return
        raise
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name.endswith("_pb2"):
            yield importlib.import_module(found.name).DESCRIPTOR


def all_topics(package: str) -> dict[str, Topic]:
    """Every topic declared under a package, by name.

    Raises:
        ContractError: two wrappers claim one topic, or a copy has no primary, another writer or a foreign event.
    """
    topics: dict[str, Topic] = {}
    for file in files_under(package):
        for topic in topics_in(file):
            other = topics.get(topic.name)
            if other is not None and other.writer != topic.writer:
                raise ContractError(
                    place(topic.wrapper.DESCRIPTOR),
                    f"{topic.name} has two writers, {other.writer} and {topic.writer}",
                    "One topic has one writer; give the other facts a topic of their own.",
                )
            if other is not None:
                raise ContractError(
                    place(topic.wrapper.DESCRIPTOR),
                    f"{topic.name} is also declared by {other.wrapper.DESCRIPTOR.full_name}",
                    "One wrapper, one topic.",
                )
            topics[topic.name] = topic
    for topic in topics.values():
        if topic.copy_of:
            _check_copy(topic, topics.get(topic.copy_of))
    return topics


def _check_copy(copy: Topic, primary: Topic | None) -> None:
    where = place(copy.wrapper.DESCRIPTOR)
    if primary is None:
        raise ContractError(where, f"copies {copy.copy_of}, which no wrapper declares", "Name a primary topic.")
    if copy.writer != primary.writer:
        raise ContractError(where, f"has writer {copy.writer}, its primary {primary.writer}", "A copy is written by its primary's writer.")
    for number, event in copy.events.items():
        if primary.events.get(number) is not event:
            raise ContractError(
                where, f"{event.DESCRIPTOR.name} is field {number}, in {primary.name} it is not", "Copy an event under its number."
            )

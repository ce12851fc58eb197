"""An image of contracts: what `buf build` makes of a folder of protos, read without any generated code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from backbone.errors import DeclarationError

FOREIGN = ("google.", "buf.")
"""Packages that others make: they come along in an image and are not ours to judge."""

RUNTIME = "backbone."
SEALED = "backbone.v1.Sealed"
TOPIC_OPTION, ROW_OPTION = "backbone.v1.topic", "backbone.v1.row"


class Role(StrEnum):
    """What a message is part of."""

    EVENT = "event"
    EFFECT = "effect"
    ROW = "row"
    QUESTION = "question inside a context"
    REQUEST = "request"
    RESPONSE = "response"
    RUNTIME = "runtime"


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A topic as an image declares it.

    Attributes:
        message: full name of the wrapper.
        events: full name of each event by its field number.
    """

    message: str
    topic: str
    key: str
    writer: str
    copy_of: str
    events: Mapping[int, str]

    @property
    def private(self) -> bool:
        """Whether only its writer reads it."""
        return self.topic.startswith("private.")


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method of a gRPC service; `name` is "package.Service/Method"."""

    name: str
    request: str
    response: str
    private: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Where something is declared: a file below the import root, lines from 1."""

    file: str
    line: int
    last: int


@dataclass(frozen=True)
class Image:
    """Contracts with their options, in a pool of their own, so that any two images can be compared in one process."""

    raw: bytes
    set: FileDescriptorSet = field(repr=False)
    pool: DescriptorPool = field(repr=False)

    @classmethod
    def of(cls, raw: bytes, what: str = "image") -> Image:
        """The image in a file's bytes.

        Args:
            what: names it in the error.

        Raises:
            DeclarationError: it is none.
        """
        pool = DescriptorPool()
        try:
            found = FileDescriptorSet.FromString(raw)
            for file in found.file:
                pool.AddSerializedFile(file.SerializeToString())
        except (DecodeError, TypeError) as error:
            raise DeclarationError(f"{what} is no image of contracts: {error}. Make one with `buf build -o`") from error
        return cls(raw, found, pool)

    @cached_property
    def files(self) -> tuple[FileDescriptor, ...]:
        """The files that are ours."""
        return tuple(self.pool.FindFileByName(file.name) for file in self.set.file if not f"{file.package}.".startswith(FOREIGN))

    @cached_property
    def messages(self) -> Mapping[str, Descriptor]:
        """Every message of ours by full name, map entries left out."""
        return {one.full_name: one for file in self.files for top in file.message_types_by_name.values() for one in _nested(top)}

    @cached_property
    def enums(self) -> Mapping[str, EnumDescriptor]:
        """Every enum of ours by full name."""
        found = [enum for file in self.files for enum in file.enum_types_by_name.values()]
        found += [enum for message in self.messages.values() for enum in message.enum_types]
        return {enum.full_name: enum for enum in found}

    @cached_property
    def wrappers(self) -> Mapping[str, Wrapper]:
        """Every topic that is declared, by the full name of its wrapper."""
        found = {}
        for name, message in self.messages.items():
            option = self.option(message, TOPIC_OPTION)
            if option is not None and message.oneofs:
                events = {one.number: one.message_type.full_name for one in message.oneofs[0].fields if one.message_type is not None}
                found[name] = Wrapper(name, option.name, option.key, option.writer, option.copy_of, events)
        return found

    @cached_property
    def rows(self) -> Mapping[str, str]:
        """The key field of every row by the full name of its message."""
        options = {name: self.option(message, ROW_OPTION) for name, message in self.messages.items()}
        return {name: option.key for name, option in options.items() if option is not None}

    @cached_property
    def rpcs(self) -> Mapping[str, Rpc]:
        """Every method of every service of ours."""
        found = {}
        for file in self.files:
            private = is_private(file.package)
            for service in file.services_by_name.values():
                for method in service.methods:
                    name = f"{service.full_name}/{method.name}"
                    found[name] = Rpc(name, method.input_type.full_name, method.output_type.full_name, private)
        return found

    @cached_property
    def api_files(self) -> frozenset[str]:
        """Names of the files that declare a public service."""
        return frozenset(file.name for file in self.files if file.services_by_name and not is_private(file.package))

    def reach(self, message: str) -> frozenset[str]:
        """A message and every message and enum of ours that is part of it."""
        found: set[str] = set()
        waiting = [message]
        while waiting:
            name = waiting.pop()
            if name in found or (name not in self.messages and name not in self.enums):
                continue
            found.add(name)
            if name in self.messages:
                waiting += [part for one in self.messages[name].fields for part in _parts(one)]
        return frozenset(found)

    @cached_property
    def roles(self) -> Mapping[str, frozenset[Role]]:
        """What every message and enum of ours is part of."""
        roots = [(wrapper.message, Role.EFFECT if wrapper.private else Role.EVENT) for wrapper in self.wrappers.values()]
        roots += [(row, Role.ROW) for row in self.rows]
        for rpc in self.rpcs.values():
            roots += [(rpc.request, Role.QUESTION if rpc.private else Role.REQUEST)]
            roots += [(rpc.response, Role.QUESTION if rpc.private else Role.RESPONSE)]
        roots += [(name, Role.RUNTIME) for name in (*self.messages, *self.enums) if name.startswith(RUNTIME)]
        found: dict[str, set[Role]] = {name: set() for name in (*self.messages, *self.enums)}
        for root, role in roots:
            for name in self.reach(root):
                found[name].add(role)
        return {name: frozenset(roles) for name, roles in found.items()}

    def option(self, descriptor: Any, extension: str) -> Any | None:
        """The value of an option of a message, field or oneof, as a message of this image; None if it is not set or not known here."""
        options = descriptor.GetOptions()
        kind = options.DESCRIPTOR.full_name
        try:
            declared: Any = self.pool.FindExtensionByName(extension)
            here = GetMessageClass(self.pool.FindMessageTypeByName(kind)).FromString(options.SerializeToString())
        except KeyError:
            return None
        return here.Extensions[declared] if here.HasExtension(declared) else None

    def message_class(self, name: str) -> type[Message]:
        """A class for a message of this image."""
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    @cached_property
    def spans(self) -> Mapping[str, Span]:
        """Where every message, field, enum, value, service and method is declared; empty for an image without sources."""
        return {name: span for file in self.set.file for name, span in _spans(file)}

    @cached_property
    def comments(self) -> Mapping[str, str]:
        """The comment above everything that has a span, as one paragraph; empty for an image without sources."""
        return {name: comment for file in self.set.file for name, comment in _comments(file)}

    def at(self, file: str, line: int) -> str:
        """Full name of the smallest thing declared at a line; empty if there is none."""
        here = [(span.last - span.line, -len(name), name) for name, span in self.spans.items() if span.file == file]
        return min((one for one in here if self.spans[one[2]].line <= line <= self.spans[one[2]].last), default=(0, 0, ""))[2]


def is_private(package: str) -> bool:
    """Whether a package belongs to one context only."""
    return bool({"views", "effects"} & set(package.split(".")))


def _nested(message: Descriptor) -> Iterator[Descriptor]:
    if not message.GetOptions().map_entry:
        yield message
    for inner in message.nested_types:
        yield from _nested(inner)


def _parts(one: FieldDescriptor) -> Sequence[str]:
    if one.enum_type is not None:
        return [one.enum_type.full_name]
    if one.message_type is None:
        return []
    if one.message_type.GetOptions().map_entry:
        return _parts(one.message_type.fields_by_name["value"])
    return [one.message_type.full_name]


def type_of(one: FieldDescriptor) -> str:
    """The type of a field as a proto file says it."""
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        key, value = (one.message_type.fields_by_name[name] for name in ("key", "value"))
        return f"map<{type_of(key)}, {type_of(value)}>"
    named = one.message_type or one.enum_type
    name = named.full_name if named is not None else _SCALARS[one.type]
    return f"repeated {name}" if one.is_repeated else name


_SCALARS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "bool", "string", "bytes", "int32", "int64", "uint32", "uint64"),
        *("sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64"),
    )
}


def _spans(file: FileDescriptorProto) -> Iterator[tuple[str, Span]]:
    lines = {tuple(one.path): one.span for one in file.source_code_info.location}
    for name, path in _paths(file):
        if span := lines.get(path):
            yield name, Span(file.name, span[0] + 1, (span[2] if len(span) == 4 else span[0]) + 1)


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    said = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
    for name, path in _paths(file):
        yield name, " ".join(said.get(path, "").split())


def _paths(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix = f"{file.package}." if file.package else ""
    for number, message in enumerate(file.message_type):
        yield from _message_paths(message, prefix, (4, number))
    for number, enum in enumerate(file.enum_type):
        yield from _enum_paths(enum, prefix, (5, number))
    for number, service in enumerate(file.service):
        yield f"{prefix}{service.name}", (6, number)
        for index, method in enumerate(service.method):
            yield f"{prefix}{service.name}/{method.name}", (6, number, 2, index)


def _message_paths(message: DescriptorProto, prefix: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    name = f"{prefix}{message.name}"
    yield name, path
    for number, one in enumerate(message.field):
        yield f"{name}.{one.name}", (*path, 2, number)
    for number, inner in enumerate(message.nested_type):
        yield from _message_paths(inner, f"{name}.", (*path, 3, number))
    for number, enum in enumerate(message.enum_type):
        yield from _enum_paths(enum, f"{name}.", (*path, 4, number))


def _enum_paths(enum: EnumDescriptorProto, prefix: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}{enum.name}", path
    for number, value in enumerate(enum.value):
        yield f"{prefix}{enum.name}.{value.name}", (*path, 2, number)

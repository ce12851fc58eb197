"""What consumers read of the public topics, as files: the gate is red when a field that somebody reads is gone or another.

A file is written by `backbone contracts expect` in the consumers' own repository, or by hand, and lies in protos/expectations/ here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from backbone.contract import ResolvedService, Topic
from backbone.errors import DeclarationError
from backbone.operations.contracts.ablation import ANY, Use, leaves, shown_path
from backbone.operations.contracts.image import Image, Wrapper, type_of

FORMAT = 1
Fields = Mapping[str, str]
"""What a consumer reads of an event: type and number of each field, by its path."""


@dataclass(frozen=True, slots=True)
class Read:
    """What one consumer reads of one topic.

    Attributes:
        key: the field that keys the topic's records.
        events: fields by the full name of each event.
    """

    consumer: str
    topic: str
    key: str
    events: Mapping[str, Fields]


@dataclass(frozen=True, slots=True)
class Expectations:
    """What the consumers of one repository read.

    Attributes:
        file: where they were written down, as findings name it.
    """

    file: str
    reads: Sequence[Read]

    def to_json(self) -> str:
        """The file."""
        consumers: dict[str, Any] = {}
        for one in sorted(self.reads, key=lambda read: (read.consumer, read.topic)):
            events = {event: dict(sorted(fields.items())) for event, fields in sorted(one.events.items())}
            consumers.setdefault(one.consumer, {})[one.topic] = {"key": one.key, "reads": events}
        return json.dumps({"format": FORMAT, "consumers": consumers}, indent=1) + "\n"

    def readers(self, subject: str, image: Image) -> set[str]:
        """Who reads a field, by its full name, in any event."""
        return {
            one.consumer for one, event, path in self.paths() if subject in {field.full_name for field in fields_on_way(image, event, path)}
        }

    def paths(self) -> Iterator[tuple[Read, str, str]]:
        """Every field of every event that is read."""
        for one in self.reads:
            for event, fields in one.events.items():
                for path in fields:
                    yield one, event, path


def expected(services: Iterable[ResolvedService], found: Iterable[Use], image: Image) -> Expectations:
    """What the recordings of services show that they read.

    Args:
        found: what became of each field.
        image: the contracts, for the types of the fields.
    """
    by_consumer: dict[tuple[str, str], set[str]] = {}
    for use in found:
        read = by_consumer.setdefault((use.consumer, use.event), set())
        if use.path == ANY:
            read.update(shown_path(path) for path in leaves(image.messages[use.event]))
        elif use.reads:
            read.add(use.path)
    reads = []
    for service in services:
        for topic in _topics(service):
            names = [event.DESCRIPTOR.full_name for event in topic.events.values()]
            events = {
                name: {path: kind_of(fields_on_way(image, name, path)[-1]) for path in by_consumer[service.name, name]}
                for name in names
                if (service.name, name) in by_consumer
            }
            if events:
                reads.append(Read(service.name, topic.name, topic.key, events))
    return Expectations("", reads)


def _topics(service: ResolvedService) -> list[Topic]:
    """The public topics a service reads, its own among them: it reads its own past."""
    found = {view.topic.name: view.topic for view in service.views}
    if service.decider is not None:
        found |= {topic.name: topic for topic in (*service.decider.inputs, *service.decider.repartitioned, service.decider.primary)}
    return [topic for _, topic in sorted(found.items()) if not topic.private]


def fields_on_way(image: Image, event: str, path: str) -> list[FieldDescriptor]:
    """Every field on the way to a field, itself the last; fewer than the way has if one of them does not exist."""
    found: list[FieldDescriptor] = []
    message = image.messages.get(event)
    for name in path.split("."):
        one: FieldDescriptor | None = message.fields_by_name.get(name) if message is not None else None
        if one is None:
            break
        found.append(one)
        message = one.message_type
    return found


def kind_of(one: FieldDescriptor) -> str:
    """Type and number of a field."""
    return f"{type_of(one)} = {one.number}"


def read(file: Path, name: str) -> Expectations:
    """What a file says.

    Args:
        name: of the file, in findings.

    Raises:
        DeclarationError: it says nothing that can be understood.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, known is {FORMAT}")
        reads = [
            Read(str(consumer), topic, str(of["key"]), {event: _fields(fields) for event, fields in of["reads"].items()})
            for consumer, topics in found["consumers"].items()
            for topic, of in topics.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeclarationError(
            f"{name} cannot be read: {error!r}. `backbone contracts expect` writes it, in the consumer's checkout"
        ) from error
    return Expectations(name, reads)


def _fields(fields: Mapping[str, Any]) -> Fields:
    return {str(path): str(kind) for path, kind in fields.items()}


def read_all(root: Path, folder: str) -> list[Expectations]:
    """Every file of a folder below a root, by name."""
    return [read(file, f"{folder}/{file.name}") for file in sorted((root / folder).glob("*.json"))]


@dataclass(frozen=True, slots=True)
class Unmet:
    """Something a consumer reads that is not there any more, or is something else.

    Attributes:
        subject: full name of the field, or of what else it is.
    """

    rule: str
    subject: str
    what: str
    consumer: str
    file: str


def unmet(expectations: Iterable[Expectations], image: Image) -> Iterator[Unmet]:
    """What consumers read and no longer find in an image."""
    topics = {wrapper.topic: wrapper for wrapper in image.wrappers.values()}
    for one in expectations:
        for of in one.reads:
            yield from _unmet_read(image, topics.get(of.topic), of, one.file)


def _unmet_read(image: Image, wrapper: Wrapper | None, of: Read, file: str) -> Iterator[Unmet]:
    if wrapper is None:
        yield Unmet("READ_TOPIC_GONE", of.topic, f"{of.consumer} reads {of.topic}, which no wrapper declares", of.consumer, file)
        return
    if wrapper.key != of.key:
        what = f"{of.consumer} reads {of.topic} by {of.key}, now it is keyed by {wrapper.key}"
        yield Unmet("READ_KEY_CHANGED", wrapper.message, what, of.consumer, file)
    for event, fields in of.events.items():
        if event in wrapper.events.values():
            for path, kind in fields.items():
                yield from _unmet_field(image, of, event, path, kind, file)
        else:
            what = f"{of.consumer} reads {event} in {of.topic}, which no longer holds it"
            yield Unmet("READ_EVENT_GONE", event, what, of.consumer, file)


def _unmet_field(image: Image, of: Read, event: str, path: str, kind: str, file: str) -> Iterator[Unmet]:
    found, names = fields_on_way(image, event, path), path.split(".")
    if len(found) < len(names):
        inside = found[-1].message_type if found else image.messages[event]
        owner = inside.full_name if inside is not None else found[-1].full_name.rpartition(".")[0]
        subject = f"{owner}.{names[len(found)]}"
        yield Unmet("READ_FIELD_GONE", subject, f"{of.consumer} reads {path} of {event}, which is gone", of.consumer, file)
    elif (now := kind_of(found[-1])) != kind:
        what = f"{of.consumer} reads {path} of {event} as {kind}, now it is {now}"
        yield Unmet("READ_FIELD_CHANGED", found[-1].full_name, what, of.consumer, file)

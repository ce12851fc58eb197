"""Topics as files that any program reads: one CloudEvent a line, taken apart with nothing but a descriptor image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from backbone.errors import SettingsError
from backbone.operations.cloudevents import cloud_event
from backbone.operations.contracts import buf
from backbone.operations.contracts.image import Image, Wrapper
from backbone.operations.decoding import coordinate
from backbone.operations.scan import Progress, Scan
from backbone.ports import Log, Record

SHOWN = 5


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        events: how many.
        strange: coordinates of records that the image cannot take apart; they are not in the file.
        unread: partitions that could not be read to the end, because a transaction is open there.
    """

    events: int = 0
    strange: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything is in the file."""
        return not self.strange and not self.unread

    def words(self) -> Iterator[str]:
        """What is not in the file."""
        if self.strange:
            more = f" and {len(self.strange) - SHOWN} more" if len(self.strange) > SHOWN else ""
            yield f"not taken apart: {', '.join(self.strange[:SHOWN])}{more}; it is garbage, or of a newer release than the image"
        if self.unread:
            yield f"a transaction is open in {', '.join(self.unread)}: what lies behind it is missing; export again"


def wrapper_of(image: Image, topic: str) -> Wrapper:
    """How an image says that the records of a topic are made.

    Raises:
        SettingsError: it does not know the topic.
    """
    topics = {one.topic: one for one in image.wrappers.values()}
    if topic not in topics:
        near = sorted(name for name in topics if topic in name)
        raise SettingsError(f"no wrapper declares {topic!r}; there are {', '.join(near or sorted(topics))}")
    return topics[topic]


def events(records: Iterable[Record], wrapper: Wrapper, image: Image, strange: list[str]) -> Iterator[dict[str, Any]]:
    """The records of a topic as CloudEvents; tombstones are left out.

    Args:
        strange: gets the coordinate of each record that cannot be taken apart.
    """
    kind = image.message_class(wrapper.message)
    oneof = kind.DESCRIPTOR.oneofs[0].name
    for record in records:
        if record.value is None:
            continue
        try:
            found: Any = kind.FromString(record.value)
            which = found.WhichOneof(oneof)
            if which is None or not found.meta.id:
                strange.append(coordinate(record))
                continue
            yield cloud_event(getattr(found, which), found.meta, record)
        except (DecodeError, UnicodeDecodeError):
            strange.append(coordinate(record))


def export(log: Log, topic: str, image: Image, into: Path, progress: Progress | None = None) -> Exported:
    """Write a topic, as far as it is now, into a file; the file appears when it is whole.

    Args:
        image: knows the topic's wrapper.

    Raises:
        SettingsError: the image does not know the topic, or the cluster does not have it.
        Unavailable: Kafka does not answer.
    """
    wrapper = wrapper_of(image, topic)
    topics = log.topics()
    if topic not in topics:
        raise SettingsError(f"the cluster has no topic {topic}")
    scan = Scan(log, [(topic, number) for number in range(topics[topic][1])], progress=progress)
    done = Exported()
    part = into.with_name(f"{into.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        for one in events(scan, wrapper, image, done.strange):
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
            done.events += 1
    done.unread += [f"{name}/{number}" for name, number in scan.unread]
    part.replace(into)
    return done


def image_of(root: Path, given: Path | None) -> Image:
    """The image to take records apart with: a file's, or that of the contracts in a checkout.

    Raises:
        SettingsError: there is neither.
        DeclarationError: it is no image, or the contracts cannot be built.
    """
    if given is not None:
        return Image.of(given.read_bytes(), str(given))
    if not (root / "buf.yaml").is_file():
        raise SettingsError(f"there are no contracts in {root}: name a descriptor image with --image")
    return Image.of(buf.build(root))

"""Position vectors: how far somebody has read, or must have read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backbone.ports import Place
from backbone.v1.meta_pb2 import Position

AT_LEAST = "backbone-at-least"
"""Metadata of a question: what its answer must know."""

AS_OF = "backbone-as-of"
"""Metadata of an answer: how far the views it comes from had read."""

POSITION = "backbone-position"
"""Metadata of an answer: what it rests on, to be demanded elsewhere."""

AGE_MS = "backbone-age-ms"
"""Metadata of an answer: it shows all that lay in the log so many milliseconds ago."""

Vector = Mapping[Place, int]
"""Next offset by topic and partition."""


def merge(*vectors: Vector) -> dict[Place, int]:
    """The least vector that covers all the given ones."""
    merged: dict[Place, int] = {}
    for vector in vectors:
        for place, offset in vector.items():
            if offset > merged.get(place, -1):
                merged[place] = offset
    return merged


def to_proto(vector: Vector) -> list[Position]:
    """The vector as protobuf, in a stable order."""
    return [Position(topic=topic, partition=partition, next_offset=offset) for (topic, partition), offset in sorted(vector.items())]


def from_proto(positions: Iterable[Position]) -> dict[Place, int]:
    """The vector of protobuf positions."""
    return {(position.topic, position.partition): position.next_offset for position in positions}


def encode(vector: Vector) -> str:
    """The vector as the text that travels in `backbone-at-least` and `backbone-as-of`: topic/partition@next_offset, comma separated."""
    return ",".join(f"{topic}/{partition}@{offset}" for (topic, partition), offset in sorted(vector.items()))


def decode(text: str) -> dict[Place, int]:
    """The vector of `encode`.

    Raises:
        ValueError: the text is not such a vector.
    """
    vector: dict[Place, int] = {}
    for entry in filter(None, text.split(",")):
        place, at, offset = entry.rpartition("@")
        topic, slash, partition = place.rpartition("/")
        if not at or not slash or not topic:
            raise ValueError(f"not a position: {entry!r}; expected topic/partition@next_offset")
        vector[topic, int(partition)] = int(offset)
    return vector

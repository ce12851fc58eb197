"""How a row lies in its place: what it comes after, and behind that the row as it goes over the wire.

    byte 0        form, 1; no Protobuf message begins so, for a field number 0 does not exist
    byte 1        how many foreign places it comes after
    6 bytes       next offset of the topic the view folds, after the last record that was folded into the row
    12 bytes each mark of a foreign place, next offset there; the one that moved last stands last

Numbers are big-endian, so that offsets compare as bytes. What begins otherwise is a row without all this, or the mark of a damaged one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

from backbone.ports import Place
from backbone.v1.meta_pb2 import Position

FORM = b"\1"
OFFSET_BYTES = 6
LAST_OFFSET = 256**OFFSET_BYTES - 1
MARK_BYTES = 6
"""48 bits of a digest: among the 10,000 places of a large platform two share a mark with a chance of 1 in 5 million."""

MOST_PLACES = 64
"""Foreign places a row remembers at most. What moved longest ago goes first; what is forgotten is waited for, never taken for known."""

MOST_MARKS = 65536
PRIVATE = "private."

_HEAD = 2 + OFFSET_BYTES
_ENTRY = MARK_BYTES + OFFSET_BYTES


@lru_cache(maxsize=MOST_MARKS)
def mark_of(place: Place) -> bytes:
    """What a place is called beside a row; the same in every process and for ever."""
    topic, partition = place
    return hashlib.sha256(f"{topic}/{partition}".encode()).digest()[:MARK_BYTES]


class Lineage:
    """What the rows of one view may come after: public topics other than the one it folds, whose watermark says it already.

    Args:
        topic: the topic the view folds.
    """

    __slots__ = ("_own", "marks")

    def __init__(self, topic: str) -> None:
        self._own = topic
        self.marks: dict[Place, bytes] = {}

    def mark(self, place: Place) -> bytes:
        """The mark of a place, empty if it is left aside; learned so that `marks` knows it the next time."""
        if len(self.marks) >= MOST_MARKS:
            self.marks.clear()
        left_aside = place[0] == self._own or place[0].startswith(PRIVATE)
        return self.marks.setdefault(place, b"" if left_aside else mark_of(place))


class After:
    """What one row comes after.

    Attributes:
        own: next offset of the topic the view folds after the last record folded into the row, as it is stored.
        places: next offset by mark of a foreign place, both as they are stored.
    """

    __slots__ = ("own", "places")

    def __init__(self, own: bytes = bytes(OFFSET_BYTES), places: dict[bytes, bytes] | None = None) -> None:
        self.own = own
        self.places = {} if places is None else places

    def fold(self, lineage: Lineage, positions: Iterable[Position], next_offset: int, upstream: set[str]) -> None:
        """Take in what one more record came after.

        Args:
            positions: `after` of the record's meta.
            next_offset: the offset after the record.
            upstream: gets the topics that are not left aside.
        """
        places, marks = self.places, lineage.marks
        for one in positions:
            topic = one.topic
            place = (topic, one.partition)
            mark = marks.get(place)
            if mark is None:
                mark = lineage.mark(place)
            if not mark:
                continue
            number = one.next_offset
            if not 0 < number <= LAST_OFFSET:
                continue  # a defect of its writer is not to damage our row
            offset = number.to_bytes(OFFSET_BYTES, "big")
            known = places.get(mark)
            if known is None:
                places[mark] = offset
                upstream.add(topic)
            elif offset > known:
                del places[mark]
                places[mark] = offset
        self.own = next_offset.to_bytes(OFFSET_BYTES, "big")
        while len(places) > MOST_PLACES:
            del places[next(iter(places))]

    def knows(self, place: Place) -> int:
        """Next offset of a foreign place the row comes after; 0 if that is not known."""
        return int.from_bytes(self.places.get(mark_of(place), b""), "big")

    @property
    def next_offset(self) -> int:
        """Next offset of the topic the view folds."""
        return int.from_bytes(self.own, "big")


def wrapped(row: bytes, after: After) -> bytes:
    """What lies in the place of a row."""
    places = after.places
    return b"".join((FORM, len(places).to_bytes(1, "big"), after.own, *(part for entry in places.items() for part in entry), row))


def row_bytes(raw: bytes) -> bytes:
    """The row in what lies there, as it goes over the wire."""
    return raw[_HEAD + _ENTRY * raw[1] :] if raw[:1] == FORM else raw


def next_offset_of(raw: bytes) -> int:
    """Next offset of the topic the view folds after the last record folded into the row; 0 if the row does not say."""
    return int.from_bytes(raw[2:_HEAD], "big") if raw[:1] == FORM else 0


def after_of(raw: bytes) -> After:
    """What the row that lies there comes after; nothing if it does not say."""
    if raw[:1] != FORM:
        return After()
    end = _HEAD + _ENTRY * raw[1]
    entries = range(_HEAD, end, _ENTRY)
    return After(raw[2:_HEAD], {raw[at : at + MARK_BYTES]: raw[at + MARK_BYTES : at + _ENTRY] for at in entries})

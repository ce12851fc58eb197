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
    """What one row comes after, as it is stored: taking it apart and together again would cost more than all the rest.

    Attributes:
        own: next offset of the topic the view folds after the last record folded into the row.
        places: the mark of each foreign place and the next offset there, one behind the other.
    """

    __slots__ = ("own", "places")

    def __init__(self, own: bytes = bytes(OFFSET_BYTES), places: bytes = b"") -> None:
        self.own = own
        self.places = places

    def fold(self, lineage: Lineage, positions: Iterable[Position], next_offset: int, upstream: set[str]) -> None:
        """Take in what one more record came after.

        Args:
            positions: `after` of the record's meta.
            next_offset: the offset after the record.
            upstream: gets the topics that are not left aside.
        """
        places, marks = self.places, lineage.marks
        for one in positions:
            place = (one.topic, one.partition)
            mark = marks.get(place)
            if mark is None:
                mark = lineage.mark(place)
            if not mark:
                continue
            number = one.next_offset
            if not 0 < number <= LAST_OFFSET:
                continue  # a defect of its writer is not to damage our row
            offset = number.to_bytes(OFFSET_BYTES, "big")
            at = _find(places, mark)
            if at < 0:
                places += mark + offset
                upstream.add(place[0])
            elif offset > places[at + MARK_BYTES : at + _ENTRY]:
                places = places[:at] + places[at + _ENTRY :] + mark + offset
        self.own = next_offset.to_bytes(OFFSET_BYTES, "big")
        self.places = places[-MOST_PLACES * _ENTRY :]

    def knows(self, place: Place) -> int:
        """Next offset of a foreign place the row comes after; 0 if that is not known."""
        at = _find(self.places, mark_of(place))
        return 0 if at < 0 else int.from_bytes(self.places[at + MARK_BYTES : at + _ENTRY], "big")


def _find(places: bytes, mark: bytes) -> int:
    """Where the entry of a mark begins; -1 if there is none."""
    at = places.find(mark)
    while at > 0 and at % _ENTRY:  # across two entries the same bytes may stand by chance
        at = places.find(mark, at + 1)
    return at


def wrapped(row: bytes, after: After) -> bytes:
    """What lies in the place of a row."""
    return FORM + (len(after.places) // _ENTRY).to_bytes(1, "big") + after.own + after.places + row


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
    return After(raw[2:_HEAD], raw[_HEAD : _HEAD + _ENTRY * raw[1]])

"""The mark that lies in a row's place when its fold raised, and the one way to read a row."""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from backbone.declare import Row
from backbone.errors import DataLoss
from backbone.stored import row_bytes

MARK = b"\0"
"""What a damaged row starts with. No Protobuf message does: a field number 0 does not exist. Nor does `stored.FORM`."""


def mark(why: str) -> bytes:
    """What lies in the place of a row whose fold raised."""
    return MARK + why.encode(errors="replace")


def is_damaged(raw: bytes) -> bool:
    """Whether the mark lies there."""
    return raw.startswith(MARK)


def row_of(row: type[Row], view: str, key: str, raw: bytes) -> Row:
    """The row that lies there.

    Args:
        view: full name of the view.
        raw: what lies there.

    Raises:
        DataLoss: the row's fold raised, or the bytes are no row; says what was wrong.
    """
    if is_damaged(raw):
        why = raw[len(MARK) :].decode(errors="replace")
        raise DataLoss(f"row {key!r} of {view} is damaged: {why}. Mend the view's function and raise the view's version")
    try:
        return row.FromString(row_bytes(raw))
    except DecodeError as error:
        raise DataLoss(f"what lies in the place of row {key!r} of {view} is no row: {error}. Raise the view's version") from error


def serialized(row: Message) -> bytes:
    """A row as it is stored; the same row always gives the same bytes."""
    return row.SerializeToString(deterministic=True)

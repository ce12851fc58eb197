"""Moments in messages (Timestamp) and in decisions (aware datetimes)."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime.fromtimestamp(0, UTC)
"""Before anything happened."""


def moment(stamp: Timestamp) -> datetime:
    """A protobuf timestamp as an aware datetime, to the microsecond."""
    return stamp.ToDatetime(tzinfo=UTC)


def stamp(at: datetime) -> Timestamp:
    """An aware datetime as protobuf.

    Raises:
        ValueError: it has no zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no zone")
    found = Timestamp()
    found.FromDatetime(at)
    return found

"""What was set aside: records that could not be decoded, decided or folded, with all that is needed to understand why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from backbone.errors import BackboneError
from backbone.moments import moment
from backbone.operations.decoding import Decoder, Entry, Kind, brief, reason_name
from backbone.operations.scan import Progress, Scan, existing
from backbone.ports import Log
from backbone.settings import Settings
from backbone.v1.private_pb2 import Quarantined

PER_LINE = 16


class NotQuarantined(BackboneError):
    """Nothing lies in quarantine under that name."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A record that was set aside.

    Attributes:
        name: how people ask for it: <context>.<service>/<partition>@<offset> in its quarantine topic.
        at: when it was set aside.
        inside: what it says, if it can be understood after all.
    """

    name: str
    at: datetime
    quarantined: Quarantined
    inside: Entry | None

    @property
    def origin(self) -> str:
        """Where it was read."""
        aside = self.quarantined
        return f"{aside.topic}/{aside.partition}@{aside.offset}" if aside.partition >= 0 else f"{aside.topic or 'outside'} (taken in)"

    def to_dict(self) -> dict[str, Any]:
        """All of it for programs; raw bytes as hex."""
        aside = self.quarantined
        inside = self.inside.message if self.inside is not None else None
        return {
            "name": self.name,
            "at": self.at.isoformat(timespec="milliseconds"),
            "service": aside.service,
            "build": aside.build,
            "reason": reason_name(aside.reason),
            "detail": aside.detail,
            "aggregate": aside.aggregate,
            "topic": aside.topic,
            "partition": aside.partition,
            "offset": aside.offset,
            "appended_at": moment(aside.appended_at).isoformat(timespec="milliseconds"),
            "key_hex": aside.key.hex() if aside.HasField("key") else None,
            "value_hex": aside.value.hex() if aside.HasField("value") else None,
            "correlation_id": self.inside.meta.correlation_id if self.inside is not None else "",
            "says": MessageToDict(inside, preserving_proto_field_name=True) if inside is not None else None,
            "traceback": aside.traceback,
        }


def read(log: Log, decoder: Decoder, settings: Settings, progress: Progress | None = None) -> list[Aside]:
    """All that lies in quarantine, oldest first.

    Raises:
        Unavailable: Kafka does not answer.
    """
    found = []
    for record in Scan(log, existing(log, decoder.places(settings.partitions, [Kind.QUARANTINED])), progress=progress):
        entry = decoder.decode(record)
        if entry is None or not isinstance(entry.message, Quarantined):
            continue
        service = record.topic.removeprefix("private.").removesuffix(".quarantine")
        inside = decoder.inside(entry.message)
        found.append(Aside(f"{service}/{record.partition}@{record.offset}", entry.at, entry.message, inside))
    return sorted(found, key=lambda aside: (aside.at, aside.name))


def one(asides: list[Aside], name: str) -> Aside:
    """The record of that name, or the only one that was read at that coordinate.

    Raises:
        NotQuarantined: there is none, or there are several.
    """
    matching = [aside for aside in asides if aside.name == name] or [aside for aside in asides if aside.origin == name]
    if len(matching) != 1:
        names = ", ".join(aside.name for aside in (matching or asides)[:5])
        what = f"{len(matching)} records" if matching else "nothing"
        raise NotQuarantined(f"{what} in quarantine under {name!r}; there are {names or 'none at all'}")
    return matching[0]


def lines(aside: Aside) -> Iterator[str]:
    """One record for people, with everything that is known."""
    quarantined = aside.quarantined
    yield f"{aside.name}: {reason_name(quarantined.reason)}"
    yield f"  why         {quarantined.detail}"
    yield f"  read from   {aside.origin}, appended {moment(quarantined.appended_at).isoformat(timespec='milliseconds')}"
    yield f"  set aside   by {quarantined.service} ({quarantined.build or 'no build'}) at {aside.at.isoformat(timespec='milliseconds')}"
    if quarantined.aggregate:
        yield f"  about       {quarantined.aggregate}"
    if aside.inside is not None and aside.inside.message is not None:
        yield f"  order       {aside.inside.meta.correlation_id}"
        yield f"  says        {aside.inside.name} {brief(aside.inside.message)}"
    elif aside.inside is not None:
        yield f"  says        it cannot be understood: {aside.inside.problem}"
    yield from _dump("key", quarantined.key if quarantined.HasField("key") else None)
    yield from _dump("value", quarantined.value if quarantined.HasField("value") else None)
    if quarantined.traceback:
        yield "  traceback"
        yield from (f"    {row}" for row in quarantined.traceback.rstrip().splitlines())


def _dump(what: str, raw: bytes | None) -> Iterator[str]:
    if raw is None:
        yield f"  {what:<11} none"
        return
    yield f"  {what:<11} {len(raw)} bytes"
    for start in range(0, len(raw), PER_LINE):
        row = raw[start : start + PER_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"    {start:06x}  {row.hex(' '):<{PER_LINE * 3 - 1}}  {shown}"

"""An event as a CloudEvent 1.0: what `Meta` is called out there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from backbone.envelope import moment_of_ms
from backbone.ports import Record

SPEC = "1.0"
ATTRIBUTES: Mapping[str, str] = {
    "id": "id",
    "writer": "source",
    "occurred_at": "time",
    "traceparent": "traceparent",
    "correlation_id": "correlationid",
    "causation_id": "causationid",
    "sequence": "sequence",
    "build": "build",
}
"""Attribute of CloudEvents by field of `Meta`; the type is the event's full name, the subject its key. `traceparent`, `correlationid`,
`causationid` and `sequence` are documented extensions, `build` and the Kafka coordinate are ours."""
SEQUENCE_DIGITS = 19
"""The extension compares sequences as text."""


def cloud_event(event: Any, meta: Any, record: Record) -> dict[str, Any]:
    """The event in the JSON format of CloudEvents.

    Args:
        event: a Protobuf message.
        meta: its `backbone.v1.Meta`, of generated code or of an image.
        record: where it lies.
    """
    found: dict[str, Any] = {"specversion": SPEC, "type": event.DESCRIPTOR.full_name, "subject": (record.key or b"").decode()}
    for name, attribute in ATTRIBUTES.items():
        value = getattr(meta, name)
        if name == "occurred_at":
            found[attribute] = value.ToJsonString()
        elif name == "sequence":
            found |= {attribute: f"{value:0{SEQUENCE_DIGITS}}"} if value else {}
        elif value:
            found[attribute] = value
    found |= {
        "kafkatopic": record.topic,
        "kafkapartition": record.partition,
        "kafkaoffset": str(record.offset),
        "kafkatime": moment_of_ms(record.timestamp_ms).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": json_format.MessageToDict(event, preserving_proto_field_name=True, always_print_fields_with_no_presence=True),
    }
    return found

"""The public topics as an AsyncAPI 3 document: who sends what where, with JSON schemas of Protobuf's JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from backbone.operations.contracts.image import Image, Wrapper
from backbone.operations.contracts.values import Rules, refuses_absence, rules_of
from backbone.topology import Topology

VERSION = "3.1.0"
BINDING = "0.5.0"
WELL_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$"},
}
ITEM_BOUNDS = {"minItems": "repeated.min_items", "maxItems": "repeated.max_items"}
WHOLE_64 = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}


def asyncapi(image: Image, topology: Topology, examples: Mapping[str, Any], release: int) -> dict[str, Any]:
    """The document.

    Args:
        examples: a message for the full names that have one.
        release: number of the last release of the contracts.
    """
    wrappers = {wrapper.topic: wrapper for wrapper in image.wrappers.values()}
    nodes = [node for node in topology.topics if not node.private and node.name in wrappers]
    events = sorted({event for node in nodes for event in node.holds})
    schemas: dict[str, Any] = {}
    for event in events:
        _add_schema(image, image.messages[event], schemas)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "The events between contexts",
            "version": f"{release}.0.0",
            "description": "Payloads are Protobuf: the topic's wrapper with one of these events and backbone.v1.Meta. The schemas here "
            "describe the events in Protobuf's JSON form.",
        },
        "defaultContentType": "application/x-protobuf",
        "channels": {node.name: _channel(image, wrappers[node.name]) for node in nodes},
        "operations": _operations(topology, wrappers),
        "components": {
            "messages": {event: _message(image, event, examples) for event in events},
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _channel(image: Image, wrapper: Wrapper) -> dict[str, Any]:
    return {
        "address": wrapper.topic,
        "description": image.comments.get(wrapper.message, ""),
        "messages": {event: {"$ref": f"#/components/messages/{event}"} for _, event in sorted(wrapper.events.items())},
        "bindings": {"kafka": {"topic": wrapper.topic, "bindingVersion": BINDING}},
        "x-key": wrapper.key,
        "x-writer": wrapper.writer,
        "x-wrapper": wrapper.message,
        **({"x-copy-of": wrapper.copy_of} if wrapper.copy_of else {}),
    }


def _operations(topology: Topology, wrappers: Mapping[str, Wrapper]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in topology.topics:
        if not node.private and node.name in wrappers:
            found[f"{node.writer}.says.{node.name}"] = _operation("send", node.name, node.holds, node.writer)
    for group in topology.groups:
        for topic in group.topics:
            if topic in wrappers and not wrappers[topic].private:
                heard = [event.name for event in topology.events if topic in event.topics and group.service in event.heard_by]
                operation = _operation("receive", topic, heard, group.service)
                operation["bindings"] = {"kafka": {"groupId": {"type": "string", "const": group.name}, "bindingVersion": BINDING}}
                found[f"{group.name}.hears.{topic}"] = operation
    return found


def _operation(action: str, topic: str, events: Any, service: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/{event}"} for event in events],
        "tags": [{"name": service}],
    }


def _message(image: Image, event: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": event,
        "title": event.rpartition(".")[2],
        "summary": image.comments.get(event, ""),
        "contentType": "application/x-protobuf",
        "payload": {"$ref": f"#/components/schemas/{event}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": BINDING}},
    }
    if event in examples:
        payload = json_format.MessageToDict(examples[event], preserving_proto_field_name=True)
        found["examples"] = [{"name": event.rpartition(".")[2], "payload": payload}]
    return found


def _add_schema(image: Image, message: Descriptor, schemas: dict[str, Any]) -> None:
    if message.full_name in schemas:
        return
    schema: dict[str, Any] = {"type": "object", "description": image.comments.get(message.full_name, "")}
    schemas[message.full_name] = schema
    rules = {one.name: rules_of(image, one) for one in message.fields}
    schema["properties"] = {one.name: _property(image, message, one, rules[one.name], schemas) for one in message.fields}
    required = [one.name for one in message.fields if refuses_absence(one, rules[one.name])]
    if required:
        schema["required"] = required


def _property(image: Image, message: Descriptor, one: FieldDescriptor, rules: Rules, schemas: dict[str, Any]) -> dict[str, Any]:
    comment = image.comments.get(f"{message.full_name}.{one.name}", "")
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        value = _single(image, one.message_type.fields_by_name["value"], schemas)
        return {"type": "object", "description": comment, "additionalProperties": value}
    single = _single(image, one, schemas)
    if one.is_repeated:
        bounds = {name: rules[path][0] for name, path in ITEM_BOUNDS.items() if path in rules}
        return {"type": "array", "description": comment, "items": single, **bounds}
    return single if "$ref" in single else {**single, "description": comment, **_bounds(one, rules)}


def _bounds(one: FieldDescriptor, rules: Rules) -> dict[str, Any]:
    kind = next((path.partition(".")[0] for path in rules if "." in path), "")
    found: dict[str, Any] = {}
    if one.type not in WHOLE_64:
        if f"{kind}.at_least" in rules:
            found["minimum"] = rules[f"{kind}.at_least"][0]
        if f"{kind}.at_most" in rules:
            found["maximum"] = rules[f"{kind}.at_most"][0]
    if "string.min_len" in rules:
        found["minLength"] = rules["string.min_len"][0]
    if "string.max_len" in rules:
        found["maxLength"] = rules["string.max_len"][0]
    if "string.pattern" in rules:
        found["pattern"] = rules["string.pattern"]
    return found


def _single(image: Image, one: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if one.message_type is not None:
        name = one.message_type.full_name
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        _add_schema(image, one.message_type, schemas)
        return {"$ref": f"#/components/schemas/{name}"}
    if one.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in one.enum_type.values]}
    if one.type in WHOLE_64:
        return {"type": "string", "pattern": "^-?[0-9]+$"}
    if one.type == one.TYPE_BOOL:
        return {"type": "boolean"}
    if one.type in (one.TYPE_DOUBLE, one.TYPE_FLOAT):
        return {"type": "number"}
    if one.type == one.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return {"type": "string"} if one.type == one.TYPE_STRING else {"type": "integer"}

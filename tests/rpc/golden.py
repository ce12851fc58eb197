"""What each method answered to what, as files: requests, responses, statuses and reasons; times, and what depends on when, left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from tests.rpc.transports import Answer, Method

FOLDER = Path(__file__).parent / "golden"
SOMETIME = "2000-01-01T00:00:00Z"
TIMES = ("requested_at", "answered_at")
WHEN = ("position",)
"""Fields that say where in the log something lies."""


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        method: its name.
        metadata: who calls, and with what.
        before: called with what stands in for the platform.
        each: called with it and each response.
        after: called with it when all is over.
    """

    name: str
    method: str
    request: Message
    metadata: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[Any], None] = lambda _: None
    each: Callable[[Any, Message], None] = lambda *_: None
    after: Callable[[Any], None] = lambda _: None


def written(case: Case, given: Answer) -> dict[str, Any]:
    """A case and its answer as the file says it."""
    found: dict[str, Any] = {
        "case": case.name,
        "metadata": {name: short(value) for name, value in sorted(case.metadata.items())},
        "request": shown(case.request),
        "responses": [shown(one) for one in given.messages],
        "status": given.status,
    }
    info, wrong = given.details.get("ErrorInfo"), given.details.get("BadRequest")
    if isinstance(info, ErrorInfo):
        found |= {"reason": info.reason, "domain": info.domain, "facts": dict(sorted(info.metadata.items()))}
    if isinstance(wrong, BadRequest):
        found["violations"] = [{"field": one.field, "rule": one.reason} for one in wrong.field_violations]
    if "RetryInfo" in given.details:
        found["try_again"] = True
    return found


def shown(message: Message) -> dict[str, Any]:
    """A message without when and where; what is not set is not there, what is set to a default neither."""
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {name: still(name, value) for name, value in found.items()}


def still(name: str, value: Any) -> Any:
    """A value that is the same whenever it is made."""
    if name in WHEN:
        return "somewhere"
    if name in TIMES:
        return SOMETIME
    if isinstance(value, dict):
        return {key: still(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [still("", inner) for inner in value]
    return value


def short(text: str) -> str:
    """A text that is there to be too long."""
    return text if len(text) <= 80 else f"{text[:8]}… ({len(text)} characters)"


def file_of(method: Method) -> Path:
    """Where the answers of a method are kept."""
    return FOLDER / f"{method.path.strip('/').replace('/', '.')}.json"


def read(method: Method) -> list[dict[str, Any]]:
    """What a method answered when it was recorded."""
    found: list[dict[str, Any]] = json.loads(file_of(method).read_text(encoding="utf-8"))
    return found


def write(method: Method, cases: list[dict[str, Any]]) -> Path:
    """Record what a method answers."""
    file = file_of(method)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file

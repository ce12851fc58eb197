"""The value rules of contracts (protovalidate), checked where an event is born and where a foreign one enters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from google.protobuf.message import Message
from protovalidate import FieldPathElementPb, Validator


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule that a message breaks.

    Attributes:
        field: path of the field, e.g. "lines[2].quantity"; empty for a rule about the whole message.
        description: what is wrong with it.
        rule: identity of the rule, e.g. "int64.gte".
    """

    field: str
    description: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class BreaksRules(ValueError):
    """A message breaks value rules of its contract; nothing was done with it.

    Args:
        message: name of the message.
        violations: every rule it breaks.
    """

    def __init__(self, message: str, violations: Sequence[Violation]) -> None:
        super().__init__(f"{message} breaks its contract: {'; '.join(map(str, violations))}")
        self.violations = tuple(violations)


@cache
def _validator() -> Validator:
    return Validator()


def violations(message: Message) -> list[Violation]:
    """Every value rule a message breaks; none if it keeps its contract."""
    return [
        Violation(_path(found.proto.field.elements if found.proto.field else ()), found.proto.message, found.proto.rule_id)
        for found in _validator().collect_violations(message)
    ]


def check(message: Message) -> None:
    """Let a message pass that keeps its contract.

    Raises:
        BreaksRules: it does not; says every rule it breaks.
    """
    if found := violations(message):
        raise BreaksRules(message.DESCRIPTOR.name, found)


def _path(elements: Sequence[FieldPathElementPb]) -> str:
    path = ""
    for element in elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path

"""Value rules (protovalidate) of two images beside each other: which became tighter, which looser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from backbone.operations.contracts.image import Image

FIELD, MESSAGE, ONEOF = "buf.validate.field", "buf.validate.message", "buf.validate.oneof"
UPPER = {"lt": 0, "lte": 1, "max_len": 1, "max_bytes": 1, "max_items": 1, "max_pairs": 1}
"""Names of upper bounds, and whether the bound itself is allowed."""
LOWER = {"gt": 1, "gte": 0, "min_len": 0, "min_bytes": 0, "min_items": 0, "min_pairs": 0}
"""Names of lower bounds, and whether the bound itself is refused."""
BOUNDS = {"lt": "at_most", "lte": "at_most", "gt": "at_least", "gte": "at_least"}
"""What bounds the same thing has one name here, so that `lt: 11` beside `lte: 10` of whole numbers is seen to be one bound."""

Rules = Mapping[str, Any]
"""By path, e.g. "string.max_bytes" or "cel.order.one_currency"."""


class Change(StrEnum):
    """What became of a rule."""

    TIGHTENED = "tightened"
    LOOSENED = "loosened"


@dataclass(frozen=True, slots=True)
class Difference:
    """One rule that is another now.

    Attributes:
        rule: its path.
        before: as people read it.
        after: likewise.
    """

    rule: str
    change: Change
    before: str
    after: str


def rules_of(image: Image, descriptor: Any, extension: str = FIELD) -> Rules:
    """The value rules of a field, message or oneof."""
    found = image.option(descriptor, extension)
    return {} if found is None else dict(_flat(found, ""))


def _flat(rules: Message, path: str) -> Iterator[tuple[str, Any]]:
    for described, value in rules.ListFields():
        name = f"{path}{described.name}"
        if described.name == "example":
            continue
        if described.message_type is not None and described.is_repeated:
            for number, rule in enumerate(value):
                words = getattr(rule, "expression", "") or str(rule)
                yield f"{name}.{getattr(rule, 'id', '') or number}", words
        elif described.message_type is not None:
            if described.message_type.full_name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
                yield _bound(path, described.name, value.seconds * 1_000_000_000 + value.nanos)
            else:
                yield from _flat(value, f"{name}.")
        elif described.is_repeated:
            yield name, frozenset(value)
        elif value is not False:
            yield _bound(path, described.name, value)


def _bound(path: str, name: str, value: Any) -> tuple[str, Any]:
    if name in UPPER:
        # Whole numbers below 11 are those up to 10.
        exact = isinstance(value, int) and UPPER[name] == 0
        return f"{path}{BOUNDS.get(name, name)}", (value - 1, 1) if exact else (value, UPPER[name])
    if name in LOWER:
        exact = isinstance(value, int) and LOWER[name] == 1
        return f"{path}{BOUNDS.get(name, name)}", (value + 1, 0) if exact else (value, LOWER[name])
    return f"{path}{name}", value


def compare(before: Rules, after: Rules) -> Iterator[Difference]:
    """Every rule that is another now; one that cannot be compared is both tightened and loosened."""
    for rule in sorted(before.keys() | after.keys()):
        old, new = before.get(rule), after.get(rule)
        if old != new:
            for change in _changes(rule, old, new):
                yield Difference(rule, change, shown(old), shown(new))


def _changes(rule: str, old: Any, new: Any) -> tuple[Change, ...]:
    last = rule.rpartition(".")[2]
    opposite = last == "not_in"
    if last == "ignore":
        return Change.TIGHTENED, Change.LOOSENED
    if old is None:
        return (Change.TIGHTENED,)
    if new is None:
        return (Change.LOOSENED,)
    if last in UPPER or last == "at_most":
        return (Change.LOOSENED if new > old else Change.TIGHTENED,)
    if last in LOWER or last == "at_least":
        return (Change.LOOSENED if new < old else Change.TIGHTENED,)
    if isinstance(old, frozenset) and isinstance(new, frozenset) and (old < new or new < old):
        grown = old < new
        return (Change.TIGHTENED if grown == opposite else Change.LOOSENED,)
    return Change.TIGHTENED, Change.LOOSENED


def shown(value: Any) -> str:
    """A rule's value for people."""
    if value is None:
        return "no rule"
    if isinstance(value, tuple):
        return str(value[0])
    return ", ".join(map(str, sorted(value))) if isinstance(value, frozenset) else str(value)


def refuses_absence(one: FieldDescriptor, rules: Rules) -> bool:
    """Whether a message without this field breaks its rules."""
    if rules.get("required"):
        return True
    if one.has_presence or rules.get("ignore"):
        return False
    lower = [value for rule, value in rules.items() if rule.count(".") == 1 and rule.rpartition(".")[2] in ("at_least", *LOWER)]
    kinds = {rule.rpartition(".")[2]: value for rule, value in rules.items() if rule.count(".") == 1}
    empty = 0 if one.enum_type is not None or one.type not in (one.TYPE_STRING, one.TYPE_BYTES) else ""
    return (
        any(bound > (0, 0) for bound in lower)
        or empty in kinds.get("not_in", ())
        or ("in" in kinds and empty not in kinds["in"])
        or ("const" in kinds and kinds["const"] != empty)
    )


def all_rules(image: Image, message: Descriptor) -> Iterator[tuple[str, Rules]]:
    """The rules of a message: its own under "", each field's and oneof's under its name."""
    yield "", rules_of(image, message, MESSAGE)
    for one in message.fields:
        yield one.name, rules_of(image, one)
    for oneof in message.oneofs:
        yield oneof.name, rules_of(image, oneof, ONEOF)

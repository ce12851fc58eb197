"""Hypothesis strategies from contracts: messages that keep their rules, messages that break exactly one at its boundary, and bytes that
are no record at all. Needs the package hypothesis.

    @given(valid(OrderValidated, {"order_id": st.just("order-1")}))
    @given(invalid(OrderValidated))          # Broken(message, field, rule)
    @given(garbage(OrderEvent))              # bytes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from backbone.contract import Topic
from backbone.envelope import encode, entry_key
from backbone.moments import stamp
from backbone.operations.contracts.image import Image
from backbone.operations.contracts.values import MESSAGE as MESSAGE_RULES
from backbone.operations.contracts.values import Rules, rules_of
from backbone.rules import violations
from backbone.v1.meta_pb2 import Meta

Given = Mapping[str, SearchStrategy[Any]]
"""Strategies for a field by its name, for a field by its full name, or for a message by its full name."""
AMessage = TypeVar("AMessage", bound=Message)

USUAL_TEXT, USUAL_ITEMS = 12, 3
"""What a text or list measures at most, unless a rule asks for more; bounds of rules are tried besides."""
DEEPEST = 6
"""Levels of messages in messages."""
NANOS = 1_000_000_000
MONEY, TIMESTAMP, DURATION = "google.type.Money", "google.protobuf.Timestamp", "google.protobuf.Duration"
SMALLEST_MINOR = 10_000_000
"""Nanos of one hundredth: what the shop's currencies have."""
INTEGERS: Mapping[int, tuple[int, int]] = {
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), (0, 2**64 - 1)),
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A message that breaks one rule, at its boundary.

    Attributes:
        field: path of the field; empty for a rule about the whole message.
        rule: path of the rule, e.g. "string.max_bytes" or "cel.order.one_currency".
    """

    message: Message
    field: str
    rule: str


@cache
def rules_for(field: Any) -> Rules:
    """The value rules of a field of a generated message."""
    return rules_of(_image(field.file), field)


@cache
def _image(file: FileDescriptor) -> Image:
    """A file and all it imports as an image: the rules are read from there, whatever registry protovalidate keeps."""
    found: dict[str, FileDescriptor] = {}

    def take(one: FileDescriptor) -> None:
        if one.name not in found:
            for imported in one.dependencies:
                take(imported)
            found[one.name] = one

    take(file)
    files = []
    for one in found.values():
        copied = FileDescriptorProto()
        one.CopyToProto(copied)
        files.append(copied)
    return Image.of(FileDescriptorSet(file=files).SerializeToString())


def valid(message: type[AMessage], given: Given | None = None) -> SearchStrategy[AMessage]:
    """Messages that keep every rule of their contract.

    Args:
        given: strategies for fields or messages that the rules do not bound closely enough, e.g. a small pool of keys.
    """
    return _message(message.DESCRIPTOR, given or {}, 0).filter(lambda found: not violations(found))


def _message(descriptor: Any, given: Given, depth: int) -> SearchStrategy[Any]:
    fields = [one for one in descriptor.fields if one.containing_oneof is None]
    oneofs = [oneof for oneof in descriptor.oneofs if oneof.fields]
    parts = {one.name: _field(one, given, depth) for one in fields}
    for oneof in oneofs:
        parts |= {one.name: st.none() for one in oneof.fields}
    kind: Any = GetMessageClass(descriptor)

    @st.composite
    def build(draw: Callable[[SearchStrategy[Any]], Any]) -> Any:
        drawn = {name: draw(strategy) for name, strategy in parts.items()}
        for oneof in oneofs:
            one = draw(st.sampled_from(list(oneof.fields)))
            drawn[one.name] = draw(_field(one, given, depth))
        return kind(**{name: value for name, value in drawn.items() if value is not None})

    return build()


def _field(one: FieldDescriptor, given: Given, depth: int) -> SearchStrategy[Any]:
    for name in (one.full_name, one.name):
        if name in given:
            return given[name]
    rules = rules_for(one)
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        key, value = (one.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_single(key, {}, given, depth), _single(value, {}, given, depth), max_size=USUAL_ITEMS)
    if one.is_repeated:
        least, most = _bound(rules, "repeated.min_items", 0), _bound(rules, "repeated.max_items", 10**6)
        items = {path.removeprefix("repeated.items."): rule for path, rule in rules.items() if path.startswith("repeated.items.")}
        single = _single(one, items, given, depth)
        return st.lists(single, min_size=least, max_size=min(most, least + USUAL_ITEMS), unique="repeated.unique" in rules)
    single = _single(one, rules, given, depth)
    may_be_absent = one.has_presence and not rules.get("required") and one.containing_oneof is None
    return st.none() | single if may_be_absent else single


def _single(one: FieldDescriptor, rules: Rules, given: Given, depth: int) -> SearchStrategy[Any]:
    if one.message_type is not None:
        return _inner(one.message_type, rules, given, depth)
    kinds = {path.partition(".")[2]: rule for path, rule in rules.items() if "." in path}
    if "const" in kinds:
        return st.just(kinds["const"])
    if "in" in kinds:
        return st.sampled_from(sorted(kinds["in"]))
    refused = kinds.get("not_in", frozenset())
    found = _scalar(one, kinds)
    return found.filter(lambda value: value not in refused) if refused else found


def _scalar(one: Any, kinds: Rules) -> SearchStrategy[Any]:
    if one.enum_type is not None:
        return st.sampled_from([value.number for value in one.enum_type.values])
    if one.type in INTEGERS:
        least, most = INTEGERS[one.type]
        if "at_least" in kinds:
            least = max(least, sum(kinds["at_least"]))
        if "at_most" in kinds:
            bound, included = kinds["at_most"]
            most = min(most, bound if included else bound - 1)
        return st.integers(least, most)
    if one.type == one.TYPE_STRING:
        return _text(kinds)
    if one.type == one.TYPE_BYTES:
        return st.binary(min_size=_bound(kinds, "min_len", 0), max_size=min(_bound(kinds, "max_len", 64), 64))
    if one.type == one.TYPE_BOOL:
        return st.booleans()
    least_float, most_float = (kinds[name][0] if name in kinds else None for name in ("at_least", "at_most"))
    return st.floats(least_float, most_float, allow_nan=False, allow_infinity=False, width=32 if one.type == one.TYPE_FLOAT else 64)


def _text(kinds: Rules) -> SearchStrategy[Any]:
    if "pattern" in kinds:
        return st.from_regex(kinds["pattern"], fullmatch=True)
    least = max(_bound(kinds, "min_len", 0), _bound(kinds, "min_bytes", 0))
    most = min(_bound(kinds, "max_len", 10**9), _bound(kinds, "max_bytes", 10**9))
    # A character is at most four bytes, so a quarter of the bound is always short enough.
    usual = st.text(st.characters(codec="utf-8"), min_size=least, max_size=max(least, min(USUAL_TEXT, most // 4)))
    return usual | st.just("x" * most) if most < 10**6 else usual


def _inner(descriptor: Any, rules: Rules, given: Given, depth: int) -> SearchStrategy[Any]:
    if descriptor.full_name in given:
        return given[descriptor.full_name]
    if descriptor.full_name == TIMESTAMP:
        return st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(stamp)  # noqa: DTZ001 - zones beside
    if descriptor.full_name == DURATION:
        least, most = (_bound(rules, f"duration.{name}", bound) for name, bound in (("at_least", 0), ("at_most", 10**6 * NANOS)))
        kind: Any = GetMessageClass(descriptor)
        return st.integers(least, most).map(lambda nanos: kind(seconds=nanos // NANOS, nanos=nanos % NANOS))
    if descriptor.full_name == MONEY:
        money: Any = GetMessageClass(descriptor)
        return st.integers(0, 10**9).map(lambda minor: money(currency_code="USD", units=minor // 100, nanos=minor % 100 * SMALLEST_MINOR))
    return _message(descriptor, given, depth + 1) if depth < DEEPEST else st.just(GetMessageClass(descriptor)())


def _bound(rules: Rules, path: str, otherwise: int) -> int:
    return int(rules[path][0]) if path in rules else otherwise


Path = tuple[FieldDescriptor, ...]
Break = tuple[Path, str, Callable[[Any, FieldDescriptor], None]]


def invalid(message: type[Message], given: Given | None = None) -> SearchStrategy[Broken]:
    """Messages that break exactly one rule, at its boundary.

    A bound is missed by one. For a pattern or a rule in CEL, whose boundary is written nowhere, a valid message is changed by as little as
    breaks it: a whole number to one whose neighbour is allowed, a text by one character.

    Raises:
        ValueError: no rule of it can be broken from outside.
    """
    breaks = list(_breaks(message.DESCRIPTOR, ()))
    searched = list(_searched(message.DESCRIPTOR, ()))
    if not breaks and not searched:
        raise ValueError(f"{message.DESCRIPTOR.full_name} has no rule that can be broken at a boundary")

    @st.composite
    def build(draw: Callable[[SearchStrategy[Any]], Any]) -> Broken:
        number = draw(st.integers(0, len(breaks) + len(searched) - 1))
        found = draw(valid(message, given))
        if number < len(breaks):
            path, rule, mutate = breaks[number]
            mutate(_parent(found, path), path[-1])
            return Broken(found, ".".join(one.name for one in path), rule)
        path, rule, expression = searched[number - len(breaks)]
        broken = _broken_by_little(found, path, rule, expression)
        assume(broken)
        return Broken(draw(st.sampled_from(broken)), ".".join(one.name for one in path), rule)

    return build()


def _searched(message: Any, above: Path) -> Iterator[tuple[Path, str, str]]:
    """The rules whose boundary has to be searched for: way to what they are about, path of the rule, its text."""
    for rule, expression in rules_of(_image(message.file), message, MESSAGE_RULES).items():
        if rule.startswith("cel."):
            yield above, rule, expression
    for one in message.fields:
        path = (*above, one)
        for rule, expression in rules_for(one).items():
            if rule.startswith("cel.") or rule == "string.pattern":
                yield path, rule, expression
        inner = one.message_type
        if inner is not None and not inner.GetOptions().map_entry and len(path) < DEEPEST and inner not in (p.message_type for p in above):
            yield from _searched(inner, path)


def _broken_by_little(valid_one: Any, path: Path, rule: str, expression: str) -> list[Any]:
    """Every message that is a little other than a valid one and breaks this rule alone."""
    identity = rule.removeprefix("cel.")
    base = type(valid_one)()
    base.CopyFrom(valid_one)
    _doubled(base)
    if violations(base):
        base.CopyFrom(valid_one)
    constants = {int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", expression)}
    numbers = {getattr(owner, leaf.name) for owner, leaf in _scalars(base) if leaf.type in INTEGERS}
    found = []
    for place, (owner, leaf) in enumerate(_scalars(base)):
        if not _concerns(path, leaf):
            continue
        for other in _near(leaf, getattr(owner, leaf.name), constants | numbers):
            changed = _with(base, place, other)
            if not _breaks_only(changed, identity):
                continue
            if leaf.type in INTEGERS and not any(_keeps_all(_with(base, place, beside)) for beside in (other - 1, other + 1)):
                continue
            found.append(changed)
    return found


def _concerns(path: Path, leaf: FieldDescriptor) -> bool:
    """Whether a scalar is, or is a part of, what a rule is about; a rule about the whole message concerns all of it."""
    if not path or leaf is path[-1]:
        return True
    waiting, known = [path[-1].message_type], list[Any]()
    while waiting:
        message = waiting.pop()
        if message is not None and message not in known:
            known.append(message)
            waiting += [one.message_type for one in message.fields]
    return leaf.containing_type in known


def _breaks_only(message: Any, rule: str) -> bool:
    return message is not None and {one.rule for one in violations(message)} == {rule}


def _keeps_all(message: Any) -> bool:
    return message is not None and not violations(message)


def _doubled(message: Any) -> None:
    """Two of what there is one of, so that one of them can differ."""
    for one, value in message.ListFields():
        if one.message_type is None or one.message_type.GetOptions().map_entry:
            continue
        if one.is_repeated and len(value) == 1:
            value.add().CopyFrom(value[0])
        for inner in value if one.is_repeated else [value]:
            _doubled(inner)


def _scalars(message: Any) -> Iterator[tuple[Any, FieldDescriptor]]:
    """Every number and text of a message and of what is in it, set or not, with the message it is in; always in the same order."""
    for one in message.DESCRIPTOR.fields:
        if one.message_type is None:
            if not one.is_repeated and (one.type in INTEGERS or one.type == one.TYPE_STRING):
                yield message, one
        elif one.message_type.GetOptions().map_entry:
            continue
        elif one.is_repeated:
            for inner in getattr(message, one.name):
                yield from _scalars(inner)
        elif message.HasField(one.name):
            yield from _scalars(getattr(message, one.name))


def _with(message: Any, place: int, value: Any) -> Any:
    """A copy of a message with another value in the place of one of its scalars; None where it cannot have it."""
    copied = type(message)()
    copied.CopyFrom(message)
    owner, leaf = next(islice(_scalars(copied), place, None))
    if leaf.type in INTEGERS and not INTEGERS[leaf.type][0] <= value <= INTEGERS[leaf.type][1]:
        return None
    setattr(owner, leaf.name, value)
    return copied


def _near(leaf: FieldDescriptor, value: Any, numbers: set[int]) -> list[Any]:
    """Values to try instead of one: around every number that plays a part, or a text by one character."""
    if leaf.type in INTEGERS:
        tried = {beside for number in (*numbers, value, 0) for beside in (number - 1, number, number + 1)}
        return sorted(tried - {value})
    changed = {value[:-1], value[1:], value + value[-1:], value + "\n", value.swapcase(), value[:-1] + "_", "_" + value[1:], value + "~"}
    return sorted(changed - {value})


def _parent(found: Any, path: Sequence[FieldDescriptor]) -> Any:
    for one in path[:-1]:
        inner = getattr(found, one.name)
        if one.is_repeated:
            found = inner[0] if inner else inner.add()
        else:
            inner.SetInParent()
            found = inner
    return found


def _breaks(message: Any, above: tuple[FieldDescriptor, ...]) -> Iterator[Break]:
    for one in message.fields:
        rules = rules_for(one)
        path = (*above, one)
        for rule, bound in rules.items():
            mutate = _breaking(one, rule.rpartition(".")[2], bound)
            if mutate is not None and not rule.startswith(("cel.", "repeated.items.")):
                yield path, rule, mutate
        inner = one.message_type
        if inner is not None and not inner.GetOptions().map_entry and len(path) < DEEPEST and inner not in (p.message_type for p in above):
            yield from _breaks(inner, path)


def _breaking(one: FieldDescriptor, rule: str, bound: Any) -> Callable[[Any, FieldDescriptor], None] | None:
    """How to break a rule by as little as possible; None if its boundary cannot be told."""
    if rule == "required":
        return lambda parent, field: parent.ClearField(field.name)
    if rule == "min_items" and bound[0] > 0:
        return lambda parent, field: _resize(getattr(parent, field.name), bound[0] - 1)
    if rule == "max_items":
        return lambda parent, field: _resize(getattr(parent, field.name), bound[0] + 1)
    if one.message_type is not None or one.is_repeated:
        return None
    value: Any = None
    if rule == "at_most":
        value = bound[0] + bound[1]
    elif rule == "at_least":
        value = bound[0] - (1 - bound[1])
    elif rule in ("min_len", "min_bytes") and bound[0] > 0:
        value = "x" * (bound[0] - 1)
    elif rule in ("max_len", "max_bytes"):
        value = "x" * (bound[0] + 1)
    elif rule == "not_in" and bound:
        value = min(bound)
    elif rule == "defined_only" and one.enum_type is not None:
        value = max(known.number for known in one.enum_type.values) + 1
    if value is None or (one.type in INTEGERS and not INTEGERS[one.type][0] <= value <= INTEGERS[one.type][1]):
        return None
    if one.type == one.TYPE_BYTES:
        value = value.encode()
    return lambda parent, field: setattr(parent, field.name, value)


def _resize(items: Any, size: int) -> None:
    while len(items) > size:
        del items[-1]
    while len(items) < size:
        items.append(items[0]) if items else items.add() if hasattr(items, "add") else items.append("x")


def records(topic: Topic, given: Given | None = None) -> SearchStrategy[tuple[bytes, bytes]]:
    """Key and value of valid records of a topic."""

    @st.composite
    def build(draw: Callable[[SearchStrategy[Any]], Any]) -> tuple[bytes, bytes]:
        number = draw(st.sampled_from(sorted(topic.events)))
        event: Any = draw(valid(topic.events[number], given))
        identity = f"{topic.writer}:{draw(st.uuids())}"
        meta = Meta(id=identity, correlation_id=getattr(event, topic.key), writer=topic.writer, sequence=draw(st.integers(1, 10**6)))
        key = getattr(event, topic.key)
        raw_key = entry_key(key, identity) if topic.private else key.encode()
        return raw_key, encode(number, event.SerializeToString(), meta.SerializeToString())

    return build()


def garbage(topic: Topic) -> SearchStrategy[tuple[bytes | None, bytes | None]]:
    """Key and value of what may lie in a topic and should not: noise, cut and changed records, missing keys and values."""
    good = records(topic)

    @st.composite
    def hurt(draw: Callable[[SearchStrategy[Any]], Any]) -> tuple[bytes | None, bytes | None]:
        key, value = draw(good)
        place = draw(st.integers(0, len(value) - 1))
        how = draw(st.sampled_from(("cut", "changed", "doubled", "of another key")))
        if how == "cut":
            return key, value[:place]
        if how == "changed":
            return key, value[:place] + bytes([draw(st.integers(0, 255))]) + value[place + 1 :]
        return (key, value + value) if how == "doubled" else (key + b"x", value)

    missing = good.flatmap(lambda record: st.sampled_from([(None, record[1]), (record[0], None), (None, None)]))
    noise: SearchStrategy[tuple[bytes | None, bytes | None]] = st.tuples(st.binary(max_size=40), st.binary(max_size=200))
    return noise | hurt() | missing

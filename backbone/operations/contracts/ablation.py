"""Who reads which field, shown by taking it away: recorded decisions and folds run again without it, and a changed result is use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from backbone.contract import ResolvedDecider, ResolvedService, ResolvedView, row_key, said_by
from backbone.declare import On, Rows, View
from backbone.errors import DeclarationError
from backbone.loops.folding import RowTable
from backbone.moments import EPOCH
from backbone.operations.contracts.image import FOREIGN

DECISIONS = "decisions"
"""Folder of the recorded decisions, below that of the recorded folds."""
KEYED = "is keyed by it"
ANY = "*"
"""Stands for every field of an event that is heard and of which nothing was recorded."""
Field = tuple[FieldDescriptor, ...]
"""A field by the way to it."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a consumer's recordings tell about one field of an event it reads.

    Attributes:
        consumer: a service.
        event: full name of the event.
        path: of the field in the event, e.g. "lines.sku"; "*" if nothing was recorded of the event.
        does: what a changed result is a change of, "decides", "folds" or "is keyed by it".
        changed: how many recordings give something else without it.
        tried: how many recordings fill it.
        shown: the first recording that gives something else.
    """

    consumer: str
    event: str
    path: str
    does: str
    changed: int
    tried: int
    shown: str = ""

    @property
    def reads(self) -> bool:
        """Whether the consumer cannot be said to do without."""
        return self.changed > 0 or self.path == ANY


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision was made on.

    Attributes:
        given: what the aggregate had said before.
        came: what is decided.
        knows: rows of each view it looked up, by the name of the view's row.
        at: when it came.
    """

    given: Sequence[Message]
    came: Message
    knows: Mapping[str, Sequence[Message]] = field(default_factory=dict)
    at: datetime = EPOCH

    def to_dict(self) -> dict[str, Any]:
        """The decision for a file."""
        return {
            "given": [_written(one) for one in self.given],
            "came": _written(self.came),
            "knows": {name: [_written(row) for row in rows] for name, rows in sorted(self.knows.items())},
            "at": self.at.isoformat(),
        }


def write_decisions(folder: Path, name: str, decided: Iterable[Decided]) -> Path:
    """Record what a decider's decisions were made on.

    Args:
        folder: of the recorded folds.
        name: of the service.
    """
    file = folder / DECISIONS / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([one.to_dict() for one in decided], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def read_decisions(folder: Path, service: ResolvedService) -> list[Decided]:
    """The recorded decisions of a service, as far as its table and contracts still know what is in them.

    Raises:
        DeclarationError: the file cannot be read.
    """
    file = folder / DECISIONS / f"{service.name}.json"
    if service.decider is None or not file.is_file():
        return []
    known = _by_name([*(line.line.hears for line in service.decider.reactions), *said_by(service.decider.decider)])
    known |= _by_name(view.view.row for view in service.views)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return [one for raw in found if (one := _decided(raw, known)) is not None]
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        raise DeclarationError(f"{file} cannot be read: {error!r}. Record it anew") from error


def _decided(raw: Mapping[str, Any], known: Mapping[str, type[Message]]) -> Decided | None:
    came = _read(raw["came"], known)
    if came is None:
        return None
    given = [one for said in raw["given"] if (one := _read(said, known)) is not None]
    knows = {name: [row for said in rows if (row := _read(said, known)) is not None] for name, rows in raw["knows"].items()}
    return Decided(given, came, knows, datetime.fromisoformat(raw["at"]))


def read_histories(folder: Path, name: str, known: Iterable[type[Message]]) -> list[list[Message]]:
    """The recorded histories of a fold, as far as its table and contracts still know what is in them.

    Raises:
        DeclarationError: the file cannot be read.
    """
    file, classes = folder / f"{name}.json", _by_name(known)
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["histories"]
        return [[one for said in history["said"] if (one := _read(said, classes)) is not None] for history in found]
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        raise DeclarationError(f"{file} cannot be read: {error!r}. Record it anew") from error


def _written(message: Message) -> dict[str, Any]:
    return {message.DESCRIPTOR.name: json_format.MessageToDict(message, preserving_proto_field_name=True)}


def _read(said: Mapping[str, Any], known: Mapping[str, type[Message]]) -> Message | None:
    (name, fields), *_ = said.items()
    return json_format.ParseDict(fields, known[name](), ignore_unknown_fields=True) if name in known else None


def _by_name(messages: Iterable[type[Message]]) -> dict[str, type[Message]]:
    return {one.DESCRIPTOR.name: one for one in messages}


def uses(services: Iterable[ResolvedService], folder: Path) -> list[Use]:
    """What the recordings of services tell about every field of every public event they read.

    Args:
        folder: of the recorded folds, with the decisions below.
    """
    found: dict[tuple[str, str, str, str], Use] = {}
    for service in services:
        tried: set[str] = set()
        for use in _of_service(service, folder):
            tried.add(use.event)
            same = (use.consumer, use.event, use.path, use.does)
            before = found.get(same, Use(*same, 0, 0))
            found[same] = Use(*same, before.changed + use.changed, before.tried + use.tried, before.shown or use.shown)
        for event in sorted(_heard(service) - tried):
            found[service.name, event, ANY, "reads"] = Use(service.name, event, ANY, "reads", 0, 0)
    return sorted(found.values(), key=lambda one: (one.event, one.path, one.consumer, one.does))


def _heard(service: ResolvedService) -> set[str]:
    """Full names of the public events a service decides or folds."""
    reactions = [one for view in service.views for one in view.reactions]
    reactions += service.decider.reactions if service.decider is not None else []
    return {one.line.hears.DESCRIPTOR.full_name for one in reactions if not one.topic.private}


def _of_service(service: ResolvedService, folder: Path) -> Iterator[Use]:
    if service.decider is not None:
        public = set(service.decider.primary.events.values())
        for number, decided in enumerate(read_decisions(folder, service)):
            yield from _of_decision(service, service.decider, decided, f"{DECISIONS}/{service.name}.json[{number}]")
        histories = read_histories(folder, service.name, said_by(service.decider.decider))
        for number, history in enumerate(histories):
            yield from _of_state(service, service.decider, history, public, f"{service.name}.json[{number}]")
    for view in service.views:
        heard = [line.hears for line in view.view.table]
        for number, history in enumerate(read_histories(folder, view.name, heard)):
            yield from _of_rows(service, view, history, f"{view.name}.json[{number}]")


def _of_decision(service: ResolvedService, of: ResolvedDecider, decided: Decided, where: str) -> Iterator[Use]:
    reaction = next((one for one in of.reactions if one.line.hears is type(decided.came)), None)
    if reaction is None or reaction.topic.private:
        return
    decider, line = of.decider, reaction.line
    state = decider.state()
    for said in decided.given:
        state = decider.evolve(state, said)

    def decide(came: Message) -> Any:
        return [one.SerializeToString(deterministic=True) for one in line.function(state, came, *_looked_up(line, came, decided))]

    def keys(came: Any) -> Any:
        return line.key(came) if line.key is not None else getattr(came, line.by or of.primary.key)

    yield from _without_each(service.name, decided.came, "decides", decide, where)
    yield from (one for one in _without_each(service.name, decided.came, KEYED, keys, where) if one.changed)


def _looked_up(line: On[Any, Any], came: Message, decided: Decided) -> Iterator[Any]:
    for look_up in line.look_ups:
        if isinstance(look_up, Rows):
            known = _keyed(look_up.view, decided.knows.get(look_up.view.row.DESCRIPTOR.name, ()))
            yield {key: known[key] for key in look_up.keys(came) if key in known}
        else:
            yield decided.at


def _keyed(view: View[Any], rows: Sequence[Message]) -> dict[str, Message]:
    return {getattr(row, row_key(view.row)): row for row in rows}


def _of_state(service: ResolvedService, of: ResolvedDecider, history: Sequence[Message], public: set[Any], where: str) -> Iterator[Use]:
    for place, event in enumerate(history):
        if type(event) not in public:
            continue

        def fold(instead: Message, place: int = place) -> Any:
            state = of.decider.state()
            for said in (*history[:place], instead, *history[place + 1 :]):
                state = of.decider.evolve(state, said)
            return state

        for use in _without_each(service.name, event, "folds", fold, where):
            yield replace(use, does=KEYED, changed=1, shown=where) if use.path == of.primary.key else use


def _of_rows(service: ResolvedService, of: ResolvedView, history: Sequence[Message], where: str) -> Iterator[Use]:
    for place, event in enumerate(history):

        def fold(instead: Message, place: int = place) -> Any:
            return _rows(of, (*history[:place], instead, *history[place + 1 :]))

        for use in _without_each(service.name, event, "folds", fold, where):
            yield replace(use, does=KEYED) if use.path == of.key else use


def _rows(of: ResolvedView, history: Sequence[Message]) -> Any:
    lines = {line.hears: line for line in of.view.table}
    table = RowTable(of.view, of.name, of.key, {})
    for event in history:
        error = table.fold(lines[type(event)], getattr(event, of.key), event, EPOCH, "a recording")
        if error is not None:
            raise error
    return table.change(0, 0)


def _without_each(consumer: str, event: Message, does: str, result: Callable[[Message], Any], where: str) -> Iterator[Use]:
    """One use for every field that the event fills."""
    with_all = _outcome(result, event)
    for path in filled(event):
        changed = _outcome(result, without(event, path)) != with_all
        yield Use(consumer, event.DESCRIPTOR.full_name, shown_path(path), does, int(changed), 1, where if changed else "")


def _outcome(result: Callable[[Message], Any], event: Message) -> Any:
    try:
        return result(event)
    except Exception as error:  # noqa: BLE001 - what cannot go on without a field uses it
        return type(error), str(error)


def filled(message: Any, above: Field = ()) -> list[Field]:
    """Every field that is set in a message and in what is in it, messages of others as wholes; each once."""
    found: dict[Field, None] = {}
    for one, value in message.ListFields():
        path = (*above, one)
        if is_leaf(one):
            found[path] = None
        else:
            for inner in value if one.is_repeated else [value]:
                found |= dict.fromkeys(filled(inner, path))
    return list(found)


def is_leaf(one: FieldDescriptor) -> bool:
    """Whether a field is taken away as a whole."""
    inner = one.message_type
    return inner is None or bool(inner.GetOptions().map_entry) or inner.full_name.startswith(FOREIGN)


def without(message: Message, path: Field) -> Message:
    """The message without a field, wherever the way leads to it."""
    copied = type(message)()
    copied.CopyFrom(message)
    _clear(copied, path)
    return copied


def _clear(message: Any, path: Field) -> None:
    one, *rest = path
    if not rest:
        message.ClearField(one.name)
        return
    inner = getattr(message, one.name)
    for part in inner if one.is_repeated else [inner]:
        _clear(part, tuple(rest))


def shown_path(path: Field) -> str:
    """A way to a field as text."""
    return ".".join(one.name for one in path)


def leaves(message: Descriptor, above: Field = ()) -> Iterator[Field]:
    """Every field of a message and of the messages of ours in it; what is in itself once."""
    for one in message.fields:
        path = (*above, one)
        if is_leaf(one):
            yield path
        elif (inner := one.message_type) is not None and inner not in (part.message_type for part in above):
            yield from leaves(inner, path)

"""What states and rows are made of, so that a changed one without a higher `version=` is seen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from backbone.contract import resolve_context
from backbone.declare import Platform
from backbone.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Fold:
    """What a decider or view makes of events.

    Attributes:
        version: its `version=`.
        row: full name of a view's row; empty for a decider.
        state: digest of the shape of a decider's state; empty for a view, or if it is not known.
        histories: digest of what each recorded history gives, by digest of that history.
    """

    version: int
    row: str = ""
    state: str = ""
    histories: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fold for a file."""
        return dataclasses.asdict(self)


Folds = Mapping[str, Fold]
"""By name: <context>.<service> for a decider, <context>.<service>.<row> for a view."""


def digest(what: Any) -> str:
    """A short name for a value that JSON can write."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def folds_of(platform: Platform, recorded: Mapping[str, str]) -> Folds:
    """The folds of a platform as they are now.

    Args:
        recorded: the text of each recorded fold (version, histories and what they gave), by name.

    Raises:
        ContractError: a table or contract lies.
    """
    found: dict[str, Fold] = {}
    for service in (one for context in platform.contexts for one in resolve_context(context)):
        if service.decider is not None:
            decider = service.decider.decider
            found[service.name] = Fold(decider.version, "", digest(state_shape(decider.state)), _histories(recorded.get(service.name)))
        for view in service.views:
            found[view.name] = Fold(view.view.version, view.view.row.DESCRIPTOR.full_name, "", _histories(recorded.get(view.name)))
    return found


def recorded_folds(recorded: Mapping[str, str]) -> Folds:
    """The folds as they were recorded, without the code that folds."""
    return {name: Fold(int(json.loads(text)["version"]), histories=_histories(text)) for name, text in recorded.items()}


def read_recorded(folder: Path) -> Mapping[str, str]:
    """The text of each recorded fold in a folder; none if there is no such folder."""
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.json"))}


def _histories(text: str | None) -> Mapping[str, str]:
    if text is None:
        return {}
    try:
        return {digest(one["said"]): digest(one["gives"]) for one in json.loads(text)["histories"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DeclarationError(f"a recorded fold cannot be read: {error!r}. Record it anew") from error


def state_shape(state: Any) -> Any:
    """The fields of a dataclass and of the dataclasses in them, with their types."""
    if dataclasses.is_dataclass(state) and isinstance(state, type):
        hints = typing.get_type_hints(state)
        return [[one.name, state_shape(hints[one.name])] for one in dataclasses.fields(state)]
    arguments = typing.get_args(state)
    if arguments:
        origin = typing.get_origin(state)
        return [getattr(origin, "__qualname__", str(origin)), *map(state_shape, arguments)]
    return getattr(state, "__qualname__", str(state))


def row_shape(row: Descriptor, above: tuple[str, ...] = ()) -> Any:
    """What the stored bytes of a row depend on: numbers, types and what lies inside, not names."""
    return [[one.number, one.type, one.is_repeated, _inside(one, above)] for one in sorted(row.fields, key=lambda one: one.number)]


def _inside(one: FieldDescriptor, above: tuple[str, ...]) -> Any:
    if one.message_type is None or one.message_type.full_name in above:
        return None
    return row_shape(one.message_type, (*above, one.message_type.full_name))


def compare_folds(before: Folds, now: Folds) -> Iterator[tuple[str, str, str]]:
    """What folds otherwise without saying so: (rule, name, what)."""
    for name, old in before.items():
        new = now.get(name)
        if new is None or new.version > old.version:
            continue
        if new.version < old.version:
            yield "FOLD_VERSION_FELL", name, f"{name} was version {old.version}, now it is {new.version}"
            continue
        if old.state and new.state and old.state != new.state:
            yield "STATE_CHANGED", name, f"the state of {name} has another shape, and still version {new.version}"
        others = [history for history in old.histories if history in new.histories and old.histories[history] != new.histories[history]]
        if others:
            yield "FOLD_CHANGED", name, f"{name} gives something else for {len(others)} recorded histories, and still version {new.version}"

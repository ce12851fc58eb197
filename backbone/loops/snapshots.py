"""How a decider's state lies in its state topic: the aggregate without its parts, and each entry of a part for itself."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from backbone.declare import Decider
from backbone.envelope import entry_key
from backbone.errors import DeclarationError
from backbone.parts import Part
from backbone.v1.private_pb2 import Aggregate, PartEntry, StateEntry

AGGREGATE = "aggregate"
POSITIONS = "positions"
PARKED = "parked"
FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one aggregate.

    Attributes:
        sequence: of the last event it said.
        correlation_id: conversation of the record that changed it last.
        done_at_ms: if it is finished, when that record was appended, in milliseconds since the epoch; else 0.
    """

    state: Any
    sequence: int = 0
    correlation_id: str = ""
    done_at_ms: int = 0


def held_after(decider: Decider[Any, Any], state: Any, sequence: int, correlation_id: str, appended_ms: int) -> Held:
    """What is held of an aggregate after a record that was appended then."""
    done = decider.done is not None and decider.done(state) is not None
    return Held(state, sequence, correlation_id, appended_ms if done else 0)


class Snapshots:
    """Turns states into entries and back.

    Args:
        decider: whose state it is: a dataclass of what MessagePack knows, and of `Part`s.
        build: written into every entry.

    Raises:
        DeclarationError: the state is no dataclass, a Part does not say of what, or a state with Parts has a stub.
    """

    def __init__(self, decider: Decider[Any, Any], build: str) -> None:
        state = decider.state
        if not dataclasses.is_dataclass(state):
            raise DeclarationError(f"{state.__name__} is no dataclass: a state is a frozen dataclass that can be built without arguments")
        self._state = state
        self._version = decider.version
        self._build = build
        hints = typing.get_type_hints(state)
        self._parts = {name: hint for name, hint in hints.items() if typing.get_origin(hint) is Part or hint is Part}
        for name, hint in self._parts.items():
            if len(typing.get_args(hint)) != 2:
                raise DeclarationError(f"{state.__name__}.{name}: write Part[key type, value type]")
        if self._parts and decider.done is not None:
            raise DeclarationError(f"{state.__name__} has Parts, whose entries go one by one: it cannot have done= too")
        self._encoder = msgspec.msgpack.Encoder(order="deterministic")
        fields = [(field.name, hints[field.name]) for field in dataclasses.fields(state) if field.name not in self._parts]
        self._names = [name for name, _ in fields]
        blank = state()
        kept = msgspec.defstruct(
            state.__name__, [(name, hint, msgspec.field(default_factory=partial(getattr, blank, name))) for name, hint in fields]
        )
        self._decoder = msgspec.msgpack.Decoder(kept)
        self._part_decoders = {
            name: tuple(msgspec.msgpack.Decoder(of) for of in typing.get_args(hint)) for name, hint in self._parts.items()
        }

    def entries(self, key: str, held: Held) -> Iterator[tuple[bytes, bytes | None]]:
        """Key and value of every entry that has to be written for a changed aggregate; None is a tombstone."""
        state = held.state
        for name in self._parts:
            part: Part[Any, Any] = getattr(state, name)
            for part_key in part.changed():
                raw_key = self._encoder.encode(part_key)
                yield (
                    entry_key(key, f"{name}/{raw_key.hex()}"),
                    self._entry(part=PartEntry(field=name, key=raw_key, value=self._encoder.encode(part[part_key])))
                    if part_key in part
                    else None,
                )
        raw = self._encoder.encode({name: getattr(state, name) for name in self._names})
        aggregate = Aggregate(sequence=held.sequence, state=raw, correlation_id=held.correlation_id, done_at_ms=held.done_at_ms)
        yield entry_key(key, AGGREGATE), self._entry(aggregate=aggregate)

    def kept(self, held: Held) -> Held:
        """The same, with its parts marked as written."""
        if not self._parts:
            return held
        parts = {name: getattr(held.state, name).kept() for name in self._parts}
        return dataclasses.replace(held, state=dataclasses.replace(held.state, **parts))

    def taken_up(self, held: Held, entry: StateEntry) -> Held:
        """What is held after one more entry was read back."""
        if entry.HasField("part"):
            key_decoder, value_decoder = self._part_decoders[entry.part.field]
            part = getattr(held.state, entry.part.field).set(key_decoder.decode(entry.part.key), value_decoder.decode(entry.part.value))
            state = dataclasses.replace(held.state, **{entry.part.field: part.kept()})
            return dataclasses.replace(held, state=state)
        kept = self._decoder.decode(entry.aggregate.state)
        state = dataclasses.replace(held.state, **{name: getattr(kept, name) for name in self._names})
        return Held(state, entry.aggregate.sequence, entry.aggregate.correlation_id, entry.aggregate.done_at_ms)

    @property
    def in_parts(self) -> bool:
        """Whether a state lies in several entries."""
        return bool(self._parts)

    def decoded(self, raw: bytes) -> Held:
        """What is held, from the one entry of an aggregate without parts."""
        return self.taken_up(Held(self._state()), StateEntry.FromString(raw))

    def without(self, held: Held, entry_name: str) -> Held:
        """What is held after an entry of a part was read back as removed."""
        name, _, raw_key = entry_name.partition("/")
        part_key = self._part_decoders[name][0].decode(bytes.fromhex(raw_key))
        part = getattr(held.state, name).without(part_key).kept()
        return dataclasses.replace(held, state=dataclasses.replace(held.state, **{name: part}))

    def _entry(self, *, aggregate: Aggregate | None = None, part: PartEntry | None = None) -> bytes:
        return StateEntry(version=self._version, build=self._build, aggregate=aggregate, part=part).SerializeToString()

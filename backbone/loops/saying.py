"""What is said because of a record: the decision is made, and its events, copies and commands are ready to be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message

from backbone.contract import ResolvedDecider, ResolvedService, Topic, copies_of, is_effect, primary_of, said_by
from backbone.declare import HappenedAt
from backbone.envelope import because_of, encode, entry_key, moment_of_ms
from backbone.errors import DeclarationError
from backbone.loops.holding import Came
from backbone.loops.snapshots import Held, held_after
from backbone.ports import Log
from backbone.rules import check


class Out(NamedTuple):
    """One record of a transaction to come; partition -1 is chosen by the key."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int = -1


class _Way(NamedTuple):
    """Where one class of what is said goes."""

    topic: Topic
    number: int
    copies: Sequence[Topic]
    command: bool


class Saying:
    """Makes the decisions of one decider.

    Args:
        service: whose decider it is.
        resolved: that decider.
        log: tells what the inputs are called for ever.
        build: written into everything said.
    """

    def __init__(self, service: ResolvedService, resolved: ResolvedDecider, log: Log, build: str) -> None:
        self._name = service.name
        self._decider = resolved.decider
        self._build = build
        self._ways = {said: _way(said, resolved.primary, resolved.commands) for said in said_by(self._decider)}
        there = log.topics()
        self._topic_ids = {name: there[name][0] for name in service.decider_inputs}

    def say(self, number: int, came: Came, held: Held, looked_up: Sequence[Any], observed: Sequence[Any]) -> tuple[list[Out], Held]:
        """What is said, and what is held of the aggregate afterwards.

        Args:
            number: of the partition in which it is decided.
            looked_up: the rows that the line looks up, in its order.
            observed: what is noted of them.

        Raises:
            DeclarationError: something else was said than the service owns, or of another aggregate.
            BreaksRules: an event breaks its contract.
            Exception: whatever the decision raises.
        """
        assert came.line is not None
        record = came.record
        rows = iter(looked_up)
        arguments = [moment_of_ms(came.at_ms) if isinstance(one, HappenedAt) else next(rows) for one in came.line.look_ups]
        said = because_of(
            writer=self._name,
            build=self._build,
            topic_id=self._topic_ids[record.topic],
            record=record,
            meta=came.meta,
            observed=observed,
        )
        out: list[Out] = []
        state, sequence = held.state, held.sequence
        for index, message in enumerate(came.line.function(held.state, came.event, *arguments)):
            way = self._ways.get(type(message))
            if way is None:
                raise DeclarationError(f"{came.line} said {type(message).__name__}, which {self._name} does not own")
            if getattr(message, way.topic.key) != came.key:
                raise DeclarationError(f"{came.line} said a {type(message).__name__} of another {way.topic.key} than {came.key!r}")
            raw = message.SerializeToString()
            if way.command:
                value = encode(way.number, raw, said.meta(index, 0))
                out.append(Out(way.topic.name, entry_key(came.key, said.id(index)), value, number))
                continue
            check(message)
            sequence += 1
            value = encode(way.number, raw, said.meta(index, sequence))
            out.append(Out(way.topic.name, came.key.encode(), value))
            out.extend(Out(copy.name, getattr(message, copy.key).encode(), value) for copy in way.copies)
            state = self._decider.evolve(state, message)
        return out, held_after(self._decider, state, sequence, came.meta.correlation_id, record.timestamp_ms)


def _way(said: type[Message], primary: Topic, commands: Topic | None) -> _Way:
    if is_effect(said):
        assert commands is not None
        return _Way(commands, commands.number(said) or 0, (), command=True)
    copies = [copy for copy in copies_of(primary) if copy.number(said) is not None]
    return _Way(primary_of(said), primary.number(said) or 0, copies, command=False)

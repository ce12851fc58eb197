"""What a service is once its table and its contracts agree: every line with the topic it is read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backbone.contract.topics import Topic
from backbone.declare import Decider, Effect, On, Service, View


@dataclass(frozen=True)
class Reaction:
    """One line of a decider's or view's table, resolved to the topic it is read from.

    Attributes:
        topic: where the message is read.
        number: its field number there.
        repartitioned: the line has a `key=`: it goes through the service's private repartition topic.
    """

    topic: Topic
    number: int
    line: On[Any, Any]
    repartitioned: bool


@dataclass(frozen=True)
class ResolvedView:
    """A view with the one topic it folds."""

    name: str
    view: View[Any]
    topic: Topic
    key: str
    reactions: tuple[Reaction, ...]


@dataclass(frozen=True)
class ResolvedDecider:
    """A decider with what it reads and writes.

    Attributes:
        primary: the topic it decides; None if it says nothing (it has no table).
        inputs: the public topics and outcomes it hears.
        commands: topic of its commands, if it says any.
    """

    decider: Decider[Any, Any]
    primary: Topic
    copies: tuple[Topic, ...]
    reactions: tuple[Reaction, ...]
    commands: Topic | None

    @property
    def inputs(self) -> tuple[Topic, ...]:
        """The topics it hears under its own key, each once, by name."""
        return _topics_of(r for r in self.reactions if not r.repartitioned)

    @property
    def repartitioned(self) -> tuple[Topic, ...]:
        """The topics it hears through its private repartition topic, each once, by name."""
        return _topics_of(r for r in self.reactions if r.repartitioned)


def _topics_of(reactions: Iterable[Reaction]) -> tuple[Topic, ...]:
    return tuple({r.topic.name: r.topic for r in sorted(reactions, key=lambda r: r.topic.name)}.values())


@dataclass(frozen=True)
class ResolvedEffect:
    """The commands of a service and their outcomes."""

    effect: Effect[Any]
    commands: Topic
    outcomes: Topic


@dataclass(frozen=True)
class ResolvedService:
    """A service whose table and contracts agree.

    Attributes:
        name: <context>.<service>.
    """

    name: str
    context: str
    service: Service
    decider: ResolvedDecider | None
    views: tuple[ResolvedView, ...]
    effects: tuple[ResolvedEffect, ...]
    raises: tuple[Topic, ...]
    tails: tuple[Topic, ...]
    rpcs: Mapping[str, On[Any, Any]] = field(default_factory=dict)

    def private(self, purpose: str) -> str:
        """Name of one of its private topics: state, commands, outcomes, ticks, quarantine, repartition, cursor."""
        return f"private.{self.name}.{purpose}"

    @property
    def decider_inputs(self) -> tuple[str, ...]:
        """Names of all topics its decider reads as one group, private ones included; none without a decider."""
        if self.decider is None:
            return ()
        own = [self.private("releases")]
        own += [self.private("ticks")] if self.decider.decider.deadline is not None else []
        own += [self.private("repartition")] if self.decider.repartitioned else []
        return tuple(sorted([*(topic.name for topic in self.decider.inputs), *own]))

    def view_of(self, view: View[Any]) -> ResolvedView:
        """A view of this service, resolved."""
        return next(resolved for resolved in self.views if resolved.view is view)

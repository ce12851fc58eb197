"""What a platform consists of, derived from what its tables and contracts say: topics, groups, transactional ids, the three lists of
events, commands and queries, and who is joined to whom. Pure data: nothing is started or asked."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message

from backbone.contract import ResolvedService, Topic, check_platform, copies_of, resolve_context
from backbone.declare import Context, Intake, Platform, Sibling

PRIVATE_PURPOSES = ("state", "commands", "outcomes", "ticks", "repartition", "releases", "cursor", "quarantine")
"""What a service can keep for itself, in the order in which it is listed."""


FOR_EVER = frozenset({"quarantine", "repartition", "releases"})
"""Of these, what is kept for ever; of the others the last of each key is."""


class Kept(StrEnum):
    """How long a topic keeps its records."""

    FOR_EVER = "for ever"
    COMPACTED = "the last of each key"


@dataclass(frozen=True, slots=True)
class TopicNode:
    """One topic of the platform.

    Attributes:
        writer: the only service that writes it.
        purpose: "events", "copy", or what a private topic is for.
        holds: full names of the messages it may hold; empty for what only the runtime writes.
        copy_of: the primary, for a copy.
    """

    name: str
    writer: str
    purpose: str
    kept: Kept
    key: str = ""
    holds: tuple[str, ...] = ()
    copy_of: str = ""

    @property
    def private(self) -> bool:
        """Whether only its writer reads it."""
        return self.name.startswith("private.")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of readers; the members of it share the partitions of its topics."""

    name: str
    service: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tailed:
    """A topic that every process of a service follows without a group."""

    service: str
    topic: str


@dataclass(frozen=True, slots=True)
class Event:
    """A public fact.

    Attributes:
        name: full name of its Protobuf message.
        topics: its primary topic, then its copies.
        said_by: its writer.
        heard_by: services that decide on it, fold it or wait for it.
    """

    name: str
    topics: tuple[str, ...]
    said_by: str
    heard_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What a decider tells an effect of its own service to do."""

    name: str
    topic: str
    service: str


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A question inside a context.

    Attributes:
        rpc: full name of its method, "/package.Service/Method".
        views: the views its answer comes from.
        asked_by: services with an effect that has a stub of it.
    """

    rpc: str
    answered_by: str
    views: tuple[str, ...]
    asked_by: tuple[str, ...]


class Joins(StrEnum):
    """How two things are joined."""

    EVENT = "event"
    QUERY = "query"
    EFFECT = "effect"
    INTAKE = "intake"


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """Something flows: events from their writer to whoever hears them, a question from the one who asks to the one who answers, work
    from a service to an outside server, facts from an outside source to the service that takes them in.

    Attributes:
        source: a service, or what opens the outside source.
        target: a service, or what opens the outside server.
        what: names of what flows, sorted.
    """

    source: str
    target: str
    joins: Joins
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that is derived from what is declared.

    Attributes:
        services: <context>.<service> of every service, in the order of the declaration.
        transactional_ids: <context>.<service>.<purpose>; the slot is appended at run time.
        contexts: digest of each context alone, which its processes compute without the others.
    """

    services: tuple[str, ...]
    topics: tuple[TopicNode, ...]
    groups: tuple[Group, ...]
    transactional_ids: tuple[str, ...]
    events: tuple[Event, ...]
    commands: tuple[Command, ...]
    queries: tuple[AskedQuery, ...]
    edges: tuple[Edge, ...]
    contexts: Mapping[str, str] = field(default_factory=dict)
    tails: tuple[Tailed, ...] = ()

    @property
    def digest(self) -> str:
        """Stable hash of all of it: equal for equal declarations, whoever computes it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]

    def topic(self, name: str) -> TopicNode:
        """The topic of that name.

        Raises:
            KeyError: there is none.
        """
        for topic in self.topics:
            if topic.name == name:
                return topic
        raise KeyError(name)

    def of_service(self, service: str) -> tuple[TopicNode, ...]:
        """The topics a service writes."""
        return tuple(topic for topic in self.topics if topic.writer == service)

    def to_json(self, indent: int | None = 2) -> str:
        """All of it and its digest as JSON."""
        return json.dumps(asdict(self) | {"digest": self.digest}, indent=indent)


def topology(declared: Platform | Context, package: str = "") -> Topology:
    """The topology of a platform, or of one context without knowing the others.

    Args:
        package: root of the generated contracts, e.g. "retail": with it, a platform is also checked for topics nobody writes.

    Raises:
        ContractError: a table or contract lies.
    """
    if isinstance(declared, Context):
        return _derive(resolve_context(declared), {})
    alone = {} if package else {context.name: resolve_context(context) for context in declared.contexts}
    resolved = check_platform(declared, package) if package else alone
    digests = {name: _derive(services, {}).digest for name, services in resolved.items()}
    return _derive([service for services in resolved.values() for service in services], digests)


def contract_topics(declared: Platform | Context) -> dict[str, Topic]:
    """Every topic that has a wrapper, by name: what can be decoded. State, ticks, cursors and quarantine have none."""
    contexts = [declared] if isinstance(declared, Context) else list(declared.contexts)
    services = [service for context in contexts for service in resolve_context(context)]
    return {topic.name: topic for service in services for topic in _with_wrapper(service)}


def _with_wrapper(service: ResolvedService) -> list[Topic]:
    """The topics a service writes and whose records are wrappers: events and copies, then commands and outcomes."""
    primaries = [*([service.decider.primary] if service.decider else []), *service.raises]
    topics = [topic for primary in primaries for topic in (primary, *copies_of(primary))]
    if service.effects:
        topics += [service.effects[0].commands, service.effects[0].outcomes]
    return topics


def _derive(services: Sequence[ResolvedService], digests: Mapping[str, str]) -> Topology:
    return Topology(
        services=tuple(service.name for service in services),
        topics=tuple(node for service in services for node in _topics(service)),
        groups=tuple(group for service in services for group in _groups(service)),
        transactional_ids=tuple(one for service in services for one in _transactional_ids(service)),
        events=_events(services),
        commands=tuple(_commands(services)),
        queries=tuple(_queries(services)),
        edges=tuple(sorted([*_event_edges(services), *_query_edges(services), *_outside_edges(services)])),
        contexts=dict(digests),
        tails=tuple(Tailed(service.name, topic.name) for service in services for topic in service.tails),
    )


def _name(message: type[Message]) -> str:
    return str(message.DESCRIPTOR.full_name)


def _holds(topic: Topic) -> tuple[str, ...]:
    return tuple(_name(event) for _, event in sorted(topic.events.items()))


def _topics(service: ResolvedService) -> Iterable[TopicNode]:
    wrapped = _with_wrapper(service)
    for topic in wrapped:
        if not topic.private:
            purpose = "copy" if topic.copy_of else "events"
            yield TopicNode(topic.name, service.name, purpose, Kept.FOR_EVER, topic.key, _holds(topic), topic.copy_of)
    declared = {topic.name: topic for topic in wrapped if topic.private}
    for purpose in _private_purposes(service):
        name = service.private(purpose)
        kept = Kept.FOR_EVER if purpose in FOR_EVER else Kept.COMPACTED
        contract = declared.get(name)
        yield TopicNode(name, service.name, purpose, kept, contract.key if contract else "", _holds(contract) if contract else ())


def _private_purposes(service: ResolvedService) -> Iterable[str]:
    intake = service.service.intake
    polls = intake is not None and intake.source is not None
    reads = bool(service.decider or service.views or service.effects or polls)
    needed = {
        "state": service.decider is not None,
        "commands": bool(service.effects),
        "outcomes": bool(service.effects),
        "ticks": service.decider is not None and service.decider.decider.deadline is not None,
        "cursor": polls,
        "repartition": service.decider is not None and bool(service.decider.repartitioned),
        "releases": service.decider is not None,
        "quarantine": reads,
    }
    return (purpose for purpose in PRIVATE_PURPOSES if needed[purpose])


def _groups(service: ResolvedService) -> Iterable[Group]:
    if service.decider is not None:
        yield Group(service.name, service.name, service.decider_inputs)
        if service.decider.repartitioned:
            yield Group(f"{service.name}.repartition", service.name, tuple(topic.name for topic in service.decider.repartitioned))
    for view in service.views:
        yield Group(f"{view.name}.v{view.view.version}", service.name, (view.topic.name,))
    if service.effects:
        yield Group(f"{service.name}.effects", service.name, (service.effects[0].commands.name,))


def _transactional_ids(service: ResolvedService) -> Iterable[str]:
    intake = service.service.intake
    if service.decider is not None:
        yield f"{service.name}.decide"
        if service.decider.repartitioned:
            yield f"{service.name}.repartition"
    if service.effects:
        yield f"{service.name}.effects"
    if intake is not None and intake.source is not None:
        yield f"{service.name}.intake"


def _heard(service: ResolvedService) -> Iterable[str]:
    """Full names of the public events a service hears."""
    for reactions in (service.decider.reactions if service.decider else (), *(view.reactions for view in service.views)):
        for reaction in reactions:
            if not reaction.topic.private:
                yield _name(reaction.line.hears)
    for tail in service.service.tails:
        for message in tail.messages:
            yield _name(message)


def _events(services: Sequence[ResolvedService]) -> tuple[Event, ...]:
    heard_by: dict[str, list[str]] = {}
    for service in services:
        for name in dict.fromkeys(_heard(service)):
            heard_by.setdefault(name, []).append(service.name)
    events: dict[str, Event] = {}
    for service in services:
        public = [topic for topic in _with_wrapper(service) if not topic.private]
        for primary in (topic for topic in public if not topic.copy_of):
            copies = [topic for topic in public if topic.copy_of == primary.name]
            for event in primary.events.values():
                topics = (primary.name, *(copy.name for copy in copies if copy.number(event) is not None))
                events[_name(event)] = Event(_name(event), topics, service.name, tuple(heard_by.get(_name(event), ())))
    return tuple(events.values())


def _commands(services: Sequence[ResolvedService]) -> Iterable[Command]:
    for service in services:
        for effect in service.effects:
            for line in effect.effect.table:
                yield Command(_name(line.hears), effect.commands.name, service.name)


def _queries(services: Sequence[ResolvedService]) -> Iterable[AskedQuery]:
    askers = _askers(services)
    for service in services:
        for rpc, line in service.rpcs.items():
            views = next(query.views for query in service.service.queries if line in query.table)
            asked_by = askers.get(rpc.split("/")[1], ())
            yield AskedQuery(rpc, service.name, tuple(f"{service.name}.{view.name}" for view in views), tuple(asked_by))


def _askers(services: Sequence[ResolvedService]) -> dict[str, list[str]]:
    """By full name of a gRPC service: who has an effect with a stub of it."""
    askers: dict[str, list[str]] = {}
    for service in services:
        for effect in service.effects:
            if isinstance(effect.effect.connect, Sibling):
                stub = effect.effect.connect.stub
                package = stub.__module__.rpartition(".")[0]
                name = stub.__name__.removesuffix("Stub").removesuffix("Async")
                askers.setdefault(f"{package}.{name}", []).append(service.name)
    return askers


def _event_edges(services: Sequence[ResolvedService]) -> Iterable[Edge]:
    flows: dict[tuple[str, str], set[str]] = {}
    for event in _events(services):
        for hearer in event.heard_by:
            flows.setdefault((event.said_by, hearer), set()).add(event.name)
    return (Edge(source, target, Joins.EVENT, tuple(sorted(what))) for (source, target), what in flows.items())


def _query_edges(services: Sequence[ResolvedService]) -> Iterable[Edge]:
    flows: dict[tuple[str, str], set[str]] = {}
    for query in _queries(services):
        for asker in query.asked_by:
            flows.setdefault((asker, query.answered_by), set()).add(query.rpc)
    return (Edge(source, target, Joins.QUERY, tuple(sorted(what))) for (source, target), what in flows.items())


def _outside_edges(services: Sequence[ResolvedService]) -> Iterable[Edge]:
    for service in services:
        for effect in service.effects:
            if not isinstance(effect.effect.connect, Sibling):
                commands = sorted(_name(line.hears) for line in effect.effect.table)
                yield Edge(service.name, _where(effect.effect.connect), Joins.EFFECT, tuple(commands))
        intake = service.service.intake
        if intake is not None and intake.source is not None:
            yield Edge(_where(_opens(intake)), service.name, Joins.INTAKE, tuple(sorted(_name(one) for one in intake.messages)))


def _opens(intake: Intake) -> Any:
    assert intake.source is not None
    return intake.source[0]


def _where(connect: Any) -> str:
    """What opens an outside server or source, by the place of its definition: a declaration knows no address."""
    opened = inspect.unwrap(connect)
    return f"{opened.__module__}.{getattr(opened, '__qualname__', type(opened).__qualname__)}"

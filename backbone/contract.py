"""Protobuf options -> topics, keys, writers; and the checks that make a table and its contracts agree before anything starts."""

from __future__ import annotations

import importlib
import pkgutil
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from backbone.declare import Api, Context, Decider, Effect, Intake, On, Platform, Query, Rows, Service, Tail, View
from backbone.errors import ContractError
from backbone.v1 import options_pb2
from backbone.v1.meta_pb2 import Meta

META_FIELD = 15


@dataclass(frozen=True)
class Topic:
    """One topic as its wrapper declares it.

    Attributes:
        key: field of every event that keys the record.
        writer: <context>.<service>.
        copy_of: name of the primary, empty for a primary.
        wrapper: class of the wrapper.
        oneof: name of its oneof.
        events: class of each event by its field number in the oneof.
        fields: name of each event's field by its number.
    """

    name: str
    key: str
    writer: str
    copy_of: str
    wrapper: type[Message]
    oneof: str
    events: Mapping[int, type[Message]]
    fields: Mapping[int, str]

    @property
    def private(self) -> bool:
        """Whether only its writer may read it."""
        return self.name.startswith("private.")

    def number(self, event: type[Message]) -> int | None:
        """Field number of an event in the oneof; None if the topic does not hold it."""
        for number, held in self.events.items():
            if held.DESCRIPTOR.full_name == event.DESCRIPTOR.full_name:
                return number
        return None


def _place(descriptor: Any) -> str:
    return f"{descriptor.file.name}: {descriptor.full_name}"


def _class_of(descriptor: Any) -> type[Message]:
    return GetMessageClass(descriptor)


def topic_of(wrapper: type[Message]) -> Topic:
    """The topic a wrapper declares.

    Raises:
        ContractError: the wrapper's form is not that of a wrapper.
    """
    descriptor = wrapper.DESCRIPTOR
    option = descriptor.GetOptions().Extensions[options_pb2.topic]
    where = _place(descriptor)
    missing = [name for name in ("name", "key", "writer") if not getattr(option, name)]
    if missing:
        raise ContractError(where, f"its topic option lacks {', '.join(missing)}", "Give it name, key and writer.")
    if len(descriptor.oneofs) != 1 or len(descriptor.fields) != len(descriptor.oneofs[0].fields) + 1:
        raise ContractError(where, "a wrapper has one oneof and meta, nothing else", "Move other fields into the events.")
    meta = descriptor.fields_by_number.get(META_FIELD)
    if meta is None or meta.message_type is None or meta.message_type.full_name != Meta.DESCRIPTOR.full_name:
        raise ContractError(where, f"field {META_FIELD} is not backbone.v1.Meta meta", "Add it.")
    members = descriptor.oneofs[0].fields
    for member in members:
        if member.message_type is None:
            raise ContractError(where, f"{member.name} is not a message", "Events are messages.")
        key = member.message_type.fields_by_name.get(option.key)
        if key is None or key.type != key.TYPE_STRING or key.is_repeated:
            raise ContractError(where, f"{member.message_type.name} has no string field {option.key!r}", "Every event carries its key.")
    return Topic(
        name=option.name,
        key=option.key,
        writer=option.writer,
        copy_of=option.copy_of,
        wrapper=wrapper,
        oneof=descriptor.oneofs[0].name,
        events={member.number: _class_of(member.message_type) for member in members},
        fields={member.number: member.name for member in members},
    )


def is_wrapper(descriptor: Any) -> bool:
    """Whether a message declares a topic."""
    return bool(descriptor.GetOptions().HasExtension(options_pb2.topic))


@cache
def _topics_in(file: FileDescriptor) -> tuple[Topic, ...]:
    return tuple(topic_of(_class_of(descriptor)) for descriptor in file.message_types_by_name.values() if is_wrapper(descriptor))


def topics_holding(event: type[Message]) -> list[Topic]:
    """The primary topic of an event first, then its copies. Wrappers live in the file of their events."""
    found = [topic for topic in _topics_in(event.DESCRIPTOR.file) if topic.number(event) is not None]
    return sorted(found, key=lambda topic: (topic.copy_of != "", topic.name))


def primary_of(event: type[Message]) -> Topic:
    """The one primary topic of an event.

    Raises:
        ContractError: it is in no wrapper, or in two primaries.
    """
    primaries = [topic for topic in topics_holding(event) if not topic.copy_of]
    where = _place(event.DESCRIPTOR)
    if not primaries:
        raise ContractError(where, "is in no wrapper", "Add it to the oneof of the wrapper of its topic, in the same file.")
    if len(primaries) > 1:
        names = " and ".join(topic.name for topic in primaries)
        raise ContractError(where, f"is in two primary topics, {names}", "Make one of them a copy (copy_of).")
    return primaries[0]


def copies_of(topic: Topic) -> list[Topic]:
    """The copies of a primary."""
    return [copy for copy in _topics_in(topic.wrapper.DESCRIPTOR.file) if copy.copy_of == topic.name]


def row_key(row: type[Message]) -> str:
    """The field that keys a row.

    Raises:
        ContractError: the row does not say, or names a field it does not have.
    """
    descriptor = row.DESCRIPTOR
    key = descriptor.GetOptions().Extensions[options_pb2.row].key
    if not key:
        raise ContractError(_place(descriptor), "is no row", 'Add option (backbone.v1.row) = {key: "..."}.')
    named = descriptor.fields_by_name.get(key)
    if named is None or named.type != named.TYPE_STRING:
        raise ContractError(_place(descriptor), f"has no string field {key!r} to key it", "Name a string field of the row.")
    return str(key)


def is_effect(message: type[Message]) -> bool:
    """Whether a message is a command or an outcome: it lives in a private `effects` package."""
    return ".effects." in message.DESCRIPTOR.full_name


def context_of(message: type[Message]) -> str | None:
    """The context whose private package (`views`, `effects`) a message lives in; None for what all may know."""
    parts = message.DESCRIPTOR.full_name.split(".")
    for private in ("views", "effects"):
        if private in parts[:-1]:
            return parts[parts.index(private) - 1]
    return None


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

    def view_of(self, view: View[Any]) -> ResolvedView:
        """A view of this service, resolved."""
        return next(resolved for resolved in self.views if resolved.view is view)


def _reads(where: str, line: On[Any, Any], key: str | None, service: str) -> Reaction:
    """Which one topic a line is read from: the one, primary or copy, whose key field is `key`."""
    holding = topics_holding(line.hears)
    if not holding:
        primary_of(line.hears)
    if line.key is not None:
        topic = primary_of(line.hears)
        return Reaction(topic, topic.number(line.hears) or 0, line, repartitioned=True)
    key = line.by or key
    matching = [topic for topic in holding if topic.key == key]
    if not matching:
        offered = ", ".join(f"{topic.name} by {topic.key}" for topic in holding)
        raise ContractError(
            where,
            f"{line.hears.DESCRIPTOR.name} is offered as {offered}, and not by {key!r}",
            f"Give on({line.hears.DESCRIPTOR.name}, ...) a key= that names a field it is offered by, or offer a copy keyed by {key!r}.",
        )
    if len(matching) > 1:
        names = " and ".join(topic.name for topic in matching)
        raise ContractError(where, f"{line.hears.DESCRIPTOR.name} is in {names}, both by {key!r}", "Keep one of them.")
    topic = matching[0]
    if topic.private and topic.writer != service:
        raise ContractError(where, f"hears {topic.name}, which is private to {topic.writer}", "Hear a public event.")
    return Reaction(topic, topic.number(line.hears) or 0, line, repartitioned=False)


def _said_by(service: Service, name: str) -> Topic:
    """The primary topic this service's decider decides: the one of its writer in the files of its own events."""
    decider = service.decider
    assert decider is not None
    candidates = {topic.name: topic for event in _said_classes(decider) if not is_effect(event) for topic in [primary_of(event)]}
    foreign = {topic.name: topic for topic in candidates.values() if topic.writer != name}
    if foreign:
        topic = next(iter(foreign.values()))
        raise ContractError(
            f"{name}: {decider.state.__name__}",
            f"says events of {topic.name}, whose writer is {topic.writer}",
            "A decider says only what it owns; let the writer decide, and hear it.",
        )
    if len(candidates) != 1:
        raise ContractError(
            f"{name}: {decider.state.__name__}",
            f"says events of {len(candidates)} topics ({', '.join(sorted(candidates)) or 'none'})",
            "A decider decides one aggregate: the union that its evolve takes names the events of one topic.",
        )
    return next(iter(candidates.values()))


def _said_classes(decider: Decider[Any, Any]) -> tuple[type[Message], ...]:
    """Classes of the second parameter of `evolve`: the union of all that the decider may say."""
    hints = typing.get_type_hints(decider.evolve)
    names = [name for name in hints if name != "return"]
    if len(names) != 2:
        raise ContractError(
            getattr(decider.evolve, "__qualname__", repr(decider.evolve)),
            "its parameters are not annotated as (state, said)",
            "Annotate evolve(state: State, said: EventA | EventB) -> State.",
        )
    said = hints[names[1]]
    return typing.get_args(said) or (said,)


def said_by(decider: Decider[Any, Any]) -> tuple[type[Message], ...]:
    """All classes of events and commands a decider may say, in the order its `evolve` names them."""
    return _said_classes(decider)


def _own_package(context: str, where: str, messages: Iterable[type[Message]]) -> None:
    for message in messages:
        owner = context_of(message)
        if owner is not None and owner != context:
            raise ContractError(
                where,
                f"uses {message.DESCRIPTOR.full_name}, which is private to {owner}",
                f"Contexts know each other by events only; hear the events of {owner}.",
            )


def _resolve_decider(context: str, service: Service, name: str) -> ResolvedDecider | None:
    decider = service.decider
    if decider is None:
        return None
    where = f"{name}: decider of {decider.state.__name__}"
    said = _said_classes(decider)
    _own_package(context, where, said)
    primary = _said_by(service, name)
    commands = {primary_of(message).name: primary_of(message) for message in said if is_effect(message)}
    for topic in commands.values():
        if topic.writer != name or topic.name != f"private.{name}.commands":
            raise ContractError(where, f"says commands of {topic.name}", f"Its commands are private.{name}.commands, written by {name}.")
    if len(commands) > 1:
        raise ContractError(where, f"says commands of {len(commands)} topics", "Put them into one wrapper.")
    if not decider.table:
        raise ContractError(where, "hears nothing", "Give it a line on(Event, decision).")
    reactions = []
    for line in decider.table:
        _own_package(context, where, [line.hears])
        reactions.append(_reads(where, line, primary.key, name))
        if len(line.look_ups) > 3:
            raise ContractError(where, f"{line} looks up {len(line.look_ups)} things", "Look up at most three.")
        for look_up in line.look_ups:
            if isinstance(look_up, Rows) and look_up.view not in service.views:
                raise ContractError(
                    where,
                    f"{line} looks up {look_up.view.name}, which is not a view of {name}",
                    f"Add the view to Service({service.name!r}, ...): a decision reads its own service's views only.",
                )
    for both in {r.topic.name for r in reactions if r.repartitioned} & {r.topic.name for r in reactions if not r.repartitioned}:
        raise ContractError(
            where, f"hears {both} with and without a key=", "All events of a topic go the same way, or overtake each other."
        )
    heard = [line.hears.DESCRIPTOR.full_name for line in decider.table]
    for twice in {one for one in heard if heard.count(one) > 1}:
        raise ContractError(where, f"hears {twice} in two lines", "Make one line of them.")
    return ResolvedDecider(
        decider=decider,
        primary=primary,
        copies=tuple(copies_of(primary)),
        reactions=tuple(reactions),
        commands=next(iter(commands.values()), None),
    )


def _resolve_view(context: str, view: View[Any], name: str) -> ResolvedView:
    where = f"{name}: view {view.row.DESCRIPTOR.name}"
    _own_package(context, where, [view.row])
    key = row_key(view.row)
    if not view.table:
        raise ContractError(where, "is filled by nothing", "Give it a line on(Event, function).")
    reactions = []
    for line in view.table:
        if line.key is not None or line.by is not None:
            raise ContractError(where, f"{line} has a key=", "A view reads a topic or copy by its row's key; offer a copy.")
        _own_package(context, where, [line.hears])
        reactions.append(_reads(where, line, key, name))
    topics = {reaction.topic.name: reaction.topic for reaction in reactions}
    if len(topics) > 1:
        raise ContractError(where, f"folds {' and '.join(sorted(topics))}", "A view folds one topic; join two views at read.")
    return ResolvedView(f"{name}.{view.name}", view, next(iter(topics.values())), key, tuple(reactions))


def _resolve_effect(context: str, effect: Effect[Any], name: str) -> ResolvedEffect:
    where = f"{name}: effect"
    if not effect.table:
        raise ContractError(where, "does nothing", "Give it a line on(Command, function).")
    for line in effect.table:
        if not is_effect(line.hears):
            raise ContractError(where, f"{line.hears.DESCRIPTOR.full_name} is no command", f"Commands live in retail.{context}.effects.")
        _own_package(context, where, [line.hears])
        answer_by = line.hears.DESCRIPTOR.fields_by_name.get("answer_by")
        if answer_by is None or answer_by.message_type is not Timestamp.DESCRIPTOR:
            raise ContractError(
                _place(line.hears.DESCRIPTOR), "has no Timestamp answer_by", "Every command says until when its answer is of use."
            )
    commands = {primary_of(line.hears).name: primary_of(line.hears) for line in effect.table}
    outcomes = [
        topic
        for topic in _topics_in(effect.table[0].hears.DESCRIPTOR.file)
        if topic.name == f"private.{name}.outcomes" and topic.writer == name
    ]
    if list(commands) != [f"private.{name}.commands"]:
        raise ContractError(where, f"does commands of {', '.join(commands)}", f"A service does its own: private.{name}.commands.")
    if not outcomes:
        raise ContractError(where, "has no outcomes", f"Declare a wrapper of private.{name}.outcomes beside the commands.")
    owner = getattr(effect.connect, "stub", None)
    if owner is not None and f"retail.{context}." not in f"{owner.__module__}.":
        raise ContractError(where, f"asks {owner.__module__}", "A sibling lives in the own context; hear events of the others.")
    return ResolvedEffect(effect, next(iter(commands.values())), outcomes[0])


def resolve(context: Context, service: Service) -> ResolvedService:
    """Make a service's table and its contracts agree.

    Raises:
        ContractError: they do not; says where, what and how to mend it.
    """
    name = f"{context.name}.{service.name}"
    known = (Decider, View, Query, Effect, Intake, Tail, Api)
    for piece in service.pieces:
        if not isinstance(piece, known):
            raise ContractError(name, f"{piece!r} is no piece of a service", "Use Decider, View, Query, Effect, Intake, Tail, Api.")
    views = tuple(_resolve_view(context.name, view, name) for view in service.views)
    names = [view.name for view in views]
    if len(set(names)) != len(names):
        raise ContractError(name, "has two views of one row", "Name rows for what they show.")
    for query in service.queries:
        for view in query.views:
            if view not in service.views:
                raise ContractError(
                    name, f"a query reads {view.name}, which is not a view of {name}", "Add it to the service, or ask its service."
                )
    raises: dict[str, Topic] = {}
    for message in service.intake.messages if service.intake else ():
        topic = primary_of(message)
        if topic.writer != name:
            raise ContractError(
                name, f"takes in {message.DESCRIPTOR.name} of {topic.name}, whose writer is {topic.writer}", "Raise what you own."
            )
        raises[topic.name] = topic
    decider = _resolve_decider(context.name, service, name)
    if decider is not None and decider.primary.name in raises:
        raise ContractError(
            name,
            f"decides and takes in events of {decider.primary.name}",
            "Let the intake raise events of a topic of its own, and decide on them.",
        )
    effects = tuple(_resolve_effect(context.name, effect, name) for effect in service.effects)
    _every_command_is_done(name, decider, service)
    return ResolvedService(
        name=name,
        context=context.name,
        service=service,
        decider=decider,
        views=views,
        effects=effects,
        raises=tuple(raises.values()),
        tails=tuple(_tailed(name, tail) for tail in service.tails),
        rpcs=_rpcs(context, service),
    )


def _tailed(name: str, tail: Tail) -> Topic:
    topics = {primary_of(message).name: primary_of(message) for message in tail.messages}
    if len(topics) != 1:
        raise ContractError(name, f"a tail hears {len(topics)} topics", "A tail hears events of one topic.")
    return next(iter(topics.values()))


def _every_command_is_done(name: str, decider: ResolvedDecider | None, service: Service) -> None:
    said = {m.DESCRIPTOR.full_name for m in said_by(decider.decider) if is_effect(m)} if decider else set()
    done = [line.hears.DESCRIPTOR.full_name for effect in service.effects for line in effect.table]
    for command in sorted(said - set(done)):
        raise ContractError(name, f"says {command} and no effect does it", "Give an Effect a line for it.")
    for command in sorted(set(done) - said):
        raise ContractError(name, f"an effect does {command}, which its decider never says", "Name it in evolve's union, or drop it.")
    for command in {one for one in done if done.count(one) > 1}:
        raise ContractError(name, f"two effects do {command}", "One command is done by one effect.")


def _rpcs(context: Context, service: Service) -> dict[str, On[Any, Any]]:
    """The RPCs a service answers, by full method name."""
    answered: dict[str, On[Any, Any]] = {}
    for query in service.queries:
        for line in query.table:
            _own_package(context.name, f"{context.name}.{service.name}: query", [line.hears])
            methods = [
                f"/{rpc_service.full_name}/{method.name}"
                for rpc_service in line.hears.DESCRIPTOR.file.services_by_name.values()
                for method in rpc_service.methods
                if method.input_type.full_name == line.hears.DESCRIPTOR.full_name
            ]
            if len(methods) != 1:
                raise ContractError(
                    _place(line.hears.DESCRIPTOR),
                    f"is the request of {len(methods)} RPCs",
                    "A query answers the one RPC of its request, declared in the same file.",
                )
            if methods[0] in answered:
                raise ContractError(f"{context.name}.{service.name}", f"answers {methods[0]} twice", "Keep one line.")
            answered[methods[0]] = line
    return answered


def resolve_context(context: Context) -> tuple[ResolvedService, ...]:
    """Every service of a context, and what can only be seen of them together.

    Raises:
        ContractError: a table or contract lies, or an RPC has no answer or two.
    """
    services = tuple(resolve(context, service) for service in context.services)
    answered: dict[str, str] = {}
    for service in services:
        for method in service.rpcs:
            if method in answered:
                raise ContractError(
                    f"context {context.name}", f"{method} is answered by {answered[method]} and {service.name}", "Keep one of them."
                )
            answered[method] = service.name
    for method in sorted(_methods_of(context.name) - set(answered)):
        raise ContractError(f"context {context.name}", f"nobody answers {method}", "Give a Query a line for its request.")
    return services


def _methods_of(context: str) -> set[str]:
    """Every RPC of the context's view services: all in `retail.<context>.views`, loaded or not."""
    return {
        f"/{service.full_name}/{method.name}"
        for file in files_under(f"retail.{context}.views")
        for service in file.services_by_name.values()
        for method in service.methods
    }


def files_under(package: str) -> Iterator[FileDescriptor]:
    """Every proto file whose generated module lies in a package, e.g. "retail"; none if there is no such package."""
    try:
        root = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and (package == error.name or package.startswith(f"{error.name}.")):
            return
        raise
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name.endswith("_pb2"):
            yield importlib.import_module(found.name).DESCRIPTOR


def all_topics(package: str) -> dict[str, Topic]:
    """Every topic declared under a package, by name.

    Raises:
        ContractError: two wrappers claim one topic, or a copy has no primary, another writer or a foreign event.
    """
    topics: dict[str, Topic] = {}
    for file in files_under(package):
        for topic in _topics_in(file):
            other = topics.get(topic.name)
            if other is not None and other.writer != topic.writer:
                raise ContractError(
                    _place(topic.wrapper.DESCRIPTOR),
                    f"{topic.name} has two writers, {other.writer} and {topic.writer}",
                    "One topic has one writer; give the other facts a topic of their own.",
                )
            if other is not None:
                raise ContractError(
                    _place(topic.wrapper.DESCRIPTOR),
                    f"{topic.name} is also declared by {other.wrapper.DESCRIPTOR.full_name}",
                    "One wrapper, one topic.",
                )
            topics[topic.name] = topic
    for topic in topics.values():
        if topic.copy_of:
            _check_copy(topic, topics.get(topic.copy_of))
    return topics


def _check_copy(copy: Topic, primary: Topic | None) -> None:
    where = _place(copy.wrapper.DESCRIPTOR)
    if primary is None:
        raise ContractError(where, f"copies {copy.copy_of}, which no wrapper declares", "Name a primary topic.")
    if copy.writer != primary.writer:
        raise ContractError(where, f"has writer {copy.writer}, its primary {primary.writer}", "A copy is written by its primary's writer.")
    for number, event in copy.events.items():
        if primary.events.get(number) is not event:
            raise ContractError(
                where, f"{event.DESCRIPTOR.name} is field {number}, in {primary.name} it is not", "Copy an event under its number."
            )


def check_platform(platform: Platform, package: str) -> dict[str, tuple[ResolvedService, ...]]:
    """Every service of a platform by context, and what can only be seen of all of them together.

    Args:
        package: root of the generated contracts, e.g. "retail".

    Raises:
        ContractError: a table or contract lies, or a topic's writer does not exist.
    """
    topics = all_topics(package)
    resolved = {context.name: resolve_context(context) for context in platform.contexts}
    services = {service.name for group in resolved.values() for service in group}
    for topic in topics.values():
        if topic.writer not in services:
            raise ContractError(
                _place(topic.wrapper.DESCRIPTOR), f"names the writer {topic.writer}, which is no service", "Name a service."
            )
    return resolved

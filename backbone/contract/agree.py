"""Makes tables and contracts agree before anything starts, or says where they do not, and how to mend it."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from backbone.contract.resolved import Reaction, ResolvedDecider, ResolvedEffect, ResolvedService, ResolvedView
from backbone.contract.topics import (
    Topic,
    all_topics,
    context_of,
    copies_of,
    files_under,
    is_effect,
    place,
    primary_of,
    row_key,
    topics_holding,
    topics_in,
)
from backbone.declare import Api, Context, Decider, Effect, Intake, On, Platform, Query, Rows, Service, Sibling, Tail, View, happened_at
from backbone.errors import ContractError


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
        for look_up in line.look_ups:
            if look_up is not happened_at:
                raise ContractError(where, f"{line} looks up rows", "A view looks up happened_at and nothing else; join two views at read.")
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
            raise ContractError(
                where, f"{line.hears.DESCRIPTOR.full_name} is no command", f"Commands live in the package {context}.effects."
            )
        _own_package(context, where, [line.hears])
        answer_by = line.hears.DESCRIPTOR.fields_by_name.get("answer_by")
        if answer_by is None or answer_by.message_type is not Timestamp.DESCRIPTOR:
            raise ContractError(
                place(line.hears.DESCRIPTOR), "has no Timestamp answer_by", "Every command says until when its answer is of use."
            )
    commands = {primary_of(line.hears).name: primary_of(line.hears) for line in effect.table}
    outcomes = [
        topic
        for topic in topics_in(effect.table[0].hears.DESCRIPTOR.file)
        if topic.name == f"private.{name}.outcomes" and topic.writer == name
    ]
    if list(commands) != [f"private.{name}.commands"]:
        raise ContractError(where, f"does commands of {', '.join(commands)}", f"A service does its own: private.{name}.commands.")
    if not outcomes:
        raise ContractError(where, "has no outcomes", f"Declare a wrapper of private.{name}.outcomes beside the commands.")
    if isinstance(effect.connect, Sibling):
        asked = effect.connect.stub.__module__
        if f".{context}.views." not in asked:
            raise ContractError(where, f"asks {asked}", f"A sibling serves a view of {context}; hear the events of others.")
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
        tails=tuple(_tailed(context.name, name, tail) for tail in service.tails),
        rpcs=_rpcs(context, service),
    )


def _tailed(context: str, name: str, tail: Tail) -> Topic:
    _own_package(context, f"{name}: tail", tail.messages)
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
                    place(line.hears.DESCRIPTOR),
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
        ContractError: a table or contract lies, a topic has two writers, or an RPC has no answer or two.
    """
    root = _root_of(context)
    if root:
        all_topics(root)
    services = tuple(resolve(context, service) for service in context.services)
    answered: dict[str, str] = {}
    for service in services:
        for method in service.rpcs:
            if method in answered:
                raise ContractError(
                    f"context {context.name}", f"{method} is answered by {answered[method]} and {service.name}", "Keep one of them."
                )
            answered[method] = service.name
    for method in sorted(_methods_in(f"{root}.{context.name}.views") - set(answered)) if root else ():
        raise ContractError(f"context {context.name}", f"nobody answers {method}", "Give a Query a line for its request.")
    return services


def _root_of(context: Context) -> str:
    """The package that holds the context's own and everybody's contracts, e.g. "retail"; empty if it owns no message."""
    for service in context.services:
        said = said_by(service.decider) if service.decider else ()
        raised = service.intake.messages if service.intake else ()
        for message in (*said, *raised, *(view.row for view in service.views)):
            root, own, _ = str(message.DESCRIPTOR.full_name).partition(f".{context.name}.")
            if own:
                return root
    return ""


def _methods_in(package: str) -> set[str]:
    """Every RPC of the services under a package, loaded or not."""
    return {
        f"/{service.full_name}/{method.name}"
        for file in files_under(package)
        for service in file.services_by_name.values()
        for method in service.methods
    }


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
            raise ContractError(place(topic.wrapper.DESCRIPTOR), f"names the writer {topic.writer}, which is no service", "Name a service.")
    return resolved

"""Who may do what at the broker, derived from the topology: one user per service, and three for the tools. Pure data.

What is not declared here is refused: a service writes its own topics and copies, reads what its table hears, and has its groups,
transactional ids and private topics under its own name and a dot. Nobody but the operator may do anything to the cluster itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from backbone.topology import Topology

BROKER = "backbone.broker"
"""The broker itself, to which everything is allowed; it makes the operator, and nothing else uses it."""
CONTROLLER = "backbone.controller"
"""The brokers' quorum among themselves."""
OPERATOR = "backbone.operator"
"""Makes topics, users and rights, and may read: `backbone topics`, and what `make up` does at its start."""
READER = "backbone.reader"
"""Reads everything and writes nothing: `backbone status`, `story`, `tail`, `audit`, `quarantine list`, `doctor`, the laws."""
RELEASER = "backbone.releaser"
"""Reads everything and writes what an operator decides about quarantined records: `backbone quarantine release` and `drop`."""
TOOLS = (OPERATOR, READER, RELEASER)

ANY = "*"
CLUSTER_NAME = "kafka-cluster"
"""What Kafka calls the one resource of this kind."""


class Kind(StrEnum):
    """What a right is about, by Kafka's names."""

    TOPIC = "TOPIC"
    GROUP = "GROUP"
    TRANSACTIONAL_ID = "TRANSACTIONAL_ID"
    CLUSTER = "CLUSTER"


class Operation(StrEnum):
    """What somebody does to it, by Kafka's names."""

    ALL = "ALL"
    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DELETE = "DELETE"
    ALTER = "ALTER"
    DESCRIBE = "DESCRIBE"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"


CHANGES = frozenset(Operation) - {Operation.READ, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS}
"""What leaves traces: whoever may do it to a topic can break what its owner says of it."""


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One user may do one thing to one resource, or to all whose names begin as its name does.

    Attributes:
        user: name of the user, without Kafka's "User:".
        name: of the resource; `ANY` stands for every one of its kind.
        prefixed: whether it is the beginning of a name.
        allows: False for a right that takes one away; none of ours does.
        host: from where; `ANY` for everywhere.
    """

    user: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False
    allows: bool = True
    host: str = ANY

    def covers(self, kind: Kind, name: str) -> bool:
        """Whether it is about that resource."""
        return self.kind is kind and (self.name in (ANY, name) or (self.prefixed and name.startswith(self.name)))

    def __str__(self) -> str:
        may = "may" if self.allows else "must not"
        what = f"{self.kind.lower().replace('_', ' ')} {self.name}{'*' if self.prefixed else ''}"
        return f"{self.user} {may} {self.operation.lower().replace('_', ' ')} {what}" + (f" from {self.host}" if self.host != ANY else "")


def users(of: Topology) -> tuple[str, ...]:
    """Every user of a platform: one per service, named as the service, and those of the tools."""
    return (*of.services, *TOOLS)


def rights(of: Topology) -> frozenset[Right]:
    """All that the users of a platform may do."""
    found = {right for service in of.services for right in rights_of_service(of, service)}
    return frozenset(found | rights_of_operator() | _rights_of_reader(READER) | _rights_of_reader(RELEASER) | _rights_of_releaser(of))


def rights_of_service(of: Topology, service: str) -> frozenset[Right]:
    """What one service may do, and nothing beyond.

    Args:
        service: <context>.<service>.
    """
    own = [topic for topic in of.of_service(service) if not topic.private]
    private = f"private.{service}."
    found: set[Right] = set()
    for topic in own:
        found |= _may(service, Kind.TOPIC, topic.name, (Operation.WRITE, Operation.DESCRIBE))
    for name in heard(of, service):
        found |= _may(service, Kind.TOPIC, name, (Operation.READ, Operation.DESCRIBE))
    found |= _may(service, Kind.TOPIC, private, (Operation.READ, Operation.WRITE, Operation.DESCRIBE), prefixed=True)
    for name, prefixed in ((service, False), (f"{service}.", True)):  # a decider's group is called as its service
        found |= _may(service, Kind.GROUP, name, (Operation.READ, Operation.DESCRIBE), prefixed=prefixed)
    return frozenset(found | _may(service, Kind.TRANSACTIONAL_ID, f"{service}.", (Operation.WRITE, Operation.DESCRIBE), prefixed=True))


def heard(of: Topology, service: str) -> tuple[str, ...]:
    """The public topics a service reads: what its table hears, and its own events where their fold is its state."""
    names = {name for group in of.groups if group.service == service for name in group.topics}
    names |= {tailed.topic for tailed in of.tails if tailed.service == service}
    if any(topic.purpose == "state" for topic in of.of_service(service)):
        names |= {topic.name for topic in of.of_service(service) if topic.purpose == "events"}
    return tuple(sorted(name for name in names if not name.startswith("private.")))


def rights_of_operator() -> frozenset[Right]:
    """What the operator may do: everything about topics, users and rights, but not write a record."""
    cluster = (Operation.CREATE, Operation.ALTER, Operation.DESCRIBE, Operation.ALTER_CONFIGS, Operation.DESCRIBE_CONFIGS)
    topics = (
        Operation.READ,
        Operation.DESCRIBE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    )
    return frozenset(
        _may(OPERATOR, Kind.CLUSTER, CLUSTER_NAME, cluster)
        | _may(OPERATOR, Kind.TOPIC, ANY, topics)
        | _may(OPERATOR, Kind.GROUP, ANY, (Operation.DESCRIBE,))
        | _may(OPERATOR, Kind.GROUP, f"{OPERATOR}.", (Operation.READ, Operation.DESCRIBE), prefixed=True)
    )


def _rights_of_reader(user: str) -> set[Right]:
    return (
        _may(user, Kind.TOPIC, ANY, (Operation.READ, Operation.DESCRIBE))
        | _may(user, Kind.GROUP, ANY, (Operation.DESCRIBE,))
        | _may(user, Kind.GROUP, f"{user}.", (Operation.READ, Operation.DESCRIBE), prefixed=True)
    )


def _rights_of_releaser(of: Topology) -> set[Right]:
    releases = [topic.name for topic in of.topics if topic.purpose == "releases"]
    return {Right(RELEASER, Kind.TOPIC, name, Operation.WRITE) for name in releases}


def _may(user: str, kind: Kind, name: str, operations: Iterable[Operation], *, prefixed: bool = False) -> set[Right]:
    return {Right(user, kind, name, operation, prefixed) for operation in operations}


@dataclass(frozen=True, slots=True)
class Surplus:
    """What a cluster allows beyond what is declared, as far as it concerns a platform.

    Attributes:
        rights: undeclared rights of the platform's own users, and whatever lets others change what is the platform's.
        users: users under the names of the platform's contexts that it does not have.
    """

    rights: tuple[Right, ...]
    users: tuple[str, ...]


def surplus(of: Topology, found: Iterable[Right], there: Iterable[str]) -> Surplus:
    """Rights and users that nobody declared.

    Another platform on the same cluster may have users of its own, and they may read: that is what events are for.

    Args:
        found: every right the cluster has.
        there: every user it has.
    """
    wanted, ours, contexts = rights(of), set(of.services), {f"{service.partition('.')[0]}." for service in of.services}
    strangers = {user for user in there if user not in ours and user.startswith(tuple(contexts))}

    def undeclared() -> Iterator[Right]:
        for right in found:
            if right in wanted or right.user in (BROKER, CONTROLLER):
                continue
            if right.user in ours or right.user in strangers or not right.allows or _breaks(of, right):
                yield right

    return Surplus(tuple(sorted(undeclared())), tuple(sorted(strangers)))


def _breaks(of: Topology, right: Right) -> bool:
    """Whether a right lets somebody change what is the platform's."""
    if right.operation not in CHANGES and right.kind is not Kind.GROUP:
        return False
    match right.kind:
        case Kind.TOPIC:
            return any(right.covers(Kind.TOPIC, topic.name) for topic in of.topics)
        case Kind.GROUP:  # reading as a group is what moves its members and its offsets
            return right.operation not in (Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS) and any(
                right.covers(Kind.GROUP, group.name) for group in of.groups
            )
        case Kind.TRANSACTIONAL_ID:
            return any(right.covers(Kind.TRANSACTIONAL_ID, f"{one}.0") for one in of.transactional_ids)
        case Kind.CLUSTER:
            return True

"""Making topics, users and rights on Kafka, and telling what is there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import NewTopic

from backbone.adapters.kafka_clients import (
    CONNECT_WITHIN_S,
    attempting,
    common_options,
    connect,
    credentials,
    error_of,
    is_passing,
    meaning,
)
from backbone.errors import DeclarationError, SettingsError, Unavailable
from backbone.ownership import OPERATOR, Kind, Operation, Right
from backbone.ports import Place
from backbone.settings import Settings

ASK_WITHIN_S = 30.0
"""Making hundreds of topics at once takes a broker some seconds."""

ATTEMPT_WITHIN_S = 5.0
"""A client that knows of no controller, as after a broker was away, waits in vain; the next attempt finds it."""

ITERATIONS = 4096
"""The fewest that SCRAM allows: our passwords are random, so nothing is gained by making each guess dearer."""

PRINCIPAL = "User:"
_MECHANISMS = {"SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256}
_KINDS = {
    Kind.TOPIC: ResourceType.TOPIC,
    Kind.GROUP: ResourceType.GROUP,
    Kind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    Kind.CLUSTER: ResourceType.BROKER,
}

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS

KEPT_FOR_EVER: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
}
"""Public topics and quarantine: the narrative; nothing of it ever goes away."""

COMPACTED: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    # these are read from the start at every takeover, and the active segment is never compacted: keep it small
    "segment.bytes": str(16 * 1024 * 1024),
    "segment.ms": str(HOUR_MS // 4),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(HOUR_MS),
    # a reader that was away longer than this could miss a tombstone
    "delete.retention.ms": str(WEEK_MS),
}
"""State, commands, outcomes, ticks and cursors: the last record of each key."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be.

    Attributes:
        config: its settings by Kafka's names, such as `KEPT_FOR_EVER` or `COMPACTED`.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=lambda: dict(KEPT_FOR_EVER))


class KafkaAdmin:
    """What an operator may do to the topics, the users and the rights of a cluster.

    Args:
        settings: where it is and which cluster it must be.
        user: as whom the client authenticates.
        within_s: how long to wait for the first answer, in seconds.

    Raises:
        SettingsError: the user has no password.
        Refused: Kafka does not let the user in.
        Unavailable: nobody answers.
        StrangeCluster: it is not the cluster of the settings.
    """

    def __init__(self, settings: Settings, user: str = OPERATOR, within_s: float = CONNECT_WITHIN_S) -> None:
        self._mechanism = _MECHANISMS.get(settings.kafka_mechanism)
        self._client, self._signs = connect(AdminClient, {**credentials(settings, user), **common_options()}, settings, within_s)

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        return str(self._client.cluster_id(timeout=ASK_WITHIN_S))

    def brokers(self) -> int:
        """How many brokers are alive.

        Raises:
            Unavailable: Kafka does not answer.
        """
        with attempting("asking for brokers"):
            return len(self._client.list_topics(timeout=ATTEMPT_WITHIN_S).brokers)

    def describe(self) -> Mapping[str, TopicSpec]:
        """Every topic that exists, but Kafka's own, with the settings that were given to it."""
        listed = self._listed()
        names = [name for name in listed if not name.startswith("__")]
        found = self._described(ResourceType.TOPIC, names)
        return {
            name: TopicSpec(
                name,
                len(listed[name].partitions),
                {entry.name: entry.value for entry in found[name].values() if not entry.is_default and entry.value is not None},
            )
            for name in names
        }

    def topic_options(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """The options in effect of some topics, also those that nobody gave."""
        return {name: _in_effect(found) for name, found in self._described(ResourceType.TOPIC, names).items()}

    def broker_options(self) -> Mapping[str, Mapping[str, str]]:
        """The options in effect of every broker, by its id."""
        with attempting("listing brokers"):
            ids = [str(broker) for broker in self._client.list_topics(timeout=ASK_WITHIN_S).brokers]
        return {name: _in_effect(found) for name, found in self._described(ResourceType.BROKER, ids).items()}

    def _described(self, kind: ResourceType, names: Sequence[str]) -> Mapping[str, Mapping[str, ConfigEntry]]:
        with attempting(f"describing {kind.name.lower()}s"):
            resources = [ConfigResource(kind, name) for name in names]
            asked = self._client.describe_configs(resources, request_timeout=ASK_WITHIN_S) if resources else {}
            return {resource.name: future.result(ASK_WITHIN_S + 1.0) for resource, future in asked.items()}

    def create_topics(self, specs: Sequence[TopicSpec], replication_factor: int = 1) -> Sequence[str]:
        """Make the topics that do not exist; leave the others as they are.

        Args:
            replication_factor: 1 for one broker, 3 for a cluster.

        Returns:
            Names of the topics it made, once every one of them can be used.

        Raises:
            DeclarationError: a topic exists with another number of partitions; growing it would re-map its keys.
            Unavailable: Kafka does not answer.
        """
        existing = self._listed()
        for spec in specs:
            found = len(existing[spec.name].partitions) if spec.name in existing else None
            if found is not None and found != spec.partitions:
                raise DeclarationError(
                    f"topic {spec.name} has {found} partitions, this platform has {spec.partitions}: equal keys would not meet. "
                    "Set BACKBONE_PARTITIONS to what the cluster has, or fill new topics"
                )
        missing = {spec.name: spec for spec in specs if spec.name not in existing}
        if not missing:
            return ()
        deadline = time.monotonic() + ASK_WITHIN_S
        while (failed := self._create(missing.values(), replication_factor)) is not None:
            if not is_passing(failed) or time.monotonic() > deadline:
                raise meaning(failed, f"making topics {', '.join(sorted(missing)[:5])}")
        self._await(missing)
        return tuple(missing)

    def _create(self, specs: Iterable[TopicSpec], replication_factor: int) -> KafkaError | None:
        asked = self._client.create_topics(
            [NewTopic(spec.name, spec.partitions, replication_factor, config=dict(spec.config)) for spec in specs],
            operation_timeout=ATTEMPT_WITHIN_S,
            request_timeout=ATTEMPT_WITHIN_S,
        )
        for future in asked.values():
            try:
                future.result(ATTEMPT_WITHIN_S + 1.0)
            except KafkaException as error:
                # made by somebody else at the same moment, or by us in an attempt whose answer was lost
                if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    return error_of(error)
        return None

    def committed(self, group: str) -> Mapping[Place, int]:
        """Committed offsets of a group, whoever asks; empty if there is none."""
        with attempting(f"asking for the offsets of {group}"):
            asked = self._client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=ASK_WITHIN_S)
            found = asked[group].result(ASK_WITHIN_S + 1.0).topic_partitions
        return {(partition.topic, partition.partition): partition.offset for partition in found if partition.offset >= 0}

    def unstable(self) -> Mapping[Place, int]:
        """Partitions, Kafka's own among them, in which something is neither committed nor aborted, with the offset where it begins.

        Raises:
            Unavailable: Kafka does not answer.
        """
        places = [TopicPartition(name, partition) for name, topic in self._listed().items() for partition in topic.partitions]
        written, stable = (self._ends(places, level) for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED))
        return {place: end for place, end in stable.items() if end < written[place]}

    def _ends(self, places: Sequence[TopicPartition], level: IsolationLevel) -> Mapping[Place, int]:
        latest: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]
        with attempting("asking how far partitions can be read"):
            asked = self._client.list_offsets(dict.fromkeys(places, latest), isolation_level=level, request_timeout=ASK_WITHIN_S)
            return {(place.topic, place.partition): future.result(ASK_WITHIN_S + 1.0).offset for place, future in asked.items()}

    @property
    def keeps_users(self) -> bool:
        """Whether passwords are kept in the cluster (SCRAM), not in the brokers' own settings (PLAIN)."""
        return self._mechanism is not None

    def users(self) -> frozenset[str]:
        """Every user that has a password of our mechanism; none where the cluster keeps none."""
        if self._mechanism is None:
            return frozenset()
        with attempting("listing users"):
            asked: Any = self._client.describe_user_scram_credentials(request_timeout=ASK_WITHIN_S)  # of all: one future, not one a user
            found = asked.result(ASK_WITHIN_S + 1.0)
        return frozenset(
            str(user) for user, known in found.items() if any(info.mechanism is self._mechanism for info in known.scram_credential_infos)
        )

    def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Let these users in with these passwords, whether they were known before or not.

        Raises:
            SettingsError: the cluster keeps no passwords.
        """
        if self._mechanism is None:
            raise SettingsError("a cluster with KAFKA_SASL_MECHANISM=PLAIN keeps no passwords: its users are made in its own settings")
        info = ScramCredentialInfo(self._mechanism, ITERATIONS)
        self._alter_users([UserScramCredentialUpsertion(user, info, word.encode()) for user, word in passwords.items()], "making users")

    def admit(self, user: str, password: str, rights: Iterable[Right]) -> None:
        """Let a user in and give him rights; repeated, it changes nothing but the password."""
        self.set_passwords({user: password})
        self.grant(rights)

    def drop_users(self, users: Iterable[str]) -> None:
        """Let these users in no more."""
        if self._mechanism is not None:
            self._alter_users([UserScramCredentialDeletion(user, self._mechanism) for user in users], "dropping users")

    def _alter_users(self, changes: Sequence[UserScramCredentialAlteration], doing: str) -> None:
        if not changes:
            return
        for user, future in self._client.alter_user_scram_credentials(list(changes), request_timeout=ASK_WITHIN_S).items():
            with attempting(f"{doing}, {user}"):
                future.result(ASK_WITHIN_S + 1.0)

    def rights(self) -> frozenset[Right]:
        """Every right that somebody has, of the kinds and operations we know."""
        anything: Any = None  # the client's annotations deny that a filter may leave names out
        every = AclBindingFilter(
            ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY, AclPermissionType.ANY
        )
        with attempting("listing rights"):
            found = self._client.describe_acls(every, request_timeout=ASK_WITHIN_S).result(ASK_WITHIN_S + 1.0)
        return frozenset(right for binding in found if (right := _right(binding)) is not None)

    def grant(self, rights: Iterable[Right]) -> None:
        """Give these rights; who has them keeps them."""
        if bindings := [_binding(right) for right in rights]:
            for right, future in self._client.create_acls(bindings, request_timeout=ASK_WITHIN_S).items():
                with attempting(f"giving a right to {right.principal}"):
                    future.result(ASK_WITHIN_S + 1.0)

    def revoke(self, rights: Iterable[Right]) -> None:
        """Take these rights away."""
        filters = [_filter(right) for right in rights]
        for one, future in (self._client.delete_acls(filters, request_timeout=ASK_WITHIN_S) if filters else {}).items():
            with attempting(f"taking a right from {one.principal}"):
                future.result(ASK_WITHIN_S + 1.0)

    def _listed(self) -> Mapping[str, TopicMetadata]:
        with attempting("listing topics"):
            return self._client.list_topics(timeout=ASK_WITHIN_S).topics

    def _await(self, specs: Mapping[str, TopicSpec]) -> None:
        deadline = time.monotonic() + ASK_WITHIN_S
        while True:
            listed = self._listed()
            waiting = [
                name
                for name, spec in specs.items()
                if name not in listed
                or len(listed[name].partitions) != spec.partitions
                or any(partition.leader < 0 for partition in listed[name].partitions.values())
            ]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"topics without a leader after {ASK_WITHIN_S:g} s: {', '.join(waiting[:5])}")
            time.sleep(0.02)


def _in_effect(found: Mapping[str, ConfigEntry]) -> Mapping[str, str]:
    return {name: entry.value for name, entry in found.items() if entry.value is not None}


def _binding(right: Right) -> AclBinding:
    return AclBinding(*_words(right))


def _filter(right: Right) -> AclBindingFilter:
    return AclBindingFilter(*_words(right))


def _words(right: Right) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    return (
        _KINDS[right.kind],
        right.name,
        ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
        f"{PRINCIPAL}{right.user}",
        right.host,
        AclOperation[right.operation],
        AclPermissionType.ALLOW if right.allows else AclPermissionType.DENY,
    )


def _right(binding: AclBinding) -> Right | None:
    kind = next((kind for kind, known in _KINDS.items() if known is binding.restype), None)
    operation = AclOperation(binding.operation).name
    if kind is None or operation not in Operation.__members__:
        return None
    return Right(
        user=binding.principal.removeprefix(PRINCIPAL),
        kind=kind,
        name=binding.name,
        operation=Operation[operation],
        prefixed=binding.resource_pattern_type is ResourcePatternType.PREFIXED,
        allows=binding.permission_type is AclPermissionType.ALLOW,
        host=binding.host,
    )

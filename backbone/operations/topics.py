"""The topics, users and rights a platform needs against those a cluster has: what is missing, what differs, and making them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.declare import Context, Platform
from backbone.errors import ContractError
from backbone.operations import access
from backbone.operations.access import Access
from backbone.ownership import BROKER, OPERATOR, rights_of_operator
from backbone.passwords import has_password, password_of
from backbone.settings import Settings
from backbone.topology import Kept, Topology, topology

CONFIG: Mapping[Kept, Mapping[str, str]] = {Kept.FOR_EVER: KEPT_FOR_EVER, Kept.COMPACTED: COMPACTED}
BROKERS_CHOICE = -1
"""Replication factor that leaves it to the cluster's `default.replication.factor`: 1 on a laptop, 3 in production."""


class Admin(access.Admin, Protocol):
    """What is needed of a cluster to see to its topics, users and rights."""

    def describe(self) -> Mapping[str, TopicSpec]: ...
    def create_topics(self, specs: Sequence[TopicSpec], replication_factor: int = 1) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting of a topic that is not as it should be.

    Attributes:
        found: None if the topic leaves it to the broker.
    """

    topic: str
    setting: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found or 'left to the broker'}, should be {self.wanted}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster lacks.

    Attributes:
        wanted: every topic of the platform.
        missing: those that do not exist.
        resized: those with another number of partitions, with that number.
        differences: settings that differ.
        foreign: topics under the platform's prefixes that it does not know; nothing deletes them, since a log is kept for ever.
        access: users and rights.
        made: names of the topics that were made.
    """

    partitions: int
    wanted: tuple[TopicSpec, ...]
    missing: tuple[TopicSpec, ...] = ()
    resized: tuple[tuple[str, int], ...] = ()
    differences: tuple[Difference, ...] = ()
    foreign: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    access: Access = field(default_factory=Access)

    @property
    def fits(self) -> bool:
        """Whether the platform can run on this cluster as it should."""
        return not (self.missing or self.resized or self.differences) and self.access.fits

    def __str__(self) -> str:
        words = [f"{len(self.wanted)} of {self.partitions} partitions each"]
        words += [f"{len(self.made)} made" if self.made else ""]
        words += [f"{len(self.missing)} missing" if self.missing else ""]
        words += [f"{len(self.resized)} with another number of partitions" if self.resized else ""]
        words += [f"{len(self.differences)} settings differ" if self.differences else ""]
        words += [str(self.access) if self.access.users else ""]
        return ", ".join(filter(None, words))

    def lines(self) -> list[str]:
        """One line for everything that is not as it should be: `+` would be made, `-` taken away, `!` is for the operator to mend."""
        return [
            *(f"+ topic {spec.name} ({spec.config['cleanup.policy']})" for spec in self.missing),
            *(f"! {name}: has {found} partitions, should have {self.partitions}" for name, found in self.resized),
            *(f"! {difference}" for difference in self.differences),
            *self.access.lines(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "partitions": self.partitions,
            "topics": len(self.wanted),
            "missing": [spec.name for spec in self.missing],
            "resized": dict(self.resized),
            "differences": [{"topic": d.topic, "setting": d.setting, "wanted": d.wanted, "found": d.found} for d in self.differences],
            "foreign": list(self.foreign),
            "made": list(self.made),
            "access": self.access.to_dict(),
            "fits": self.fits,
        }


def specs(of: Topology, partitions: int) -> tuple[TopicSpec, ...]:
    """Every topic of a topology as Kafka should have it."""
    return tuple(TopicSpec(topic.name, partitions, dict(CONFIG[topic.kept])) for topic in of.topics)


def compare(wanted: Sequence[TopicSpec], found: Mapping[str, TopicSpec], partitions: int) -> Plan:
    """What is missing or different, without touching anything.

    Args:
        wanted: every topic of the platform.
        found: every topic of the cluster, by name.
        partitions: P.
    """
    names = {spec.name for spec in wanted}
    prefixes = tuple({f"{name.split('.', 1)[0]}." for name in names})
    there = [(spec, found[spec.name]) for spec in wanted if spec.name in found]
    return Plan(
        partitions=partitions,
        wanted=tuple(wanted),
        missing=tuple(spec for spec in wanted if spec.name not in found),
        resized=tuple((spec.name, has.partitions) for spec, has in there if has.partitions != spec.partitions),
        differences=tuple(
            Difference(spec.name, setting, value, has.config.get(setting))
            for spec, has in there
            for setting, value in spec.config.items()
            if has.config.get(setting) != value
        ),
        foreign=tuple(sorted(name for name in found if name.startswith(prefixes) and name not in names)),
    )


def plan(declared: Platform | Context | Topology, settings: Settings, admin: Admin | None = None) -> Plan:
    """What the cluster of the settings lacks, and what it allows that nobody declared.

    Args:
        settings: where Kafka is, which cluster it must be, and P.
        admin: somebody else to ask.

    Raises:
        ContractError: a table or contract lies.
        StrangeCluster: it is not the expected cluster.
        Unavailable: Kafka does not answer.
    """
    of = declared if isinstance(declared, Topology) else topology(declared)
    asked = admin or KafkaAdmin(settings)
    found = compare(specs(of, settings.partitions), asked.describe(), settings.partitions)
    return replace(found, access=access.look(of, asked))


def _operator(settings: Settings) -> KafkaAdmin:
    """The operator; where the brokers' own password is at hand, he is made first, since nobody else could."""
    if settings.kafka_secrets and has_password(settings.kafka_secrets, BROKER):
        KafkaAdmin(settings, BROKER).admit(OPERATOR, password_of(settings.kafka_secrets, OPERATOR), rights_of_operator())
    return KafkaAdmin(settings)


def apply(declared: Platform | Context | Topology, settings: Settings, admin: Admin | None = None, *, prune: bool = False) -> Plan:
    """Make the topics, users and rights that are missing; what exists is left as it is, so it can be repeated at will.

    Args:
        settings: where Kafka is, which cluster it must be, P, and the folder of passwords, where new users get one.
        admin: somebody else to ask.
        prune: also take away users and rights that nobody declares; topics stay in any case.

    Returns:
        The plan after it: `made` names the topics it made, `differences` what an operator should look at.

    Raises:
        ContractError: a table or contract lies, or a topic has another number of partitions than the platform; nothing was made then.
        SettingsError: a user has no password, and none can be made.
        StrangeCluster: it is not the expected cluster.
        Unavailable: Kafka does not answer.
    """
    asked = admin or _operator(settings)
    of = declared if isinstance(declared, Topology) else topology(declared)
    before = plan(of, settings, asked)
    for name, found in before.resized:
        raise ContractError(
            f"topic {name}",
            f"has {found} partitions on this cluster, the platform has {settings.partitions}",
            f"A log cannot change that, since its keys would move: set BACKBONE_PARTITIONS={found}, or begin with an empty log.",
        )
    made = asked.create_topics(before.missing, BROKERS_CHOICE) if before.missing else ()
    after = access.mend(of, asked, before.access, settings.kafka_secrets, prune=prune)
    return replace(before, missing=(), made=tuple(made), access=after)

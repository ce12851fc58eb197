"""The topics a platform needs against those a cluster has: what is missing, what differs, and making them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.declare import Context, Platform
from backbone.errors import ContractError
from backbone.settings import Settings
from backbone.topology import Kept, Topology, topology

CONFIG: Mapping[Kept, Mapping[str, str]] = {Kept.FOR_EVER: KEPT_FOR_EVER, Kept.COMPACTED: COMPACTED}
BROKERS_CHOICE = -1
"""Replication factor that leaves it to the cluster's `default.replication.factor`: 1 on a laptop, 3 in production."""


class Admin(Protocol):
    """What is needed of a cluster to see to its topics."""

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
        foreign: topics under the platform's prefixes that it does not know.
        made: names of the topics that were made.
    """

    partitions: int
    wanted: tuple[TopicSpec, ...]
    missing: tuple[TopicSpec, ...] = ()
    resized: tuple[tuple[str, int], ...] = ()
    differences: tuple[Difference, ...] = ()
    foreign: tuple[str, ...] = ()
    made: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the platform can run on this cluster as it should."""
        return not (self.missing or self.resized or self.differences)

    def __str__(self) -> str:
        words = [f"{len(self.wanted)} of {self.partitions} partitions each"]
        words += [f"{len(self.made)} made" if self.made else ""]
        words += [f"{len(self.missing)} missing" if self.missing else ""]
        words += [f"{len(self.resized)} with another number of partitions" if self.resized else ""]
        words += [f"{len(self.differences)} settings differ" if self.differences else ""]
        return ", ".join(filter(None, words))

    def lines(self) -> list[str]:
        """One sentence for everything that is not as it should be."""
        return [
            *(f"{spec.name}: missing ({spec.config['cleanup.policy']})" for spec in self.missing),
            *(f"{name}: has {found} partitions, should have {self.partitions}" for name, found in self.resized),
            *map(str, self.differences),
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
    """What the cluster of the settings lacks.

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
    return compare(specs(of, settings.partitions), asked.describe(), settings.partitions)


def apply(declared: Platform | Context | Topology, settings: Settings, admin: Admin | None = None) -> Plan:
    """Make the topics that are missing; those that exist are left as they are, so it can be repeated at will.

    Args:
        settings: where Kafka is, which cluster it must be, and P.
        admin: somebody else to ask.

    Returns:
        The plan after it: `made` names the topics it made, `differences` what an operator should look at.

    Raises:
        ContractError: a table or contract lies, or a topic has another number of partitions than the platform; nothing was made then.
        StrangeCluster: it is not the expected cluster.
        Unavailable: Kafka does not answer.
    """
    asked = admin or KafkaAdmin(settings)
    before = plan(declared, settings, asked)
    for name, found in before.resized:
        raise ContractError(
            f"topic {name}",
            f"has {found} partitions on this cluster, the platform has {settings.partitions}",
            f"A log cannot change that, since its keys would move: set BACKBONE_PARTITIONS={found}, or begin with an empty log.",
        )
    made = asked.create_topics(before.missing, BROKERS_CHOICE) if before.missing else ()
    return Plan(
        partitions=before.partitions, wanted=before.wanted, differences=before.differences, foreign=before.foreign, made=tuple(made)
    )

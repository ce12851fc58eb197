"""Topics as they should be, and as a cluster has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.errors import ContractError
from backbone.local.kafka import Kafka
from backbone.operations import topics
from backbone.settings import Settings
from backbone.topology import Kept, TopicNode, Topology


def made_of(*nodes: TopicNode) -> Topology:
    return Topology(services=(), topics=nodes, groups=(), transactional_ids=(), events=(), commands=(), queries=(), edges=(), contexts={})


def two_topics(word: str) -> Topology:
    return made_of(
        TopicNode(f"{word}.shop.v1", "shop.till", "events", Kept.FOR_EVER),
        TopicNode(f"{word}.shop.state", "shop.till", "state", Kept.COMPACTED),
    )


def at(kafka: Kafka, partitions: int) -> Settings:
    return Settings.read({**kafka.variables, "BACKBONE_PARTITIONS": str(partitions)})


def test_a_cluster_without_topics_misses_all_of_them() -> None:
    wanted = topics.specs(two_topics("retail"), 4)
    plan = topics.compare(wanted, {}, 4)
    assert plan.missing == wanted
    assert not plan.fits
    assert plan.lines()[0] == "+ topic retail.shop.v1 (delete)"


def test_events_are_kept_for_ever_and_state_is_compacted() -> None:
    events, state = topics.specs(two_topics("retail"), 4)
    assert events.config["cleanup.policy"] == "delete"
    assert events.config["retention.ms"] == "-1"
    assert state.config["cleanup.policy"] == "compact"
    assert {events.config["message.timestamp.type"], state.config["message.timestamp.type"]} == {"LogAppendTime"}


def test_a_plan_names_every_setting_that_differs() -> None:
    wanted = topics.specs(two_topics("retail"), 4)
    found = {spec.name: spec for spec in wanted}
    found["retail.shop.v1"] = TopicSpec("retail.shop.v1", 4, {**wanted[0].config, "retention.ms": "604800000"})
    plan = topics.compare(wanted, found, 4)
    assert not plan.missing
    assert plan.lines() == ["! retail.shop.v1: retention.ms is 604800000, should be -1"]


def test_a_plan_shows_foreign_topics_under_our_prefix_and_no_others() -> None:
    wanted = topics.specs(two_topics("retail"), 4)
    found = {spec.name: spec for spec in wanted} | {name: TopicSpec(name, 1) for name in ("retail.old.v1", "somebody.else")}
    plan = topics.compare(wanted, found, 4)
    assert plan.foreign == ("retail.old.v1",)
    assert plan.fits


@pytest.mark.integration
def test_applying_makes_what_is_missing_and_then_nothing(kafka: Kafka, unique: Callable[[str], str]) -> None:
    declared = two_topics(unique("retail"))
    settings = at(kafka, 3)
    first = topics.apply(declared, settings)
    assert sorted(first.made) == sorted(topic.name for topic in declared.topics)
    again = topics.apply(declared, settings)
    assert again.made == ()
    there = topics.plan(declared, settings)
    assert (there.missing, there.resized, there.differences) == ((), (), ())


@pytest.mark.integration
def test_another_number_of_partitions_is_refused_naming_both(kafka: Kafka, unique: Callable[[str], str]) -> None:
    declared = two_topics(unique("retail"))
    topics.apply(declared, at(kafka, 2))
    wider = made_of(*declared.topics, TopicNode(f"{declared.topics[0].name}.more", "shop.till", "events", Kept.FOR_EVER))
    with pytest.raises(ContractError, match="has 2 partitions on this cluster, the platform has 5"):
        topics.apply(wider, at(kafka, 5))
    assert wider.topics[-1].name not in KafkaAdmin(at(kafka, 2)).describe()

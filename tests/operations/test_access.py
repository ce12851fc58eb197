"""Users and rights as they are declared, and as a cluster has them: the plan, what it makes, and what it takes away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.local.kafka import Kafka
from backbone.operations import topics
from backbone.ownership import BROKER, OPERATOR, READER, RELEASER, Kind, Operation, Right, rights, rights_of_service, surplus, users
from backbone.passwords import make_passwords, password_of
from backbone.topology import topology
from shop import shop
from tests.conftest import scratch

OF = topology(shop)
ORDERS = "retail.ordering.orders.v1"
ROGUE = Right("rogue", Kind.TOPIC, ORDERS, Operation.WRITE)


def named(service: str, kind: Kind, operation: Operation) -> set[str]:
    """What a service may do something to; the beginning of names ends in a star."""
    found = [right for right in rights_of_service(OF, service) if (right.kind, right.operation) == (kind, operation)]
    return {f"{right.name}*" if right.prefixed else right.name for right in found}


def test_a_service_writes_its_topics_and_copies_and_reads_what_its_table_hears() -> None:
    """And what begins with its name and a dot, which no other name does."""
    assert named("fulfilment.stock", Kind.TOPIC, Operation.WRITE) == {
        "retail.fulfilment.stock.v1",
        "retail.fulfilment.stock-by-order.v1",
        "retail.fulfilment.stock-by-sku.v1",
        "private.fulfilment.stock.*",
    }
    assert named("fulfilment.stock", Kind.TOPIC, Operation.READ) == {
        "retail.fulfilment.receipts.v1",
        "retail.fulfilment.stock.v1",  # its state is the fold of its own events
        "retail.ordering.orders-by-zone.v1",
        "private.fulfilment.stock.*",
    }
    assert named("fulfilment.stock", Kind.GROUP, Operation.READ) == {"fulfilment.stock", "fulfilment.stock.*"}
    assert named("fulfilment.stock", Kind.TRANSACTIONAL_ID, Operation.WRITE) == {"fulfilment.stock.*"}


def test_the_gateway_may_follow_the_answers_and_ask_for_orders() -> None:
    assert ORDERS in named("gateway.door", Kind.TOPIC, Operation.READ)
    assert named("gateway.door", Kind.TOPIC, Operation.WRITE) == {"retail.gateway.order-requests.v1", "private.gateway.door.*"}


def test_every_topic_group_and_transactional_id_is_somebodys_and_one_service_writes_each() -> None:
    """What the runtime uses, it may use."""
    all_rights = rights(OF)
    for topic in OF.topics:
        writers = {right.user for right in all_rights if right.operation is Operation.WRITE and right.covers(Kind.TOPIC, topic.name)}
        assert writers - {RELEASER} == {topic.writer}
        assert (RELEASER in writers) == (topic.purpose == "releases")
    for group in OF.groups:
        may = {right for right in all_rights if right.operation is Operation.READ and right.covers(Kind.GROUP, group.name)}
        assert {right.user for right in may} == {group.service}
        for topic_name in group.topics:
            assert any(r.user == group.service and r.operation is Operation.READ and r.covers(Kind.TOPIC, topic_name) for r in all_rights)
    for name in OF.transactional_ids:
        assert len({right.user for right in all_rights if right.covers(Kind.TRANSACTIONAL_ID, f"{name}.0")}) == 1


def test_nobody_but_the_operator_may_do_anything_to_the_cluster_and_no_beginning_of_a_name_lacks_its_dot() -> None:
    assert {right.user for right in rights(OF) if right.kind is Kind.CLUSTER} == {OPERATOR}
    assert [right for right in rights(OF) if right.prefixed and not right.name.endswith(".")] == []


@pytest.mark.parametrize(
    ("right", "too_much"),
    [
        (ROGUE, True),
        (Right("rogue", Kind.TOPIC, "retail.", Operation.ALL, prefixed=True), True),
        (Right("rogue", Kind.TOPIC, "*", Operation.DELETE), True),
        (Right("rogue", Kind.GROUP, "ordering.", Operation.READ, prefixed=True), True),
        (Right("rogue", Kind.TRANSACTIONAL_ID, "ordering.orders.decide.0", Operation.WRITE), True),
        (Right("rogue", Kind.CLUSTER, "kafka-cluster", Operation.ALTER), True),
        (Right("ordering.orders", Kind.TOPIC, "somebody.else", Operation.READ), True),
        (Right("ordering.orders", Kind.TOPIC, ORDERS, Operation.WRITE, allows=False), True),
        (Right("ordering.gone", Kind.TOPIC, "private.ordering.gone.", Operation.WRITE, prefixed=True), True),
        (Right("insight.spending", Kind.TOPIC, ORDERS, Operation.READ), False),
        (Right("insight.spending", Kind.TOPIC, "private.insight.spending.", Operation.WRITE, prefixed=True), False),
        (Right("insight.spending", Kind.GROUP, "insight.spending.", Operation.READ, prefixed=True), False),
        (Right(BROKER, Kind.TOPIC, "*", Operation.ALL), False),
    ],
    ids=str,
)
def test_what_nobody_declared_is_too_much_unless_it_is_a_neighbour_that_reads(right: Right, too_much: bool) -> None:
    assert (right in surplus(OF, {*rights(OF), right}, [*users(OF), right.user]).rights) is too_much


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    """A broker of our own: whoever else has rights on it would be found."""
    with scratch("access") as folder, Kafka(folder) as broker:
        yield broker


@pytest.mark.integration
def test_applying_twice_makes_everything_once_and_a_plan_shows_each_drift(kafka: Kafka) -> None:
    """Missing and superfluous users and rights, settings and partitions; pruning takes away what nobody declared, and nothing else."""
    settings = kafka.settings()
    before = topics.plan(shop, settings)
    assert {"+ user ordering.orders", f"+ topic {ORDERS} (delete)", f"+ ordering.orders may write topic {ORDERS}"} <= set(before.lines())
    assert topics.apply(shop, settings).fits
    assert topics.plan(shop, settings).lines() == []
    assert topics.apply(shop, settings).made == ()

    admin = KafkaAdmin(settings, BROKER)
    lost = Right("ordering.orders", Kind.TOPIC, ORDERS, Operation.WRITE)
    admin.revoke([lost])
    admin.drop_users([READER])
    admin.grant([ROGUE])
    admin.set_passwords({"ordering.gone": "secret"})
    drifted = topics.plan(shop, settings)
    assert not drifted.fits
    assert drifted.lines() == [
        f"+ user {READER}",
        f"+ ordering.orders may write topic {ORDERS}",
        "- user ordering.gone: nobody declares it",
        f"- rogue may write topic {ORDERS}: nobody declares it",
    ]
    assert not topics.apply(shop, settings).fits, "what is too much stays until somebody says otherwise"
    assert topics.plan(shop, settings).lines() == drifted.lines()[2:]
    assert topics.apply(shop, settings, prune=True).fits
    assert topics.plan(shop, settings).lines() == []
    assert "ordering.gone" not in admin.users()
    assert admin.rights() == rights(OF)


@pytest.mark.integration
def test_another_number_of_partitions_and_another_retention_are_drift(kafka: Kafka) -> None:
    settings = kafka.settings()
    topics.apply(shop, settings)
    plan = topics.plan(shop, settings.model_copy(update={"partitions": 6}))
    assert not plan.fits
    assert f"! {ORDERS}: has 4 partitions, should have 6" in plan.lines()
    specs = topics.specs(OF, settings.partitions)
    forgetful = [replace(spec, config={**spec.config, "retention.ms": "1"}) if spec.name == ORDERS else spec for spec in specs]
    plan = topics.compare(forgetful, KafkaAdmin(settings).describe(), settings.partitions)
    assert plan.lines() == [f"! {ORDERS}: retention.ms is -1, should be 1"]


def test_passwords_are_made_once_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert make_passwords(folder, ["a", "b"]) == ("a", "b")
    first = password_of(folder, "a")
    assert make_passwords(folder, ["a", "c"]) == ("c",)
    assert password_of(folder, "a") == first != password_of(folder, "b")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700

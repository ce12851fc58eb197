"""What is derived from the tables and contracts of the shop."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import resolve_context
from backbone.declare import Context, Decider, Platform, Service
from backbone.errors import ContractError
from backbone.loops.decide import Decide
from backbone.loops.project import Project
from backbone.settings import Settings
from backbone.topology import Joins, Kept, contract_topics, topology
from contexts.ordering.context import ordering
from contexts.payments.context import payments
from shop import shop

OF = topology(shop, "retail")
PARTITIONS = 2


def test_a_decider_with_a_deadline_has_state_and_ticks() -> None:
    purposes = [topic.purpose for topic in OF.of_service("ordering.orders")]
    assert purposes == ["events", "copy", "copy", "state", "ticks", "releases", "quarantine"]


def test_a_service_with_effects_has_commands_and_outcomes() -> None:
    purposes = [topic.purpose for topic in OF.of_service("payments.payments")]
    assert purposes == ["events", "copy", "state", "commands", "outcomes", "releases", "quarantine"]


def test_an_intake_with_a_source_has_a_cursor_and_a_quarantine() -> None:
    assert [topic.purpose for topic in OF.of_service("fulfilment.receiving")] == ["events", "cursor", "quarantine"]


def test_a_service_that_only_shows_has_nothing_but_a_quarantine() -> None:
    assert [topic.purpose for topic in OF.of_service("payments.risk")] == ["quarantine"]


def test_the_narrative_is_kept_for_ever_and_the_rest_is_compacted() -> None:
    for topic in OF.topics:
        for_ever = not topic.private or topic.purpose in ("quarantine", "repartition", "releases")
        assert (topic.kept is Kept.FOR_EVER) == for_ever, topic


def test_every_topic_has_one_writer_and_stands_once() -> None:
    names = [topic.name for topic in OF.topics]
    assert len(names) == len(set(names))
    assert {topic.writer for topic in OF.topics} == set(OF.services)


def test_a_copy_names_its_primary_and_holds_no_other_event() -> None:
    copy = OF.topic("retail.fulfilment.stock-by-order.v1")
    primary = OF.topic(copy.copy_of)
    assert primary.name == "retail.fulfilment.stock.v1"
    assert set(copy.holds) < set(primary.holds)


def test_an_event_says_who_says_it_and_who_hears_it() -> None:
    (event,) = [event for event in OF.events if event.name == "retail.ordering.v1.OrderValidated"]
    assert event.said_by == "ordering.orders"
    assert {"payments.payments", "fulfilment.stock", "gateway.door"} <= set(event.heard_by)
    assert event.topics[0] == "retail.ordering.orders.v1"


def test_commands_are_private_to_their_service() -> None:
    assert {command.service for command in OF.commands} == {"payments.payments"}
    assert {command.topic for command in OF.commands} == {"private.payments.payments.commands"}


def test_a_query_says_who_answers_and_who_asks() -> None:
    (query,) = OF.queries
    assert query.rpc == "/retail.payments.views.v1.RiskViewService/GetCustomerHistory"
    assert (query.answered_by, query.asked_by) == ("payments.risk", ("payments.payments",))


def test_questions_stay_inside_a_context_and_events_cross_it() -> None:
    for edge in OF.edges:
        source, target = edge.source.split(".")[0], edge.target.split(".")[0]
        assert edge.joins is not Joins.QUERY or source == target, edge
    crossing = {(edge.source, edge.target) for edge in OF.edges if edge.joins is Joins.EVENT}
    assert ("ordering.orders", "payments.payments") in crossing
    assert ("fulfilment.stock", "ordering.orders") in crossing


def test_work_outside_and_facts_from_outside_are_edges() -> None:
    outside = {(edge.source, edge.target) for edge in OF.edges if edge.joins in (Joins.EFFECT, Joins.INTAKE)}
    assert ("payments.payments", "contexts.payments.payments.effects.connect") in outside
    assert ("contexts.ordering.catalogue.source.connect", "ordering.catalogue") in outside


def test_the_gateway_calls_no_context() -> None:
    calls = [edge for edge in OF.edges if edge.source.startswith("gateway.") and edge.joins is Joins.QUERY]
    assert calls == []


def test_groups_and_transactional_ids_are_those_the_loops_take() -> None:
    """Run every decider and view once, in memory, on the topics of the topology alone."""
    log = MemoryLog()
    for topic in OF.topics:
        log.create_topic(topic.name, PARTITIONS)
    settings = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)})
    for service in (service for context in shop.contexts for service in resolve_context(context)):
        if service.decider is not None:
            decide = Decide(service, log, MemoryRows(), settings)
            decide.step(0.0)
            decide.close()
        for view in service.views:
            project = Project(service, view, log, MemoryRows(), settings)
            project.step(0.0)
            project.close()
    edges = (".effects", ".repartition", ".intake")
    assert set(log.groups) == {group.name for group in OF.groups if not group.name.endswith(edges)}
    assert set(log.epochs) == {f"{name}.0" for name in OF.transactional_ids if not name.endswith(edges)}


def test_a_group_reads_exactly_what_its_service_hears() -> None:
    groups = {group.name: group.topics for group in OF.groups}
    assert groups["payments.payments"] == (
        "private.payments.payments.outcomes",
        "private.payments.payments.releases",
        "retail.ordering.orders.v1",
    )
    assert "private.ordering.orders.ticks" in groups["ordering.orders"]
    assert groups["ordering.orders.price.v1"] == ("retail.ordering.prices.v1",)


def test_a_context_alone_has_the_digest_that_the_platform_gives_it() -> None:
    """So a process that holds one context can compare itself with the whole."""
    assert topology(ordering).digest == OF.contexts["ordering"]
    assert topology(payments).digest == OF.contexts["payments"]


def test_the_digest_is_the_same_in_another_process() -> None:
    """No set order, no addresses of objects."""
    code = "from shop import shop; from backbone.topology import topology; print(topology(shop, 'retail').digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == OF.digest


def test_the_digest_changes_with_the_declaration() -> None:
    fewer = Platform(*(context for context in shop.contexts if context.name != "gateway"))
    assert topology(fewer).digest != OF.digest


def test_every_decodable_topic_has_a_contract_and_the_runtimes_own_have_none() -> None:
    assert set(contract_topics(shop)) == {topic.name for topic in OF.topics if topic.purpose in ("events", "copy", "commands", "outcomes")}


def test_the_json_is_complete_and_carries_the_digest() -> None:
    found = json.loads(OF.to_json())
    assert found["digest"] == OF.digest
    assert len(found["topics"]) == len(OF.topics)
    assert {"events", "commands", "queries", "edges", "groups", "transactional_ids", "services"} <= set(found)


def test_a_topic_whose_writer_is_no_service_is_refused() -> None:
    with pytest.raises(ContractError, match=r"gateway\.door, which is no service"):
        topology(Platform(*(context for context in shop.contexts if context.name != "gateway")), "retail")


def test_a_table_that_lies_has_no_topology() -> None:
    orders = next(service for service in ordering.services if service.name == "orders")
    pieces = [piece for piece in orders.pieces if isinstance(piece, Decider)]
    with pytest.raises(ContractError):
        topology(Context("ordering", Service("orders", *pieces)))


def test_edges_are_listed_in_a_stable_order() -> None:
    assert list(OF.edges) == sorted(OF.edges)
    assert all(list(edge.what) == sorted(edge.what) for edge in OF.edges)

"""The policies of the network let through what tables declare, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from backbone.declare import Outside, Platform
from backbone.errors import DeclarationError
from backbone.operations.k8s.edges import ANYBODY, DNS, network_edges
from backbone.operations.k8s.render import render
from backbone.topology import Edge, Joins, topology
from shop import shop
from tests.deploy.reach import Pod, pods_of, reached
from tests.deploy.rendered import everything, of_kind

NAMES = Pod("kube-system", "kube-dns", {"k8s-app": "kube-dns"}, (53,))
STRANGER = Pod("elsewhere", "stranger", {"app.kubernetes.io/name": "gateway"}, (8080,))
NEVER_OPEN = 9999
OURS = ("ordering", "payments", "fulfilment", "gateway")

# Written by hand, once: what an operator of the shop would draw on a board.
DRAWN = {
    *((f"{name}/{name}", "kafka/kafka", 9092) for name in OURS),
    *((f"{name}/{name}", f"{name}/valkey", 6379) for name in OURS),
    *((f"{name}/{name}", str(DNS), 53) for name in OURS),
    *((f"operations/{name}", target, port) for name in ("topics", "tools") for target, port in (("kafka/kafka", 9092), (str(DNS), 53))),
    ("kafka/kafka", str(DNS), 53),
    ("payments/payments", "payments/payments", 50051),
    ("payments/payments", "outside/provider", 8080),
}
FROM_ANYWHERE = {("gateway/gateway", 50051), ("gateway/gateway", 8080)}


def expected() -> set[tuple[str, str, int]]:
    unjudged = (str(NAMES), str(STRANGER))
    return DRAWN | {(source, target, port) for source in unjudged for target, port in FROM_ANYWHERE}


def reached_in(where: str, *, more: tuple[dict[str, object], ...] = ()) -> set[tuple[str, str, int]]:
    manifests = everything(where)
    policies = [*of_kind(manifests, "NetworkPolicy"), *more]
    found = reached([*pods_of(manifests), NAMES, STRANGER], policies, (NEVER_OPEN,))
    theirs = (str(NAMES), str(STRANGER))
    return {edge for edge in found if not (edge[0] in theirs and edge[1] in theirs)}


@pytest.mark.parametrize("where", ["generated", "dev", "tilt"])
def test_exactly_the_drawn_connections_are_possible(where: str) -> None:
    assert reached_in(where) == expected()


def test_in_production_the_same_but_for_kafka_which_its_operator_runs() -> None:
    without_kafka = {edge for edge in expected() if "kafka/kafka" not in edge}
    assert reached_in("prod") == without_kafka


def test_the_declared_edges_are_the_drawn_ones() -> None:
    declared = {(str(edge.source), str(edge.target), edge.port) for edge in network_edges(shop, topology(shop)) if edge.source != ANYBODY}
    open_to_all = {(str(edge.target), edge.port) for edge in network_edges(shop, topology(shop)) if edge.source == ANYBODY}
    assert declared == DRAWN
    assert open_to_all == FROM_ANYWHERE


def test_a_policy_that_opens_a_namespace_is_seen() -> None:
    careless = {
        "metadata": {"namespace": "payments", "name": "careless"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
    }
    assert (str(STRANGER), "payments/valkey", 6379) in reached_in("generated", more=(careless,)) - expected()


def test_an_effect_that_reaches_something_undeclared_fails_the_render() -> None:
    contexts = [context for context in shop.contexts if context is not shop.gateway]
    forgotten = [dataclasses.replace(one, used_by=()) if one.name == "provider" else one for one in shop.outside]
    with pytest.raises(DeclarationError, match=r"payments\.payments opens .*used_by=\(\"payments\.payments\",\)"):
        render(Platform(*contexts, gateway=shop.gateway, outside=forgotten), "shop")


def test_an_intake_that_reaches_something_undeclared_fails_the_render() -> None:
    contexts = [context for context in shop.contexts if context is not shop.gateway]
    with pytest.raises(DeclarationError, match=r"ordering\.catalogue opens"):
        render(Platform(*contexts, gateway=shop.gateway, outside=[one for one in shop.outside if one.name != "catalogue"]), "shop")


def test_a_declared_connection_that_no_table_needs_fails_the_render() -> None:
    contexts = [context for context in shop.contexts if context is not shop.gateway]
    needless = Outside("warehouse", module="outside.warehouse", used_by=("payments.risk",))
    with pytest.raises(DeclarationError, match=r"warehouse.*payments\.risk, which has no effect"):
        render(Platform(*contexts, gateway=shop.gateway, outside=[*shop.outside, needless]), "shop")


def test_a_question_to_another_context_fails_the_render() -> None:
    across = Edge("ordering.orders", "payments.risk", Joins.QUERY, ("/x/y",))
    of = topology(shop)
    with pytest.raises(DeclarationError, match="contexts meet in events only"):
        network_edges(shop, dataclasses.replace(of, edges=(*of.edges, across)))

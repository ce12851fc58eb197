"""NetworkPolicies that allow exactly the given edges: everything else is refused in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backbone.operations.k8s.edges import ANYBODY, DNS, NetworkEdge, Place
from backbone.operations.k8s.manifests import Manifest, labels, named, selected

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
DNS_LABELS = {"k8s-app": "kube-dns"}
BOTH = ("Ingress", "Egress")


def policies(edges: Sequence[NetworkEdge], system: str) -> tuple[Manifest, ...]:
    """One policy per namespace that refuses everything, and one per place that allows its edges."""
    places = sorted({place for edge in edges for place in (edge.source, edge.target)} - {ANYBODY, DNS})
    namespaces = sorted({place.namespace for place in places})
    return (*(_refusing(name, system) for name in namespaces), *(_allowing(place, edges, system) for place in places))


def _refusing(namespace: str, system: str) -> Manifest:
    place = Place(namespace, "default-deny")
    return named(
        "NetworkPolicy",
        "networking.k8s.io/v1",
        place,
        labels(place, system, "network-policy"),
        {"podSelector": {}, "policyTypes": list(BOTH)},
    )


def _allowing(place: Place, edges: Sequence[NetworkEdge], system: str) -> Manifest:
    ingress = [
        {**({"from": [peer(edge.source)]} if edge.source != ANYBODY else {}), "ports": _ports(edge)}
        for edge in edges
        if edge.target == place
    ]
    egress = [{"to": [peer(edge.target)], "ports": _ports(edge)} for edge in edges if edge.source == place]
    spec = {
        "podSelector": {"matchLabels": selected(place)},
        "policyTypes": list(BOTH),
        "ingress": ingress,
        "egress": egress,
    }
    return named("NetworkPolicy", "networking.k8s.io/v1", place, labels(place, system, "network-policy"), spec)


def peer(place: Place) -> Mapping[str, object]:
    """How a policy names the pods of a place."""
    marks = DNS_LABELS if place == DNS else selected(place)
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: place.namespace}}, "podSelector": {"matchLabels": marks}}


def _ports(edge: NetworkEdge) -> list[Manifest]:
    protocols: Iterable[str] = ("UDP", "TCP") if edge.target == DNS else ("TCP",)
    return [{"protocol": protocol, "port": edge.port} for protocol in protocols]

"""Who reaches whom in a cluster, by its NetworkPolicies: their semantics in sixty lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.rendered import WORKLOADS, Manifest, of_kind

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Pod:
    """Pods of one workload."""

    namespace: str
    name: str
    labels: Labels = field(hash=False)
    ports: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def pods_of(manifests: Sequence[Manifest]) -> list[Pod]:
    """One pod for every workload."""
    found = []
    for one in of_kind(manifests, *WORKLOADS):
        template = one["spec"]["template"]
        ports = [port["containerPort"] for box in template["spec"]["containers"] for port in box.get("ports", ())]
        labels = template["metadata"]["labels"]
        found.append(Pod(one["metadata"]["namespace"], labels["app.kubernetes.io/name"], labels, tuple(ports)))
    return found


def reached(pods: Iterable[Pod], policies: Sequence[Manifest], extra_ports: Iterable[int] = ()) -> set[tuple[str, str, int]]:
    """Every (source, target, port) that the policies let through, also between two pods of one workload.

    Args:
        pods: everybody in the cluster.
        extra_ports: tried on every target besides its own.
    """
    everybody = list(pods)
    return {
        (str(source), str(target), port)
        for source in everybody
        for target in everybody
        for port in {*target.ports, *extra_ports}
        if _lets(policies, "Egress", source, target, port) and _lets(policies, "Ingress", target, source, port)
    }


def _lets(policies: Sequence[Manifest], direction: str, own: Pod, peer: Pod, port: int) -> bool:
    """Whether the policies of `own` allow traffic with `peer` in a direction; who is selected by none allows all."""
    key, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    selecting = [
        one["spec"]
        for one in policies
        if one["metadata"]["namespace"] == own.namespace
        and direction in one["spec"]["policyTypes"]
        and _selects(one["spec"]["podSelector"], own.labels)
    ]
    if not selecting:
        return True
    rules = [rule for spec in selecting for rule in spec.get(key, ())]
    return any(_peer(rule.get(peers), own, peer) and _port(rule.get("ports"), port) for rule in rules)


def _peer(listed: Sequence[Mapping[str, Any]] | None, own: Pod, peer: Pod) -> bool:
    return not listed or any(_is_peer(one, own, peer) for one in listed)


def _is_peer(one: Mapping[str, Any], own: Pod, peer: Pod) -> bool:
    assert set(one) <= {"namespaceSelector", "podSelector"}, "addresses are not judged here"
    there = _selects(one["namespaceSelector"], _of_namespace(peer)) if "namespaceSelector" in one else peer.namespace == own.namespace
    return there and _selects(one.get("podSelector", {}), peer.labels)


def _of_namespace(pod: Pod) -> Labels:
    return {"kubernetes.io/metadata.name": pod.namespace}


def _port(listed: Sequence[Mapping[str, Any]] | None, port: int) -> bool:
    return not listed or any(one["port"] == port for one in listed if one.get("protocol", "TCP") == "TCP")


def _selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, "expressions are not judged here"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())

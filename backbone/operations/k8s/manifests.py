"""What every manifest has in common: names, labels, and what a container may do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import yaml

from backbone.operations.k8s.edges import Place

Manifest: TypeAlias = dict[str, Any]

HEADER = "# Written by `backbone k8s render`: change the declaration, not this file.\n"
USER = 10001
"""User and group of the platform's images, without a name and without rights."""
NAME_LABEL = "app.kubernetes.io/name"
COMPONENT_LABEL = "app.kubernetes.io/component"


def labels(place: Place, system: str, component: str) -> dict[str, str]:
    """The standard labels of everything at a place.

    Args:
        system: name of the whole platform.
        component: what it is: "context", "gateway", "rows", "log", "outside", "provisioning".
    """
    return {
        NAME_LABEL: place.name,
        "app.kubernetes.io/instance": f"{system}-{place.namespace}-{place.name}",
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": system,
        "app.kubernetes.io/managed-by": "kustomize",
    }


def selected(place: Place) -> dict[str, str]:
    """The labels by which pods of a place are found; they never change, or a rollout would lose its pods."""
    return {NAME_LABEL: place.name}


def named(kind: str, api: str, place: Place, marks: Mapping[str, str], spec: Mapping[str, Any] | None = None) -> Manifest:
    """A manifest with name, namespace and labels."""
    metadata: Manifest = {"name": place.name, "labels": dict(marks)}
    if kind != "Namespace":
        metadata["namespace"] = place.namespace
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **({"spec": dict(spec)} if spec is not None else {})}


def namespace(name: str, system: str) -> Manifest:
    """A namespace whose pods may do nothing that the `restricted` level forbids."""
    marks = {"app.kubernetes.io/part-of": system, "app.kubernetes.io/managed-by": "kustomize"}
    marks |= {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return named("Namespace", "v1", Place("", name), marks)


def container_rights() -> Manifest:
    """What a container may do: nothing but run, and write where a volume is mounted."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def pod_rights(user: int) -> Manifest:
    """As whom a pod runs: a user without a name, which owns the files of its volumes through its group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        # Only what is new gets its owner: changing that of a whole log would take longer than the pod's start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def resources(cpu: str, memory: str, most_cpu: str, most_memory: str) -> Manifest:
    """What a container is promised, and what it may take."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": most_cpu, "memory": most_memory}}


def claim(name: str, size: str) -> Manifest:
    """A volume of its own for each pod of a StatefulSet."""
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def digest_of(value: object) -> str:
    """Names a content: ten digits of its hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def as_yaml(manifests: Sequence[Manifest], header: str = HEADER) -> str:
    """Manifests as one file."""
    return header + "---\n".join(yaml.dump(one, Dumper=_Plain, sort_keys=False, width=140) for one in manifests)


class _Plain(yaml.SafeDumper):
    """Writes what a person reads: equal parts twice instead of pointing from one to the other, and several lines as lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)

"""The files of a platform's manifests: what each holds, and whether a folder holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from backbone.contract import resolve_context
from backbone.declare import Outside, Platform
from backbone.operations.k8s import workloads
from backbone.operations.k8s.edges import KAFKA, OUTSIDE, PROVISIONING, network_edges
from backbone.operations.k8s.manifests import HEADER, Manifest, as_yaml, namespace
from backbone.operations.k8s.policies import policies
from backbone.ownership import BROKER, CONTROLLER, rights, users
from backbone.passwords import new_password
from backbone.topology import Topology, topology

READING = {
    "kind": "(StatefulSet|Deployment|Job)",
    "labelSelector": "app.kubernetes.io/component in (context, gateway, provisioning, tools)",
}
"""Whoever speaks to Kafka: overlays address them by it."""

Files = dict[str, str]


def render(platform: Platform, system: str, package: str = "") -> Files:
    """Every generated file by its path.

    Args:
        system: name of the whole platform; its images and labels begin with it.
        package: root of the generated contracts, to check them too.

    Raises:
        DeclarationError: a table or contract lies, or a connection is needed that nothing declares.
    """
    of = topology(platform, package)
    edges = network_edges(platform, of)
    files: Files = {}
    for context in platform.contexts:
        files |= _context(platform, context.name, system)
    files |= _folder("network-policies", {"policies.yaml": as_yaml(policies(edges, system))})
    files |= _folder("operations", {
        "namespace.yaml": as_yaml([namespace(PROVISIONING.namespace, system)]),
        "topics.yaml": as_yaml([workloads.provisioning(system, of.digest)]),
        "tools.yaml": as_yaml([workloads.tools(system)]),
    })  # fmt: skip
    files |= _outside(platform, system) | _live(platform, system)
    return files | _valkeys(platform, system) | _valkey_users(platform) | _kafka(system) | _kafka_users(of, system)


def write(files: Mapping[str, str], folder: Path) -> list[str]:
    """Make a folder hold exactly these files; returns the paths that changed."""
    changed = stale(files, folder)
    for path in changed:
        if path not in files:
            (folder / path).unlink()
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(files[path], encoding="utf-8")
    return changed


def stale(files: Mapping[str, str], folder: Path) -> list[str]:
    """Paths of what is missing, different or too much in a folder."""
    there = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    return sorted(path for path in {*files, *there} if files.get(path) != there.get(path))


def _context(platform: Platform, context: str, system: str) -> Files:
    services = resolve_context(platform.context(context))
    names = {service.name for service in services}
    answers = any(service.rpcs for service in services)
    outside = [one for one in platform.outside if names & set(one.used_by)]
    settings = workloads.settings_of(platform, context, outside, answers=answers)
    # A ConfigMap is named by its content, so that its pods follow a change of it.
    generator = {"configMapGenerator": [{"name": "settings", "namespace": context, "envs": ["settings.env"]}]}
    return _folder(
        f"contexts/{context}",
        {
            "namespace.yaml": as_yaml([namespace(context, system)]),
            "process.yaml": as_yaml(workloads.process(platform, context, system, outside, answers=answers)),
        },
        generator,
    ) | {f"contexts/{context}/settings.env": HEADER + "".join(f"{name}={value}\n" for name, value in settings.items())}


def _valkeys(platform: Platform, system: str) -> Files:
    from backbone.local.valkey import SETTINGS

    names = [context.name for context in platform.contexts]
    return _folder("valkey", {f"{name}.yaml": as_yaml(workloads.valkey(name, system, SETTINGS)) for name in names})


def _valkey_users(platform: Platform) -> Files:
    from backbone.local.valkey import SETTINGS

    files: Files = {}
    for context in platform.contexts:
        server, process = workloads.valkey_user(context.name, SETTINGS)
        files |= {f"{context.name}-server.yaml": as_yaml([server]), f"{context.name}-process.yaml": as_yaml([process])}
    more = {"patches": [{"path": path} for path in files]}
    return _folder("valkey-users", {}, more, component=True) | {f"valkey-users/{path}": text for path, text in files.items()}


def _kafka(system: str) -> Files:
    from backbone.local.kafka import SETTINGS, VERSION

    told = {"name": "KAFKA_CLUSTER_ID", "value": workloads.cluster_id(system)}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "every process"},
        "spec": {"template": {"spec": {"containers": [{"name": workloads.PROCESS, "env": [told]}]}}},
    }
    more: Manifest = {
        "configMapGenerator": [{"name": "broker", "namespace": KAFKA.namespace, "files": ["server.properties"]}],
        "patches": [{"target": READING, "patch": yaml.safe_dump(patch, sort_keys=False)}],
    }
    manifests = {
        "namespace.yaml": as_yaml([namespace(KAFKA.namespace, system)]),
        "broker.yaml": as_yaml(workloads.kafka(system, VERSION)),
    }
    return _folder("kafka", manifests, more, component=True) | {"kafka/server.properties": HEADER + workloads.broker_settings(SETTINGS)}


def _kafka_users(of: Topology, system: str) -> Files:
    every = rights(of)
    manifests = [workloads.kafka_user(user, [right for right in every if right.user == user], system) for user in users(of)]
    return _folder("kafka-users", {"users.yaml": as_yaml(manifests)})


def secrets(platform: Platform) -> str:
    """A new password for every user of Kafka, as a secret in each namespace with those that are needed there."""
    of = topology(platform)
    words = {user: new_password() for user in (BROKER, CONTROLLER, *users(of))}
    needed: dict[str, list[str]] = {KAFKA.namespace: list(words), PROVISIONING.namespace: [BROKER, *users(of)]}
    for service in of.services:
        needed.setdefault(service.partition(".")[0], []).append(service)
    return as_yaml([workloads.secret_of_users(namespace, of_it, words.__getitem__) for namespace, of_it in needed.items()])


def _live(platform: Platform, system: str) -> Files:
    patches = {f"{context.name}.yaml": as_yaml([workloads.live(context.name, system)]) for context in platform.contexts}
    more = {"patches": [{"path": path} for path in patches]}
    return _folder("live", {}, more, component=True) | {f"live/{path}": text for path, text in patches.items()}


def _outside(platform: Platform, system: str) -> Files:
    servers: Sequence[Outside] = [one for one in platform.outside if one.module]
    manifests = {f"{one.name}.yaml": as_yaml(workloads.outside_server(one, system)) for one in servers}
    return _folder("outside", {"namespace.yaml": as_yaml([namespace(OUTSIDE, system)]), **manifests})


def _folder(name: str, manifests: Mapping[str, str], more: Mapping[str, Any] | None = None, *, component: bool = False) -> Files:
    kind = ("kustomize.config.k8s.io/v1alpha1", "Component") if component else ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    resources = {"resources": list(manifests)} if manifests else {}
    whole = {"apiVersion": kind[0], "kind": kind[1], **resources, **(more or {})}
    return {f"{name}/kustomization.yaml": as_yaml([whole]), **{f"{name}/{path}": text for path, text in manifests.items()}}

"""What a cluster would be given: the generated manifests as they lie here, and each overlay as Kustomize makes it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
GENERATED = K8S / "generated"
OVERLAYS = ("dev", "prod", "tilt")
PATCHES = ("live", "valkey-users")
"""Generated folders that hold no manifests of their own."""
WORKLOADS = ("Deployment", "Job", "StatefulSet")

Manifest: TypeAlias = dict[str, Any]


@cache
def generated() -> tuple[Manifest, ...]:
    """Every generated manifest, before any overlay."""
    files = sorted(path for path in GENERATED.rglob("*.yaml") if path.name != "kustomization.yaml" and path.parent.name not in PATCHES)
    return tuple(one for path in files for one in yaml.safe_load_all(path.read_text()))


@cache
def overlay(name: str) -> tuple[Manifest, ...]:
    """Every manifest of an overlay; a stated skip where nothing can make it."""
    return kustomized(K8S / "overlays" / name)


def kustomized(folder: Path) -> tuple[Manifest, ...]:
    """What Kustomize makes of a folder; a stated skip where there is no Kustomize."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on the PATH: overlays are not rendered, only the generated manifests are checked")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def everything(name: str) -> tuple[Manifest, ...]:
    """An overlay's manifests, or the generated ones for "generated"."""
    return generated() if name == "generated" else overlay(name)


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [one for one in manifests if one["kind"] in kinds]


def full_name(one: Manifest) -> str:
    """kind namespace/name, for messages."""
    return f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"


def pod_of(one: Manifest) -> Manifest:
    """The specification of a workload's pods."""
    pod: Manifest = one["spec"]["template"]["spec"]
    return pod


def containers(one: Manifest) -> Iterator[Manifest]:
    """All containers of a workload's pods, those that come first too."""
    pod = pod_of(one)
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def component(one: Manifest) -> str:
    """What a workload is, by its label."""
    return str(one["metadata"]["labels"]["app.kubernetes.io/component"])

"""Images by digest: what an overlay runs is what a build made, whatever becomes of its tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from backbone.errors import SettingsError
from backbone.operations.k8s.edges import PROVISIONING
from backbone.operations.k8s.manifests import Manifest, as_yaml, digest_of

HEADER = "# Written by `backbone k8s pin` after a build.\n"
REFERENCE = re.compile(r"(?P<name>[\w.:/-]+)@(?P<digest>sha256:[0-9a-f]{64})")
IN_PRODUCTION_BY_OTHERS = "docker.io/apache/kafka"
"""An operator brings its own image of the log."""


def manifests_of(folder: Path) -> list[Manifest]:
    """Every manifest of a folder of generated files."""
    files = sorted(path for path in folder.rglob("*.yaml") if path.name != "kustomization.yaml")
    return [one for path in files for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def images_of(manifest: Manifest) -> set[str]:
    """Names, without tags, of the images a manifest runs."""
    pod: Mapping[str, Any] = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return {one["image"].rpartition(":")[0] for kind in ("initContainers", "containers") for one in pod.get(kind, ()) if "image" in one}


def pinned(references: Mapping[str, str], folder: Path) -> str:
    """The component that gives every image its place and digest.

    The job that makes the topics gets a name of its own for each image: a job cannot be changed, and the new one has to run.

    Args:
        references: registry/name@sha256:... by the name a manifest uses.
        folder: the generated manifests.

    Raises:
        SettingsError: an image is missing, unknown, or named without a digest.
    """
    manifests = manifests_of(folder)
    used = {name for one in manifests for name in images_of(one)} - {IN_PRODUCTION_BY_OTHERS}
    if missing := sorted(used - set(references)):
        raise SettingsError(f"no digest for {', '.join(missing)}: give one NAME=REGISTRY/NAME@sha256:... for each")
    if unknown := sorted(set(references) - used):
        raise SettingsError(f"no manifest uses {', '.join(unknown)}; they use {', '.join(sorted(used))}")
    images = []
    for name, reference in sorted(references.items()):
        found = REFERENCE.fullmatch(reference)
        if found is None:
            raise SettingsError(f"{name}={reference} is not REGISTRY/NAME@sha256:<64 digits>: a tag may be moved, a digest cannot")
        images.append({"name": name, "newName": found["name"], "digest": found["digest"]})
    (job,) = (one for one in manifests if one["kind"] == "Job")
    name = f"{PROVISIONING.name}-{digest_of([job['spec'], images])}"
    rename = [{"op": "replace", "path": "/metadata/name", "value": name}]
    whole = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": images,
        "patches": [
            {"target": {"kind": "Job"}, "options": {"allowNameChange": True}, "patch": yaml.safe_dump(rename, sort_keys=False)},
        ],
    }
    return as_yaml([whole], HEADER)

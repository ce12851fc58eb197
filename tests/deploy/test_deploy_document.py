"""What docs/deploy.md tells an operator to do can be done with what lies here."""

from __future__ import annotations

import re

from backbone.operations.k8s.workloads import USERS
from tests.deploy.dockerfile import Dockerfile
from tests.deploy.rendered import ROOT, WORKLOADS, containers, of_kind, overlay, pod_of
from tests.docs.blocks import blocks

DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()
SHELL = "\n".join(block.text for block in blocks(DOCUMENT) if block.language == "sh")


def quantity(text: str) -> float:
    """Cores or bytes."""
    units = {"m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1.0)


def test_it_builds_every_image_of_ours_and_loads_it() -> None:
    every = {box["image"] for one in of_kind(overlay("dev"), *WORKLOADS) for box in containers(one)}
    used = {image for image in every if image.startswith("shop-")}
    ours, servers = (set(names.split()) for names in re.findall(r"kind load docker-image (.*)", SHELL))
    assert (ours, servers) == (used, every - used)
    lists = [names.split() for names in re.findall(r"for \w+ in ([\w ]+);", SHELL)]
    assert {f"shop-{name}:dev" for names in lists for name in names} == used
    targets = Dockerfile((ROOT / "deploy" / "Dockerfile").read_text()).stages
    assert {*lists[1], "context"} <= set(targets)


def test_what_it_applies_and_names_exists() -> None:
    assert [path for path in re.findall(r"kubectl apply -k ([\w/]+)", DOCUMENT) if not (ROOT / path).is_dir()] == []
    manifests = overlay("dev")
    there = {(one["metadata"].get("namespace"), one["kind"].lower(), one["metadata"]["name"]) for one in manifests}
    named = re.findall(r"kubectl -n (\w+) [^\n]*?\b(statefulset|deployment|service)/(\w+)", SHELL)
    assert len(named) >= 6
    assert set(named) <= there
    secrets = {
        volume["secret"]["secretName"] for one in of_kind(manifests, *WORKLOADS) for volume in pod_of(one)["volumes"] if "secret" in volume
    }
    assert {*re.findall(r"create secret generic ([\w-]+)", SHELL), USERS} == secrets
    assert "backbone k8s secrets | kubectl create -f -" in SHELL


def test_development_fits_two_cores_and_six_gibibytes_and_is_as_large_as_it_says() -> None:
    cores = memory = 0.0
    for one in of_kind(overlay("dev"), *WORKLOADS):
        for box in pod_of(one)["containers"]:
            cores += one["spec"].get("replicas", 1) * quantity(box["resources"]["requests"]["cpu"])
            memory += one["spec"].get("replicas", 1) * quantity(box["resources"]["requests"]["memory"])
    assert cores <= 2
    assert memory <= 6 * 2**30
    assert f"All of `dev` requests {cores:.1f} cores and {memory / 2**30:.1f} GiB." in DOCUMENT

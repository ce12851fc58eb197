"""The Tiltfile, executed: what it builds is used, what it names exists, what it offers works."""

from __future__ import annotations

import importlib.util
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import starlark

from backbone.cli import main
from shop import shop
from tests.deploy.dockerfile import Dockerfile, sent
from tests.deploy.rendered import ROOT, WORKLOADS, Manifest, containers, generated, of_kind, overlay
from tests.deploy.tilt import Run, run

TILTFILE = ROOT / "Tiltfile"
DOCKERFILE = Dockerfile((ROOT / "deploy" / "Dockerfile").read_text())
CONTEXTS = [context.name for context in shop.contexts]
KUBECTL = {"apply", "create", "delete", "exec", "get", "scale"}


def manifests() -> tuple[Manifest, ...]:
    """What the Tiltfile's `kustomize` gives; where there is no Kustomize, what it is made from, which has the same workloads."""
    return overlay("tilt") if shutil.which("kubectl") else generated()


@cache
def tilt(*arguments: str) -> Run:
    return run(TILTFILE, manifests(), arguments)


def resources() -> dict[str, dict[str, Any]]:
    """Every resource by its name on Tilt's page."""
    return {
        one.get("new_name") or one.get("workload") or one["name"]: one
        for word in ("k8s_resource", "local_resource")
        for one in tilt().of(word)
    }


def commands() -> list[list[str]]:
    """Every command of a local resource, as words; of a shell's line, each part of it."""
    found: list[list[str]] = []
    for one in tilt().of("local_resource"):
        if isinstance(one["cmd"], str):
            found += [part.split() for part in one["cmd"].replace("||", "|").split("|")]
        else:
            found.append(list(one["cmd"]))
    return found


def test_it_runs_the_overlay_that_is_for_it() -> None:
    assert tilt().one("kustomize")["path"] == "deploy/k8s/overlays/tilt"
    assert len(tilt().of("k8s_yaml")) == 1


def test_every_image_it_builds_is_used_and_every_image_of_ours_is_built() -> None:
    built = {one["ref"] for one in tilt().of("docker_build")}
    used = {box["image"].rpartition(":")[0] for one in of_kind(manifests(), *WORKLOADS) for box in containers(one)}
    assert built == {name for name in used if name.startswith("shop-")}


def test_every_image_gets_what_its_build_reads_and_nothing_that_is_not_sent() -> None:
    everything = sent(ROOT)
    for one in tilt().of("docker_build"):
        reads = DOCKERFILE.sent(one["target"], one["build_args"])
        only = set(one["only"])
        assert all(any(path == given or path.startswith(f"{given}/") for given in only) for path in reads), one["ref"]
        for given in only:
            assert any(path == given or path.startswith(f"{given}/") for path in everything), f"{one['ref']}: {given} is not sent"


def test_an_image_of_a_context_is_not_built_anew_for_another_context() -> None:
    for one in tilt().of("docker_build"):
        if one["target"] == "context":
            name = one["build_args"]["CONTEXT"]
            others = [
                path for path in one["only"] if path.startswith("contexts/") and path not in (f"contexts/{name}", "contexts/__init__.py")
            ]
            assert others == []
            assert "contexts" not in one["only"]


def test_changed_code_arrives_where_the_image_has_it_and_starts_again() -> None:
    updated = {one["ref"]: one["live_update"] for one in tilt().of("docker_build") if one["live_update"]}
    assert set(updated) == {f"shop-{name}" for name in CONTEXTS}
    for steps in updated.values():
        assert [step["word"] for step in steps] == ["fall_back_on", "sync", "sync", "run"]
        for step in steps[1:3]:
            assert (ROOT / step["local_path"]).is_dir()
            assert step["remote_path"] == f"/srv/{step['local_path']}"
        assert steps[3]["cmd"] == "kill -HUP 1"


def test_a_process_runs_from_the_volume_where_changed_code_arrives() -> None:
    running = [one for one in of_kind(overlay("tilt"), "StatefulSet") if one["metadata"]["name"] in CONTEXTS]
    for one in running:
        (box,) = one["spec"]["template"]["spec"]["containers"]
        assert box["command"] == ["python", "-m", "backbone.local.live"]
        assert "/srv" in {mount["mountPath"] for mount in box["volumeMounts"]}


def test_every_path_it_names_exists() -> None:
    run_ = tilt()
    paths = [run_.one("kustomize")["path"], *(one["dockerfile"] for one in run_.of("docker_build"))]
    paths += [path for one in run_.of("docker_build") for path in one["only"]]
    paths += [
        path for one in run_.of("docker_build") for step in one["live_update"] if step["word"] == "fall_back_on" for path in step["files"]
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_workload_is_a_resource_and_no_two_share_a_name() -> None:
    named = [one["name"] for one in tilt().of("resource_name")]
    assert len(set(named)) == len(named) == len(of_kind(manifests(), *WORKLOADS))
    assert set(named) == {one["workload"] for one in tilt().of("k8s_resource") if "workload" in one}


def test_every_resource_has_a_label_and_every_object_belongs_to_one() -> None:
    assert [name for name, one in resources().items() if not one.get("labels")] == []
    for name in CONTEXTS:
        assert resources()[name]["labels"] == resources()[f"{name}-valkey"]["labels"] == [name]
    grouped = set(resources()["cluster"]["objects"])
    # Tilt itself puts a Service with the pods it selects.
    alone = [one for one in manifests() if one["kind"] not in (*WORKLOADS, "Service")]
    expected = set()
    for one in alone:
        namespace = one["metadata"].get("namespace")
        expected.add(":".join([one["metadata"]["name"], one["kind"].lower(), *([namespace] if namespace else [])]))
    assert grouped == expected


def test_what_a_resource_waits_for_exists_and_never_waits_for_it() -> None:
    waits = {name: list(one.get("resource_deps", ())) for name, one in resources().items()}
    assert {dep for deps in waits.values() for dep in deps} <= set(waits)
    done: set[str] = set()
    while ready := {name for name, deps in waits.items() if name not in done and set(deps) <= done}:
        done |= ready
    assert done == set(waits)
    assert {"topics", "secrets"} <= set(waits["gateway"])


def test_no_two_ports_are_forwarded_from_one_and_all_are_open() -> None:
    open_ports = {
        one["name"]: {port["containerPort"] for box in pod["spec"]["template"]["spec"]["containers"] for port in box.get("ports", ())}
        for one, pod in zip(tilt().of("resource_name"), of_kind(manifests(), *WORKLOADS), strict=True)
    }
    local = []
    for one in tilt().of("k8s_resource"):
        for forward in one.get("port_forwards", ()):
            local.append(forward["local_port"])
            assert forward["container_port"] in open_ports[one["workload"]], one["workload"]
    assert len(set(local)) == len(local)


def test_every_button_runs_a_command_that_exists() -> None:
    buttons = [one for one in tilt().of("local_resource") if one.get("trigger_mode") == "manual"]
    assert {one["name"] for one in buttons} == {
        "place-an-order",
        "story-of-the-last-order",
        "stop-payments",
        "start-payments",
        "kill-a-decider",
    }
    assert all(one["auto_init"] is False for one in buttons)
    for words in commands():
        check(words)


def check(words: list[str]) -> None:
    """A command names programs, modules, subcommands and workloads that exist."""
    if words == ["kubectl", "create", "-f", "-"]:
        return
    if words[0] == "kubectl":
        namespace = words[words.index("-n") + 1]
        assert words[3] in KUBECTL
        at = f"{namespace}/"
        there = {
            f"{one['metadata']['namespace']}/{one['kind'].lower()}/{one['metadata']['name']}" for one in of_kind(manifests(), *WORKLOADS)
        }
        for word in words:
            if word.startswith(("deployment/", "statefulset/")):
                assert at + word in there, word
        if words[4:5] == ["pod"]:
            assert f"{at}statefulset/{words[5].rpartition('-')[0]}" in there
        if "--" in words:
            check(words[words.index("--") + 1 :])
        return
    if Path(words[0]).name == "python":
        assert words[1] == "-m"
        assert importlib.util.find_spec(words[2]) is not None, words
        if words[2] == "backbone":
            assert isinstance(main, click.Group)
            command = main.commands[words[3]]
            assert {option for parameter in command.params for option in parameter.opts} >= {
                word for word in words if word.startswith("--")
            }
        return
    assert words[0] == "head", words


def test_an_order_is_placed_at_the_port_that_is_forwarded_for_something_that_is_sold() -> None:
    (words,) = [words for words in commands() if "demo.order" in words]
    port = int(words[words.index("--gateway") + 1].rpartition(":")[2])
    forwarded = {forward["local_port"]: forward["container_port"] for forward in resources()["gateway"]["port_forwards"]}
    assert forwarded[port] == 50051
    sku = words[words.index("--sku") + 1]
    assert any(line.startswith(f"{sku},") for line in (ROOT / "data" / "cdnow-sample-catalogue.csv").read_text().splitlines())


def test_single_contexts_come_up_with_what_they_need_and_no_more() -> None:
    enabled = set(tilt("ordering").one("config.set_enabled_resources")["names"])
    assert {"ordering", "ordering-valkey", "kafka", "topics", "cluster"} <= enabled
    assert not enabled & {"payments", "payments-valkey", "gateway", "stop-payments"}
    assert enabled <= set(resources())
    assert set(tilt().one("config.set_enabled_resources")["names"]) == set(resources())


def test_a_context_that_does_not_exist_is_refused() -> None:
    with pytest.raises(starlark.StarlarkError, match="there is no context ordring"):
        run(TILTFILE, manifests(), ["ordring"])


def test_it_refuses_other_clusters_than_a_developers_own() -> None:
    assert set(tilt().one("allow_k8s_contexts")["contexts"]) == {"docker-desktop", "k3d-k3s-default", "kind-kind", "local", "minikube"}
    assert tilt().one("version_settings")["constraint"]

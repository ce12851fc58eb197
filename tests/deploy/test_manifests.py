"""What a cluster is given obeys Kubernetes' own schemas and our rules, in every overlay."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from backbone.cli import main
from backbone.errors import SettingsError
from backbone.operations.k8s import workloads
from backbone.operations.k8s.pin import pinned
from backbone.operations.k8s.render import render, stale, write
from backbone.settings import Settings
from backbone.topology import topology
from shop import shop
from tests.deploy.rendered import (
    GENERATED,
    K8S,
    OVERLAYS,
    ROOT,
    WORKLOADS,
    Manifest,
    component,
    containers,
    everything,
    full_name,
    generated,
    kustomized,
    of_kind,
    overlay,
    pod_of,
)

EVERYWHERE = ("generated", *OVERLAYS)
KUBERNETES = "1.35"
# Not of Kubernetes itself: their schemas come with what brings them.
OF_OTHERS = {"kafka.strimzi.io/v1", "gateway.networking.k8s.io/v1"}
CONTEXTS = [context.name for context in shop.contexts]
LABELS = ("name", "instance", "component", "part-of", "managed-by")


def workloads_in(where: str) -> list[Manifest]:
    return of_kind(everything(where), *WORKLOADS)


def processes_in(where: str) -> list[Manifest]:
    return [one for one in workloads_in(where) if component(one) in ("context", "gateway")]


def test_what_lies_here_is_what_the_declaration_gives() -> None:
    assert stale(render(shop, "shop", "retail"), GENERATED) == [], "run `backbone k8s render`"


def test_a_missing_a_changed_and_a_left_over_file_are_told_and_mended(tmp_path: Path) -> None:
    files = {"a/kept.yaml": "1\n", "a/changed.yaml": "2\n", "b/missing.yaml": "3\n"}
    write({"a/kept.yaml": "1\n", "a/changed.yaml": "old\n", "c/left.yaml": "4\n"}, tmp_path)
    assert stale(files, tmp_path) == ["a/changed.yaml", "b/missing.yaml", "c/left.yaml"]
    assert write(files, tmp_path) == ["a/changed.yaml", "b/missing.yaml", "c/left.yaml"]
    assert stale(files, tmp_path) == []


def test_the_command_tells_by_its_exit_code_whether_files_are_stale(tmp_path: Path) -> None:
    def run(*arguments: str) -> int:
        return CliRunner().invoke(main, ["k8s", "render", "--to", str(tmp_path / "out"), *arguments]).exit_code

    assert run("--check") == 1
    assert not (tmp_path / "out").exists()
    assert run() == 0
    assert run("--check") == 0


@pytest.mark.parametrize("where", EVERYWHERE)
def test_everything_obeys_the_schemas_of_kubernetes(where: str) -> None:
    for one in everything(where):
        if one["apiVersion"] not in OF_OTHERS:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused() -> None:
    one = of_kind(generated(), "StatefulSet")[0]
    with pytest.raises(kubernetes_validate.ValidationError, match="replcas"):
        kubernetes_validate.validate({**one, "spec": {**one["spec"], "replcas": 1}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_no_pod_runs_as_root_or_may_become_it(where: str) -> None:
    for one in workloads_in(where):
        rights = pod_of(one)["securityContext"]
        assert rights["runAsNonRoot"] is True, full_name(one)
        assert rights["runAsUser"] > 0
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod_of(one))
        assert all("hostPath" not in volume for volume in pod_of(one)["volumes"])
        for box in containers(one):
            assert box["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_no_pod_has_a_token_or_hears_of_every_service(where: str) -> None:
    for one in workloads_in(where):
        assert pod_of(one)["automountServiceAccountToken"] is False, full_name(one)
        # A Service named kafka would give everybody a variable KAFKA_PORT, which Kafka's image takes for a setting.
        assert pod_of(one)["enableServiceLinks"] is False, full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_every_container_is_promised_and_limited(where: str) -> None:
    for one in workloads_in(where):
        for box in containers(one):
            assert {"cpu", "memory"} <= set(box["resources"]["requests"]), full_name(one)
            assert {"cpu", "memory"} <= set(box["resources"]["limits"]), full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_every_server_is_probed_in_three_ways(where: str) -> None:
    for one in workloads_in(where):
        if component(one) not in ("provisioning", "tools"):
            for box in pod_of(one)["containers"]:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(box), full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_process_that_catches_up_is_never_killed_for_it(where: str) -> None:
    for one in processes_in(where):
        (box,) = pod_of(one)["containers"]
        assert box["livenessProbe"]["httpGet"] == box["startupProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
        assert box["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_process_outlives_its_transaction_when_it_is_told_to_stop(where: str) -> None:
    for one in processes_in(where):
        (box,) = pod_of(one)["containers"]
        leave_s = box["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert leave_s > 0
        assert pod_of(one)["terminationGracePeriodSeconds"] > leave_s + Settings().transaction_timeout_s


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_slot_keeps_its_name(where: str) -> None:
    slots = processes_in(where)
    assert sorted(one["metadata"]["name"] for one in slots) == sorted(CONTEXTS)
    for one in slots:
        assert one["kind"] == "StatefulSet"
        assert one["spec"]["podManagementPolicy"] == "Parallel"
        assert one["spec"]["replicas"] <= workloads.PARTITIONS
        (box,) = pod_of(one)["containers"]
        told = {variable["name"]: variable for variable in box["env"]}
        assert told["BACKBONE_SLOT"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


@pytest.mark.parametrize("where", EVERYWHERE)
def test_everything_has_the_standard_labels(where: str) -> None:
    for one in workloads_in(where):
        for marks in (one["metadata"]["labels"], one["spec"]["template"]["metadata"]["labels"]):
            assert {f"app.kubernetes.io/{name}" for name in LABELS} <= set(marks), full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_every_selector_finds_pods_and_every_port_is_open(where: str) -> None:
    templates = [(one["metadata"]["namespace"], one["spec"]["template"]) for one in workloads_in(where)]
    for one in of_kind(everything(where), "Service", "PodDisruptionBudget"):
        spec = one["spec"]
        wanted = spec["selector"].get("matchLabels", spec["selector"])
        found = [
            template
            for namespace, template in templates
            if namespace == one["metadata"]["namespace"] and wanted.items() <= template["metadata"]["labels"].items()
        ]
        assert len(found) == 1, full_name(one)
        open_ports = {port["name"]: port["containerPort"] for box in found[0]["spec"]["containers"] for port in box.get("ports", ())}
        for port in spec.get("ports", ()):
            assert open_ports[port["targetPort"]] == port["port"], full_name(one)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_every_process_has_a_budget_and_spreads(where: str) -> None:
    budgets = {one["metadata"]["namespace"]: one["spec"] for one in of_kind(everything(where), "PodDisruptionBudget")}
    for one in processes_in(where):
        assert budgets[one["metadata"]["namespace"]]["maxUnavailable"] == 1
        (spread,) = pod_of(one)["topologySpreadConstraints"]
        assert spread["labelSelector"] == one["spec"]["selector"]


@pytest.mark.parametrize("where", EVERYWHERE)
def test_every_namespace_is_restricted_and_refuses_by_default(where: str) -> None:
    manifests = everything(where)
    names = {one["metadata"]["name"] for one in of_kind(manifests, "Namespace")}
    assert {one["metadata"]["namespace"] for one in manifests if "namespace" in one["metadata"]} <= names
    for one in of_kind(manifests, "Namespace"):
        assert one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    refusing = {
        one["metadata"]["namespace"]
        for one in of_kind(manifests, "NetworkPolicy")
        if one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert refusing == names


@pytest.mark.parametrize("where", EVERYWHERE)
def test_the_gateway_is_one_address_that_speaks_http_2_and_the_others_are_many(where: str) -> None:
    services = {(one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"] for one in of_kind(everything(where), "Service")}
    door = services["gateway", "gateway"]
    assert door.get("clusterIP") != "None"
    assert {port["name"]: port["appProtocol"] for port in door["ports"]} == {"grpc": "kubernetes.io/h2c", "http": "http"}
    for name in CONTEXTS:
        slots = services[name, "gateway-slots" if name == "gateway" else name]
        assert slots["clusterIP"] == "None"
    for one in processes_in(where):
        assert (one["metadata"]["namespace"], one["spec"]["serviceName"]) in services


@pytest.mark.parametrize("where", EVERYWHERE)
def test_no_image_is_the_latest(where: str) -> None:
    for one in workloads_in(where):
        for box in containers(one):
            name, at, tag = box["image"].rpartition("@" if "@" in box["image"] else ":")
            assert name, box["image"]
            assert at
            assert tag not in ("", "latest")


def test_in_production_every_image_is_named_by_its_digest() -> None:
    for one in of_kind(overlay("prod"), *WORKLOADS):
        for box in containers(one):
            assert "@sha256:" in box["image"], full_name(one)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_process_understands_all_it_is_told(name: str) -> None:
    text = (GENERATED / "contexts" / name / "settings.env").read_text()
    told = dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    known = {field.alias for field in Settings.model_fields.values()}
    assert {variable for variable in told if variable not in known and not variable.startswith("OUTSIDE_")} == set()
    settings = Settings.read(told)
    assert settings.host == "0.0.0.0"
    assert settings.redis_url == f"redis://valkey.{name}.svc:6379/0"
    assert set(settings.outside) == {one.name for one in shop.outside if any(service.startswith(f"{name}.") for service in one.used_by)}


def test_questions_inside_a_context_go_to_every_pod_in_turn() -> None:
    text = (GENERATED / "contexts" / "payments" / "settings.env").read_text()
    assert "VIEWS_TARGET=dns:///payments.payments.svc:50051\n" in text
    assert not any("VIEWS_TARGET" in (GENERATED / "contexts" / name / "settings.env").read_text() for name in ("ordering", "fulfilment"))


def test_the_broker_of_development_has_the_settings_of_the_embedded_one() -> None:
    from backbone.local.kafka import SETTINGS, VERSION

    lines = (GENERATED / "kafka" / "server.properties").read_text().splitlines()
    assert {f"{name}={value}" for name, value in SETTINGS.items()} <= set(lines)
    (broker,) = [one for one in of_kind(generated(), "StatefulSet") if component(one) == "log"]
    assert pod_of(broker)["containers"][0]["image"].endswith(f":{VERSION}")


def test_the_brokers_of_production_keep_the_log_as_the_embedded_one_does() -> None:
    from backbone.local.kafka import SETTINGS

    (kafka,) = [one for one in overlay("prod") if one["kind"] == "Kafka"]
    config = {name: str(value).lower() for name, value in kafka["spec"]["kafka"]["config"].items()}
    shared = {name for name in config if name in SETTINGS and not name.endswith((".replication.factor", ".isr", "insync.replicas"))}
    assert {"log.retention.ms", "log.message.timestamp.type", "auto.create.topics.enable", "offsets.retention.minutes"} <= shared
    assert {name: config[name] for name in shared} == {name: SETTINGS[name].lower() for name in shared}
    assert int(config["default.replication.factor"]) > int(config["min.insync.replicas"]) > 1


def test_every_process_of_development_refuses_another_log() -> None:
    (broker,) = [one for one in of_kind(overlay("dev"), "StatefulSet") if component(one) == "log"]
    (cluster,) = [variable["value"] for variable in pod_of(broker)["containers"][0]["env"] if variable["name"] == "CLUSTER_ID"]
    for one in workloads_in("dev"):
        if component(one) in ("context", "gateway", "provisioning", "tools"):
            told = {variable["name"]: variable.get("value") for variable in pod_of(one)["containers"][0]["env"]}
            assert told["KAFKA_CLUSTER_ID"] == cluster, full_name(one)
            assert told["BACKBONE_PARTITIONS"] == "4"


def test_a_change_of_settings_rolls_the_pods_that_have_them(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")

    def settings_of_ordering() -> str:
        manifests = kustomized(tmp_path / "k8s" / "overlays" / "dev")
        (one,) = [one for one in of_kind(manifests, "StatefulSet") if one["metadata"]["name"] == "ordering"]
        name = str(pod_of(one)["containers"][0]["envFrom"][0]["configMapRef"]["name"])
        assert name in {config["metadata"]["name"] for config in of_kind(manifests, "ConfigMap")}
        return name

    before = settings_of_ordering()
    with (tmp_path / "k8s" / "generated" / "contexts" / "ordering" / "settings.env").open("a") as file:
        file.write("BACKBONE_BATCH=100\n")
    assert settings_of_ordering() != before


def test_the_job_that_makes_the_topics_is_another_one_for_another_topology() -> None:
    of = topology(shop)
    now = workloads.provisioning("shop", of.digest)
    later = workloads.provisioning("shop", dataclasses.replace(of, groups=()).digest)
    assert now["metadata"]["name"] != later["metadata"]["name"]
    assert now == workloads.provisioning("shop", of.digest)
    assert now["spec"]["ttlSecondsAfterFinished"] > 0


def references(digit: str) -> dict[str, str]:
    names = [*(f"shop-{name}" for name in (*CONTEXTS, "outside", "tools")), "docker.io/valkey/valkey"]
    return {name: f"registry.test/{name.rpartition('/')[2]}@sha256:{digit * 64}" for name in names}


def test_digests_of_a_build_come_into_production_with_a_job_of_their_own(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    names = []
    for digit in ("1", "2"):
        place = tmp_path / "k8s" / "overlays" / "prod" / "images" / "kustomization.yaml"
        place.write_text(pinned(references(digit), GENERATED))
        manifests = kustomized(tmp_path / "k8s" / "overlays" / "prod")
        images = {box["image"] for one in of_kind(manifests, *WORKLOADS) for box in containers(one)}
        assert images == set(references(digit).values())
        names += [one["metadata"]["name"] for one in of_kind(manifests, "Job")]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({name: reference for name, reference in references("1").items() if name != "shop-tools"}, "no digest for shop-tools"),
        ({**references("1"), "shop-journal": "registry.test/journal@sha256:" + "1" * 64}, "no manifest uses shop-journal"),
        ({**references("1"), "shop-tools": "registry.test/tools:1.0"}, "a tag may be moved"),
    ],
)
def test_an_image_that_is_not_pinned_down_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        pinned(given, GENERATED)


def test_in_production_nobody_reaches_rows_without_a_password() -> None:
    for one in of_kind(overlay("prod"), "StatefulSet"):
        if component(one) in ("context", "gateway"):
            told = pod_of(one)["containers"][0]["env"]
            names = [variable["name"] for variable in told]
            # A variable can only name those before it.
            assert names.index("VALKEY_PASSWORD") < names.index("REDIS_URL")
            assert f"redis://{one['metadata']['name']}:$(VALKEY_PASSWORD)@" in told[names.index("REDIS_URL")]["value"]
        if component(one) == "rows":
            arguments = pod_of(one)["containers"][0]["args"]
            assert [arguments[at + 1 : at + 3] for at, word in enumerate(arguments) if word == "--user"] == [
                ["default", "off"],
                [one["metadata"]["namespace"], "on"],
            ]


def test_every_context_is_in_every_overlay() -> None:
    for name in ("dev", "prod"):
        listed = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())["resources"]
        assert {f"../../base/{context}" for context in (*CONTEXTS, "operations")} == set(listed)


def test_every_component_says_what_it_is() -> None:
    for folder in (K8S / "components").iterdir():
        assert (folder / "README.md").read_text().startswith(f"# {folder.name}\n")


def test_the_folder_of_deployment_names_no_secret() -> None:
    assert all(one["kind"] != "Secret" for where in ("generated", "dev", "prod") for one in everything(where))
    assert (ROOT / "deploy").is_dir()

"""What runs in a cluster: one process per context, what it keeps its rows in, the log, the stand-ins for the outside, and the job that
makes the topics."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from backbone.declare import Outside, Platform
from backbone.local.kafka import security
from backbone.operations.k8s.edges import (
    GRPC_PORT,
    HEALTH_PORT,
    HTTP_PORT,
    KAFKA,
    KAFKA_PORT,
    OUTSIDE_PORT,
    PROVISIONING,
    TOOLS,
    VALKEY_PORT,
    Place,
    outside_place,
    process_of,
    valkey_of,
)
from backbone.operations.k8s.manifests import (
    USER,
    Manifest,
    claim,
    container_rights,
    digest_of,
    labels,
    named,
    pod_rights,
    resources,
    selected,
)
from backbone.ownership import Kind, Right
from backbone.run import STOP_S
from backbone.settings import Settings

TAG = "dev"
VALKEY_IMAGE = "docker.io/valkey/valkey:9"
VALKEY_USER = 999
KAFKA_USER = 1000

PARTITIONS = 12
"""P of a cluster, fixed when its topics are made."""
START_PATIENCE_S = 3600.0
"""A process waits that long for Kafka and its topics: in a cluster nobody promises an order of starts, and a pod that waits says why,
while one that ends again and again only backs off."""
LEAVE_S = 5
"""A pod that is told to stop goes on answering until every kube-proxy has heard that it leaves."""
MARGIN_S = 10

CONTEXT_SIZE = resources("100m", "160Mi", "1", "512Mi")
VALKEY_SIZE = resources("25m", "64Mi", "500m", "256Mi")
VALKEY_MEMORY = "192mb"
"""Below the container's limit: a full Valkey refuses a write, which a process waits out; a killed one loses its connections too."""
KAFKA_SIZE = resources("250m", "640Mi", "2", "1Gi")
OUTSIDE_SIZE = resources("25m", "80Mi", "500m", "192Mi")
JOB_SIZE = resources("50m", "96Mi", "500m", "256Mi")

OUTSIDE_FILES = "/srv/files"
"""Where the image `outside` has the files that stand for what others write."""
BROUGHT = "/outside"
KEY_FOLDER = "/run/keys"
USERS = "kafka-users"
"""The secret with passwords of Kafka's users: in each namespace only of those who are needed there."""
USERS_FOLDER = "/run/secrets/kafka-users"
USERS_MOUNT = {"name": USERS, "mountPath": USERS_FOLDER, "readOnly": True}
USERS_VOLUME = {"name": USERS, "secret": {"secretName": USERS, "defaultMode": 0o440}}
CODE = "/srv"
"""Where an image has the code."""
PROCESS = "process"
"""The container that speaks to Kafka, under one name in every pod: so an overlay tells all of them the same in one patch."""
TMP = {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}
TMP_MOUNT = {"name": "tmp", "mountPath": "/tmp"}


def image(system: str, what: str) -> str:
    """Name and tag of one of the platform's images, as the build makes it here; overlays say where it lies and which digest it has."""
    return f"{system}-{what}:{TAG}"


def grace_s() -> int:
    """Seconds a process has to end: it answers on, finishes or aborts its batch, and its transaction times out before it is killed."""
    return math.ceil(LEAVE_S + STOP_S + Settings().transaction_timeout_s + MARGIN_S)


def settings_of(platform: Platform, context: str, outside: Sequence[Outside], *, answers: bool) -> dict[str, str]:
    """What every pod of a context is told.

    Args:
        outside: what the context's services reach.
        answers: whether its services answer queries of their siblings.
    """
    told = {
        "BACKBONE_HOST": "0.0.0.0",
        "BACKBONE_HEALTH_PORT": str(HEALTH_PORT),
        "BACKBONE_PARTITIONS": str(PARTITIONS),
        "BACKBONE_START_PATIENCE_S": f"{START_PATIENCE_S:g}",
        "GRPC_PORT": str(GRPC_PORT),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_address(),
        "KAFKA_SECRETS": USERS_FOLDER,
        "REDIS_URL": f"redis://{valkey_of(context).name}.{context}.svc:{VALKEY_PORT}/0",
    }
    if answers:
        # The name of a headless Service has one address per pod, and the client takes turns among them.
        told["VIEWS_TARGET"] = f"dns:///{context}.{context}.svc:{GRPC_PORT}"
    if platform.gateway is not None and context == platform.gateway.name:
        told |= {"HTTP_PORT": str(HTTP_PORT), "ORDER_ID_KEY_FILE": f"{KEY_FOLDER}/order-id.key"}
    for one in outside:
        told[f"OUTSIDE_{one.name.upper()}"] = f"{BROUGHT}/{one.file}" if one.file else outside_url(one)
    return told


def outside_url(one: Outside) -> str:
    """Where the stand-in for something outside answers."""
    place = outside_place(one)
    return f"http://{place.name}.{place.namespace}.svc:{OUTSIDE_PORT}"


def kafka_address() -> str:
    """Where the log of a development cluster answers."""
    return f"{KAFKA.name}.{KAFKA.namespace}.svc:{KAFKA_PORT}"


def process(platform: Platform, context: str, system: str, outside: Sequence[Outside], *, answers: bool) -> list[Manifest]:
    """The process of a context: a StatefulSet, since a slot keeps its transactional ids and group members when its pod is replaced."""
    place = process_of(context)
    is_gateway = platform.gateway is not None and context == platform.gateway.name
    marks = labels(place, system, "gateway" if is_gateway else "context")
    ports = {"health": HEALTH_PORT, **({"grpc": GRPC_PORT} if answers or is_gateway else {}), **({"http": HTTP_PORT} if is_gateway else {})}
    container = {
        "name": PROCESS,
        "image": image(system, context),
        "args": ["run", context],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "BACKBONE_SLOT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}},
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        # Alive from its first moment, whatever it waits for: only a process that hangs is killed, never one that catches up.
        "startupProbe": {"httpGet": {"path": "/livez", "port": "health"}, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/livez", "port": "health"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 2, "timeoutSeconds": 5},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
        "resources": CONTEXT_SIZE,
        "securityContext": container_rights(),
        "volumeMounts": [TMP_MOUNT, USERS_MOUNT],
    }
    volumes: list[Manifest] = [TMP, USERS_VOLUME]
    before: list[Manifest] = []
    if is_gateway:
        before.append(_key_in_place(system, context))
        volumes += [
            {"name": "order-id", "secret": {"secretName": "order-id"}},
            {"name": "keys", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ]
        container["volumeMounts"] = [TMP_MOUNT, USERS_MOUNT, {"name": "keys", "mountPath": KEY_FOLDER}]
    if files := [one for one in outside if one.file]:
        before += [_brought(system, one) for one in files]
        volumes.append({"name": "outside", "emptyDir": {"sizeLimit": "64Mi"}})
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "outside", "mountPath": BROUGHT, "readOnly": True}]
    # Of the gateway, clients want one address for all of it, and only its slots have one each.
    slots = Place(context, f"{context}-slots") if is_gateway else place
    spec = {
        "serviceName": slots.name,
        "replicas": 1,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": selected(place)},
        "template": {"metadata": {"labels": marks}, "spec": _pod(place, [container], volumes, before)},
    }
    manifests = [
        named("StatefulSet", "apps/v1", place, marks, spec),
        service(slots, marks, ports, headless=True, of=place),
        budget(place, marks),
    ]
    if is_gateway:
        manifests.append(service(place, marks, {name: port for name, port in ports.items() if name != "health"}))
    return manifests


def _pod(place: Place, containers: Sequence[Manifest], volumes: Sequence[Manifest], before: Sequence[Manifest] = ()) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_rights(USER),
        "terminationGracePeriodSeconds": grace_s(),
        "topologySpreadConstraints": [spread(place)],
        **({"initContainers": list(before)} if before else {}),
        "containers": list(containers),
        "volumes": list(volumes),
    }


def spread(place: Place) -> Manifest:
    """Replicas on different nodes where there are some."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selected(place)},
    }


def _key_in_place(system: str, context: str) -> Manifest:
    """A mounted secret is readable by its pod's group, which the gateway refuses: it gets a copy that is its own."""
    return {
        "name": "key",
        "image": image(system, context),
        "command": ["install", "-m", "0600", "/run/secrets/order-id/key", f"{KEY_FOLDER}/order-id.key"],
        "resources": resources("10m", "16Mi", "100m", "32Mi"),
        "securityContext": container_rights(),
        "volumeMounts": [
            {"name": "order-id", "mountPath": "/run/secrets/order-id", "readOnly": True},
            {"name": "keys", "mountPath": KEY_FOLDER},
        ],
    }


def _brought(system: str, one: Outside) -> Manifest:
    """A file that others write is brought to the pod that takes it in."""
    return {
        "name": f"bring-{one.name}",
        "image": image(system, "outside"),
        "command": ["install", "-m", "0444", f"{OUTSIDE_FILES}/{one.file}", f"{BROUGHT}/{one.file}"],
        "resources": resources("10m", "16Mi", "100m", "32Mi"),
        "securityContext": container_rights(),
        "volumeMounts": [{"name": "outside", "mountPath": BROUGHT}],
    }


def service(
    place: Place, marks: Mapping[str, str], ports: Mapping[str, int], *, headless: bool = False, of: Place | None = None
) -> Manifest:
    """A Service.

    Args:
        headless: its name has the address of every pod, for clients that take turns themselves.
        of: whose pods it is for; those of its own place if None.
    """
    protocols = {"grpc": "kubernetes.io/h2c", "http": "http", "health": "http"}
    listed = [
        {"name": name, "port": port, "targetPort": name, **({"appProtocol": protocols[name]} if name in protocols else {})}
        for name, port in ports.items()
    ]
    alone = {"clusterIP": "None"} if headless else {}
    return named("Service", "v1", place, marks, {**alone, "selector": selected(of or place), "ports": listed})


def budget(place: Place, marks: Mapping[str, str]) -> Manifest:
    """At most one pod at a time is evicted; one that does not work protects nobody."""
    return named(
        "PodDisruptionBudget",
        "policy/v1",
        place,
        marks,
        {"maxUnavailable": 1, "selector": {"matchLabels": selected(place)}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    )


def valkey(context: str, system: str, settings: Mapping[str, str]) -> list[Manifest]:
    """The rows of a context, and of nobody else.

    Args:
        settings: of the server, as the local stack runs it.
    """
    place = valkey_of(context)
    container = {
        "name": "valkey",
        "image": VALKEY_IMAGE,
        "command": ["valkey-server"],
        "args": _told(settings),
        "ports": [{"name": "redis", "containerPort": VALKEY_PORT}],
        **_listening("redis"),
        "resources": VALKEY_SIZE,
        "securityContext": container_rights(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return _single(place, system, "rows", container, VALKEY_USER, {"redis": VALKEY_PORT}, "1Gi")


def _told(settings: Mapping[str, str]) -> list[str]:
    told = {
        "port": str(VALKEY_PORT),
        "bind": "* -::*",
        "dir": "/data",
        "maxmemory": VALKEY_MEMORY,
        # Who may connect, the NetworkPolicy says.
        "protected-mode": "no",
        **settings,
    }
    return [part for name, value in told.items() for part in (f"--{name}", value)]


def valkey_user(context: str, settings: Mapping[str, str]) -> list[Manifest]:
    """Patches for a context's Valkey and its process: one user, named as the context, who may use rows and not run the server; its password
    is `password` of the secret `valkey`."""
    secret = {"secretKeyRef": {"name": "valkey", "key": "password"}}
    password = {"name": "VALKEY_PASSWORD", "valueFrom": secret}
    rights = ("on", ">$(VALKEY_PASSWORD)", "~*", "&*", "+@all", "-@admin", "-@dangerous")
    server = {
        "name": "valkey",
        "env": [password],
        "args": [*_told(settings), "--user", "default", "off", "--user", context, *rights],
    }
    place = valkey_of(context)
    address = f"redis://{context}:$(VALKEY_PASSWORD)@{place.name}.{context}.svc:{VALKEY_PORT}/0"
    process = {"name": PROCESS, "env": [password, {"name": "REDIS_URL", "value": address}]}
    return [_patch(place, {"containers": [server]}), _patch(process_of(context), {"containers": [process]})]


def _patch(place: Place, pod: Manifest) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": place.name, "namespace": place.namespace},
        "spec": {"template": {"spec": pod}},
    }


def kafka(system: str, version: str) -> list[Manifest]:
    """The log of a development cluster: one broker that is its own controller."""
    container = {
        "name": "kafka",
        "image": f"docker.io/apache/kafka:{version}",
        "env": [{"name": "CLUSTER_ID", "value": cluster_id(system)}, {"name": "KAFKA_HEAP_OPTS", "value": "-Xms128m -Xmx512m"}],
        "ports": [{"name": "kafka", "containerPort": KAFKA_PORT}],
        **_listening("kafka"),
        "resources": KAFKA_SIZE,
        "securityContext": container_rights(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/kafka"},
            {"name": "settings", "mountPath": "/mnt/shared/config", "readOnly": True},
            # The image writes its final settings and its own logs there.
            {"name": "config", "mountPath": "/opt/kafka/config"},
            {"name": "logs", "mountPath": "/opt/kafka/logs"},
            TMP_MOUNT,
            USERS_MOUNT,
        ],
    }
    volumes = [
        {"name": "settings", "configMap": {"name": "broker"}},
        {"name": "config", "emptyDir": {"sizeLimit": "4Mi"}},
        {"name": "logs", "emptyDir": {"sizeLimit": "128Mi"}},
        TMP,
        USERS_VOLUME,
    ]
    return _single(KAFKA, system, "log", container, KAFKA_USER, {"kafka": KAFKA_PORT}, "10Gi", volumes)


def cluster_id(system: str) -> str:
    """The id of the development cluster's log, which every process compares: a UUID as Kafka writes it, from the platform's name."""
    return base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, f"{system}-development").bytes).decode().rstrip("=")


def broker_settings(settings: Mapping[str, str]) -> str:
    """The broker's property file.

    Args:
        settings: as the local stack runs it.
    """
    addresses = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@127.0.0.1:9093",
        "listeners": f"CLIENT://:{KAFKA_PORT},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"CLIENT://{kafka_address()}",
        "log.dirs": "/var/lib/kafka/data",
        # Passwords stay in the secret: the broker looks them up there when it starts.
        "config.providers": "secret",
        "config.providers.secret.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
    }
    secure = security(["CLIENT"], lambda user: f"${{secret:{USERS_FOLDER}:{user}}}")
    return "".join(f"{name}={value}\n" for name, value in {**addresses, **secure, **settings}.items())


def kafka_user(user: str, rights: Sequence[Right], system: str) -> Manifest:
    """A user and its rights as Strimzi makes them, with the password of the secret in the namespace of the brokers."""
    by_resource: dict[tuple[Kind, str, bool], list[str]] = {}
    for right in sorted(rights):
        by_resource.setdefault((right.kind, right.name, right.prefixed), []).append(right.operation.title().replace("_", ""))
    acls = [
        {"resource": _strimzi_resource(kind, name, prefixed), "operations": operations}
        for (kind, name, prefixed), operations in by_resource.items()
    ]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {
            "name": user,
            "namespace": KAFKA.namespace,
            "labels": {"strimzi.io/cluster": system, "app.kubernetes.io/part-of": system},
        },
        "spec": {
            "authentication": {
                "type": "scram-sha-512",
                "password": {"valueFrom": {"secretKeyRef": {"name": USERS, "key": user}}},
            },
            "authorization": {"type": "simple", "acls": acls},
        },
    }


def _strimzi_resource(kind: Kind, name: str, prefixed: bool) -> Manifest:
    if kind is Kind.CLUSTER:
        return {"type": "cluster"}
    words = {Kind.TOPIC: "topic", Kind.GROUP: "group", Kind.TRANSACTIONAL_ID: "transactionalId"}
    return {"type": words[kind], "name": name, "patternType": "prefix" if prefixed else "literal"}


def secret_of_users(namespace_name: str, users: Iterable[str], password: Callable[[str], str]) -> Manifest:
    """The secret with the passwords that are needed in a namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": USERS, "namespace": namespace_name},
        "type": "Opaque",
        "stringData": {user: password(user) for user in users},
    }


def outside_server(one: Outside, system: str) -> list[Manifest]:
    """A stand-in for something we do not own, as its module's own program."""
    place = outside_place(one)
    arguments = [argument.format(port=OUTSIDE_PORT, folder="/data") for argument in one.arguments]
    probe = {"httpGet": {"path": "/livez", "port": "http"}}
    container = {
        "name": one.name,
        "image": image(system, "outside"),
        "args": ["-m", one.module, "--host", "0.0.0.0", *arguments],
        "ports": [{"name": "http", "containerPort": OUTSIDE_PORT}],
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**probe, "periodSeconds": 2, "timeoutSeconds": 5},
        "resources": OUTSIDE_SIZE,
        "securityContext": container_rights(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, TMP_MOUNT],
    }
    return _single(place, system, "outside", container, USER, {"http": OUTSIDE_PORT}, "1Gi", [TMP])


def _listening(port: str) -> Manifest:
    probe = {"tcpSocket": {"port": port}}
    return {
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 150},
        "livenessProbe": {**probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**probe, "periodSeconds": 2, "timeoutSeconds": 5},
    }


def _single(
    place: Place,
    system: str,
    component: str,
    container: Manifest,
    user: int,
    ports: Mapping[str, int],
    size: str,
    volumes: Sequence[Manifest] = (),
) -> list[Manifest]:
    """One server with a volume of its own, and the name under which it is found."""
    marks = labels(place, system, component)
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_rights(user),
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": list(volumes),
    }
    spec = {
        "serviceName": place.name,
        "replicas": 1,
        "selector": {"matchLabels": selected(place)},
        "template": {"metadata": {"labels": marks}, "spec": pod},
        "volumeClaimTemplates": [claim("data", size)],
    }
    return [named("StatefulSet", "apps/v1", place, marks, spec), service(place, marks, ports, headless=True)]


def provisioning(system: str, topology_digest: str) -> Manifest:
    """The job that makes the topics. Its name is that of its content: a job cannot be changed, only followed by another."""
    marks = labels(PROVISIONING, system, "provisioning")
    pod = {**_operating(system), "restartPolicy": "OnFailure"}
    pod["containers"][0]["args"] = ["topics", "apply"]
    spec = {
        # Kafka may start later than the job: 20 tries with their pauses are about an hour and a half.
        "backoffLimit": 20,
        "ttlSecondsAfterFinished": 86_400,
        "template": {"metadata": {"labels": marks, "annotations": {"backbone/topology": topology_digest}}, "spec": pod},
    }
    place = Place(PROVISIONING.namespace, f"{PROVISIONING.name}-{digest_of(spec)}")
    return named("Job", "batch/v1", place, marks, spec)


def tools(system: str) -> Manifest:
    """A pod that waits for operators: `kubectl -n operations exec deploy/tools -- backbone status`."""
    marks = labels(TOOLS, system, "tools")
    # Nothing is lost with it, and `sleep` as a container's first process hears no other signal than the last.
    pod = {**_operating(system), "terminationGracePeriodSeconds": 1}
    pod["containers"][0]["command"] = ["sleep", "infinity"]
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selected(TOOLS)},
        "template": {"metadata": {"labels": marks}, "spec": pod},
    }
    return named("Deployment", "apps/v1", TOOLS, marks, spec)


def _operating(system: str) -> Manifest:
    container = {
        "name": PROCESS,
        "image": image(system, "tools"),
        "env": [
            {"name": "KAFKA_BOOTSTRAP_SERVERS", "value": kafka_address()},
            {"name": "KAFKA_SECRETS", "value": USERS_FOLDER},
            {"name": "BACKBONE_PARTITIONS", "value": str(PARTITIONS)},
        ],
        "resources": JOB_SIZE,
        "securityContext": container_rights(),
        "volumeMounts": [TMP_MOUNT, USERS_MOUNT],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_rights(USER),
        "containers": [container],
        "volumes": [TMP, USERS_VOLUME],
    }


def live(context: str, system: str) -> Manifest:
    """A patch for a context's process: its code lies on a volume, where a developer's changes arrive, and starts again when told to."""
    code = {"name": "code", "mountPath": CODE}
    bring = {
        "name": "code",
        "image": image(system, context),
        "command": ["cp", "-a", f"{CODE}/.", "/code/"],
        "resources": resources("10m", "16Mi", "500m", "64Mi"),
        "securityContext": container_rights(),
        "volumeMounts": [{"name": "code", "mountPath": "/code"}],
    }
    process = {"name": PROCESS, "command": ["python", "-m", "backbone.local.live"], "volumeMounts": [code]}
    pod = {
        "initContainers": [bring],
        "containers": [process],
        "volumes": [{"name": "code", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    return _patch(process_of(context), pod)

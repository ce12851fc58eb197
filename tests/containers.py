"""The same servers in containers, for the same tests, where a Docker API answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.local.kafka import ALONE, SETTINGS, VERSION, answering_cluster, new_cluster_id, security
from backbone.local.ports import free_port
from backbone.local.valkey import is_answering
from backbone.ownership import BROKER, CONTROLLER, OPERATOR, Right, rights_of_operator
from backbone.passwords import make_passwords, password_of
from backbone.settings import Settings
from tests.users import admit_tester

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

KAFKA_IMAGE = f"apache/kafka:{VERSION}"
VALKEY_IMAGE = "valkey/valkey:9.1"
READY_S = 60.0
"""Time to answer once its image is there, in seconds; a test of ours is ended at twice that, which would not say what the server said."""

LOOK_S = 1.0
LAST_WORDS = 2_000


@cache
def docker_problem() -> str | None:
    """Why no Docker API can be used here, or None if one answers; asked once per run."""
    import docker  # type: ignore[import-untyped] # ships no types
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        docker.from_env(timeout=5).ping()
    except DockerException as error:
        return f"no Docker API answers ({type(error).__name__})"
    return None


def require_docker() -> None:
    """Skips the test where no Docker API answers, or fails it there if REQUIRE_DOCKER=1 says that one has to."""
    problem = docker_problem()
    if problem and os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but {problem}", pytrace=False)
    if problem:
        pytest.skip(f"containers: {problem}; the same tests ran on the embedded servers")


def await_answer(container: DockerContainer, answers: Callable[[], bool]) -> None:
    """Wait until the server in a started container answers; fail with its last words if it ends before, or does not in time."""
    wrapped = container.get_wrapped_container()
    deadline = time.monotonic() + READY_S
    while not answers():
        wrapped.reload()
        problem = "" if wrapped.status in ("created", "running") else f"is {wrapped.status}"
        if time.monotonic() > deadline:
            problem = f"did not answer within {READY_S:.0f} s"
        if problem:
            last = b"".join(container.get_logs())[-LAST_WORDS:].decode(errors="replace").strip()
            pytest.fail(f"{container.image} {problem}; it said: {last or 'nothing'}", pytrace=False)
        time.sleep(0.05)


@contextmanager
def kafka_in_container(secrets: Path) -> Iterator[dict[str, str]]:
    """A broker with our settings; yields what tells `Settings` where it is and how one gets in.

    Args:
        secrets: folder that gets the passwords.
    """
    from testcontainers.core.container import DockerContainer

    port, cluster_id = free_port(), new_cluster_id()
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    bootstrap = f"{container.get_container_host_ip()}:{port}"
    make_passwords(secrets, (BROKER, CONTROLLER, OPERATOR))
    settings = {
        **SETTINGS,
        **ALONE,
        **security(["ITSELF", "CLIENT"], lambda user: password_of(secrets, user)),
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "CLIENT://0.0.0.0:9092,CONTROLLER://localhost:9093,ITSELF://localhost:9094",
        # The end of a transaction is marked through a connection of the broker to itself, and our port does not exist in the container.
        "advertised.listeners": f"CLIENT://{bootstrap},ITSELF://localhost:9094",
        "log.dirs": "/tmp/kafka",
    }
    for name, value in settings.items():
        container.with_env(f"KAFKA_{name.upper().replace('-', '___').replace('.', '_')}", value)
    with container.with_env("CLUSTER_ID", cluster_id):
        found = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "KAFKA_CLUSTER_ID": cluster_id, "KAFKA_SECRETS": str(secrets)}
        await_answer(container, lambda: answering_cluster(Settings.read(found), LOOK_S, BROKER) == cluster_id)
        admin = KafkaAdmin(Settings.read(found), BROKER)

        def admit(user: str, rights: Iterable[Right]) -> None:
            make_passwords(secrets, [user])
            admin.admit(user, password_of(secrets, user), rights)

        admit(OPERATOR, rights_of_operator())
        admit_tester(admit)
        yield found


@contextmanager
def valkey_in_container() -> Iterator[str]:
    """A Valkey with an append-only file; yields its redis:// address."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    container = DockerContainer(VALKEY_IMAGE).with_bind_ports(6379, port)
    container.with_command("valkey-server --protected-mode no --appendonly yes --maxmemory-policy noeviction")
    url = f"redis://{container.get_container_host_ip()}:{port}/0"
    with container:
        await_answer(container, lambda: is_answering(url, within=LOOK_S))
        yield url

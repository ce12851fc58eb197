"""One process of a context, from outside: what it refuses, what it waits for, and what it tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.errors import ContractError
from backbone.local.kafka import Kafka
from backbone.local.ports import free_port
from backbone.local.processes import Process, ProcessSpec
from backbone.local.valkey import Valkey
from backbone.operations import topics
from backbone.run import check_partitions
from backbone.settings import Settings
from contexts.payments.context import payments

WITHIN_S = 60.0


def test_a_topic_with_another_number_of_partitions_is_refused_by_name() -> None:
    """Equal keys would not meet."""
    check_partitions({"a": 4}, 4)
    with pytest.raises(ContractError, match=r"topic b: has 3 partitions on this cluster, this process was told 4.*BACKBONE_PARTITIONS=3"):
        check_partitions({"a": 4, "b": 3}, 4)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "KAFKA_BOOTSTRAP_SERVERS is not set"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "REDIS_URL is not set"),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1", "BACKBONE_PARTITIONS": "many"},
            "BACKBONE_PARTITIONS",
        ),
    ],
)
def test_an_environment_that_cannot_be_used_is_told_in_one_line(environment: dict[str, str], words: str) -> None:
    """No stack trace: the variable and the remedy."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
    ended = subprocess.run(
        [sys.executable, "-m", "backbone", "run", "payments"],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[Kafka, Valkey]]:
    """A broker and a Valkey of this module's own, since the topics carry the shop's names."""
    import tempfile

    with (
        tempfile.TemporaryDirectory() as folder,
        Kafka(Path(folder) / "k") as kafka,
        Valkey(Path(folder) / "v") as valkey,
    ):
        yield kafka, valkey


@pytest.fixture
def started(ground: tuple[Kafka, Valkey], tmp_path: Path) -> Iterator[Callable[..., tuple[Process, str]]]:
    """Starts a process of the payments context; it ends with the test."""
    kafka, valkey = ground
    processes: list[Process] = []

    def start(*services: str, **environment: str) -> tuple[Process, str]:
        port = free_port()
        variables = {
            **kafka.variables,
            "REDIS_URL": valkey.url,
            "BACKBONE_HEALTH_PORT": str(port),
            "OUTSIDE_PROVIDER": "http://127.0.0.1:1",
            "VIEWS_TARGET": "127.0.0.1:1",
            **environment,
        }
        chosen = [word for service in services for word in ("--service", service)]
        spec = ProcessSpec(f"payments-{len(processes)}", (sys.executable, "-m", "backbone", "run", "payments", *chosen), variables)
        process = Process(spec, tmp_path)
        process.start()
        processes.append(process)
        return process, f"http://127.0.0.1:{port}"

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait(10.0)


def asked(address: str) -> tuple[int, str]:
    """Status and text of an answer; 0 if nobody answers yet."""
    try:
        with urllib.request.urlopen(address, timeout=2.0) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail with what it stands for when it does not come about."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def provision(kafka: Kafka) -> Settings:
    """The context's topics, and whatever else it hears."""
    settings = kafka.settings()
    topics.apply(payments, settings)
    KafkaAdmin(settings).create_topics([TopicSpec("retail.ordering.orders.v1", settings.partitions)])
    return settings


@pytest.mark.integration
def test_a_process_waits_for_its_topics_then_works_tells_and_stops(
    ground: tuple[Kafka, Valkey], started: Callable[..., tuple[Process, str]]
) -> None:
    """Live at once, not ready while topics are missing, ready afterwards; status, metrics; SIGTERM ends it with 0."""
    process, address = started()
    until(lambda: asked(f"{address}/livez")[0] == 200, "it lives")
    until(lambda: "payments.payments has no password" in asked(f"{address}/readyz")[1], "it says what it waits for")
    assert asked(f"{address}/readyz")[0] == 503
    provision(ground[0])
    until(lambda: asked(f"{address}/readyz")[0] == 200, "it is ready once its topics are there")
    status: dict[str, Any] = json.loads(asked(f"{address}/status")[1])
    assert status["services"] == ["payments.payments", "payments.risk"]
    assert set(status["loops"]["payments.payments.decide"]["partitions"]) == {"0", "1", "2", "3"}
    assert "grpc" in status["addresses"]
    metrics = asked(f"{address}/metrics")[1]
    assert "backbone_ready 1.0" in metrics
    assert 'backbone_decided_total{worker="payments.payments.decide"} 0.0' in metrics
    process.terminate()
    assert process.wait(15.0)
    assert process.poll() == 0


@pytest.mark.integration
def test_one_service_runs_alone(ground: tuple[Kafka, Valkey], started: Callable[..., tuple[Process, str]]) -> None:
    """A context may be spread over processes."""
    provision(ground[0])
    _, address = started("risk")
    until(lambda: asked(f"{address}/readyz")[0] == 200, "it is ready")
    status = json.loads(asked(f"{address}/status")[1])
    assert status["services"] == ["payments.risk"]
    assert list(status["loops"]) == ["payments.risk.customer_history"]


@pytest.mark.integration
def test_another_number_of_partitions_ends_a_process_with_the_reason(
    ground: tuple[Kafka, Valkey], started: Callable[..., tuple[Process, str]]
) -> None:
    """Before anything is read or written."""
    provision(ground[0])
    process, _ = started(BACKBONE_PARTITIONS="5")
    assert process.wait(WITHIN_S)
    assert process.poll() == 1
    assert any("has 4 partitions on this cluster, this process was told 5" in line for line in process.tail())


@pytest.mark.integration
def test_another_cluster_ends_a_process_with_the_reason(ground: tuple[Kafka, Valkey], started: Callable[..., tuple[Process, str]]) -> None:
    """Rows and log belong together."""
    process, _ = started(KAFKA_CLUSTER_ID="somebody-elses")
    assert process.wait(WITHIN_S)
    assert process.poll() == 1
    assert any("somebody-elses" in line for line in process.tail())

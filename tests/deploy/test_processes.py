"""A process started as its manifest starts it: what its probes are told while Kafka is not there yet, and that it ends in time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from backbone.local.ports import free_port
from backbone.passwords import make_passwords
from shop import shop
from tests.deploy.rendered import GENERATED, generated, of_kind, pod_of
from tests.local.waiting import wait_until


def told(context: str) -> dict[str, str]:
    """The settings of a context's pods."""
    lines = (GENERATED / "contexts" / context / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@contextmanager
def process(context: str, folder: Path, **here: str) -> Iterator[subprocess.Popen[bytes]]:
    """The pod of a context's slot 1, on this machine and with its log in a file."""
    (one,) = [one for one in of_kind(generated(), "StatefulSet") if one["metadata"]["name"] == context]
    make_passwords(folder / "secrets", [f"{context}.{service.name}" for service in shop.context(context).services])
    environment = {**told(context), "BACKBONE_SLOT": "1", "PATH": "/usr/bin:/bin", "KAFKA_SECRETS": str(folder / "secrets"), **here}
    command = [sys.executable, "-m", "backbone", *pod_of(one)["containers"][0]["args"]]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield started
    finally:
        started.kill()
        started.wait(20)


def probe(port: int, path: str) -> Callable[[], tuple[int, str]]:
    """What the kubelet is answered; (0, "") while nothing listens."""

    def asked() -> tuple[int, str]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    return asked


def test_a_pod_that_is_there_before_kafka_is_alive_and_says_what_it_waits_for(tmp_path: Path) -> None:
    context = "payments"
    port = free_port()
    here = {"BACKBONE_HEALTH_PORT": str(port), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "GRPC_PORT": "0", "HTTP_PORT": "0"}
    with process(context, tmp_path, **here) as started:
        wait_until(lambda: probe(port, "/livez")()[0] == 200, 60, "the process is alive")
        wait_until(lambda: "127.0.0.1:1 does not answer" in probe(port, "/readyz")()[1], 60, "it says what it waits for")
        assert probe(port, "/readyz")()[0] == 503
        assert httpx.get(f"http://127.0.0.1:{port}/status", timeout=5).json()["slot"] == 1
        began = time.monotonic()
        started.terminate()
        (one,) = [one for one in of_kind(generated(), "StatefulSet") if one["metadata"]["name"] == context]
        grace_s = pod_of(one)["terminationGracePeriodSeconds"] - pod_of(one)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert started.wait(grace_s) == 0, (tmp_path / "log").read_text()
        assert time.monotonic() - began < grace_s


def test_a_pod_whose_patience_ends_says_so(tmp_path: Path) -> None:
    here = {"BACKBONE_HEALTH_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "BACKBONE_START_PATIENCE_S": "0.1"}
    with process("fulfilment", tmp_path, **here) as started:
        assert started.wait(60) == 1
        assert "Kafka at 127.0.0.1:1 does not answer" in (tmp_path / "log").read_text()

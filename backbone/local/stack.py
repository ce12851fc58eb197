"""A folder with a log in it, and all processes that work on that log."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from backbone.errors import Refused, SettingsError
from backbone.local.errors import StackError, StartError
from backbone.local.kafka import VERSION, Kafka, answering_cluster, prepare, stored_cluster_id
from backbone.local.locks import HeldLock, holder, try_lock
from backbone.local.ports import free_port, is_free
from backbone.local.processes import STOP_S, Announce, ProcessSpec, Supervisor, end_leftovers
from backbone.local.state import StackState, read_state, write_state
from backbone.local.valkey import Valkey, is_answering
from backbone.settings import Settings

KAFKA_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
MEANWHILE_S = 0.3
ACCESS_VARIABLES = ("KAFKA_SECRETS", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_CA_FILE")
"""How clients prove to an existing Kafka who they are."""
EXISTING_S = 10.0
"""Seconds an existing server has to answer before the stack refuses to start."""


def redis_variable(context: str) -> str:
    """The variable that names an existing Redis for a context: ORDERING_REDIS_URL."""
    return f"{context.upper()}_REDIS_URL"


def shown(url: str) -> str:
    """An address without the name and password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Stack:
    """Kafka, one Valkey per context, and whatever processes the caller adds, in one folder with one launcher.

    with Stack(Path(".backbone"), valkeys=("ordering", "payments")) as stack:
        stack.start_infrastructure()
        stack.run([ProcessSpec("ordering", (sys.executable, ...), stack.environment("ordering"), ready="http://...")])
        stack.until_interrupted()

    Leaving the block stops everything: services, then outside servers, then Valkey and Kafka. A Ctrl-C meanwhile kills
    what still runs at once; SIGTERM and a closed terminal stop the stack as a Ctrl-C does.
    """

    def __init__(
        self,
        folder: Path,
        valkeys: Sequence[str],
        *,
        partitions: int = 4,
        fresh: bool = False,
        announce: Announce = print,
        variables: Mapping[str, str] | None = None,
        kafka_settings: Mapping[str, str] | None = None,
        supervisor: Callable[[Path, Announce], Supervisor] = Supervisor,
    ) -> None:
        """Starts nothing yet.

        folder: where log, views, ports, pids and log files stay between runs; made if missing.
        valkeys: the contexts (and the gateway) that get a Valkey each.
        partitions: P; another one than the folder's is refused.
        fresh: begin with an empty folder, deleting what an earlier run left in it.
        announce: takes each line for the person in front of the terminal, also from other threads.
        variables: the environment in which `KAFKA_BOOTSTRAP_SERVERS` and `<CONTEXT>_REDIS_URL` may name existing
            servers to use instead; the process's own if None.
        kafka_settings: broker settings on top of ours.
        supervisor: makes the supervisor; for tests that need shorter pauses.
        """
        self.folder = folder.resolve()
        self._valkeys = tuple(valkeys)
        self._fresh = fresh
        self._announce = announce
        self._variables = os.environ if variables is None else variables
        self._kafka_settings = kafka_settings
        self._lock: HeldLock | None = None
        self._promised: set[str] = set()
        self._interrupts = 0
        self._stopping = False
        self._hurry = False
        self._stages: list[list[str]] = [[], [], []]
        self._handlers: dict[int, signal.Handlers | Callable[..., object] | int | None] = {}
        self.state = StackState(partitions)
        self.supervisor = supervisor(self.folder, announce)

    def environment(self, context: str) -> dict[str, str]:
        """KAFKA_BOOTSTRAP_SERVERS, KAFKA_CLUSTER_ID, KAFKA_SECRETS, REDIS_URL, BACKBONE_PARTITIONS for a process of this context."""
        return self.state.environment(context)

    def port(self, name: str) -> int:
        """The port promised to this name: the one it had in the last run if it is still free, else another free one."""
        kept = self.state.ports.get(name)
        if name in self._promised and kept is not None:
            return kept
        self._promised.add(name)
        if kept is None or not is_free(kept):
            port = free_port(frozenset(self.state.ports.values()))
            if kept is not None:
                self._announce(f"port {kept} of {name} is taken by another program; it gets {port}")
            self._remember(replace(self.state, ports={**self.state.ports, name: port}))
        return self.state.ports[name]

    def start_infrastructure(self) -> None:
        """Takes the folder and starts Kafka and the Valkeys in it, or finds the existing ones; says which run and where.

        Raises:
            StackError: another launcher has the folder, it belongs to another log, or an existing server does not answer.
            StartError: a server ended or was not ready in time.
            JarError: Kafka's jars are missing and cannot be fetched.
        """
        self._take_folder()
        bootstrap = self._variables.get(KAFKA_VARIABLE, "")
        existing = {name: url for name in self._valkeys if (url := self._variables.get(redis_variable(name), ""))}
        self._check_existing(bootstrap, existing)
        own = [name for name in self._valkeys if name not in existing]
        if not bootstrap:
            prepare(self._announce)
        try:
            kafka, valkeys = self._start_own(embedded=not bootstrap, contexts=own)
        except StartError:
            # Between drawing a port and listening on it, somebody else may have taken it: then draw again, once.
            taken = {name for name in self._promised if not is_free(self.state.ports[name])}
            if not taken:
                raise
            self._promised -= taken
            kafka, valkeys = self._start_own(embedded=not bootstrap, contexts=own)
        cluster_id = kafka.cluster_id if kafka else self.state.cluster_id
        urls = {name: existing.get(name) or valkeys[name].url for name in self._valkeys}
        log = kafka.variables if kafka else self._existing_log()
        access = {name: log[name] for name in ACCESS_VARIABLES}
        self._remember(replace(self.state, cluster_id=cluster_id, kafka=log[KAFKA_VARIABLE], kafka_access=access, redis=urls))
        if kafka:
            self._announce(f"Kafka {VERSION}, embedded: {kafka.bootstrap} (cluster {cluster_id}, data in {kafka.data})")
        else:
            self._announce(f"Kafka, existing ({KAFKA_VARIABLE}): {bootstrap} (cluster {cluster_id})")
        for name, url in urls.items():
            how = f"existing ({redis_variable(name)})" if name in existing else "embedded"
            self._announce(f"Valkey of {name}, {how}: {shown(url)}")

    def run(self, specs: Iterable[ProcessSpec]) -> None:
        """Starts outside servers, then the others side by side, waits until all are ready, and supervises them.

        Raises:
            StartError: one ended or was not ready in time, with the last lines of its log.
        """
        specs = list(specs)
        for stage, outside in ((1, True), (0, False)):
            self._start(stage, [spec for spec in specs if spec.outside is outside])

    def expect(self, names: Sequence[str]) -> None:
        """Writes down which processes of contexts should run, for commands beside this launcher."""
        self._remember(replace(self.state, processes=tuple(names)))

    def until_interrupted(self, up: str = "everything is up; Ctrl-C stops it", meanwhile: Callable[[], object] = lambda: None) -> None:
        """Announces `up` and returns at the first Ctrl-C, SIGTERM or hang-up; `meanwhile` is called a few times a second."""
        try:
            self._announce(up)
            while True:
                time.sleep(MEANWHILE_S)
                meanwhile()
        except KeyboardInterrupt:
            self._announce("stopping; interrupt again to kill everything at once")

    def stop(self, within: float = STOP_S) -> None:
        """Stops services, outside servers and infrastructure, in this order; `within` seconds each, then SIGKILL."""
        self._stopping = True
        for names in self._stages:
            self.supervisor.stop(names, within, hurry=lambda: self._hurry)

    def close(self) -> None:
        """Stops everything and gives the folder back."""
        try:
            self.stop()
        finally:
            self.supervisor.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, self._interrupted)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except KeyboardInterrupt:  # it came before `stop` began to count: now it hurries
            self.close()
        finally:
            for number, before in self._handlers.items():
                signal.signal(number, before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """The first one breaks off whatever goes on; one more, or one while the stack stops, kills what still runs."""
        self._interrupts += 1
        self._hurry = self._stopping or self._interrupts > 1
        if not self._stopping:
            raise KeyboardInterrupt

    def _take_folder(self) -> None:
        path = self.folder / "lock"
        if self._fresh and self.folder.exists() and any(self.folder.iterdir()) and not path.exists():
            raise StackError(f"{self.folder} holds files that no stack made", "name an empty folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = try_lock(path)
        if self._lock is None:
            raise StackError(f"process {holder(path)} already runs a stack in {self.folder}", "stop that one with Ctrl-C, or use it")
        end_leftovers(self.folder, self._announce)
        if self._fresh:
            for entry in self.folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry != path:
                    entry.unlink()
        known = read_state(self.folder)
        if known is None:
            return
        if known.partitions != self.state.partitions:
            raise StackError(
                f"{self.folder} has {known.partitions} partitions per topic, not {self.state.partitions}",
                "a log cannot change that, since its keys would move: keep the number, or begin anew with `make clean`",
            )
        self.state = known

    def _check_existing(self, bootstrap: str, redis: Mapping[str, str]) -> None:
        known = self.state.cluster_id
        if bootstrap:
            found = self._existing_cluster()
            if found is None:
                raise StackError(
                    f"no Kafka answers at {bootstrap} within {EXISTING_S:.0f} s",
                    f"start it, or unset {KAFKA_VARIABLE} to use the embedded one",
                )
        else:
            found = stored_cluster_id(self.folder / "kafka")
        if known and found != known:
            what = f"cluster {found}" if found else "no log"
            raise StackError(
                f"{self.folder} holds the views of cluster {known}, but there is {what} to go with them",
                f"bring that log back (is {KAFKA_VARIABLE} as it was?), or begin anew with `make clean`",
            )
        self.state = replace(self.state, cluster_id=found)
        for name, url in redis.items():
            if not is_answering(url, within=EXISTING_S):
                raise StackError(
                    f"no Redis answers at {shown(url)} within {EXISTING_S:.0f} s",
                    f"start it, or unset {redis_variable(name)} to use an embedded one",
                )

    def _existing_log(self) -> dict[str, str]:
        return {name: self._variables.get(name, "") for name in (KAFKA_VARIABLE, *ACCESS_VARIABLES)}

    def _existing_cluster(self) -> str | None:
        log = self._existing_log()
        bootstrap = log[KAFKA_VARIABLE]
        try:
            return answering_cluster(Settings.read(log), within=EXISTING_S)
        except SettingsError as error:
            remedy = "docs/operations.md tells what an existing Kafka needs"
            raise StackError(f"nobody can get in at {bootstrap}: {error}", remedy) from error
        except Refused as error:
            raise StackError(
                str(error), f"is it the password for {bootstrap}, and does it ask for one (SASL)? One that lets everybody in is not used"
            ) from error

    def _start_own(self, *, embedded: bool, contexts: Sequence[str]) -> tuple[Kafka | None, dict[str, Valkey]]:
        kafka = (
            Kafka(
                self.folder,
                port=self.port("kafka"),
                controller_port=self.port("kafka.controller"),
                settings=self._kafka_settings,
            )
            if embedded
            else None
        )
        valkeys = {context: Valkey(self.folder, name=f"valkey.{context}", port=self.port(f"valkey.{context}")) for context in contexts}
        self._start(2, [server.spec() for server in (kafka, *valkeys.values()) if server])
        return kafka, valkeys

    def _start(self, stage: int, specs: Sequence[ProcessSpec]) -> None:
        self._stages[stage] += [spec.name for spec in specs if spec.name not in self._stages[stage]]
        self.supervisor.start(specs)

    def _remember(self, state: StackState) -> None:
        self.state = state
        write_state(self.folder, state)

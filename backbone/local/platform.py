"""A platform on this machine: its stack, its topics, what it meets outside, and one process per context."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backbone.adapters.kafka_clients import credentials
from backbone.contract import resolve_context
from backbone.declare import Outside, Platform
from backbone.local.processes import Announce, ProcessSpec
from backbone.local.slots import WISH, Slots, grant, process_name, workers
from backbone.local.stack import Stack
from backbone.operations import topics
from backbone.ownership import READER
from backbone.settings import Settings

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RunningPlatform:
    """A platform that runs here.

    Attributes:
        stack: its processes; `stack.supervisor` stops, kills and resumes them by name.
        outside: address or path of everything outside, by name.
        slots: how many processes of each context run; `slots.scale` and `slots.roll` change that.
        gateway: name of the gateway's context; empty if there is none.
    """

    stack: Stack
    outside: Mapping[str, str]
    slots: Slots
    gateway: str

    @property
    def health(self) -> Mapping[str, str]:
        """Address of the HTTP port of each process of a context that should run now, by name."""
        return {name: _health(self.stack, name) for name in self.stack.state.processes}

    @property
    def grpc(self) -> str:
        """Address of the gRPC server of the gateway's first process, host:port."""
        return self.door()

    @property
    def http(self) -> str:
        """Address of the HTTP server of the gateway's first process."""
        return self.door(kind="http")

    def door(self, slot: int = 0, kind: str = "grpc") -> str:
        """Address of a server ("grpc" or "http") of one of the gateway's processes; empty if there is no gateway."""
        if not self.gateway:
            return ""
        address = f"{HOST}:{self.stack.port(f'{process_name(self.gateway, (), slot)}.{kind}')}"
        return address if kind == "grpc" else f"http://{address}"

    @property
    def log(self) -> Settings:
        """Where its log is, without the rows of anybody."""
        return Settings.read(self.stack.state.log())

    def kafka(self, user: str = READER) -> dict[str, str]:
        """What any client of librdkafka needs to speak to its log as a user; as the one who only reads, if nobody is named."""
        return credentials(self.log, user)


@contextmanager
def running(
    folder: Path,
    platform: Platform,
    *,
    fresh: bool = False,
    partitions: int = 4,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
    split: Mapping[str, Sequence[Sequence[str]]] | None = None,
    slots: Mapping[str, int] | None = None,
    announce: Announce = print,
) -> Iterator[RunningPlatform]:
    """Run a platform until the block is left.

    Args:
        folder: where log, views, ports, keys and log files lie.
        fresh: begin with an empty folder.
        partitions: P, fixed when the folder's log is made.
        environment: variables for every process, on top of what the stack gives.
        files: where each outside file comes from, by name; copied into the folder if it is not there yet.
        split: services by process, by context; a context that is not named runs in one process.
        slots: how many of each of these processes run, by context; one if it is not named.
        announce: takes each line for the person in front of the terminal.

    Raises:
        StackError, StartError: something did not start; with its last lines.
        DeclarationError: a table or contract lies.
    """
    resolved = {context.name: resolve_context(context) for context in platform.contexts}
    with Stack(folder, [context.name for context in platform.contexts], fresh=fresh, partitions=partitions, announce=announce) as stack:
        stack.start_infrastructure()
        announce(f"topics: {topics.apply(platform, Settings.read(stack.state.log()))}")
        outside, servers = _outside(stack, platform.outside, files or {})
        given = {f"OUTSIDE_{name.upper()}": address for name, address in outside.items()} | dict(environment or {})
        answering = {
            name: {service.service.name for service in services if service.rpcs or service.service.api}
            for name, services in resolved.items()
        }

        def make(context: str, services: Sequence[str], slot: int) -> ProcessSpec:
            return _process(stack, context, services, slot, given, answers=not services or bool(answering[context] & set(services)))

        held = Slots(stack, {context.name: (split or {}).get(context.name) or [[]] for context in platform.contexts}, make)
        counts = dict.fromkeys(resolved, 1) | dict(slots or {})
        specs = held.specs(counts)
        stack.run([*servers, *specs])
        held.started(counts)
        yield RunningPlatform(
            stack=stack,
            outside=outside,
            slots=held,
            gateway=platform.gateway.name if platform.gateway else "",
        )


def _health(stack: Stack, name: str) -> str:
    return f"http://{HOST}:{stack.port(f'{name}.health')}"


def _process(stack: Stack, context: str, services: Sequence[str], slot: int, given: Mapping[str, str], *, answers: bool) -> ProcessSpec:
    name = process_name(context, services, slot)
    chosen = [argument for service in services for argument in ("--service", service)]
    # Whoever asks a sibling knows the port of every slot there may be; those where nobody answers are passed over.
    views = [stack.port(f"{process_name(context, (), number)}.grpc") for number in range(stack.state.partitions)]
    environment = {
        **stack.environment(context),
        "BACKBONE_SLOT": str(slot),
        "BACKBONE_HEALTH_PORT": str(stack.port(f"{name}.health")),
        "GRPC_PORT": str(views[slot]) if answers else "0",
        "HTTP_PORT": str(stack.port(f"{process_name(context, (), slot)}.http")) if answers else "0",
        "VIEWS_TARGET": "ipv4:" + ",".join(f"{HOST}:{port}" for port in views),
        "ORDER_ID_KEY_FILE": str(stack.folder / "order-id.key"),
        **given,
    }
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "backbone", "run", context, *chosen),
        environment=environment,
        ready=f"{_health(stack, name)}/readyz",
    )


def _outside(stack: Stack, outside: Sequence[Outside], files: Mapping[str, Path]) -> tuple[dict[str, str], list[ProcessSpec]]:
    addresses: dict[str, str] = {}
    servers: list[ProcessSpec] = []
    for one in outside:
        if one.file:
            path = stack.folder / one.file
            if one.name in files and not path.exists():
                shutil.copyfile(files[one.name], path)
            addresses[one.name] = str(path)
            continue
        port = stack.port(one.name)
        addresses[one.name] = f"http://{HOST}:{port}"
        arguments = [argument.format(port=port, folder=stack.folder) for argument in one.arguments]
        servers.append(
            ProcessSpec(
                name=one.name,
                argv=(sys.executable, "-m", one.module, *arguments),
                ready=f"http://{HOST}:{port}/livez",
                outside=True,
            )
        )
    return addresses, servers


def up(
    folder: Path,
    platform: Platform,
    *,
    files: Mapping[str, Path] | None = None,
    wanted: Sequence[str] = (),
    announce: Announce = print,
) -> int:
    """Run a platform until Ctrl-C, and do meanwhile what `backbone scale` and `backbone restart` ask for; returns the exit code.

    Args:
        wanted: how many workers: a number for all contexts, or <context>=<number>.
    """
    counts = workers(wanted, [context.name for context in platform.contexts])
    with running(folder, platform, files=files, slots=counts, announce=announce) as here:
        for slot in range(here.slots.count(platform.gateway.name) if platform.gateway else 0):
            announce(f"gateway{f' {slot}' if slot else ''}: gRPC {here.door(slot)}, HTTP {here.door(slot, 'http')}")
        announce(f"logs in {folder / 'logs'}; Ctrl-C stops it")
        (folder / WISH).unlink(missing_ok=True)  # of a launcher that is gone
        here.stack.until_interrupted(meanwhile=lambda: grant(here.stack.folder, here.slots, announce))
    return 0

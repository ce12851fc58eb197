"""A platform on this machine: its stack, its topics, what it meets outside, and one process per context."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backbone.contract import resolve_context
from backbone.declare import Context, Outside, Platform
from backbone.local.processes import Announce, ProcessSpec
from backbone.local.stack import Stack
from backbone.operations import topics
from backbone.settings import Settings

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RunningPlatform:
    """A platform that runs here.

    Attributes:
        stack: its processes; `stack.supervisor` stops, kills and resumes them by name.
        grpc: address of the gateway's gRPC server, host:port.
        http: address of the gateway's HTTP server.
        outside: address or path of everything outside, by name.
        health: address of the HTTP port of each process, by name.
    """

    stack: Stack
    grpc: str
    http: str
    outside: Mapping[str, str]
    health: Mapping[str, str]


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
        announce: takes each line for the person in front of the terminal.

    Raises:
        StackError, StartError: something did not start; with its last lines.
        DeclarationError: a table or contract lies.
    """
    resolved = {context.name: resolve_context(context) for context in platform.contexts}
    with Stack(folder, [context.name for context in platform.contexts], fresh=fresh, partitions=partitions, announce=announce) as stack:
        stack.start_infrastructure()
        announce(f"topics: {topics.apply(platform, Settings.read(stack.environment(platform.contexts[0].name)))}")
        outside, servers = _outside(stack, platform.outside, files or {})
        given = {f"OUTSIDE_{name.upper()}": address for name, address in outside.items()} | dict(environment or {})
        health: dict[str, str] = {}
        specs: list[ProcessSpec] = []
        for context in platform.contexts:
            groups = (split or {}).get(context.name) or [[]]
            answering = {service.service.name for service in resolved[context.name] if service.rpcs or service.service.api}
            for services in groups:
                name = ".".join([context.name, *services]) if services else context.name
                answers = not services or bool(answering & set(services))
                spec = _process(stack, context, name, services, given, answers=answers)
                health[name] = f"http://{HOST}:{spec.environment['BACKBONE_HEALTH_PORT']}"
                specs.append(spec)
        stack.run([*servers, *specs])
        gateway = platform.gateway.name if platform.gateway else ""
        yield RunningPlatform(
            stack=stack,
            grpc=f"{HOST}:{stack.port(f'{gateway}.grpc')}" if gateway else "",
            http=f"http://{HOST}:{stack.port(f'{gateway}.http')}" if gateway else "",
            outside=outside,
            health=health,
        )


def _process(stack: Stack, context: Context, name: str, services: Sequence[str], given: Mapping[str, str], *, answers: bool) -> ProcessSpec:
    grpc = stack.port(f"{context.name}.grpc")
    health = stack.port(f"{name}.health")
    chosen = [argument for service in services for argument in ("--service", service)]
    environment = {
        **stack.environment(context.name),
        "BACKBONE_HEALTH_PORT": str(health),
        "GRPC_PORT": str(grpc) if answers else "0",
        "HTTP_PORT": str(stack.port(f"{context.name}.http")) if answers else "0",
        "VIEWS_TARGET": f"{HOST}:{grpc}",
        "ORDER_ID_KEY_FILE": str(stack.folder / "order-id.key"),
        **given,
    }
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "backbone", "run", context.name, *chosen),
        environment=environment,
        ready=f"http://{HOST}:{health}/readyz",
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


def up(folder: Path, platform: Platform, *, files: Mapping[str, Path] | None = None, announce: Announce = print) -> int:
    """Run a platform until Ctrl-C; returns the exit code."""
    with running(folder, platform, files=files, announce=announce) as here:
        announce(f"gateway: gRPC {here.grpc}, HTTP {here.http}; logs in {folder / 'logs'}; Ctrl-C stops it")
        here.stack.until_interrupted()
    return 0

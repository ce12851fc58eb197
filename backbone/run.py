"""One process of a context: every loop of its services on a thread or in the event loop, from its start to its end.

Crash-only: a loop that cannot go on ends the process; whoever supervises it starts the slot again, and it takes over from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from google.protobuf.message import Message

from backbone.adapters.grpc import Serve, connect_sibling
from backbone.adapters.kafka import KafkaLog
from backbone.adapters.redis import AsyncRedisRows, RedisRows
from backbone.contract import ResolvedService, resolve_context
from backbone.declare import Asking, Context, Heard, Raise, Reader, Service, Tail, View
from backbone.errors import BackboneError, ContractError, NoPassword, Refused, SettingsError, Unavailable, WorkerEnded
from backbone.health import health_port
from backbone.loops.act import Act
from backbone.loops.decide import Decide
from backbone.loops.listen import Listen
from backbone.loops.own_thread import HANGS_S
from backbone.loops.project import Project
from backbone.loops.repartition import Repartition
from backbone.loops.serve import Asked, Views
from backbone.loops.take_in import BoundIntake, Poll
from backbone.ports import Log, Place
from backbone.process import Loop, Process, Running
from backbone.settings import Settings
from backbone.topology import topology

STOP_S = 8.0
"""How long a loop has to finish or abort its batch once the process is told to stop."""

END_S = 30.0
"""A process that ends and is still there after that hangs in a client library: it leaves as it is, which is a crash like any other."""

LOOK_EVERY_S = 0.05
"""Pause between two looks at whether the views have caught up."""

Row = TypeVar("Row", bound=Message)
log = structlog.get_logger()
Logs = Mapping[str, KafkaLog]
"""The log as each service sees it, by the service's name: its clients authenticate as the service, and may what its table says."""


@dataclass
class Handles:
    """A service's pieces, bound to this process, as its `Api` gets them; implements `declare.Bound`."""

    settings: Settings
    resolved: ResolvedService
    log: Log
    views: Views
    intake: BoundIntake | None
    edges: dict[str, Any]

    def raise_(self) -> Raise:
        """The service's intake."""
        if self.intake is None:
            raise SettingsError(f"{self.resolved.name} has no intake; add Intake(...) to its table")
        return self.intake

    def reader(self, view: View[Row]) -> Reader[Row]:
        """Rows of a view of this service."""
        return self.views.reader(view)

    def asking(self, within_s: float, at_least: Mapping[Place, int]) -> Asking:
        """A question to the views of this service."""
        return Asked(self.views, self.views.question(within_s, at_least))

    async def reader_of_now(self, view: View[Row]) -> Reader[Row]:
        """Rows of a view of this service that know all that the log holds now."""
        topic = self.resolved.view_of(view).topic.name
        ends = await asyncio.to_thread(self.log.high_watermarks, [(topic, partition) for partition in range(self.settings.partitions)])
        return self.views.reader(view, self.views.question(at_least=ends))

    def tail(self, tail: Tail, heard: Callable[[Sequence[Heard]], None], stalled: Callable[[], None]) -> AbstractContextManager[None]:
        """Start to hear."""
        return Listen(self.resolved, tail, self.log, self.settings).heard_by(heard, stalled)

    def shows(self, status: Callable[[], Mapping[str, float]]) -> None:
        """Show them as those of an edge."""
        self.edges[self.resolved.name] = Shown(status)


@dataclass(frozen=True)
class Shown:
    """Numbers of an edge that the runtime does not know."""

    status: Callable[[], Mapping[str, float]]


async def run(context: Context, settings: Settings, names: Sequence[str] = (), ending: Callable[[Process], None] = lambda _: None) -> int:
    """Run a context's services until told to stop.

    Args:
        context: what to run.
        settings: the environment.
        names: the services to run; all of the context's if empty.
        ending: called once, when the end begins.

    Returns:
        0 after a stop that was asked for, 1 if a part could not go on.

    Raises:
        DeclarationError: a table or contract lies.
        SettingsError: the environment is incomplete, or a service is unknown.
    """
    services = _chosen(context, names)
    process = Process(context, settings, services)
    loop = process.loop
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.end.set)
    async with AsyncExitStack() as stack:
        health = await stack.enter_async_context(health_port(process))
        process.addresses["health"] = health
        logs = await _await_logs(process)
        if logs is None:
            return _exit_code(process)
        for kafka in logs.values():
            stack.callback(kafka.close)
        async with AsyncExitStack() as edges:
            await _start(process, logs, edges)
            if not process.end.is_set():
                log.info("started", context=context.name, services=[s.name for s in services], **process.addresses)
            await _until_end(process)
            ending(process)
            process.ready, process.why_not = False, "stopping"
            log.info("stopping", context=context.name, slot=settings.slot)
        # Nobody is served any more: clients went elsewhere, with their answer or their handle.
        log.info("edges closed", context=context.name, slot=settings.slot)
        for running in process.loops:
            running.ask_to_stop()
        await asyncio.to_thread(_join, process.loops)
        log.info("stopped", context=context.name, slot=settings.slot)
    return _exit_code(process)


def _exit_code(process: Process) -> int:
    """What the process ends with, after saying why."""
    if process.failure:
        print(f"backbone run {process.context.name}: {process.failure}", file=sys.stderr, flush=True)
    return 1 if process.failure else 0


async def _until_end(process: Process) -> None:
    """Wait for the end, and bring it about when a loop hangs."""
    while not process.end.is_set():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.end.wait(), 1.0)
        for running in process.loops:
            if running.stuck_s() > HANGS_S:
                process.failed(running.name, WorkerEnded(f"one step has taken {running.stuck_s():.0f} s"))


def leave_anyway(process: Process) -> None:
    """See to it that the program ends in half a minute, even if a call hangs that somebody waits for."""

    def leave() -> None:
        why = process.failure or "told to stop"
        print(f"backbone run {process.context.name}: {why}; not ended {END_S:.0f} s later, left as it is", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(END_S, leave)
    timer.daemon = True
    timer.start()


def _join(loops: Sequence[Running]) -> None:
    deadline = time.monotonic() + STOP_S
    for running in loops:
        if not running.join(max(0.0, deadline - time.monotonic())):
            log.warning("still busy, left behind", worker=running.name, after_s=STOP_S)


def _chosen(context: Context, names: Sequence[str]) -> list[ResolvedService]:
    services = resolve_context(context)
    known = {service.service.name: service for service in services}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"context {context.name} has no service {unknown[0]!r}; it has {', '.join(known)}")
    return [known[name] for name in names] if names else list(services)


async def _await_logs(process: Process) -> Logs | None:
    """The log as each of the chosen services, once it answers and shows it every topic of it; None if the process is to end."""
    deadline = time.monotonic() + process.settings.start_patience_s
    whole = topology(process.context)
    logs: dict[str, KafkaLog] = {}
    for service in process.services:
        wanted = {topic.name for topic in whole.of_service(service.name)}
        wanted |= {topic for group in whole.groups if group.service == service.name for topic in group.topics}
        wanted |= {topic.name for topic in service.tails}
        kafka = await _await_log(process, service.name, wanted, deadline)
        if kafka is None:
            for other in logs.values():
                other.close()
            return None
        logs[service.name] = kafka
    return logs


async def _await_log(process: Process, service: str, wanted: set[str], deadline: float) -> KafkaLog | None:
    kafka: KafkaLog | None = None
    while not process.end.is_set():
        try:
            if kafka is None:
                kafka = await asyncio.to_thread(KafkaLog, process.settings, service)
            there = await asyncio.to_thread(kafka.topics)
            check_partitions({name: there[name][1] for name in wanted & there.keys()}, process.settings.partitions)
            missing = wanted - there.keys()
            if not missing:
                return kafka
            process.why_not = (
                f"{len(missing)} topics are not there for {service}, {min(missing)} among them; run `backbone topics apply`, "
                "which makes what is missing and gives its rights"
            )
        except Unavailable as error:
            process.why_not = f"Kafka at {process.settings.kafka} does not answer: {error}"
        except (NoPassword, Refused) as error:  # a process may be started before its user is made
            process.why_not = str(error)
        if time.monotonic() >= deadline:
            process.failed("start", WorkerEnded(process.why_not))
            break
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.end.wait(), 0.3)
    if kafka is not None:
        kafka.close()
    return None


def check_partitions(found: Mapping[str, int], partitions: int) -> None:
    """Refuse topics with another number of partitions than the platform: equal keys would not meet.

    Args:
        found: number of partitions by topic.
        partitions: P of this process.

    Raises:
        ContractError: names the topic and both numbers.
    """
    for name, count in sorted(found.items()):
        if count != partitions:
            raise ContractError(
                f"topic {name}",
                f"has {count} partitions on this cluster, this process was told {partitions}",
                f"Set BACKBONE_PARTITIONS={count}: a log cannot change that, since its keys would move.",
            )


async def _start(process: Process, logs: Logs, stack: AsyncExitStack) -> None:
    settings = process.settings
    rows = AsyncRedisRows(settings.redis_url)
    stack.push_async_callback(rows.close)
    for service in process.services:
        _threads(process, service, logs[service.name])
    for running in process.loops:
        running.start()
    shown = {view.topic.name: logs[service.name] for service in process.services for view in service.views}
    views = Views([view for service in process.services for view in service.views], EndsForAll(shown), rows, settings.partitions)
    await _task(process, f"{process.context.name}.views", views, stack)
    if answering := [service for service in process.services if service.rpcs]:
        serve = Serve(answering, views, settings)
        process.edges[f"{process.context.name}.serve"] = serve
        process.addresses["grpc"] = await stack.enter_async_context(serve.serving())
    for service in process.services:
        await _edges(process, service, logs[service.name], views, stack)
    while not process.end.is_set() and not await views.caught_up():
        process.why_not = str(views.status()["waiting"])
        await asyncio.sleep(LOOK_EVERY_S)
    process.ready, process.why_not = True, ""


@dataclass(frozen=True)
class EndsForAll:
    """Where topics end, asked for each as a service that hears it; implements `loops.serve.Ends`.

    Attributes:
        logs: the log as such a service sees it, by topic.
    """

    logs: Mapping[str, Log]

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets after the last record of each partition."""
        asked: dict[int, tuple[Log, list[Place]]] = {}
        for place in places:
            kafka = self.logs[place[0]]
            asked.setdefault(id(kafka), (kafka, []))[1].append(place)
        return {place: end for kafka, of in asked.values() for place, end in kafka.high_watermarks(of).items()}


def _threads(process: Process, service: ResolvedService, kafka: KafkaLog) -> None:
    settings = process.settings

    def add(purpose: str, make: Callable[[], Loop]) -> None:
        process.loops.append(Running(f"{service.name}.{purpose}", make, process.failed))

    if service.decider is not None:
        add("decide", lambda: Decide(service, kafka, RedisRows(settings.redis_url), settings))
        if service.decider.repartitioned:
            add("repartition", lambda: Repartition(service, kafka, settings))
    for view in service.views:
        add(view.view.name, lambda view=view: Project(service, view, kafka, RedisRows(settings.redis_url), settings))  # type: ignore[misc]


async def _edges(process: Process, service: ResolvedService, kafka: KafkaLog, views: Views, stack: AsyncExitStack) -> None:
    settings = process.settings
    if service.effects:
        await _task(process, f"{service.name}.effects", Act(service, kafka, settings, connect_sibling), stack)
    declared: Service = service.service
    if declared.intake is not None and declared.intake.source is not None:
        await _task(process, f"{service.name}.intake", Poll(service, kafka, settings), stack)
    if declared.api is not None:
        intake = BoundIntake(service, kafka, settings) if declared.intake is not None else None
        if intake is not None:
            stack.callback(intake.close)
            process.edges[f"{service.name}.intake"] = intake
        handles = Handles(settings, service, kafka, views, intake, process.edges)
        process.addresses.update(await stack.enter_async_context(declared.api.serve(handles)))


async def _task(process: Process, name: str, edge: Any, stack: AsyncExitStack) -> None:
    """Run an edge until the process ends; it fails as a loop fails."""
    process.edges[name] = edge

    async def until_end() -> None:
        try:
            await edge.run(process.end)
        except Exception as error:  # noqa: BLE001 - whatever ends an edge ends the process
            process.failed(name, error)

    task = asyncio.create_task(until_end(), name=name)

    async def finish() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(task, STOP_S)

    stack.push_async_callback(finish)


def set_up_logging(level: int = logging.INFO) -> None:
    """One JSON object a line, on standard output: time, level, event, and what belongs to it (the order id among it); what client
    libraries say through Python's logging comes in the same form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    rendered: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()]
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendered))
    logging.basicConfig(level=logging.WARNING, handlers=[lines], force=True)


def main(context: Context, names: Sequence[str] = ()) -> int:
    """Run a context with the environment of this process; returns its exit code."""
    set_up_logging()
    try:
        settings = Settings.read()
        if not settings.kafka:
            raise SettingsError("KAFKA_BOOTSTRAP_SERVERS is not set; `backbone up` sets it for every process it starts")
        if not settings.redis_url:
            raise SettingsError("REDIS_URL is not set; `backbone up` sets it for every process it starts")
        try:
            import uvloop
        except ImportError:
            return asyncio.run(run(context, settings, names, leave_anyway))
        return uvloop.run(run(context, settings, names, leave_anyway))
    except BackboneError as error:
        print(f"backbone run {context.name}: {error}", file=sys.stderr, flush=True)
        return 1

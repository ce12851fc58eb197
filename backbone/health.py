"""How a process tells its health: liveness, readiness, status and metrics, on an HTTP port of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backbone.http_server import http_server
from backbone.process import Process

COUNTERS = {
    "decided": "Records decided",
    "said": "Events and commands said, copies included",
    "folded": "Records folded into rows",
    "done": "Commands done",
    "quarantined": "Records set aside",
    "recovered": "Times a loop began again from the log after a failed commit",
    "replaced": "Producers replaced after a suspect commit",
    "raised": "Events raised from outside",
    "refused": "Calls turned away because too much was under way",
}
GAUGES = {
    "open": "Commands under way",
    "oldest_s": "Age of the oldest open command, seconds",
    "waits_s": "How long the loop has waited for something, seconds",
    "limit": "How much may be under way now",
    "under_way": "How much is under way",
    "answer_s": "How long answers take now, seconds",
}


class Figures:
    """The process's status as Prometheus metrics."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def collect(self) -> Sequence[Metric]:
        """Metrics of now."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        families |= {name: CounterMetricFamily(f"backbone_{name}", about, labels=["worker"]) for name, about in COUNTERS.items()}
        families |= {name: GaugeMetricFamily(f"backbone_{name}", about, labels=["worker"]) for name, about in GAUGES.items()}
        parts = {running.name: running.status() for running in self._process.loops}
        parts |= {name: edge.status() for name, edge in self._process.edges.items()}
        for worker, status in parts.items():
            for name, family in families.items():
                if isinstance(value := status.get(name), int | float):
                    family.add_metric([worker], value)
        ready = GaugeMetricFamily("backbone_ready", "1 if the process does its work", value=float(self._process.is_ready()))
        return [*families.values(), ready]


@contextlib.asynccontextmanager
async def health_port(process: Process) -> AsyncIterator[str]:
    """The HTTP port of liveness, readiness, status and metrics."""
    registry = CollectorRegistry()
    registry.register(Figures(process))

    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready\n") if process.is_ready() else PlainTextResponse(f"{process.waits_for()}\n", 503)

    async def status(_: Request) -> Response:
        return JSONResponse(process.status())

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/livez", live), Route("/readyz", ready), Route("/status", status), Route("/metrics", metrics)]
    async with http_server(Starlette(routes=routes), process.settings.host, process.settings.health_port) as address:
        yield address

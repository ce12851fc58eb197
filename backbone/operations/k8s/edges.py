"""Who may open a connection to whom in a cluster, derived from what tables declare. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backbone.declare import Outside, Platform
from backbone.errors import DeclarationError
from backbone.topology import Joins, Topology

GRPC_PORT = 50051
HTTP_PORT = 8080
HEALTH_PORT = 8081
"""Asked by the kubelet alone, which no NetworkPolicy judges."""
KAFKA_PORT = 9092
VALKEY_PORT = 6379
OUTSIDE_PORT = 8080
DNS_PORT = 53


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The pods of one name in one namespace; the empty one is whoever reaches the cluster's pods at all."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else "anybody"


KAFKA = Place("kafka", "kafka")
DNS = Place("kube-system", "kube-dns")
PROVISIONING = Place("operations", "topics")
TOOLS = Place("operations", "tools")
"""Where operators run the `backbone` command."""
ANYBODY = Place("", "")
OUTSIDE = "outside"
"""Namespace of the stand-ins for what we do not own."""


@dataclass(frozen=True, slots=True, order=True)
class NetworkEdge:
    """A connection that must be possible.

    Attributes:
        source: who opens it.
        port: where the target listens, TCP; DNS is asked by UDP too.
        why: the edge of the topology, or the part of every process, it is there for.
    """

    source: Place
    target: Place
    port: int
    why: str


def process_of(service: str) -> Place:
    """Where a service `<context>.<service>` runs: one process per context, in the context's namespace."""
    context = service.split(".", 1)[0]
    return Place(context, context)


def valkey_of(context: str) -> Place:
    """Where the rows of a context lie."""
    return Place(context, "valkey")


def network_edges(platform: Platform, of: Topology) -> tuple[NetworkEdge, ...]:
    """Every connection the platform needs, and no other.

    Args:
        of: the platform's topology.

    Raises:
        DeclarationError: a connection is needed that nothing declares, or declared and not needed.
    """
    edges = {*_of_every_process(platform), *_inside(of), *_to_outside(platform, of)}
    for operating in (PROVISIONING, TOOLS):
        edges |= {NetworkEdge(operating, KAFKA, KAFKA_PORT, "operations"), NetworkEdge(operating, DNS, DNS_PORT, "names")}
    # A broker finds itself, as others do, under the name it advertises.
    edges.add(NetworkEdge(KAFKA, DNS, DNS_PORT, "names"))
    if platform.gateway is not None:
        door = process_of(platform.gateway.name)
        edges |= {NetworkEdge(ANYBODY, door, GRPC_PORT, "clients"), NetworkEdge(ANYBODY, door, HTTP_PORT, "clients")}
    return tuple(sorted(edges))


def _of_every_process(platform: Platform) -> Iterable[NetworkEdge]:
    for context in platform.contexts:
        process = process_of(context.name)
        yield NetworkEdge(process, KAFKA, KAFKA_PORT, "events")
        yield NetworkEdge(process, valkey_of(context.name), VALKEY_PORT, "rows")
        yield NetworkEdge(process, DNS, DNS_PORT, "names")


def _inside(of: Topology) -> Iterable[NetworkEdge]:
    for edge in of.edges:
        if edge.joins is not Joins.QUERY:
            continue
        asks, answers = process_of(edge.source), process_of(edge.target)
        if asks.namespace != answers.namespace:
            raise DeclarationError(
                f"{edge.source} asks {edge.target}, which is of another context: contexts meet in events only; fold what it needs"
            )
        yield NetworkEdge(asks, answers, GRPC_PORT, "views")


def _to_outside(platform: Platform, of: Topology) -> Iterable[NetworkEdge]:
    opening = {
        edge.source if edge.joins is Joins.EFFECT else edge.target: edge.target if edge.joins is Joins.EFFECT else edge.source
        for edge in of.edges
        if edge.joins in (Joins.EFFECT, Joins.INTAKE)
    }
    named = {service for one in platform.outside for service in one.used_by}
    for service, opens in sorted(opening.items()):
        if service not in named:
            raise DeclarationError(
                f"{service} opens {opens}, and nothing outside is said to be used by it: "
                f'write used_by=("{service}",) into the Outside(...) that it reaches'
            )
    for one in platform.outside:
        for service in one.used_by:
            if service not in opening:
                raise DeclarationError(f"outside {one.name!r} is used_by {service}, which has no effect and no intake that opens anything")
            if one.module:
                yield NetworkEdge(process_of(service), outside_place(one), OUTSIDE_PORT, f"outside {one.name}")


def outside_place(one: Outside) -> Place:
    """Where the stand-in for something outside runs."""
    return Place(OUTSIDE, one.name)

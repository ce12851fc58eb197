"""The picture of the platform in the README: Mermaid text, derived from the topology. `python -m tests.docs.picture` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backbone.declare import Platform
from backbone.topology import Edge, Joins, topology
from shop import shop

LINES = {Joins.EVENT: "-->", Joins.QUERY: "-.->", Joins.EFFECT: "==>", Joins.INTAKE: "==>"}


def mermaid(platform: Platform, package: str) -> str:
    """A platform as a Mermaid flow chart: a box per context, events plain, questions inside a context dotted, the outside thick."""
    of = topology(platform, package)
    outside = {service: one.name for one in platform.outside for service in one.used_by}
    # A service's views of its own events are no line worth drawing.
    edges = [_edge(edge, outside) for edge in of.edges if edge.source != edge.target]
    return "\n".join(["flowchart TB", *_contexts(of.services), *edges]) + "\n"


def _contexts(services: tuple[str, ...]) -> Iterator[str]:
    for context in dict.fromkeys(name.partition(".")[0] for name in services):
        yield f"  subgraph {context}"
        yield from (f"    {_node(name)}[{name.partition('.')[2]}]" for name in services if name.startswith(f"{context}."))
        yield "  end"
    yield "  clients([clients]) ---|gRPC, JSON| gateway_door"


def _edge(edge: Edge, outside: Mapping[str, str]) -> str:
    what = "<br/>".join(name.rpartition("/")[2].rpartition(".")[2] for name in edge.what)
    source = _outside(outside[edge.target]) if edge.joins is Joins.INTAKE else _node(edge.source)
    target = _outside(outside[edge.source]) if edge.joins is Joins.EFFECT else _node(edge.target)
    return f"  {source} {LINES[edge.joins]}|{what}| {target}"


def _outside(name: str) -> str:
    return f"outside_{name}[({name})]"


def _node(service: str) -> str:
    return service.replace(".", "_").replace("-", "_")


if __name__ == "__main__":
    print(mermaid(shop, "retail"), end="")

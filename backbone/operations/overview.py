"""A topology for people: the three lists, and who is behind each."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from backbone.topology import Joins, Topology


def short(name: str) -> str:
    """The last part of a full name."""
    return name.rpartition(".")[2]


def show(of: Topology, console: Console) -> None:
    """Print what a platform consists of."""
    console.print(f"{len(of.services)} services, {len(of.topics)} topics, digest {of.digest}\n")
    tables = (
        ("Events: public facts", ("event", "said by", "heard by", "topics"), _events(of)),
        ("Commands: what a service tells its own effects", ("command", "service", "topic"), _commands(of)),
        ("Queries: questions inside a context", ("query", "answered by", "from", "asked by"), _queries(of)),
        ("Outside: servers and files we do not own", ("service", "does or takes in", "opened by"), _outside(of)),
    )
    for title, columns, rows in tables:
        console.print(_table(title, columns, rows))
        console.print()


def _table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=False)
    for row in rows:
        table.add_row(*row)
    return table


def _events(of: Topology) -> Iterable[tuple[str, ...]]:
    for event in of.events:
        primary, *copies = event.topics
        also = "".join(f" +{copy.removeprefix(primary.rpartition('.')[0])}" for copy in copies)
        yield short(event.name), event.said_by, ", ".join(event.heard_by) or "-", f"{primary}{also}"


def _commands(of: Topology) -> Iterable[tuple[str, ...]]:
    for command in of.commands:
        yield short(command.name), command.service, command.topic


def _queries(of: Topology) -> Iterable[tuple[str, ...]]:
    for query in of.queries:
        yield query.rpc, query.answered_by, ", ".join(query.views), ", ".join(query.asked_by) or "-"


def _outside(of: Topology) -> Iterable[tuple[str, ...]]:
    for edge in of.edges:
        if edge.joins is Joins.EFFECT:
            yield edge.source, ", ".join(map(short, edge.what)), edge.target
        elif edge.joins is Joins.INTAKE:
            yield edge.target, ", ".join(map(short, edge.what)), edge.source

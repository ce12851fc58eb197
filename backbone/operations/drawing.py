"""A topology as a picture: Mermaid text for pages that render it, SVG for those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from backbone.topology import Edge, Joins, Topology

LINES = {Joins.EVENT: "-->", Joins.QUERY: "-.->", Joins.EFFECT: "==>", Joins.INTAKE: "==>"}
COLOURS = {Joins.EVENT: "#1f5fa8", Joins.QUERY: "#6b8e23", Joins.EFFECT: "#b3541e", Joins.INTAKE: "#b3541e"}
WIDTH, HEIGHT, GAP, PAD, TITLE, MARGIN = 170, 34, 26, 18, 24, 30
"""Pixels: of a box, between boxes, around the boxes of a context, for its title, around everything."""
BETWEEN = 150
"""Pixels between two columns, for the lines."""
OUTSIDE = "outside"


def short(name: str) -> str:
    """The last part of a message's or method's full name."""
    return name.rpartition("/")[2].rpartition(".")[2]


def outside_name(opened_by: str) -> str:
    """A name for what opens something outside: the module it is defined in, without the packages above its service."""
    return ".".join(opened_by.split(".")[-3:-1]) or opened_by


def drawn(of: Topology, only: str = "") -> list[Edge]:
    """The lines worth drawing: not those of a service to itself.

    Args:
        only: a service: lines from or to it.
    """
    return [edge for edge in of.edges if edge.source != edge.target and (not only or only in (edge.source, edge.target))]


def mermaid(of: Topology, only: str = "") -> str:
    """A flow chart: a box per context, events plain, questions inside a context dotted, the outside thick.

    Args:
        only: a service: it, and whom it is joined to.
    """
    edges = drawn(of, only)
    joined = {name for edge in edges for name in (edge.source, edge.target)} | {only}
    services = [name for name in of.services if not only or name in joined]
    lines = ["flowchart LR"]
    for context in dict.fromkeys(name.partition(".")[0] for name in services):
        lines.append(f"  subgraph {context}")
        lines += [f"    {_id(name)}[{name.partition('.')[2]}]" for name in services if name.startswith(f"{context}.")]
        lines.append("  end")
    lines += [f"  {_id(name)}([{outside_name(name)}])" for name in sorted(joined - set(of.services) - {""})]
    lines += [f"  {_id(edge.source)} {LINES[edge.joins]}|{'<br/>'.join(map(short, edge.what))}| {_id(edge.target)}" for edge in edges]
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a name; x and y of its upper left corner."""

    name: str
    x: int
    y: int


def svg(of: Topology) -> str:
    """The picture as SVG: a column per context; hover over a line to read what flows."""
    boxes, frames, width, height = _layout(of)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">'
    )
    parts = [
        opening,
        "<defs>",
        *(_arrow(joins, colour) for joins, colour in COLOURS.items()),
        "</defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *frames,
        *(line for edge in drawn(of) for line in _line(edge, boxes)),
        *(line for box in boxes.values() for line in _box(box)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _layout(of: Topology) -> tuple[Mapping[str, Box], Sequence[str], int, int]:
    columns: dict[str, list[str]] = {}
    for name in of.services:
        columns.setdefault(name.partition(".")[0], []).append(name)
    strangers = sorted({name for edge in of.edges for name in (edge.source, edge.target)} - set(of.services))
    if strangers:
        columns[OUTSIDE] = strangers
    boxes: dict[str, Box] = {}
    frames = []
    deepest = 0
    for number, (title, names) in enumerate(columns.items()):
        x = MARGIN + number * (WIDTH + 2 * PAD + BETWEEN)
        # Columns stand alternately lower, so that lines over two columns do not run through boxes.
        y = MARGIN + number % 2 * (HEIGHT + GAP) // 2
        deep = TITLE + len(names) * (HEIGHT + GAP) + PAD - GAP
        frames.append(f'<rect x="{x}" y="{y}" width="{WIDTH + 2 * PAD}" height="{deep + PAD}" rx="8" fill="#f4f6f9" stroke="#c5ccd6"/>')
        frames.append(f'<text x="{x + PAD}" y="{y + TITLE - 4}" font-weight="600" fill="#333">{escape(title)}</text>')
        for place, name in enumerate(names):
            boxes[name] = Box(name, x + PAD, y + TITLE + PAD // 2 + place * (HEIGHT + GAP))
        deepest = max(deepest, y + deep + PAD)
    return boxes, frames, MARGIN + len(columns) * (WIDTH + 2 * PAD + BETWEEN) - BETWEEN + MARGIN, deepest + MARGIN


def _box(box: Box) -> Iterable[str]:
    name = box.name.partition(".")[2] if box.name.count(".") == 1 else outside_name(box.name)
    yield f'<rect x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#ffffff" stroke="#556"/>'
    middle = f'x="{box.x + WIDTH // 2}" y="{box.y + HEIGHT // 2 + 5}"'
    yield f'<text {middle} text-anchor="middle"><title>{escape(box.name)}</title>{escape(name)}</text>'


def _line(edge: Edge, boxes: Mapping[str, Box]) -> Iterator[str]:
    source, target = boxes[edge.source], boxes[edge.target]
    forward = target.x > source.x
    if target.x == source.x:
        begin, end = (source.x + WIDTH, source.y + HEIGHT // 2 + 6), (target.x + WIDTH, target.y + HEIGHT // 2 - 6)
        bend = 50
        middle = f"C {begin[0] + bend} {begin[1]} {end[0] + bend} {end[1]}"
    else:
        # There and back leave and arrive at different heights, so that both can be seen.
        shift = 5 if forward else -5
        begin = (source.x + (WIDTH if forward else 0), source.y + HEIGHT // 2 + shift)
        end = (target.x + (0 if forward else WIDTH), target.y + HEIGHT // 2 + shift)
        bend = BETWEEN // 2 if forward else -BETWEEN // 2
        middle = f"C {begin[0] + bend} {begin[1]} {end[0] - bend} {end[1]}"
    dashes = ' stroke-dasharray="5 4"' if edge.joins is Joins.QUERY else ""
    what = escape(f"{edge.source} → {edge.target}: {', '.join(map(short, edge.what))}")
    yield (
        f'<path d="M {begin[0]} {begin[1]} {middle} {end[0]} {end[1]}" fill="none" stroke="{COLOURS[edge.joins]}" stroke-width="1.6" '
        f'opacity="0.75"{dashes} marker-end="url(#{edge.joins.value})"><title>{what}</title></path>'
    )


def _arrow(joins: Joins, colour: str) -> str:
    return (
        f'<marker id="{joins.value}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M 0 0 L 8 4 L 0 8 z" fill="{colour}"/></marker>'
    )

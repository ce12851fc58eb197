"""A story on a terminal: a tree in which everything hangs on what caused it."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from backbone.operations.decoding import Kind
from backbone.operations.story import Step, Story, clock, details, headline

COLOURS = {
    Kind.EVENT: "bold green",
    Kind.COMMAND: "bold blue",
    Kind.OUTCOME: "bold cyan",
    Kind.TICK: "bold magenta",
    Kind.QUARANTINED: "bold red",
}


def tree(story: Story) -> Tree:
    """The tree of a story."""
    root = Tree(Text(headline(story), style="bold"), guide_style="dim")
    branches: dict[int, Tree] = {}
    for step in story.steps:
        parent = branches.get(step.because or 0, root)
        branches[step.number] = parent.add(_label(step, story.correlation_id))
    return root


def _label(step: Step, correlation_id: str) -> Text:
    kind = "" if step.kind is Kind.EVENT else f" {step.kind}"
    text = Text.assemble(
        (f"{step.number} ", "dim"),
        (clock(step.at), "dim"),
        " ",
        (step.name, COLOURS[step.kind]),
        (kind, "italic"),
        f" by {step.writer or '?'} ({step.build or 'no build'})",
    )
    for detail in details(step, correlation_id):
        style = "yellow" if detail == step.note else "dim" if detail.startswith((step.place, "looked up")) else ""
        text.append(f"\n{detail}", style=style)
    return text

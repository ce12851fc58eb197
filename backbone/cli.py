"""The `backbone` command: runs a platform and looks into one that runs.

Exit codes: 0 all is well, 1 trouble was found, 2 the command was not understood.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from backbone.errors import BackboneError
from backbone.operations.checkout import Checkout, find_checkout

TROUBLE = 1

with_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


class Commands(click.Group):
    """Shows what went wrong in one line, without a traceback, if it was raised on purpose."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BackboneError as error:
            name = ctx.invoked_subcommand or ""
            click.echo(f"backbone {name}: {error}", err=True)
            ctx.exit(TROUBLE)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--platform", "platform_at", metavar="MODULE:ATTR", help="Where the platform is declared [BACKBONE_PLATFORM, pyproject.toml]."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the local stack lies [BACKBONE_FOLDER, .backbone in the checkout].")
@click.pass_context
def main(ctx: click.Context, platform_at: str | None, folder: Path | None) -> None:
    """Services on a backbone of events: run them, and look into what runs.

    The running stack is found through .backbone/ in the checkout, or through KAFKA_BOOTSTRAP_SERVERS and <CONTEXT>_REDIS_URL.
    """
    from dataclasses import replace

    found = find_checkout(folder)
    ctx.obj = replace(found, declared=platform_at) if platform_at else found


@main.command()
@click.argument("context")
@click.option("--service", "services", multiple=True, metavar="NAME", help="Only this service; may be given several times.")
@click.pass_obj
def run(checkout: Checkout, context: str, services: Sequence[str]) -> None:
    """Run the services of CONTEXT in this process until it is told to stop.

    Settings are read from the environment: KAFKA_BOOTSTRAP_SERVERS and REDIS_URL must be set. `backbone up` does this for every context.
    """
    declared = checkout.context(context)
    from backbone import run as process

    sys.exit(process.main(declared, services))


@main.command()
@click.pass_obj
def up(checkout: Checkout) -> None:
    """Run the whole platform on this machine until Ctrl-C; its log stays for the next run.

    Kafka and Redis run embedded, unless KAFKA_BOOTSTRAP_SERVERS or <CONTEXT>_REDIS_URL name existing ones.
    """
    platform = checkout.platform()
    from backbone.local import platform as local

    sys.exit(local.up(checkout.folder, platform, files=checkout.files()))


@main.command()
@with_json
@click.pass_obj
def topology(checkout: Checkout, as_json: bool) -> None:
    """Show what the platform consists of: its events, commands and queries, and who says, hears, does and answers them."""
    from backbone.operations import overview
    from backbone.topology import topology as derive

    of = derive(checkout.platform(), checkout.contracts)
    click.echo(of.to_json()) if as_json else overview.show(of, stdout())


@main.group()
def topics() -> None:
    """The topics the platform needs, against those the cluster has."""


@topics.command()
@with_json
@click.pass_obj
def plan(checkout: Checkout, as_json: bool) -> None:
    """Show what is missing or different, and touch nothing. Exit code 1 if something is."""
    from backbone.operations import topics as operation

    found = operation.plan(checkout.platform(), checkout.settings())
    say_plan(found, as_json=as_json)
    sys.exit(0 if found.fits else TROUBLE)


@topics.command()
@with_json
@click.pass_obj
def apply(checkout: Checkout, as_json: bool) -> None:
    """Make the topics that are missing. Those that exist stay as they are; another number of partitions is refused."""
    from backbone.operations import topics as operation

    found = operation.apply(checkout.platform(), checkout.settings())
    say_plan(found, as_json=as_json)
    sys.exit(0 if found.fits else TROUBLE)


def say_plan(found: Any, *, as_json: bool) -> None:
    """Print a plan of topics."""
    if as_json:
        say_json(found.to_dict())
        return
    click.echo(f"topics: {found}")
    for line in found.lines():
        click.echo(f"  {line}")
    for name in found.made:
        click.echo(f"  {name}: made")
    for name in found.foreign:
        click.echo(f"  {name}: not of this platform")
    if found.missing:
        click.echo("`backbone topics apply` makes what is missing")


def say_json(what: Any) -> None:
    """Print something for programs."""
    click.echo(json.dumps(what, indent=2, ensure_ascii=False))


def stdout() -> Any:
    """The terminal, or the plain file that stands for it."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200, color_system=None, highlight=False, soft_wrap=True)

"""The `backbone` command: runs a platform and looks into one that runs.

Exit codes: 0 all is well, 1 trouble was found, 2 the command was not understood.
"""

from __future__ import annotations

import getpass
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backbone.errors import BackboneError, SettingsError
from backbone.operations.checkout import FOLDER, Checkout, find_checkout
from backbone.operations.contracts.commands import contracts, describe
from backbone.operations.k8s.commands import k8s
from backbone.ownership import READER, RELEASER

if TYPE_CHECKING:
    from backbone.adapters.kafka import KafkaLog
    from backbone.operations.decoding import Decoder
    from backbone.settings import Settings

TROUBLE = 1
STACK_FILES = ("stack.json", "lock", "pids")
"""What a folder of a stack has; another folder is not ours to delete."""
QUIET_S = 2.0
"""What takes longer than this tells how far it is."""

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
    "--platform",
    "platform_at",
    metavar="MODULE:ATTR",
    help="Where the platform is declared [BACKBONE_PLATFORM, pyproject.toml]; for topology and topics a context alone will do.",
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

    CONTEXT is declared in contexts/CONTEXT/context.py, or in CONTEXT/context.py anywhere on the Python path.

    Settings are read from the environment: KAFKA_BOOTSTRAP_SERVERS and REDIS_URL must be set. `backbone up` does this for every context.
    """
    declared = checkout.context(context)
    from backbone import run as process

    sys.exit(process.main(declared, services))


@main.command()
@click.option(
    "--workers", multiple=True, metavar="N|CONTEXT=N", help="Processes per context, or of one context; may be given several times."
)
@click.pass_obj
def up(checkout: Checkout, workers: Sequence[str]) -> None:
    """Run the whole platform on this machine until Ctrl-C; its log stays for the next run.

    Kafka and Redis run embedded, unless KAFKA_BOOTSTRAP_SERVERS or <CONTEXT>_REDIS_URL name existing ones.
    """
    platform = checkout.platform()
    from backbone.local import platform as local

    sys.exit(local.up(checkout.folder, platform, files=checkout.files(), wanted=workers))


@main.command()
@click.argument("context")
@click.argument("workers", type=click.IntRange(min=1))
@click.pass_obj
def scale(checkout: Checkout, context: str, workers: int) -> None:
    """Let CONTEXT of the running stack have so many WORKERS, processes that share its partitions; waits until it is so."""
    _wish(checkout, {"context": context, "workers": workers})
    click.echo(f"{context} has {workers} {'worker' if workers == 1 else 'workers'}")


@main.command()
@click.argument("context")
@click.pass_obj
def restart(checkout: Checkout, context: str) -> None:
    """Start the workers of CONTEXT of the running stack anew, one after the other; waits until all are ready again."""
    _wish(checkout, {"context": context})
    click.echo(f"{context} was started anew")


def _wish(checkout: Checkout, wanted: dict[str, object]) -> None:
    from backbone.local import slots

    if checkout.launcher is None:
        raise SettingsError(f"no stack runs in {checkout.folder}: start it with `backbone up`{checkout.elsewhere}")
    slots.wish(checkout.folder, wanted)


@main.command()
@with_json
@click.option("--mermaid", is_flag=True, help="As a flow chart for pages that render it.")
@click.option("--svg", is_flag=True, help="As a picture.")
@click.pass_obj
def topology(checkout: Checkout, as_json: bool, mermaid: bool, svg: bool) -> None:
    """Show what the platform consists of: its events, commands and queries, and who says, hears, does and answers them."""
    from backbone.operations import drawing, overview

    if as_json + mermaid + svg > 1:
        raise click.UsageError("one form at a time")
    of = checkout.topology()
    if as_json:
        click.echo(of.to_json())
    elif mermaid or svg:
        click.echo(drawing.mermaid(of) if mermaid else drawing.svg(of), nl=False)
    else:
        overview.show(of, stdout())


main.add_command(contracts)
main.add_command(describe)


@main.group()
def topics() -> None:
    """The topics, users and rights the platform needs, against those the cluster has."""


@topics.command()
@with_json
@click.pass_obj
def plan(checkout: Checkout, as_json: bool) -> None:
    """Show what is missing, different or too much, and touch nothing. Exit code 1 if something is.

    A line that begins with + is what `apply` would make, one with - what `apply --prune` would take away, one with ! what it refuses
    to touch: partitions and settings of topics that exist.
    """
    from backbone.operations import topics as operation

    found = operation.plan(checkout.platform(), checkout.settings())
    say_plan(found, as_json=as_json)
    sys.exit(0 if found.fits else TROUBLE)


@topics.command()
@click.option("--prune", is_flag=True, help="Also take away users and rights that nobody declares.")
@with_json
@click.pass_obj
def apply(checkout: Checkout, prune: bool, as_json: bool) -> None:
    """Make the topics, users and rights that are missing. What exists stays as it is; another number of partitions is refused.

    A new user gets a password in the folder KAFKA_SECRETS. No topic is ever deleted.
    """
    from backbone.operations import topics as operation

    found = operation.apply(checkout.platform(), checkout.settings(), prune=prune)
    say_plan(found, as_json=as_json)
    sys.exit(0 if found.fits else TROUBLE)


@main.command()
@with_json
@click.pass_obj
def status(checkout: Checkout, as_json: bool) -> None:
    """Show how the running platform is. Exit code 1 if somebody should look at something.

    Processes, how many records every service is behind, open commands, what waits and for what, parked keys, quarantine, size on disk.
    """
    from backbone.operations import status as operation

    with progress("reading what services keep") as report:
        found = operation.look(checkout, report)
    say_json(found.to_dict()) if as_json else say_lines(operation.lines(found))
    sys.exit(TROUBLE if found.trouble else 0)


@main.command()
@click.argument("order", required=False)
@click.option("--last", is_flag=True, help="The conversation that came in last.")
@with_json
@click.pass_obj
def story(checkout: Checkout, order: str | None, last: bool, as_json: bool) -> None:
    """Tell the story of ORDER: each event, command, outcome and tick behind what caused it.

    ORDER is the id of an order, or the beginning of it; any other correlation id will do. The whole log is read once.
    """
    if bool(order) == last:
        raise click.UsageError("give the id of an order, or --last")
    from backbone.operations import story as operation

    with looking(checkout) as (log, decoder, settings):
        wanted = order or operation.last(log, decoder, settings, door_topics(checkout))
        with progress("reading the log") as report:
            told = operation.find(log, decoder, settings, wanted, report)
    if as_json:
        say_json(told.to_dict())
    elif sys.stdout.isatty():
        from backbone.operations.story_tree import tree

        stdout().print(tree(told))
    else:
        say_lines(operation.lines(told))


@main.command()
@click.argument("what", required=False, default="")
@click.option("--from-beginning", is_flag=True, help="Begin with all that lies in the log already.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so many seconds.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many lines.")
@click.pass_obj
def tail(checkout: Checkout, what: str, from_beginning: bool, seconds: float | None, count: int | None) -> None:
    """Show what is said while you watch, decoded, until Ctrl-C.

    WHAT is a topic, a part of the names of several, or the id of an order (or its beginning); everything if it is left out.
    """
    from backbone.operations import tail as operation

    with looking(checkout) as (log, decoder, settings):
        places, conversation = operation.places(decoder, log, settings, what)
        since = log.starts(places) if from_beginning else log.high_watermarks(places)
        topics_heard = len({topic for topic, _ in places})
        of = f" of conversations that begin with {conversation}" if conversation else ""
        click.echo(f"listening to {topics_heard} topics{of}; Ctrl-C stops", err=True)
        try:
            for entry in itertools.islice(operation.follow(log, decoder, since, conversation, seconds), count):
                click.echo(operation.line(entry))
        except KeyboardInterrupt:
            return


@main.command()
@click.argument("topic")
@click.option("--to", "into", required=True, type=click.Path(path_type=Path), help="The file: one CloudEvent in JSON a line.")
@click.option("--image", type=click.Path(path_type=Path, exists=True), help="Descriptor image to read with [the checkout's contracts].")
@click.pass_obj
def export(checkout: Checkout, topic: str, into: Path, image: Path | None) -> None:
    """Write TOPIC as it is now into a file for DuckDB, Polars, Spark or jq. Exit code 1 if something of it is missing there.

    A topic is taken apart with a descriptor image alone, such as a release's protos/released/<n>.binpb.
    """
    from backbone.operations import export as operation

    with looking(checkout) as (log, _, _), progress("reading the topic") as report:
        done = operation.export(log, topic, operation.image_of(checkout.root, image), into, report)
    click.echo(f"{into}: {done.events:,} events of {topic}")
    for line in done.words():
        click.echo(line, err=True)
    sys.exit(0 if done.whole else TROUBLE)


@main.group()
def quarantine() -> None:
    """Records that were set aside because they could not be decoded, decided or folded."""


@quarantine.command("list")
@with_json
@click.pass_obj
def list_(checkout: Checkout, as_json: bool) -> None:
    """List all that was set aside, oldest first. Exit code 1 if there is something."""
    from backbone.operations import quarantine as operation
    from backbone.operations.decoding import reason_name

    with looking(checkout) as (log, decoder, settings), progress("reading quarantine") as report:
        found = operation.read(log, decoder, settings, report)
    if as_json:
        say_json([aside.to_dict() for aside in found])
    else:
        for aside in found:
            detail = aside.quarantined.detail
            click.echo(f"{aside.at:%Y-%m-%d %H:%M:%S}  {aside.name}  {reason_name(aside.quarantined.reason)}  {aside.origin}  {detail}")
        click.echo(f"{len(found)} records in quarantine" + ("; `backbone quarantine show NAME` tells all of one" if found else ""))
    sys.exit(TROUBLE if found else 0)


@quarantine.command()
@click.argument("name")
@with_json
@click.pass_obj
def show(checkout: Checkout, name: str, as_json: bool) -> None:
    """Show one record: what it says, its raw bytes, why it was set aside and where that was raised.

    NAME is <context>.<service>/<partition>@<offset> as `list` shows it, or the coordinate the record was read from.
    """
    from backbone.operations import quarantine as operation

    with looking(checkout) as (log, decoder, settings), progress("reading quarantine") as report:
        aside = operation.one(operation.read(log, decoder, settings, report), name)
    say_json(aside.to_dict()) if as_json else say_lines(operation.lines(aside))


@quarantine.command()
@click.argument("name")
@click.option("--because", required=True, help="Why; kept for ever with the release.")
@click.pass_obj
def release(checkout: Checkout, name: str, because: str) -> None:
    """Decide a record now, and all that waits behind it for the same aggregate, in order.

    NAME is <context>.<service>/<partition>@<offset> as `list` shows it. Exit code 1 if the aggregate is parked again.
    """
    _say_word(checkout, name, because, drop=False)


@quarantine.command()
@click.argument("name")
@click.option("--because", required=True, help="Why; kept for ever with it.")
@click.pass_obj
def drop(checkout: Checkout, name: str, because: str) -> None:
    """Never decide a record; what waits behind it for the same aggregate is decided now, in order.

    NAME is <context>.<service>/<partition>@<offset> as `list` shows it. Exit code 1 if the aggregate is parked again.
    """
    _say_word(checkout, name, because, drop=True)


def _say_word(checkout: Checkout, name: str, because: str, *, drop: bool) -> None:
    from backbone.adapters.kafka_admin import KafkaAdmin
    from backbone.operations import quarantine as reading
    from backbone.operations import release as operation

    with looking(checkout, RELEASER) as (log, decoder, settings):
        came = operation.release(
            log,
            lambda: reading.read(log, decoder, settings),
            name,
            drop=drop,
            operator=getpass.getuser(),
            because=because,
            committed=KafkaAdmin(settings, RELEASER).committed,
        )
    of = f" of {came.aggregate}" if came.aggregate else ""
    click.echo(f"{came.service}{of}: {came.records} records decided, {came.dropped} dropped")
    if came.parked_again:
        click.echo(f"parked again: {came.parked_again}")
        sys.exit(TROUBLE)


@main.group()
def audit() -> None:
    """Hold the whole log against what must be true of every record."""


@audit.command()
@with_json
@click.pass_obj
def writers(checkout: Checkout, as_json: bool) -> None:
    """List each record that breaks ownership or causality. Exit code 1 if there is one.

    Its writer must be its topic's; its identity must follow from a record that its writer hears; sequences have no gap; copies are true.
    """
    from backbone.operations import audit as operation

    with looking(checkout) as (log, _, settings), progress("reading the log") as report:
        found = operation.audit(log, checkout.platform(), settings, report)
    if as_json:
        say_json(found.to_dict())
    else:
        say_lines(map(str, found.wrong))
        unread = f", {', '.join(found.unread)} not to their ends" if found.unread else ""
        click.echo(f"{found.records} records read{unread}: {len(found.wrong)} break ownership or causality")
    sys.exit(TROUBLE if found.wrong else 0)


@main.command()
@with_json
@click.pass_obj
def doctor(checkout: Checkout, as_json: bool) -> None:
    """Look for what is wrong here, and say how to mend it. Exit code 1 if something is.

    Python, platform, disk, open files, Kafka's jars (SHA-256), Java, Valkey, the stack and its ports, cluster id, topics, and every option
    in effect of brokers, topics, clients and Redis that the design needs.
    """
    from backbone.operations import doctor as operation

    found = []
    for finding in operation.examine(checkout):
        found.append(finding)
        if not as_json:
            click.echo(operation.line(finding))
    if as_json:
        say_json([finding.to_dict() for finding in found])
    sick = sum(finding.verdict is operation.Verdict.WRONG for finding in found)
    if not as_json:
        click.echo(f"{sick} things are wrong" if sick else "all is well")
    sys.exit(TROUBLE if sick else 0)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clean(checkout: Checkout, yes: bool) -> None:
    """Delete the local stack's folder: its log, its views, its logs and ports. Asks first if there is a log."""
    import shutil

    from backbone.local.locks import holder
    from backbone.operations.status import size_of

    folder = checkout.folder
    if not folder.exists():
        click.echo(f"nothing to clean: there is no {folder}")
        return
    for lock in (*folder.glob("lock"), *folder.glob("*/lock")):
        if (launcher := holder(lock)) is not None:
            click.echo(f"process {launcher} runs a stack in {lock.parent}: stop it with Ctrl-C first", err=True)
            sys.exit(TROUBLE)
    if folder.name != FOLDER and not any((folder / name).exists() for name in STACK_FILES) and any(folder.iterdir()):
        click.echo(f"{folder} holds files that no stack made: delete it yourself if you mean to", err=True)
        sys.exit(TROUBLE)
    logs = [str(path.parent) for pattern in ("", "*/") for path in folder.glob(f"{pattern}kafka/meta.properties")]
    if logs and not yes:
        question = f"{folder} ({size_of(folder) / 1e6:.0f} MB) holds a log: {', '.join(logs)}. It cannot be brought back. Delete it?"
        if not sys.stdin.isatty():
            click.echo(f"{question} Nobody is here to ask: say --yes", err=True)
            sys.exit(TROUBLE)
        if not click.confirm(question, err=True):
            click.echo("kept")
            sys.exit(TROUBLE)
    shutil.rmtree(folder)
    click.echo(f"deleted {folder}")


main.add_command(k8s)


@contextmanager
def looking(checkout: Checkout, user: str = READER) -> Iterator[tuple[KafkaLog, Decoder, Settings]]:
    """The log of the running stack as a user sees it, and how to understand it."""
    from backbone.adapters.kafka import KafkaLog
    from backbone.operations.decoding import Decoder

    decoder = Decoder.of(checkout.platform())
    settings = checkout.settings()
    log = KafkaLog(settings, user)
    try:
        yield log, decoder, settings
    finally:
        log.close()


def door_topics(checkout: Checkout) -> list[str]:
    """The topics in which conversations begin: those of the gateway, or of everybody if there is none."""
    from backbone.topology import topology as derive

    platform = checkout.platform()
    nodes = derive(platform.gateway or platform).topics
    return [node.name for node in nodes if node.purpose == "events"]


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal; one line every few seconds elsewhere. Shown only if it takes longer than two seconds."""
    began = said_at = time.monotonic()
    bar: Any = None

    def report(done: int, total: int) -> None:
        nonlocal bar, said_at
        now = time.monotonic()
        if now - began < QUIET_S:
            return
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            if bar is None:
                bar = Progress(console=Console(stderr=True), transient=True)
                bar.start()
                bar.add_task(title, total=total)
            bar.update(bar.task_ids[0], completed=done, total=total)
        elif now - said_at > QUIET_S:
            said_at = now
            click.echo(f"{title}: {done} of {total}", err=True)

    try:
        yield report
    finally:
        if bar is not None:
            bar.stop()


def say_lines(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        click.echo(line)


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
    if found.missing or found.access.missing_users or found.access.missing_rights:
        click.echo("`backbone topics apply` makes what is missing")
    if found.access.surplus.users or found.access.surplus.rights:
        click.echo("`backbone topics apply --prune` takes away what nobody declares")


def say_json(what: Any) -> None:
    """Print something for programs."""
    click.echo(json.dumps(what, indent=2, ensure_ascii=False))


def stdout() -> Any:
    """The terminal, or the plain file that stands for it."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200, color_system=None, highlight=False, soft_wrap=True)

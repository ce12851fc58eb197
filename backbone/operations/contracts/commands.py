"""`backbone contracts`: the gate before every change of contracts, and releases."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backbone.operations.checkout import Checkout

if TYPE_CHECKING:
    from backbone.operations.contracts.gate import Law

TROUBLE = 1


@click.group()
def contracts() -> None:
    """Contracts as law: what was released is kept, whoever reads it."""


@contracts.command()
@click.option("--against", default="", metavar="REF|IMAGE", help="A git ref or an image file instead of every release.")
@click.option("--format", "form", type=click.Choice(("text", "json", "sarif")), default="text", help="For people, programs or a forge.")
@click.pass_obj
def check(checkout: Checkout, against: str, form: str) -> None:
    """Hold the contracts of this checkout against every release. Exit code 1 if something breaks.

    Each finding says what changed, why that breaks, which consumers it breaks, and what to do instead. Works without a network.
    """
    from backbone.operations.contracts import gate, report

    law = law_of(checkout)
    found = gate.check(law, against)
    if form == "json":
        click.echo(json.dumps(report.to_dict(found), indent=2))
    elif form == "sarif":
        click.echo(json.dumps(report.to_sarif(found, modules_of(law.root)), indent=2))
    else:
        for line in report.lines(found):
            click.echo(line)
    sys.exit(0 if found.open else TROUBLE)


@contracts.command()
@click.option("--accept", "accepted", multiple=True, metavar="FINDING=REASON", help="Release a breach all the same; may be repeated.")
@click.pass_obj
def release(checkout: Checkout, accepted: Sequence[str]) -> None:
    """Promise the contracts as they are: keep their image for ever and tell users in the changelog.

    Refused while a finding is open, unless each is named with a reason: --accept 'KEY_CHANGED:shop.v1.OrderEvent=nobody reads it yet'.
    """
    from backbone.operations.contracts import release as operation
    from backbone.operations.contracts import report

    reasons = dict(_reason(one) for one in accepted)
    try:
        made = operation.release(law_of(checkout), reasons, datetime.now(UTC).date())
    except operation.NotReleased as error:
        for finding in error.report.breaches:
            if finding.name not in reasons:
                for line in report.lines_of(finding):
                    click.echo(line, err=True)
        raise
    click.echo(f"{made.release.name}: {made.image}")
    click.echo(made.entry, nl=False)


def _reason(accepted: str) -> tuple[str, str]:
    name, equals, reason = accepted.partition("=")
    if not equals or not reason.strip():
        raise click.UsageError(f"--accept {accepted}: write FINDING=REASON")
    return name, reason.strip()


def law_of(checkout: Checkout) -> Law:
    """Where the contracts of a checkout lie, and who reads them."""
    from backbone.operations.contracts.gate import Law

    platform = checkout.platform() if checkout.declared else None
    return Law(checkout.root, platform, recorded=checkout.recorded)


def modules_of(root: Path) -> dict[str, str]:
    """The folder of each proto file, with a slash, by its name below its import root."""
    found: dict[str, str] = {}
    for name in ("protos", "proto", "."):
        for file in (root / name).rglob("*.proto"):
            found.setdefault(str(file.relative_to(root / name)), "" if name == "." else f"{name}/")
    return found


@contracts.command("field-use")
@click.argument("field")
@click.pass_obj
def field_use_(checkout: Checkout, field: str) -> None:
    """Say who reads FIELD, by evidence: may it be removed? Exit code 1 if somebody would break.

    FIELD is <event>.<field> or <message>.<field>: OrderValidated.answer_by, OrderLine.sku. Every recorded decision and fold is run again
    without it; other repositories say in protos/expectations/ what they read.
    """
    from backbone.operations.contracts import field_use as operation

    found = operation.field_use(law_of(checkout))
    for line in operation.lines(found, field):
        click.echo(line)
    sys.exit(TROUBLE if operation.is_read(found, found.named(field)) else 0)


@contracts.command()
@click.option("--into", type=click.Path(path_type=Path), help="The file; standard output without it.")
@click.pass_obj
def expect(checkout: Checkout, into: Path | None) -> None:
    """Write down what the services of this checkout read of the public topics, by evidence.

    Whoever owns the contracts puts the file into protos/expectations/: their gate then names this consumer before a change breaks it.
    """
    from backbone.operations.contracts import field_use as operation

    text = operation.field_use(law_of(checkout)).own.to_json()
    if into is None:
        click.echo(text, nl=False)
        return
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text(text, encoding="utf-8")
    click.echo(f"written: {into}")


@contracts.command("catalogue")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit code 1 if a page is stale.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder of the pages [docs/generated].")
@click.pass_obj
def catalogue_(checkout: Checkout, only_check: bool, into: Path | None) -> None:
    """Write the catalogue: a page per event, topic and service, who reads which field, a picture, and an AsyncAPI 3 document.

    The file in protos/expectations/ that says what this platform reads itself is kept up to date with it, if there is one.
    """
    from backbone.operations.contracts import catalogue as operation
    from backbone.operations.contracts import field_use

    folder = into or checkout.root / "docs" / "generated"
    law = law_of(checkout)
    made = operation.catalogue(law)
    pages = made.pages()
    stale = operation.stale(pages, folder) if only_check else [str(path) for path in operation.write(pages, folder)]
    own = field_use.own_file(law, made.use) if made.use is not None and into is None else None
    if own is not None and made.use is not None and own.read_text(encoding="utf-8") != made.use.own.to_json():
        stale.append(str(own))
        if not only_check:
            own.write_text(made.use.own.to_json(), encoding="utf-8")
    for name in stale:
        click.echo(f"{'stale' if only_check else 'written'}: {name}")
    click.echo(f"catalogue: {len(pages)} pages, {len(stale)} {'stale: make catalogue' if only_check and stale else 'changed'}")
    sys.exit(TROUBLE if only_check and stale else 0)


@click.command()
@click.argument("what")
@click.pass_obj
def describe(checkout: Checkout, what: str) -> None:
    """Tell all about an event, a topic or a service: its page of the catalogue.

    WHAT is a full name, or the last part of one: OrderConfirmed, retail.ordering.orders.v1, ordering.orders.
    """
    from backbone.operations.contracts import catalogue as operation

    click.echo(operation.catalogue(law_of(checkout)).describe(what), nl=False)

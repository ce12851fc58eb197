"""`backbone k8s`: the platform as manifests for a cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from backbone.operations.checkout import Checkout

TROUBLE = 1
GENERATED = Path("deploy/k8s/generated")
PINNED = Path("deploy/k8s/overlays/prod/images")


@click.group()
def k8s() -> None:
    """The platform as Kubernetes runs it: manifests derived from what is declared."""


@k8s.command()
@click.option("--to", "folder", type=click.Path(path_type=Path), help=f"Where they belong [{GENERATED} in the checkout].")
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the folder is not up to date.")
@click.pass_obj
def render(checkout: Checkout, folder: Path | None, check: bool) -> None:
    """Write the manifests: processes, Services, budgets, settings, policies for the network, the job that makes the topics.

    A connection that a table needs and nothing declares ends it, and nothing is written.
    """
    from backbone.operations.k8s import render as operation

    files = operation.render(checkout.platform(), checkout.system, checkout.contracts)
    place = folder or checkout.root / GENERATED
    changed = operation.stale(files, place) if check else operation.write(files, place)
    for path in changed:
        click.echo(f"{'out of date' if check else 'written'}: {place / path}")
    click.echo(f"{len(files)} files, {len(changed)} {'out of date; run `backbone k8s render`' if check and changed else 'changed'}")
    sys.exit(TROUBLE if check and changed else 0)


@k8s.command()
@click.pass_obj
def secrets(checkout: Checkout) -> None:
    """Print a secret per namespace with new passwords for the users of Kafka, for `kubectl create -f -`: once per cluster.

    They are kept nowhere else.
    """
    from backbone.operations.k8s import render as operation

    if sys.stdout.isatty():
        raise click.UsageError("passwords do not belong on a screen: pipe them into `kubectl create -f -`")
    click.echo(operation.secrets(checkout.platform()), nl=False)


@k8s.command()
@click.argument("references", nargs=-1, required=True, metavar="NAME=REGISTRY/NAME@DIGEST...")
@click.option("--to", "folder", type=click.Path(path_type=Path), help=f"The overlay's folder of images [{PINNED} in the checkout].")
@click.pass_obj
def pin(checkout: Checkout, references: tuple[str, ...], folder: Path | None) -> None:
    """Write the digests of built images into the production overlay, and name the job that makes the topics after them.

    Every image a manifest uses has to be named.
    """
    from backbone.operations.k8s.pin import pinned

    named = dict(one.split("=", 1) for one in references if "=" in one)
    if len(named) != len(references):
        raise click.UsageError("every image once, as NAME=REGISTRY/NAME@sha256:...")
    place = (folder or checkout.root / PINNED) / "kustomization.yaml"
    text = pinned(named, checkout.root / GENERATED)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    click.echo(f"written: {place}")

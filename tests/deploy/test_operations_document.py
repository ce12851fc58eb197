"""docs/operations.md names every figure and every error there is, and no other."""

from __future__ import annotations

import inspect
import re

import click

from backbone import errors
from backbone.cli import main
from backbone.health import COUNTERS, GAUGES
from tests.deploy.rendered import ROOT

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()


def test_it_tells_of_every_metric() -> None:
    named = set(re.findall(r"`(backbone_\w+)`", DOCUMENT))
    assert named == {*(f"backbone_{name}_total" for name in COUNTERS), *(f"backbone_{name}" for name in GAUGES), "backbone_ready"}


def test_it_tells_what_every_error_means() -> None:
    table = DOCUMENT.split("## What an error means")[1].split("##")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", table.split("A pod in")[0])) - {"GATEWAY_IN_FLIGHT"}
    known = {name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.BackboneError)}
    assert named == known - {"BackboneError"}


def test_the_commands_it_names_exist() -> None:
    assert isinstance(main, click.Group)
    for first, second in re.findall(r"`backbone (\w+)(?: (\w+))?", DOCUMENT):
        command = main.commands[first]
        if isinstance(command, click.Group) and second:
            assert second in command.commands

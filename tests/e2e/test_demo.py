"""The commands of the first screen of the README, as a person without a terminal runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.running import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def run(module: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A module as a command, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def order(shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make order` on that shop."""
    folder = shop.here.stack.folder
    return run("demo.order", "--folder", str(folder), "--catalogue", str(folder / "catalogue.csv"), *arguments)


def test_the_demo_places_real_orders_and_ends_well(tmp_path: Path) -> None:
    """Without a terminal it ends; it says where everything runs, tells two stories, and reconciles the money."""
    done = run("demo", "--folder", str(tmp_path / "demo"), environment={"ORDERS": "40", "STOCK": "scarce"})
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for wanted in (
        "Kafka 4.4",
        "Valkey of ordering",
        "gateway: gRPC",
        "the story of one confirmed order",
        "the story of one rejected order",
    ):
        assert wanted in said
    assert "placed, 40 orders in the log" in said
    assert "BROKEN" not in said
    assert "all is well" in said
    assert _cents(said, "input file") == _cents(said, "placed, 40") == _cents(said, "confirmed, ") + _cents(said, "rejected, ")
    assert _cents(said, "confirmed, ") == _cents(said, "captured, by our log") == _cents(said, "captured, by the provider's books")


def _cents(said: str, row: str) -> int:
    (line,) = [line for line in said.splitlines() if line.startswith(row) and line.endswith(" cents")]
    return int(line.split()[-2].replace(",", ""))


def test_one_order_is_placed_from_the_command_line(shop_up: Shop) -> None:
    """It says what came of it and how to see the story; what nobody sells at that price is refused at once."""
    done = order(shop_up, "--sku", "T-ONE", "--qty", "2")
    assert done.returncode == 0, done.stderr
    assert "2 x T-ONE at 10.00 USD" in done.stdout
    assert ": confirmed, after" in done.stdout
    assert "backbone story " in done.stdout
    unknown = order(shop_up, "--sku", "T-NOBODY-SELLS-IT")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "has no T-NOBODY-SELLS-IT" in unknown.stderr
    changed = order(shop_up, "--sku", "T-ONE", "--cents", "999")
    assert (changed.returncode, "rejected: price changed (T-ONE)" in changed.stdout) == (0, True)


def test_an_order_to_nobody_says_how_to_start_somebody(tmp_path: Path) -> None:
    """No stack trace."""
    done = run("demo.order", "--sku", "CD-01466", "--folder", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "start one with `make up` or `make demo`" in done.stderr


def test_the_laws_are_a_command(shop_up: Shop) -> None:
    """A table for people, JSON for programs, the exit code for both."""
    shop_up.rest()
    folder = str(shop_up.here.stack.folder)
    told = run("laws", "--json", "--folder", folder)
    assert told.returncode == 0, told.stdout + told.stderr
    verdict = json.loads(told.stdout)
    assert verdict["holds"] is True
    assert len(verdict["laws"]) == 19
    assert verdict["totals"]["placed"] > 0
    table = run("laws", "--folder", folder)
    assert table.returncode == 0
    assert table.stdout.count("holds  ") == 19


def test_the_laws_of_nothing_cannot_be_checked(tmp_path: Path) -> None:
    """Exit code 2 tells it from a broken law."""
    done = run("laws", "--folder", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "no stack was started here" in done.stderr


@pytest.mark.parametrize("arguments", [("--orders", "none"), ("--orders", "0"), ("--stock", "some"), ("--at-once", "0")])
def test_the_demo_refuses_what_it_cannot_show(arguments: Sequence[str]) -> None:
    """Before anything is started."""
    done = run("demo", *arguments)
    assert done.returncode == 2
    assert f"{arguments[0]}" in done.stderr

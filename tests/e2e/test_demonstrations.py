"""The article's claims as commands: with small numbers, and with the code that `make outage` and `make plug-in` run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo import newcomer, outage
from demo.account import Account
from tests.conftest import scratch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = newcomer.ROOT
RUNS_FROM = ("backbone", "contexts", "data", "demo", "gateway", "generated", "laws", "outside", "protos")
RUNS_FROM_FILES = ("build_protos.py", "pyproject.toml", "shop.py")


def test_an_outage_of_payments_delays_orders_or_rejects_them_and_touches_nobody_else() -> None:
    """Shorter than customers wait: all are confirmed. Longer: all are rejected, and no money stays held."""
    lines: list[str] = []
    account = Account(lines.append)
    with scratch("outage") as folder:
        outage.outage(outage.Options(orders=2, patience_s=5.0, folder=folder / "stack"), account)
    assert account.end() == 0, "\n".join(lines)
    assert account.claimed == 13
    # The story of the order that was cut off is told whole: what payments did not know, and how the money came back.
    begins = max(at for at, line in enumerate(lines) if "the story of" in line)
    said = [found.group(1) for line in lines[begins:] if (found := re.search(r"\d  (\w+)( \[\w+\])? by ", line))]
    assert (said[0], said[-1]) == ("OrderRequested", "PaymentVoided")
    assert {"AuthorizeCard", "OrderRejected", "PaymentAbandoned", "CommandGaveUp", "CardVoided"} <= set(said)


def test_a_new_service_reads_the_whole_history_and_nobody_else_notices(copied: Path) -> None:
    """Its answers are those of an independent reading of the log, before and after more orders."""
    done = subprocess.run(
        [sys.executable, "-m", "demo.plug_in", "--customers", "6"],
        cwd=copied,
        env={**os.environ, "PYTHONPATH": f"{copied}{os.pathsep}{copied / 'generated'}"},
        check=False,  # asserted below, with the output
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "all 8 claims hold" in done.stdout
    answered = [int(count) for count in re.findall(r"answered: (\d+) confirmed", done.stdout)]
    known = [int(count) for count in re.findall(r": (\d+) confirmed orders of 6 customers", done.stdout)]
    assert known == [answered[0], sum(answered)]
    assert 0 < known[0] < known[1]


def test_the_new_service_is_less_than_a_page() -> None:
    """So little it takes to know what nobody planned to tell."""
    assert len([line for line in newcomer.SERVICE.splitlines() if line]) <= 20


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of all that the platform runs from: nobody edits it while the test looks whether somebody does."""
    checkout = tmp_path / "checkout"
    for name in RUNS_FROM:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in RUNS_FROM_FILES:
        shutil.copy(ROOT / name, checkout)
    return checkout

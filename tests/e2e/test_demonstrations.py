"""The article's claims as commands: with small numbers, and with the code that `make outage` and `make plug-in` run."""

from __future__ import annotations

import re

import pytest

from demo import newcomer, outage, plug_in
from demo.account import Account
from tests.conftest import scratch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def told(account: Account, said: list[str]) -> list[str]:
    """What was said, if everything is as claimed."""
    assert account.end() == 0, "\n".join(said)
    return said


def test_an_outage_of_payments_delays_orders_or_rejects_them_and_touches_nobody_else() -> None:
    """Shorter than customers wait: all are confirmed. Longer: all are rejected, and no money stays held."""
    said: list[str] = []
    account = Account(said.append)
    with scratch("outage") as folder:
        outage.outage(outage.Options(orders=2, patience_s=5.0, folder=folder / "stack"), account)
    lines = told(account, said)
    assert account.claimed == 13
    # Its story is told whole: what payments did and did not know, and how the money came back.
    story = [line.split("  ")[-1].split(" by ")[0] for line in lines[lines.index(_last(lines, "the story of")) :] if " by " in line]
    assert story[0] == "OrderRequested"
    assert story[-1] == "PaymentVoided"
    assert {"AuthorizeCard [command]", "OrderRejected", "PaymentAbandoned", "CardVoided [outcome]"} <= set(story)


def test_a_new_service_reads_the_whole_history_and_nobody_else_notices() -> None:
    """Its answers are those of an independent reading of the log, before and after more orders."""
    said: list[str] = []
    account = Account(said.append)
    with scratch("plug-in") as folder:
        plug_in.plug_in(plug_in.Options(customers=6, folder=folder / "stack"), account)
    lines = told(account, said)
    assert account.claimed == 8
    answered = [int(found.group(1)) for line in lines if (found := re.search(r"answered: (\d+) confirmed", line))]
    known = [int(found.group(1)) for line in lines if (found := re.search(r": (\d+) confirmed orders of ", line))]
    assert len(answered) == len(known) == 2
    assert known == [answered[0], sum(answered)]
    assert 0 < known[0] < known[1]


def test_the_new_service_is_a_page_of_text() -> None:
    """So little is needed to know what nobody planned to tell."""
    lines = [line for line in newcomer.SERVICE.splitlines() if line]
    assert len(lines) <= 20


def _last(lines: list[str], text: str) -> str:
    return [line for line in lines if text in line][-1]

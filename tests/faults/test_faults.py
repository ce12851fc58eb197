"""A seeded part of the campaign that `make faults` runs: a fault of each family that no other test knows on one shop at work."""

from __future__ import annotations

from random import Random

import pytest

from tests.conftest import scratch
from tests.faults.campaign import as_text, campaign
from tests.faults.kinds import KINDS, strange

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SEED = 20
CHOSEN = (
    *("kill ordering", "zombie fulfilment", "Redis rolled back", "Redis out of memory", "provider breaks off"),
    *("garbage", "repeated input", "answers to EndTxn lost", "EndTxn held"),
)


def test_faults_under_load_lose_nothing_and_do_nothing_twice() -> None:
    """Each of them bites, everybody is answered again, and the checker finds nothing."""
    said: list[str] = []
    with scratch("faults") as folder:
        report = campaign(folder, CHOSEN, SEED, 0.0, said.append, rounds=1)
    assert [one.kind for one in report.struck if one.proof is None] == [], "\n".join(said)
    assert {one.kind for one in report.struck} == set(CHOSEN)
    assert report.well, f"{as_text(report)}\n" + "\n".join(said)
    assert report.judged is not None
    assert report.judged.aborted > 0, "no transaction was aborted: nothing was torn that could have been read"
    assert report.orders > 10 * len(CHOSEN)


def test_the_chosen_are_kinds_and_garbage_has_twelve() -> None:
    """As the documents say."""
    assert set(CHOSEN) <= set(KINDS)
    assert len(strange(Random(SEED))) == 12

"""The rules about clients, views and causes, each shown on a world that is right but for one thing."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest

from laws.entries import Place
from laws.history import FAIL, OK, Call, Disturbance
from tests.checker.__main__ import as_text
from tests.checker.check import judge
from tests.checker.seen import ORDERS, Seen
from tests.checker.world import World
from tests.simulation.checked import world_of
from tests.simulation.shop import Plan, Shop


@cache
def right() -> World:
    """A shop at rest whose customers were told everything."""
    shop = Shop(Plan(1, of_orders=12, of_faults=0, scarce=5.0))
    with shop.simulation.running():
        assert shop.open()
        assert shop.trade()
        world = world_of(shop)
    seen = Seen(world)
    calls: list[Call] = []
    for number, asked in enumerate(seen.named("OrderRequested")):
        order_id, began_s = asked.event.order_id, asked.at_ms / 1000
        answer = seen.about(order_id, "OrderConfirmed", "OrderRejected", "OrderCancelled")[0]
        who = {"client": asked.event.customer_id, "order_id": order_id, "outcome": OK}
        status = {"OrderConfirmed": "CONFIRMED", "OrderRejected": "REJECTED", "OrderCancelled": "CANCELLED"}[answer.name]
        position = [(asked.place.topic, asked.place.partition, asked.place.offset + 1)]
        place = Call(number, "place", key=order_id, payload="p", invoked_s=began_s, ended_s=answer.at_ms / 1000, wait_s=60.0, **who)
        place.status, place.position = status, position
        got = Call(100 + number, "get", invoked_s=answer.at_ms / 1000 + 5, ended_s=answer.at_ms / 1000 + 6, **who)
        got.status = status
        calls += [place, got]
    return replace(world, calls=tuple(calls))


def confirmed(calls: list[Call], op: str) -> Call:
    """Some call about a confirmed order."""
    return next(call for call in calls if call.op == op and call.status == "CONFIRMED")


def elsewhere(calls: list[Call]) -> None:
    """It is said to lie where another record lies."""
    call = confirmed(calls, "place")
    topic, partition, offset = call.position[0]
    call.position = [(topic, partition, offset + 1000)]


def other_answer(calls: list[Call]) -> None:
    """A confirmed order is told to be rejected."""
    confirmed(calls, "place").status = "REJECTED"


def too_early(calls: list[Call]) -> None:
    """The answer is told before it is in the log."""
    call = confirmed(calls, "place")
    assert call.ended_s is not None
    call.ended_s -= 1.0


def another_order(calls: list[Call]) -> None:
    """The same key gives another order."""
    call, other = confirmed(calls, "place"), [call for call in calls if call.op == "place"][-1]
    calls.append(replace(call, number=900, order_id=other.order_id, status=other.status, position=other.position, reason=other.reason))


def another_wish(calls: list[Call]) -> None:
    """Another wish under the same key is taken for the same order."""
    calls.append(replace(confirmed(calls, "place"), number=900, payload="another"))


def told_nothing(calls: list[Call]) -> None:
    """Who waits is told nothing for ten seconds."""
    call = confirmed(calls, "place")
    assert call.ended_s is not None
    call.status, call.ended_s = "PENDING", call.ended_s + 10.0


def not_found(calls: list[Call]) -> None:
    """An order that was placed is not found."""
    call = confirmed(calls, "get")
    call.outcome, call.code, call.status = FAIL, "NOT_FOUND", ""


def taken_back(calls: list[Call]) -> None:
    """An answer that was told is not known to who waits for it once more."""
    call = confirmed(calls, "get")
    call.op, call.status, call.ended_s = "await", "PENDING", call.invoked_s + 0.1


def not_demanded(calls: list[Call]) -> None:
    """A read that demands the position of the answer does not know it."""
    call = confirmed(calls, "get")
    call.status, call.at_least = "PENDING", [(ORDERS, number, 10_000) for number in range(2)]


WRONG: dict[str, tuple[Callable[[list[Call]], None], str]] = {
    "elsewhere": (elsewhere, "acknowledged"),
    "other answer": (other_answer, "honest"),
    "too early": (too_early, "honest"),
    "another order": (another_order, "idempotent"),
    "another wish": (another_wish, "idempotent"),
    "told nothing": (told_nothing, "complete"),
    "not found": (not_found, "fresh"),
    "taken back": (taken_back, "fresh"),
    "not demanded": (not_demanded, "fresh"),
}


def test_a_shop_whose_customers_were_told_the_truth_is_right() -> None:
    """Or the tests below prove little."""
    judged = judge(right())
    assert judged.findings == ()
    assert judged.calls >= 20
    assert judged.samples >= 10


@pytest.mark.parametrize("name", WRONG)
def test_a_client_that_was_told_something_wrong_is_believed(name: str) -> None:
    """And the smallest witness is the call, with the records that speak against what it was told."""
    change, rule = WRONG[name]
    calls = deepcopy(list(right().calls))
    change(calls)
    found = judge(replace(right(), calls=calls)).smallest()
    assert rule in {finding.rule for finding in found}
    assert all("call " in finding.text for finding in found if finding.rule == rule)


def test_an_answer_may_be_late_while_something_is_broken_but_not_wrong() -> None:
    """A disturbance excuses who was told nothing, nobody who was told something else."""
    calls = deepcopy(list(right().calls))
    told_nothing(calls)
    disturbed = [Disturbance("all", 0.0, 1e12)]
    assert "complete" not in {finding.rule for finding in judge(replace(right(), calls=calls, disturbed=disturbed)).findings}
    calls = deepcopy(list(right().calls))
    other_answer(calls)
    assert "honest" in {finding.rule for finding in judge(replace(right(), calls=calls, disturbed=disturbed)).findings}


def test_what_was_caused_by_an_aborted_record_is_found() -> None:
    """One record of a decider's input turns out never to have been committed."""
    world = right()
    cause = Seen(world).named("OrderValidated")[0]
    records = [replace(lain, committed=lain.place != cause.place) for lain in world.records]
    found = [finding for finding in judge(replace(world, records=records)).findings if finding.rule == "aborted read"]
    assert found
    assert cause.place in found[0].witnesses


def test_a_view_that_was_wrong_for_a_moment_is_found() -> None:
    """A sample of an instant is judged by what its topic said up to its watermark."""
    world = right()
    sample = next(one for one in world.samples if one.view == "gateway.door.order_row" and one.watermark and len(one.rows) > 1)
    key = next(iter(sample.rows))
    for rows in ({**sample.rows, key: b""}, {name: row for name, row in sample.rows.items() if name != key}):
        found = judge(replace(world, samples=[replace(sample, rows=rows, final=False)])).findings
        assert [finding.rule for finding in found] == ["view"]
    assert judge(replace(world, samples=[replace(sample, rows={}, watermark=0, final=False, scores=None)])).findings == ()


def test_a_receipt_that_never_came_in_is_found() -> None:
    """The ramp's book says more than the log."""
    world = right()
    assert world.receipts is not None
    found = judge(replace(world, receipts={**world.receipts, "lost": ("north", "CD-1", 3)})).findings
    assert [str(finding) for finding in found] == ["skipped: receipt lost of 3 CD-1 for north came in as nothing"]


def test_garbage_that_nobody_set_aside_is_found_and_names_its_reader() -> None:
    """Each reader of a topic sets it aside for itself."""
    world = right()
    last = max(lain.place.offset for lain in world.records if lain.place[:2] == (ORDERS, 0))
    garbage = replace(world.records[0], place=Place(ORDERS, 0, last + 1), key=b"x", value=b"\xff", committed=True)
    samples = [replace(sample, final=False) for sample in world.samples]
    found = judge(replace(world, records=[*world.records, garbage], samples=samples)).findings
    assert sorted(str(finding).split()[1] for finding in found) == ["gateway.door", "payments.payments"]


def test_what_is_printed_names_every_rule_and_the_smallest_witness() -> None:
    """A few lines: which rule, which call or record, where."""
    assert "BROKEN" not in as_text(judge(right()))
    calls = deepcopy(list(right().calls))
    other_answer(calls)
    lines = as_text(judge(replace(right(), calls=calls))).splitlines()
    assert {line.split("  ")[0].strip() for line in lines[:3]} == {"holds"}
    broken = next(number for number, line in enumerate(lines) if line.startswith("BROKEN"))
    assert "honest" in lines[broken]
    assert "was told to be REJECTED, the log says OrderConfirmed  [retail.ordering.orders.v1/" in lines[broken + 1]

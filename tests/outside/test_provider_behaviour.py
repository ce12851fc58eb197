"""How the provider misbehaves when it is told to."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.outside.conftest import Merchant


def statuses(merchant: Merchant, count: int) -> list[int]:
    """The answers to `count` authorisations, each under a reference of its own."""
    orders = [replace(merchant, reference=f"{merchant.reference}-{number}") for number in range(count)]
    return [order.authorize().status_code for order in orders]


def test_the_rules_are_read_back_with_how_often_they_acted_and_end_with_a_delete(merchant: Merchant) -> None:
    rules: list[dict[str, Any]] = [
        {"kind": "decline", "customer": merchant.customer, "next": 1},
        {"kind": "slow", "seconds": 0.01, "operations": ["void"]},
    ]
    merchant.behave(*rules)
    merchant.authorize()
    read = merchant.http.get("/v1/behaviour").json()["rules"]
    assert read == [{**rules[0], "applied": 1}, {**rules[1], "applied": 0}]
    assert merchant.http.delete("/v1/behaviour").json() == {"rules": []}
    assert merchant.http.get("/v1/behaviour").json() == {"rules": []}


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"kind": "explode"}, "rules.0"),
        ({"kind": "slow"}, "rules.0.slow.seconds"),
        ({"kind": "fail", "status": 200}, "rules.0.fail.status"),
        ({"kind": "decline", "rate": 2}, "rules.0.decline.rate"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_the_old_ones_stay(merchant: Merchant, rule: dict[str, Any], field: str) -> None:
    merchant.behave({"kind": "decline", "customer": merchant.customer})
    answer = merchant.http.put("/v1/behaviour", json={"rules": [rule]})
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == field
    assert merchant.applied() == [0]


def test_declines_one_customer(merchant: Merchant) -> None:
    merchant.behave({"kind": "decline", "customer": merchant.customer, "reason": "stolen_card"})
    declined = merchant.authorize()
    assert (declined.status_code, declined.json()["reason"]) == (402, "stolen_card")
    assert replace(merchant, customer="somebody else").authorize().status_code == 201


def test_declines_amounts_over_a_limit(merchant: Merchant) -> None:
    merchant.behave({"kind": "decline", "over_minor": 1000})
    assert merchant.authorize(1001).status_code == 402
    assert merchant.authorize(1000).status_code == 201


def test_declines_the_next_two(merchant: Merchant) -> None:
    merchant.behave({"kind": "decline", "next": 2})
    assert statuses(merchant, 4) == [402, 402, 201, 201]


def test_a_replay_of_a_decline_does_not_use_up_the_next_one(merchant: Merchant) -> None:
    merchant.behave({"kind": "decline", "next": 2})
    key = f"authorize {merchant.reference}"
    assert [merchant.authorize(key=key).status_code for _ in range(3)] == [402, 402, 402]
    assert merchant.applied() == [1]


def test_fails_the_next_without_doing_anything(merchant: Merchant) -> None:
    merchant.behave({"kind": "fail", "status": 502, "next": 1})
    key = f"authorize {merchant.reference}"
    failed = merchant.authorize(key=key)
    assert (failed.status_code, failed.json()["reason"]) == (502, "provider_error")
    assert merchant.entries() == []
    again = merchant.authorize(key=key)
    assert again.status_code == 201
    assert "Idempotency-Replayed" not in again.headers


def test_fails_a_share_that_the_seed_decides(merchant: Merchant) -> None:
    seen = []
    for run in range(2):
        merchant.behave({"kind": "fail", "rate": 0.5, "seed": 7})
        seen.append(statuses(replace(merchant, reference=f"{merchant.reference}-run{run}"), 30))
    assert seen[0] == seen[1]
    assert 5 < seen[0].count(500) < 25
    merchant.behave({"kind": "fail", "rate": 0.5, "seed": 8})
    assert statuses(replace(merchant, reference=f"{merchant.reference}-other"), 30) != seen[0]


def test_fails_only_the_operations_named(merchant: Merchant) -> None:
    merchant.behave({"kind": "fail", "operations": ["capture"]})
    assert merchant.authorize().status_code == 201
    assert merchant.capture().status_code == 500
    assert merchant.void().status_code == 201


def test_slow_takes_its_time_and_then_does_the_work(merchant: Merchant) -> None:
    merchant.behave({"kind": "slow", "seconds": 0.4, "reference": merchant.reference})
    started = time.monotonic()
    assert merchant.authorize().status_code == 201
    assert time.monotonic() - started >= 0.4
    assert merchant.kinds() == ["authorized"]


def test_a_client_that_timed_out_finds_the_work_done_once(merchant: Merchant) -> None:
    merchant.behave({"kind": "hold", "seconds": 5, "next": 1})
    key = f"authorize {merchant.reference}"
    with httpx.Client(base_url=merchant.http.base_url, timeout=0.3) as impatient, pytest.raises(httpx.ReadTimeout):
        replace(merchant, http=impatient).authorize(key=key)
    again = merchant.authorize(key=key)
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert merchant.kinds() == ["authorized"]


def test_an_answer_that_is_held_long_enough_comes_in_the_end(merchant: Merchant) -> None:
    merchant.behave({"kind": "hold", "seconds": 0.2})
    started = time.monotonic()
    assert merchant.authorize().status_code == 201
    assert time.monotonic() - started >= 0.2


def test_an_answer_is_broken_off_after_the_work_was_done(merchant: Merchant) -> None:
    merchant.behave({"kind": "hold", "seconds": 0.01, "then": "close", "next": 1})
    key = f"authorize {merchant.reference}"
    with pytest.raises(httpx.RemoteProtocolError):
        merchant.authorize(key=key)
    assert merchant.kinds() == ["authorized"]
    assert merchant.authorize(key=key).headers["Idempotency-Replayed"] == "true"
    assert merchant.kinds() == ["authorized"]


def test_a_late_authorisation_finds_the_reference_blocked(merchant: Merchant) -> None:
    merchant.behave({"kind": "slow", "seconds": 1, "operations": ["authorize"], "next": 1})
    with ThreadPoolExecutor(1) as thread:
        late = thread.submit(merchant.authorize)
        deadline = time.monotonic() + 5
        while merchant.applied() == [0]:
            assert time.monotonic() < deadline
        assert merchant.void().status_code == 201
        assert (late.result().status_code, late.result().json()["reason"]) == (409, "reference_voided")
    assert merchant.kinds() == ["voided"]


def test_a_duplicate_answer_does_not_say_that_it_is_one(merchant: Merchant) -> None:
    merchant.behave({"kind": "duplicate_answer"})
    key = f"authorize {merchant.reference}"
    first, again = merchant.authorize(key=key), merchant.authorize(key=key)
    assert "Idempotency-Replayed" not in again.headers
    assert (again.status_code, again.json()) == (201, first.json())
    assert merchant.kinds() == ["authorized"]


def test_down_answers_503_to_all_but_those_who_look_after_it(merchant: Merchant) -> None:
    merchant.behave({"kind": "down"})
    answers = [
        merchant.authorize(),
        merchant.capture(),
        merchant.void(),
        merchant.http.get("/v1/ledger"),
        merchant.http.get(f"/v1/customers/{merchant.customer}"),
    ]
    assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "1")] * 5
    assert merchant.http.get("/livez").status_code == 200
    merchant.http.delete("/v1/behaviour").raise_for_status()
    assert merchant.entries() == []

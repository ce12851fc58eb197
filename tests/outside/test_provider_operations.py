"""What the provider does with money, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest

from tests.outside.conftest import Merchant


def test_an_authorisation_holds_the_amount_and_is_entered_with_all_that_matters(merchant: Merchant) -> None:
    answer = merchant.authorize(1999, key="hold-it")
    assert answer.status_code == 201
    assert answer.json()["status"] == "authorized"
    (entry,) = merchant.entries()
    assert entry.pop("sequence") > 0
    assert datetime.fromisoformat(entry.pop("at")).utcoffset() is not None
    assert entry == {
        "kind": "authorized",
        "reference": merchant.reference,
        "customer": merchant.customer,
        "authorization_id": answer.json()["authorization_id"],
        "amount": {"currency": "USD", "minor": 1999},
        "reason": None,
        "key": "hold-it",
    }


def test_a_capture_takes_the_whole_amount_once(merchant: Merchant) -> None:
    merchant.authorize(1999)
    first = merchant.capture(key=f"capture {merchant.reference}")
    assert (first.status_code, first.json()["amount"]) == (201, {"currency": "USD", "minor": 1999})
    again = merchant.capture(key=f"capture {merchant.reference}")
    assert (again.status_code, again.json()) == (201, first.json())
    other = merchant.capture()
    assert (other.status_code, other.json()["reason"]) == (409, "captured")
    assert merchant.kinds() == ["authorized", "captured"]


def test_a_capture_of_nothing_is_not_found(merchant: Merchant) -> None:
    answer = merchant.capture()
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_authorized")
    assert merchant.entries() == []


def test_a_void_gives_back_what_is_held_and_ends_the_reference(merchant: Merchant) -> None:
    held = merchant.authorize(1999).json()["authorization_id"]
    answer = merchant.void()
    assert (answer.status_code, answer.json()["amount"]) == (201, {"currency": "USD", "minor": 1999})
    late, capture, again = merchant.authorize(), merchant.capture(), merchant.void()
    assert (late.status_code, late.json()["reason"]) == (409, "reference_voided")
    assert (capture.status_code, capture.json()["reason"]) == (409, "reference_voided")
    assert (again.status_code, again.json()["amount"]) == (201, None)
    assert [(entry["kind"], entry["authorization_id"]) for entry in merchant.entries()] == [
        ("authorized", held),
        ("voided", held),
    ]


def test_a_void_of_nothing_blocks_an_authorisation_that_arrives_late(merchant: Merchant) -> None:
    assert merchant.void().status_code == 201
    late = merchant.authorize()
    assert (late.status_code, late.json()["reason"]) == (409, "reference_voided")
    (entry,) = merchant.entries()
    assert (entry["kind"], entry["amount"], entry["authorization_id"]) == ("voided", None, None)


def test_what_was_captured_is_neither_voided_nor_authorised_again(merchant: Merchant) -> None:
    merchant.authorize()
    merchant.capture()
    for answer in (merchant.void(), merchant.authorize()):
        assert (answer.status_code, answer.json()["reason"]) == (409, "captured")
    assert merchant.kinds() == ["authorized", "captured"]


def test_two_keys_hold_the_money_twice_and_the_ledger_shows_it(merchant: Merchant) -> None:
    first, second = merchant.authorize(100).json(), merchant.authorize(200).json()
    assert first["authorization_id"] != second["authorization_id"]
    assert merchant.capture().json()["amount"] == {"currency": "USD", "minor": 300}
    assert merchant.kinds() == ["authorized", "authorized", "captured", "captured"]


def test_one_reference_has_one_currency(merchant: Merchant) -> None:
    merchant.authorize(100, currency="USD")
    answer = merchant.authorize(100, currency="EUR")
    assert (answer.status_code, answer.json()["reason"]) == (409, "currency_differs")
    assert merchant.kinds() == ["authorized"]


def test_a_card_beyond_its_limit_is_declined_until_money_is_given_back(merchant: Merchant) -> None:
    merchant.limit(1000)
    second, third = (replace(merchant, reference=f"{merchant.reference}-{number}") for number in (2, 3))
    assert merchant.authorize(600).status_code == 201
    declined = second.authorize(401)
    assert (declined.status_code, declined.json()["reason"]) == (402, "card_limit_exceeded")
    assert [(entry["kind"], entry["reason"]) for entry in second.entries()] == [("declined", "card_limit_exceeded")]
    assert second.authorize(400).status_code == 201
    assert merchant.void().status_code == 201
    assert third.authorize(600).status_code == 201


def test_a_captured_amount_still_counts_against_the_limit(merchant: Merchant) -> None:
    merchant.limit(1000)
    merchant.authorize(600)
    merchant.capture()
    assert replace(merchant, reference=f"{merchant.reference}-2").authorize(401).status_code == 402


def test_a_limit_can_be_read_and_lifted(merchant: Merchant) -> None:
    path = f"/v1/customers/{merchant.customer}"
    assert merchant.http.get(path).json()["limit_minor"] is None
    merchant.limit(0)
    assert merchant.http.get(path).json() == {"customer": merchant.customer, "limit_minor": 0}
    assert merchant.authorize(1).status_code == 402
    merchant.limit(None)
    assert merchant.authorize(1).status_code == 201


def test_the_same_key_gets_the_stored_answer_marked_as_a_replay(merchant: Merchant) -> None:
    key = f"authorize {merchant.reference}"
    first, again = merchant.authorize(key=key), merchant.authorize(key=key)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.json()) == (201, first.json())
    assert merchant.kinds() == ["authorized"]


def test_a_decline_is_stored_too(merchant: Merchant) -> None:
    merchant.limit(0)
    key = f"authorize {merchant.reference}"
    first = merchant.authorize(key=key)
    merchant.limit(None)
    again = merchant.authorize(key=key)
    assert (again.status_code, again.json()) == (402, first.json())
    assert merchant.kinds() == ["declined"]


def test_the_same_key_with_another_payload_or_operation_is_a_conflict(merchant: Merchant) -> None:
    key = f"authorize {merchant.reference}"
    merchant.authorize(100, key=key)
    for answer in (merchant.authorize(101, key=key), merchant.void(key=key)):
        assert (answer.status_code, answer.json()["reason"]) == (409, "idempotency_key_reused")
    assert merchant.kinds() == ["authorized"]


def test_requests_under_one_key_at_the_same_time_are_entered_once(merchant: Merchant) -> None:
    merchant.behave({"kind": "slow", "seconds": 0.2, "reference": merchant.reference})
    key = f"authorize {merchant.reference}"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: merchant.authorize(key=key), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["authorization_id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert merchant.kinds() == ["authorized"]


def test_the_whole_ledger_comes_in_order_and_from_any_place(merchant: Merchant) -> None:
    many = [replace(merchant, reference=f"{merchant.reference}-{number}") for number in range(501)]
    for one in many:
        one.void()
    entries = merchant.http.get("/v1/ledger").json()["entries"]
    sequences = [entry["sequence"] for entry in entries]
    assert sequences == list(range(1, len(entries) + 1))
    assert [entry["reference"] for entry in entries[-501:]] == [one.reference for one in many]
    rest = merchant.http.get("/v1/ledger", params={"after": sequences[-3]}).json()["entries"]
    assert rest == entries[-2:]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b'{"reference": "\xff"}', "body"),
        (b"[]", "body"),
        (b'{"customer": "c", "amount": {"currency": "USD", "minor": 1}}', "reference"),
        (b'{"reference": "", "customer": "c", "amount": {"currency": "USD", "minor": 1}}', "reference"),
        (b'{"reference": "r", "customer": "c", "amount": {"currency": "USD", "minor": 0}}', "amount.minor"),
        (b'{"reference": "r", "customer": "c", "amount": {"currency": "USD", "minor": "1"}}', "amount.minor"),
        (b'{"reference": "r", "customer": "c", "amount": {"currency": "USD", "minor": 1.5}}', "amount.minor"),
        (b'{"reference": "r", "customer": "c", "amount": {"currency": "usd", "minor": 1}}', "amount.currency"),
        (b'{"reference": "r", "customer": "c", "amount": {"currency": "USD", "minor": 1}, "x": 1}', "x"),
    ],
)
def test_a_body_that_is_not_valid_names_the_field(merchant: Merchant, body: bytes, field: str) -> None:
    answer = merchant.http.post("/v1/authorizations", content=body, headers={"Idempotency-Key": "a key"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid")
    assert [violation["field"] for violation in answer.json()["violations"]] == [field]


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}])
def test_an_operation_needs_an_idempotency_key(merchant: Merchant, headers: dict[str, str]) -> None:
    answer = merchant.http.post("/v1/voids", json={"reference": merchant.reference}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "Idempotency-Key"
    assert merchant.entries() == []


def test_the_place_in_the_ledger_must_be_a_number(merchant: Merchant) -> None:
    answer = merchant.http.get("/v1/ledger", params={"after": "-1"})
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "after"


def test_an_unknown_place_or_method_is_told_in_json(merchant: Merchant) -> None:
    unknown = merchant.http.get("/v1/refunds")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "not_found")
    wrong = merchant.http.get("/v1/voids")
    assert (wrong.status_code, wrong.json()["reason"]) == (405, "method_not_allowed")


def test_the_process_says_that_it_serves(merchant: Merchant) -> None:
    assert merchant.http.get("/livez").json() == {"status": "ok"}


def test_a_body_over_the_limit_is_refused(merchant: Merchant) -> None:
    answer = merchant.post("voids", {"padding": "x" * 17_000})
    assert (answer.status_code, answer.json()) == (413, {"reason": "body_too_large", "most_bytes": 16384})

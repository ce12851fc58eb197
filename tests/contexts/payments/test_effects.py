"""What the payments service asks of a real provider, and what it makes of the answers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.type.money_pb2 import Money
from retail.payments.effects.v1.payment_pb2 import (
    AuthorizeCard,
    CaptureCard,
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    VoidCard,
)

from backbone.errors import SettingsError
from backbone.local.ports import free_port
from backbone.settings import Settings
from contexts.payments.payments import effects
from tests.outside.running import running

TOTAL = Money(currency_code="USD", units=19, nanos=990_000_000)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a provider serves."""
    with running(tmp_path_factory.mktemp("provider")) as (_, where):
        yield where


@pytest_asyncio.fixture
async def provider(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """The effects' own client, to a provider that behaves."""
    async with effects.connect(Settings.read({"OUTSIDE_PROVIDER": address})) as client:
        yield client
        (await client.delete("/v1/behaviour")).raise_for_status()


@pytest.fixture
def order() -> str:
    """An order of its own for each test."""
    return f"order-{uuid.uuid4()}"


def authorization(order: str, total: Money = TOTAL, customer: str = "c-1") -> AuthorizeCard:
    """The command that starts it all."""
    return AuthorizeCard(order_id=order, customer_id=customer, total=total)


async def behave(provider: httpx.AsyncClient, *rules: dict[str, Any]) -> None:
    """Makes the provider misbehave."""
    (await provider.put("/v1/behaviour", json={"rules": list(rules)})).raise_for_status()


async def books(provider: httpx.AsyncClient, order: str) -> list[tuple[str, int | None, str]]:
    """Kind, minor units and key of each entry of the order."""
    answer = await provider.get("/v1/ledger", params={"reference": order})
    entries = answer.raise_for_status().json()["entries"]
    return [(entry["kind"], entry["amount"] and entry["amount"]["minor"], entry["key"]) for entry in entries]


async def test_the_order_s_total_is_held_to_the_cent_under_the_command_s_key(provider: httpx.AsyncClient, order: str) -> None:
    outcome = await effects.authorize(provider, authorization(order), f"{order}/1")
    assert isinstance(outcome, CardAuthorized)
    assert outcome.order_id == order
    assert outcome.authorization_id.startswith("auth_")
    assert await books(provider, order) == [("authorized", 1999, f"{order}/1")]


async def test_an_authorisation_asked_for_again_is_the_same(provider: httpx.AsyncClient, order: str) -> None:
    first = await effects.authorize(provider, authorization(order), f"{order}/1")
    assert await effects.authorize(provider, authorization(order), f"{order}/1") == first
    assert len(await books(provider, order)) == 1


async def test_a_card_over_its_limit_is_refused_in_the_provider_s_words(provider: httpx.AsyncClient, order: str) -> None:
    (await provider.put(f"/v1/customers/{order}", json={"limit_minor": 1998})).raise_for_status()
    outcome = await effects.authorize(provider, authorization(order, customer=order), f"{order}/1")
    assert outcome == CardRefused(order_id=order, reason="card_limit_exceeded")


async def test_what_is_held_is_captured_whole(provider: httpx.AsyncClient, order: str) -> None:
    await effects.authorize(provider, authorization(order), f"{order}/1")
    command = CaptureCard(order_id=order, total=TOTAL)
    assert await effects.capture(provider, command, f"{order}/2") == CardCaptured(order_id=order)
    assert await effects.capture(provider, command, f"{order}/2") == CardCaptured(order_id=order)
    assert await effects.capture(provider, command, f"{order}/3") == CardCaptured(order_id=order)
    assert [kind for kind, _, _ in await books(provider, order)] == ["authorized", "captured"]


async def test_a_void_gives_back_and_a_late_authorisation_is_refused(provider: httpx.AsyncClient, order: str) -> None:
    await effects.authorize(provider, authorization(order), f"{order}/1")
    assert await effects.void(provider, VoidCard(order_id=order), f"{order}/2") == CardVoided(order_id=order)
    late = await effects.authorize(provider, authorization(order), f"{order}/3")
    assert late == CardRefused(order_id=order, reason="reference_voided")
    assert [kind for kind, _, _ in await books(provider, order)] == ["authorized", "voided"]


async def test_a_void_before_any_authorisation_is_done_too(provider: httpx.AsyncClient, order: str) -> None:
    assert await effects.void(provider, VoidCard(order_id=order), f"{order}/1") == CardVoided(order_id=order)
    assert await books(provider, order) == [("voided", None, f"{order}/1")]


@pytest.mark.parametrize("rule", [{"kind": "fail", "status": 500}, {"kind": "fail", "status": 503}, {"kind": "down"}])
async def test_an_answer_of_5xx_decides_nothing(provider: httpx.AsyncClient, order: str, rule: dict[str, Any]) -> None:
    await behave(provider, rule)
    with pytest.raises(effects.ProviderUndecided, match="answered 50"):
        await effects.authorize(provider, authorization(order), f"{order}/1")
    await behave(provider)
    assert await books(provider, order) == []


async def test_a_provider_with_too_much_to_do_decides_nothing(tmp_path_factory: pytest.TempPathFactory, order: str) -> None:
    with running(tmp_path_factory.mktemp("busy"), "--in-flight", "0") as (_, address):
        async with effects.connect(Settings.read({"OUTSIDE_PROVIDER": address})) as provider:
            with pytest.raises(effects.ProviderUndecided, match=r"answered 429.*too_many_requests"):
                await effects.authorize(provider, authorization(order), f"{order}/1")


async def test_a_time_out_then_success_holds_the_money_once(provider: httpx.AsyncClient, order: str) -> None:
    await behave(provider, {"kind": "hold", "seconds": 30, "next": 1})
    provider.timeout = httpx.Timeout(0.3)
    with pytest.raises(httpx.ReadTimeout):
        await effects.authorize(provider, authorization(order), f"{order}/1")
    provider.timeout = httpx.Timeout(5.0)
    assert isinstance(await effects.authorize(provider, authorization(order), f"{order}/1"), CardAuthorized)
    assert await books(provider, order) == [("authorized", 1999, f"{order}/1")]


async def test_an_answer_that_is_broken_off_is_asked_for_again(provider: httpx.AsyncClient, order: str) -> None:
    await behave(provider, {"kind": "hold", "seconds": 0.01, "then": "close", "next": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await effects.authorize(provider, authorization(order), f"{order}/1")
    assert isinstance(await effects.authorize(provider, authorization(order), f"{order}/1"), CardAuthorized)
    assert len(await books(provider, order)) == 1


async def test_an_exchange_that_takes_too_long_as_a_whole_ends(
    provider: httpx.AsyncClient, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "ANSWER_WITHIN_S", 0.2)
    await behave(provider, {"kind": "slow", "seconds": 4})
    with pytest.raises(TimeoutError):
        await effects.void(provider, VoidCard(order_id=order), f"{order}/1")


async def test_a_provider_that_is_not_there_is_an_error_of_the_connection(order: str) -> None:
    async with effects.connect(Settings.read({"OUTSIDE_PROVIDER": f"http://127.0.0.1:{free_port()}"})) as provider:
        with pytest.raises(httpx.ConnectError):
            await effects.void(provider, VoidCard(order_id=order), f"{order}/1")


async def test_a_capture_of_nothing_decides_nothing(provider: httpx.AsyncClient, order: str) -> None:
    with pytest.raises(effects.ProviderUndecided, match=r"answered 404.*not_authorized"):
        await effects.capture(provider, CaptureCard(order_id=order, total=TOTAL), f"{order}/1")


async def test_a_capture_of_what_was_voided_decides_nothing(provider: httpx.AsyncClient, order: str) -> None:
    await effects.void(provider, VoidCard(order_id=order), f"{order}/1")
    with pytest.raises(effects.ProviderUndecided, match=r"answered 409.*reference_voided"):
        await effects.capture(provider, CaptureCard(order_id=order, total=TOTAL), f"{order}/2")


async def test_a_void_of_what_was_captured_decides_nothing(provider: httpx.AsyncClient, order: str) -> None:
    await effects.authorize(provider, authorization(order), f"{order}/1")
    await effects.capture(provider, CaptureCard(order_id=order, total=TOTAL), f"{order}/2")
    with pytest.raises(effects.ProviderUndecided, match=r"answered 409.*captured"):
        await effects.void(provider, VoidCard(order_id=order), f"{order}/3")


async def test_a_capture_of_another_amount_than_the_total_is_not_called_captured(provider: httpx.AsyncClient, order: str) -> None:
    await effects.authorize(provider, authorization(order), f"{order}/1")
    other = Money(currency_code="USD", units=20)
    with pytest.raises(effects.ProviderUndecided, match="captured 1999 USD, the order's total is 2000 USD"):
        await effects.capture(provider, CaptureCard(order_id=order, total=other), f"{order}/2")


async def test_a_key_used_for_something_else_decides_nothing(provider: httpx.AsyncClient, order: str) -> None:
    await effects.void(provider, VoidCard(order_id=order), f"{order}/1")
    with pytest.raises(effects.ProviderUndecided, match="idempotency_key_reused"):
        await effects.authorize(provider, authorization(order), f"{order}/1")


async def test_a_total_in_fractions_of_a_cent_never_reaches_the_provider(provider: httpx.AsyncClient, order: str) -> None:
    with pytest.raises(ValueError, match="not a whole number of minor units"):
        await effects.authorize(provider, authorization(order, Money(currency_code="USD", nanos=1)), f"{order}/1")
    assert await books(provider, order) == []


async def test_an_answer_that_is_not_the_provider_s_decides_nothing(order: str) -> None:
    answers = httpx.MockTransport(lambda _: httpx.Response(201, text="<html>a proxy</html>"))
    async with httpx.AsyncClient(transport=answers, base_url="http://provider") as provider:
        with pytest.raises(effects.ProviderUndecided, match="a proxy"):
            await effects.authorize(provider, authorization(order), f"{order}/1")


async def test_without_an_address_the_effects_do_not_start() -> None:
    with pytest.raises(SettingsError, match="OUTSIDE_PROVIDER"):
        async with effects.connect(Settings.read({})):
            pytest.fail("it connected to nowhere")

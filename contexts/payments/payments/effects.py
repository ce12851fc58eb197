"""What payments asks of its sibling risk and of the payment provider. Each function gives an outcome for a definite answer and raises
for every other: what is raised is tried again, under the same key, until the command's `answer_by`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httpx
import msgspec
from google.type.money_pb2 import Money
from retail.payments.effects.v1.payment_pb2 import (
    AssessRisk,
    AuthorizeCard,
    CaptureCard,
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    CommandGaveUp,
    GivenUpCommand,
    RiskAssessed,
    VoidCard,
)
from retail.payments.views.v1.risk_pb2 import GetCustomerHistoryRequest

from backbone.positions import AS_OF, decode, to_proto
from backbone.settings import Settings

if TYPE_CHECKING:
    from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceAsyncStub

Command: TypeAlias = AssessRisk | AuthorizeCard | CaptureCard | VoidCard

ANSWER_WITHIN_S = 10.0
"""Seconds for one whole exchange; httpx's own time-outs bound only the pause between two bytes."""

CONNECTIONS = 32
"""Connections to the provider per process."""

NANOS_PER_MINOR = 10_000_000
"""The provider counts in minor units; the shop sells in currencies that have two decimals."""

REFUSALS = frozenset({"reference_voided", "captured", "currency_differs"})
"""Conflicts after which the provider will never hold money for the order."""


class ProviderUndecided(Exception):
    """The provider did not give an answer that decides the command; `str()` says what it gave instead."""


class Amount(msgspec.Struct, frozen=True):
    """Money as the provider writes it."""

    currency: str
    minor: int


class Authorization(msgspec.Struct, frozen=True):
    """The provider holds money."""

    authorization_id: str


class Captured(msgspec.Struct, frozen=True):
    """The provider hands the money over."""

    amount: Amount


class Refusal(msgspec.Struct, frozen=True):
    """The provider says no."""

    reason: str


Answer = TypeVar("Answer", Authorization, Captured, Refusal)


GIVEN_UP: dict[type[Command], GivenUpCommand.ValueType] = {
    AssessRisk: GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK,
    AuthorizeCard: GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD,
    CaptureCard: GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD,
    VoidCard: GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD,
}


async def assess(risk: RiskViewServiceAsyncStub, command: AssessRisk) -> RiskAssessed:
    """Ask our sibling what is known of a customer; the outcome records the answer and where the view stood."""
    call = risk.GetCustomerHistory(GetCustomerHistoryRequest(customer_id=command.customer_id))
    history = (await call).row
    read_at = "".join(str(value) for name, value in await call.trailing_metadata() if name == AS_OF)
    return RiskAssessed(
        order_id=command.order_id,
        authorized=history.authorized,
        declined=history.declined,
        read_at=to_proto(decode(read_at)),
    )


def gave_up(command: Command, last_error: str) -> CommandGaveUp:
    """Nobody waits any longer for what a command asks; whether it was done is not known."""
    return CommandGaveUp(order_id=command.order_id, command=GIVEN_UP[type(command)], last_error=last_error)


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A pool of connections to the provider at OUTSIDE_PROVIDER."""
    async with httpx.AsyncClient(
        base_url=settings.require("provider"),
        timeout=httpx.Timeout(5.0, connect=2.0),
        # The provider closes idle connections after 30 s: we are the first to let go, so no request meets a closing one.
        limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=20.0),
        follow_redirects=False,
        trust_env=False,  # the address is all there is to know; a proxy of the machine is not to hear of payments
    ) as provider:
        yield provider


async def authorize(provider: httpx.AsyncClient, command: AuthorizeCard, key: str) -> CardAuthorized | CardRefused:
    """Have the money held under the order's id; the same key never holds it twice."""
    amount = _amount(command.total)
    asked = {"reference": command.order_id, "customer": command.customer_id, "amount": msgspec.to_builtins(amount)}
    answer = await _ask(provider, "/v1/authorizations", asked, key)
    if answer.status_code == HTTPStatus.CREATED:
        return CardAuthorized(order_id=command.order_id, authorization_id=_read(answer, Authorization).authorization_id)
    if answer.status_code == HTTPStatus.PAYMENT_REQUIRED or _conflict(answer) in REFUSALS:
        return CardRefused(order_id=command.order_id, reason=_read(answer, Refusal).reason)
    raise _undecided(answer)


async def capture(provider: httpx.AsyncClient, command: CaptureCard, key: str) -> CardCaptured:
    """Take what is held under the order's id: exactly the order's total."""
    answer = await _ask(provider, "/v1/captures", {"reference": command.order_id}, key)
    if answer.status_code == HTTPStatus.CREATED:
        taken, total = _read(answer, Captured).amount, _amount(command.total)
        if taken != total:
            raise ProviderUndecided(f"captured {taken.minor} {taken.currency}, the order's total is {total.minor} {total.currency}")
        return CardCaptured(order_id=command.order_id)
    if _conflict(answer) == "captured":
        return CardCaptured(order_id=command.order_id)
    raise _undecided(answer)


async def void(provider: httpx.AsyncClient, command: VoidCard, key: str) -> CardVoided:
    """Give back what is held under the order's id, now or by an authorisation that is still on its way."""
    answer = await _ask(provider, "/v1/voids", {"reference": command.order_id}, key)
    if answer.status_code == HTTPStatus.CREATED:
        return CardVoided(order_id=command.order_id)
    raise _undecided(answer)


async def _ask(provider: httpx.AsyncClient, path: str, asked: dict[str, object], key: str) -> httpx.Response:
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return await provider.post(path, json=asked, headers={"Idempotency-Key": key})


def _read(answer: httpx.Response, shape: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(answer.content, type=shape)
    except msgspec.MsgspecError as error:
        raise _undecided(answer) from error


def _conflict(answer: httpx.Response) -> str:
    return _read(answer, Refusal).reason if answer.status_code == HTTPStatus.CONFLICT else ""


def _undecided(answer: httpx.Response) -> ProviderUndecided:
    return ProviderUndecided(f"{answer.request.url.path} answered {answer.status_code}: {answer.text[:200]}")


def _amount(total: Money) -> Amount:
    minor, rest = divmod(total.nanos, NANOS_PER_MINOR)
    if rest:
        raise ValueError(f"{total.units} {total.currency_code} and {total.nanos} nanos is not a whole number of minor units")
    return Amount(total.currency_code, total.units * 100 + minor)

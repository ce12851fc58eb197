"""The payment provider in memory: the rules of `outside/provider`, its misbehaviour, and its own books."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from backbone.testing.simulated.clock import Clock
from backbone.testing.simulated.faults import Kind
from backbone.testing.simulated.ports import Gate
from laws.books import BookEntry


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body, in the shape in which httpx gives them."""

    status_code: int
    body: dict[str, Any]
    path: str = ""

    @property
    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body).encode()

    @property
    def text(self) -> str:
        """The body as text."""
        return json.dumps(self.body)

    @property
    def request(self) -> Any:
        """What was asked, as far as errors show it."""
        return self

    @property
    def url(self) -> Any:
        """Where it was asked."""
        return self


@dataclass(slots=True)
class _Account:
    """What the entries of one reference add up to."""

    status: str = "new"
    held: list[BookEntry] = field(default_factory=list)


class Ledger:
    """The books.

    Attributes:
        limits: bounds of customers' cards, in minor units.
    """

    def __init__(self) -> None:
        self.entries: list[BookEntry] = []
        self.limits: dict[str, int] = {}
        self._accounts: dict[str, _Account] = {}
        self._answers: dict[str, tuple[str, Answer]] = {}
        self._used: dict[str, int] = {}

    def ask(self, path: str, key: str, asked: dict[str, Any], declined: bool = False) -> Answer:
        """Do what is asked, once per key."""
        fingerprint = f"{path} {sorted(asked.items())}"
        stored = self._answers.get(key)
        if stored is not None:
            return stored[1] if stored[0] == fingerprint else Answer(409, {"reason": "idempotency_key_reused"}, path)
        account = self._accounts.setdefault(asked["reference"], _Account())
        status, body = {"/v1/authorizations": self._authorize, "/v1/captures": self._capture, "/v1/voids": self._void}[path](
            account, asked, declined
        )
        answer = Answer(status, body, path)
        self._answers[key] = (fingerprint, answer)
        return answer

    def _authorize(self, account: _Account, asked: dict[str, Any], declined: bool) -> tuple[int, dict[str, Any]]:
        customer, currency, minor = asked["customer"], asked["amount"]["currency"], asked["amount"]["minor"]
        if account.status in ("voided", "captured"):
            return 409, {"reason": "reference_voided" if account.status == "voided" else "captured"}
        if account.held and account.held[0].currency != currency:
            return 409, {"reason": "currency_differs"}
        limit = self.limits.get(customer)
        exceeds = limit is not None and self._used.get(customer, 0) + minor > limit
        if exceeds or declined:
            self._enter("declined", asked["reference"], customer, "", currency, minor)
            return 402, {"status": "declined", "reason": "card_limit_exceeded" if exceeds else "card_declined"}
        name = f"auth_{len(self.entries)}"
        account.status = "authorized"
        account.held.append(self._enter("authorized", asked["reference"], customer, name, currency, minor))
        self._used[customer] = self._used.get(customer, 0) + minor
        return 201, {"authorization_id": name, "status": "authorized"}

    def _capture(self, account: _Account, asked: dict[str, Any], _: bool) -> tuple[int, dict[str, Any]]:
        if account.status in ("voided", "captured"):
            return 409, {"reason": "reference_voided" if account.status == "voided" else "captured"}
        if not account.held:
            return 404, {"reason": "not_authorized"}
        for one in account.held:
            self._enter("captured", one.reference, one.customer, one.authorization_id, one.currency, one.minor)
        account.status = "captured"
        return 201, {
            "status": "captured",
            "amount": {"currency": account.held[0].currency, "minor": sum(one.minor for one in account.held)},
        }

    def _void(self, account: _Account, asked: dict[str, Any], _: bool) -> tuple[int, dict[str, Any]]:
        if account.status == "captured":
            return 409, {"reason": "captured"}
        if account.status == "authorized":
            for one in account.held:
                self._enter("voided", one.reference, one.customer, one.authorization_id, one.currency, one.minor)
                self._used[one.customer] -= one.minor
        elif account.status == "new":
            self._enter("voided", asked["reference"])
        account.status = "voided"
        return 201, {"status": "voided"}

    def _enter(
        self, kind: str, reference: str, customer: str = "", authorization_id: str = "", currency: str = "", minor: int = 0
    ) -> BookEntry:
        entry = BookEntry(len(self.entries) + 1, kind, reference, customer, authorization_id, currency, minor)
        self.entries.append(entry)
        return entry


@dataclass(slots=True)
class Mood:
    """How likely each misbehaviour is, from 0 to 1."""

    decline: float = 0.03
    slow: float = 0.06
    hold: float = 0.06
    fail: float = 0.04
    down: float = 0.0


class Provider:
    """The provider as a server: what has reached it is done, whether or not the one who asked still lives.

    Args:
        at: lets something happen at a moment of virtual time.
        refused: customers whose cards it always refuses.
    """

    def __init__(self, lot: Random, clock: Clock, at: Callable[[float, Callable[[], None]], None], refused: frozenset[str]) -> None:
        self.ledger = Ledger()
        self.mood = Mood()
        self.misbehaved: dict[str, int] = {}
        self._lot = lot
        self._clock = clock
        self._at = at
        self._refused = refused

    def misbehave(self, lot: Random) -> Callable[[], None]:
        """Get into a bad mood; the answer ends it."""
        kind = lot.choice(("decline", "slow", "hold", "fail", "down"))
        setattr(self.mood, kind, 0.6)

        def calm() -> None:
            self.mood = Mood()

        return calm

    async def post(self, path: str, asked: dict[str, Any], key: str) -> Answer:
        """Answer a request as HTTP would, or break off."""
        lot, mood = self._lot, self.mood
        if lot.random() < mood.down:
            return self._count("down", Answer(503, {"reason": "down"}, path))
        if lot.random() < mood.fail:
            return self._count("fail", Answer(500, {"reason": "failed"}, path))
        before_s = lot.choice((0.3, 3.0, 12.0)) if lot.random() < mood.slow else lot.random() * 0.01
        held_s = lot.choice((0.3, 3.0, 12.0)) if lot.random() < mood.hold else 0.0
        breaks_off = held_s > 0 and lot.random() < 0.5
        declined = asked.get("customer") in self._refused or ("customer" in asked and lot.random() < mood.decline)
        answers: list[Answer] = []
        self._at(self._clock.now_s + before_s, lambda: answers.append(self.ledger.ask(path, key, asked, declined)))
        await asyncio.sleep(before_s + held_s)
        while not answers:  # noqa: ASYNC110 - the world that answers has no event loop
            await asyncio.sleep(0.001)
        if breaks_off:
            self._count("broken off", answers[0])
            raise ConnectionError("simulated: the provider broke off")
        return answers[0]

    def _count(self, what: str, answer: Answer) -> Answer:
        self.misbehaved[what] = self.misbehaved.get(what, 0) + 1
        return answer


class Line:
    """A worker's connection to the provider, through its gate; what effects take for an `httpx.AsyncClient`."""

    def __init__(self, gate: Gate, provider: Provider) -> None:
        self._gate = gate
        self._provider = provider

    async def post(self, path: str, *, json: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Ask."""
        struck = self._gate.enter("outside")
        if struck is Kind.REFUSED:
            raise ConnectionError("simulated: the provider cannot be reached")
        answer = await self._provider.post(path, json, headers["Idempotency-Key"])
        self._gate.moves += 1
        self._gate.leave(struck)
        return answer

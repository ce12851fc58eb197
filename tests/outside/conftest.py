"""One provider per module, and what a merchant asks it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.outside.running import running


@dataclass
class Merchant:
    """Asks the provider; every order has a reference of its own, so that tests share a ledger in peace."""

    http: httpx.Client
    reference: str = field(default_factory=lambda: f"order-{uuid.uuid4()}")
    customer: str = field(default_factory=lambda: f"customer-{uuid.uuid4()}")

    def authorize(self, minor: int = 1999, key: str | None = None, currency: str = "USD") -> httpx.Response:
        """Asks for an authorisation under the reference."""
        amount = {"currency": currency, "minor": minor}
        return self.post("authorizations", {"customer": self.customer, "amount": amount}, key)

    def capture(self, key: str | None = None) -> httpx.Response:
        """Asks for the money."""
        return self.post("captures", {}, key)

    def void(self, key: str | None = None) -> httpx.Response:
        """Gives the money back."""
        return self.post("voids", {}, key)

    def post(self, what: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        """Sends one operation, under a new key if none is given."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self.http.post(f"/v1/{what}", json={"reference": self.reference, **body}, headers=headers)

    def limit(self, minor: int | None) -> None:
        """Bounds the customer's card."""
        self.http.put(f"/v1/customers/{self.customer}", json={"limit_minor": minor}).raise_for_status()

    def behave(self, *rules: dict[str, Any]) -> None:
        """Makes the provider misbehave."""
        self.http.put("/v1/behaviour", json={"rules": list(rules)}).raise_for_status()

    def applied(self) -> list[int]:
        """How often each rule acted."""
        return [rule["applied"] for rule in self.http.get("/v1/behaviour").json()["rules"]]

    def entries(self) -> list[dict[str, Any]]:
        """The ledger of the reference."""
        answer = self.http.get("/v1/ledger", params={"reference": self.reference})
        return list(answer.raise_for_status().json()["entries"])

    def kinds(self) -> list[str]:
        """The kinds of the ledger's entries of the reference."""
        return [entry["kind"] for entry in self.entries()]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a provider serves."""
    with running(tmp_path_factory.mktemp("provider")) as (_, where):
        yield where


@pytest.fixture
def merchant(address: str) -> Iterator[Merchant]:
    """A merchant with one order, before a provider that behaves."""
    with httpx.Client(base_url=address, timeout=10.0) as http:
        yield Merchant(http)
        http.delete("/v1/behaviour").raise_for_status()

"""The whole platform in a folder of its own, and what tests do to it."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec

from backbone.local.platform import RunningPlatform, running
from demo.purchases import CATALOGUE, Purchase, read_prices, read_purchases
from demo.rest import wait_for_rest
from laws import books, log
from laws.check import Verdict, check
from laws.entries import Entry
from laws.history import Recorder
from shop import shop
from tests.checker.check import judge
from tests.checker.reading import world
from tests.checker.world import Finding
from tests.e2e.client import Customer
from tests.local.waiting import wait_until

TEST_ARTICLES: Mapping[str, int] = {
    **{
        f"T-{word}": 1000
        for word in ("ONE", "TWO", "KEY", "CANCEL", "CARD", "OUTAGE", "LOST", "SLOW", "WAIT", "DOOR", "SPLIT", "LATE", "MANY", "TOKEN")
    },
    "T-PRICE": 1000,
    "T-FEW": 700,
    "T-LAST": 700,
    "T-FREE": 0,
}
"""Articles nobody but tests asks for, with their prices."""
HISTORY = "history.jsonl"
"""What customers asked and were told, in the folder of the stack."""

PLENTY = 1000
FEW = {"T-FEW": 2, "T-LAST": 1}
ZONES = ("zone-1", "zone-2", "zone-3")


@dataclass(frozen=True)
class Shop:
    """A running shop."""

    here: RunningPlatform
    purchases: Sequence[Purchase]
    history: Recorder = field(default_factory=Recorder)

    @property
    def kafka(self) -> dict[str, str]:
        """How its log is read."""
        return self.here.kafka()

    def customer(self, name: str = "") -> Customer:
        """A customer at its door."""
        return Customer(self.here.grpc, name, self.history)

    def rest(self, within_s: float = 60.0) -> None:
        """Wait until nothing is under way."""
        wait_for_rest(self.kafka, self.here.health, within_s)

    def verdict(self) -> Verdict:
        """What the laws say once it is at rest."""
        self.rest()
        return check(self.entries(), books.read(self.here.outside["provider"]))

    def findings(self) -> tuple[Finding, ...]:
        """What the checker finds in log, views, books and in what its customers were told, once it is at rest."""
        self.rest()
        return judge(world(self.here.stack.folder, self.here.stack.folder / HISTORY)).smallest()

    def entries(self) -> Iterator[Entry]:
        """Everything that lies in its log."""
        return log.read(self.kafka)

    def books(self, order_id: str) -> list[tuple[str, int]]:
        """Kind and amount of what the provider wrote down about an order."""
        return [(entry.kind, entry.minor) for entry in books.read(self.here.outside["provider"], order_id)]

    def limit_card(self, customer: str, cents: int) -> None:
        """Let the provider bound a customer's card."""
        self._provider("PUT", f"/v1/customers/{customer}", {"limit_minor": cents})

    @contextmanager
    def misbehaving(self, *rules: Mapping[str, object]) -> Iterator[None]:
        """Let the provider misbehave for a while."""
        self._provider("PUT", "/v1/behaviour", {"rules": list(rules)})
        try:
            yield
        finally:
            self._provider("DELETE", "/v1/behaviour")

    def applied(self) -> list[int]:
        """How often each rule of misbehaviour acted."""
        return [rule["applied"] for rule in self._provider("GET", "/v1/behaviour")["rules"]]

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stop a process for a while."""
        supervisor = self.here.stack.supervisor
        supervisor.stop([name])
        try:
            yield
        finally:
            supervisor.resume([name])

    def kill(self, name: str) -> None:
        """SIGKILL a process and start its slot again."""
        self.here.stack.supervisor.kill([name])
        self.here.stack.supervisor.resume([name])

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Let a process stand still, so that what it holds can be looked at."""
        pid = self.here.stack.supervisor.processes[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def status(self, name: str) -> dict[str, Any]:
        """What a process tells of itself."""
        status: dict[str, Any] = httpx.get(f"{self.here.health[name]}/status", timeout=5.0, trust_env=False).json()
        return status

    def list_price(self, sku: str, cents: int) -> None:
        """Change a price in the catalogue file, and wait until everybody knows."""
        _append(Path(self.here.outside["catalogue"]), (sku, sku, cents, 0))
        wait_until(lambda: self._last_price(sku) == cents, 20.0, f"{sku} is listed at {cents}")
        self.rest()

    def open_transactions(self, context: str) -> list[str]:
        """Partitions of a context's topics in which something is written and not committed, now."""
        own = (f"retail.{context}.", f"private.{context}.")
        written, committed = (self._ends(own, isolation) for isolation in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED))
        return sorted(f"{topic}/{partition}" for (topic, partition), end in written.items() if end > committed[topic, partition])

    def open_commands(self) -> set[bytes]:
        """Keys of the commands that have no outcome, now."""
        topic = "private.payments.payments.commands"
        last = {entry.key: entry.value for entry in self.entries() if entry.place.topic == topic}
        return {key for key, value in last.items() if key is not None and value is not None}

    def _ends(self, prefixes: tuple[str, ...], isolation: IsolationLevel) -> dict[tuple[str, int], int]:
        admin = AdminClient({**self.kafka})
        topics = admin.list_topics(timeout=10).topics
        latest: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]
        asked: dict[TopicPartition, OffsetSpec] = {
            TopicPartition(name, partition): latest for name in topics if name.startswith(prefixes) for partition in topics[name].partitions
        }
        answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=10)
        return {(place.topic, place.partition): answer.result(10).offset for place, answer in answers.items()}

    def _last_price(self, sku: str) -> int:
        found = 0
        for entry in self.entries():
            if entry.name == "PriceListed" and entry.event.sku == sku:
                found = entry.event.unit_price.units * 100 + entry.event.unit_price.nanos // 10_000_000
        return found

    def _provider(self, method: str, path: str, body: object = None) -> Any:
        answer = httpx.request(method, f"{self.here.outside['provider']}{path}", json=body, timeout=10.0, trust_env=False)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def a_shop(
    folder: Path,
    *,
    purchases: int = 0,
    environment: Mapping[str, str] | None = None,
    split: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Iterator[Shop]:
    """A shop on an empty log, stocked for so many real purchases and for the articles of tests."""
    chosen = read_purchases()[:purchases]
    files = {"catalogue": folder / "catalogue.csv", "receipts": folder / "receipts.csv"}
    _write_catalogue(files["catalogue"], {line.sku for one in chosen for line in one.lines})
    _write_receipts(files["receipts"], chosen)
    said: list[str] = []
    try:
        with (
            running(folder / "stack", shop, fresh=True, environment=environment, files=files, split=split, announce=said.append) as here,
            closing(Recorder(here.stack.folder / HISTORY)) as history,
        ):
            up = Shop(here, chosen, history)
            up.rest(120.0)
            yield up
            assert not here.stack.supervisor.given_up, "\n".join(said)
    except BaseException:
        print("\n".join(said))
        raise


def _write_catalogue(path: Path, skus: set[str]) -> None:
    prices = {sku: cents for sku, cents in read_prices(CATALOGUE).items() if sku in skus} | dict(TEST_ARTICLES)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sku", "title", "unit_price_cents", "sold"))
        writer.writerows((sku, f"{sku} for tests", cents, 0) for sku, cents in prices.items())


def _write_receipts(path: Path, purchases: Sequence[Purchase]) -> None:
    stock = {(zone, sku): FEW.get(sku, PLENTY) for zone in ZONES for sku in TEST_ARTICLES}
    for purchase in purchases:
        for line in purchase.lines:
            of = (purchase.zone, line.sku)
            stock[of] = stock.get(of, 0) + line.quantity
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("receipt_id", "pool_id", "sku", "quantity"))
        writer.writerows((f"test/{zone}/{sku}", zone, sku, quantity) for (zone, sku), quantity in stock.items())


def _append(path: Path, row: Sequence[object]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(row)

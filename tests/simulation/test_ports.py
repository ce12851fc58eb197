"""The simulator's log, rows and provider do what the real ones do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from backbone.adapters.memory_rows import AsyncMemoryRows
from backbone.ports import Fragment
from backbone.testing.conformance.log import SESSION_S, LogConformance, MakeName, MakeTopic
from backbone.testing.conformance.rows import FragmentOf, Lose, RowsConformance
from backbone.testing.simulated.clock import Clock
from backbone.testing.simulated.log import SimulatedLog, SimulatedRows
from outside.provider import ledger
from outside.provider.requests import Amount, Authorize, Capture, Void
from tests.simulation.provider import Ledger

TRANSACTION_S = 4.0


class RealClock(Clock):
    """A clock that goes by itself."""

    def monotonic(self) -> float:
        """Real seconds."""
        return time.monotonic()

    def log_ms(self) -> int:
        """Real milliseconds."""
        return time.time_ns() // 1_000_000


class TestLog(LogConformance):
    """The simulated log, in real time."""

    @pytest.fixture
    def name(self, unique: Callable[[str], str]) -> MakeName:
        """Names of this test."""
        return unique

    @pytest.fixture
    def log(self) -> SimulatedLog:
        """Empty."""

        def wait() -> None:
            log.changed.wait(0.01)

        log = SimulatedLog(RealClock(), wait, TRANSACTION_S, SESSION_S)
        return log

    @pytest.fixture
    def topic(self, log: SimulatedLog, name: MakeName) -> MakeTopic:
        """Topics of this log."""

        def make(partitions: int = 4) -> str:
            made = name("topic")
            log.create_topic(made, partitions)
            return made

        return make


class TestRows(RowsConformance):
    """The simulated rows."""

    @pytest.fixture
    def fragment(self, unique: Callable[[str], str]) -> FragmentOf:
        """Fragments of a view of this test."""
        view = unique("context.service.row")
        return lambda partition=0: Fragment(view, 1, partition)

    @pytest.fixture
    def rows(self) -> SimulatedRows:
        """Empty."""
        return SimulatedRows()

    @pytest.fixture
    def async_rows(self, rows: SimulatedRows) -> AsyncMemoryRows:
        """The same."""
        return AsyncMemoryRows(rows)

    @pytest.fixture
    def lose(self, rows: SimulatedRows) -> Lose:
        """Roll back to nothing."""
        return lambda _: rows.restore({})


def test_compaction_keeps_the_last_of_each_key_and_every_offset() -> None:
    """What was removed can still be judged, but is not read any more."""
    log = SimulatedLog(Clock(), lambda: None, TRANSACTION_S, SESSION_S)
    log.create_topic("state", 1)
    appender = log.appender()
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2")):
        appender.append("state", key, value).result(0)
    log.compact(["state"])
    assert [(record.offset, record.value) for record in log.read(("state", 0), 0, 3)] == [(1, b"1"), (2, b"2")]
    assert [record.offset for record in log.history("state")] == [0, 1, 2]


def test_a_transaction_without_its_marker_holds_back_what_lies_behind_it() -> None:
    """It is committed, its offsets count, and it cannot be read yet."""
    log = SimulatedLog(Clock(), lambda: None, TRANSACTION_S, SESSION_S)
    log.create_topic("topic", 1)
    log.marks_late = lambda _: True
    producer = log.producer("id")
    producer.begin()
    producer.produce("topic", b"a", b"1")
    producer.commit()
    log.appender().append("topic", b"b", b"2").result(0)
    reader = log.consumer({("topic", 0): 0})
    assert reader.poll(10, 0.0) == []
    log.marks_late = None
    log.mark()
    assert [record.value for record in reader.poll(10, 0.0)] == [b"1", b"2"]


@pytest.mark.parametrize("seed", range(20))
def test_the_simulated_provider_answers_as_the_real_one(seed: int, tmp_path: Path) -> None:
    """Same requests, same keys, in any order: same answers, same books."""
    lot = Random(seed)
    real, simulated = ledger.Ledger(tmp_path / "ledger.sqlite"), Ledger()
    real.set_limit("limited", 500)
    simulated.limits["limited"] = 500
    for _ in range(60):
        reference, key = f"order-{lot.randint(1, 4)}", f"key-{lot.randint(1, 40)}"
        customer, minor, declined = lot.choice(("limited", "other")), lot.choice((100, 300)), lot.random() < 0.1
        amount: dict[str, Any] = {"currency": lot.choice(("USD", "USD", "EUR")), "minor": minor}
        path = lot.choice(("/v1/authorizations", "/v1/captures", "/v1/voids"))
        if path == "/v1/authorizations":
            asked: dict[str, Any] = {"reference": reference, "customer": customer, "amount": amount}
            reason = "card_declined" if declined else None
            expected = real.authorize(
                key,
                Authorize(reference=reference, customer=customer, amount=Amount(**amount)),
                lambda reason=reason: reason,  # type: ignore[misc]
            )
        else:
            asked = {"reference": reference}
            expected = (
                real.capture(key, Capture(reference=reference)) if path == "/v1/captures" else real.void(key, Void(reference=reference))
            )
        found = simulated.ask(path, key, asked, declined)
        assert (found.status_code, found.body.get("reason")) == (expected.status, expected.body.get("reason"))
    books = [(one["kind"], one["reference"], one["customer"] or "", (one["amount"] or {"minor": 0})["minor"]) for one in real.page(0)]
    assert [(one.kind, one.reference, one.customer, one.minor) for one in simulated.entries] == books
    real.close()

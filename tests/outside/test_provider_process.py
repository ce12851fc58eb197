"""The provider as a process: what survives its death, how it starts and ends, how much it takes on."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from backbone.local.ports import is_answered
from tests.outside.conftest import Merchant
from tests.outside.running import ROOT, provider_process, running


@contextmanager
def merchant_at(address: str) -> Iterator[Merchant]:
    """A merchant with a client of its own."""
    with httpx.Client(base_url=address, timeout=10.0) as http:
        yield Merchant(http)


def test_a_kill_in_the_middle_of_traffic_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    with running(tmp_path) as (process, address):

        def keep_asking(_: int) -> None:
            with httpx.Client(base_url=address, timeout=10.0) as http:
                while True:
                    order = Merchant(http)
                    try:
                        answer = order.authorize(key=f"authorize {order.reference}")
                    except httpx.TransportError:
                        return
                    acknowledged[order.reference] = answer.json()["authorization_id"]

        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(keep_asking, number) for number in range(4)]
            deadline = time.monotonic() + 20
            while len(acknowledged) < 100:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
            for one in asking:
                one.result(timeout=20)
        assert process.wait(5.0)
        process.start()
        process.await_ready()
        with merchant_at(address) as survivor:
            entries = survivor.http.get("/v1/ledger").json()["entries"]
            kept = {entry["reference"]: entry["authorization_id"] for entry in entries}
            assert len(kept) == len(entries)
            assert acknowledged.items() <= kept.items()
            reference, authorization_id = next(iter(acknowledged.items()))
            customer = next(entry["customer"] for entry in entries if entry["reference"] == reference)
            again = replace(survivor, reference=reference, customer=customer).authorize(key=f"authorize {reference}")
            assert (again.headers["Idempotency-Replayed"], again.json()["authorization_id"]) == (
                "true",
                authorization_id,
            )


def test_voids_and_limits_survive_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address):
        with merchant_at(address) as order:
            order.void()
            order.limit(5)
        process.kill()
        assert process.wait(5.0)
        process.start()
        process.await_ready()
        with merchant_at(address) as survivor:
            assert replace(survivor, reference=order.reference).authorize(1).json()["reason"] == "reference_voided"
            assert replace(survivor, customer=order.customer).authorize(6).json()["reason"] == "card_limit_exceeded"


def test_the_ledger_cannot_be_rewritten(tmp_path: Path) -> None:
    with running(tmp_path) as (_, address), merchant_at(address) as order:
        order.void()
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as books:
            for change in ("UPDATE entries SET kind = 'captured'", "DELETE FROM entries"):
                with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                    books.execute(change)


def test_a_stop_lets_what_is_under_way_finish(tmp_path: Path) -> None:
    with running(tmp_path) as (process, address), merchant_at(address) as order:
        order.behave({"kind": "slow", "seconds": 0.5})
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(order.authorize)
            deadline = time.monotonic() + 5
            while order.applied() == [0]:
                assert time.monotonic() < deadline
            process.terminate()
            assert answer.result(timeout=5).status_code == 201
        assert process.wait(5.0)
        assert process.poll() in (0, 143)


def test_more_operations_than_the_limit_are_turned_away_before_they_are_done(tmp_path: Path) -> None:
    with running(tmp_path, "--in-flight", "2") as (_, address), merchant_at(address) as merchant:
        orders = [Merchant(merchant.http) for _ in range(3)]
        merchant.behave({"kind": "slow", "seconds": 2})
        with ThreadPoolExecutor(2) as threads:
            for order in orders[:2]:
                threads.submit(order.authorize)
            deadline = time.monotonic() + 2
            while merchant.applied() != [2]:
                assert time.monotonic() < deadline
            refused = orders[2].authorize()
            assert (refused.status_code, refused.json()["reason"]) == (429, "too_many_requests")
            assert refused.headers["Retry-After"] == "1"
            assert merchant.http.get("/livez").status_code == 200
        assert [order.kinds() for order in orders] == [["authorized"], ["authorized"], []]


def test_more_connections_than_the_limit_are_turned_away(tmp_path: Path) -> None:
    with running(tmp_path, "--connections", "4") as (_, address):
        host, port = address.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(4)]
        try:
            refused = httpx.get(f"{address}/livez", timeout=5)
            assert refused.status_code == 503
        finally:
            for one in idle:
                one.close()
        deadline = time.monotonic() + 5
        while httpx.get(f"{address}/livez", timeout=5).status_code != 200:
            assert time.monotonic() < deadline


def start(*options: str) -> subprocess.CompletedProcess[str]:
    """Starts a provider that is to end by itself."""
    command = [sys.executable, "-m", "outside.provider", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_a_port_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = start("--port", port, "--ledger", str(tmp_path / "ledger.db"))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "another --port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no ledger, and not to be overwritten" * 100)
    ended = start("--port", "0", "--ledger", str(file))
    assert ended.returncode == 1
    assert str(file) in ended.stderr
    assert "another --ledger" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert file.read_text() == "no ledger, and not to be overwritten" * 100


def test_a_free_port_is_taken_and_told(tmp_path: Path) -> None:
    process, _ = provider_process(tmp_path, "--port", "0")
    process.start()
    try:
        deadline = time.monotonic() + 20
        while not process.tail():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        told = process.tail()[0]
        assert told.startswith("provider listens on http://127.0.0.1:")
        address = told.split()[3].rstrip(",")
        assert httpx.get(f"{address}/livez", timeout=10).status_code == 200
    finally:
        process.kill()
        process.wait(5.0)


def test_it_does_not_outlive_its_launcher(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.outside.running import provider_process\n"
        f"process, address = provider_process(Path({str(tmp_path)!r}))\n"
        "process.start()\n"
        "process.await_ready()\n"
        "print(address, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as launcher:
        timer = threading.Timer(30, launcher.kill)
        timer.start()
        assert launcher.stdout is not None
        address = launcher.stdout.readline().strip()
        assert httpx.get(f"{address}/livez", timeout=10).status_code == 200
        launcher.kill()
        timer.cancel()
    deadline = time.monotonic() + 10
    while is_answered(int(address.rsplit(":", 1)[1])):
        assert time.monotonic() < deadline
        time.sleep(0.05)

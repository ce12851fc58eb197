"""`python -m benchmarks.overload`: how many orders are answered in time when ten times as many come as can be answered.

Peak: customers that wait for one answer before they order again, in growing numbers. Overload: orders come at ten times that rate, whatever
becomes of them; who is turned away does not come back. Clients share the machine with the platform, and step back behind it (nice).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from retail.gateway.v1.order_service_pb2 import OrderStatus, PlaceOrderRequest
from retail.gateway.v1.order_service_pb2_grpc import OrderServiceStub

from backbone.local.platform import running
from benchmarks.side_by_side import machine
from demo.placing import asked
from demo.purchases import ZONES, Line
from demo.rest import wait_for_rest
from shop import shop

if TYPE_CHECKING:
    from retail.gateway.v1.order_service_pb2_grpc import OrderServiceAsyncStub

LINE = Line("B-ONE", 1, 1000)
STOCK = 10_000_000
IN_TIME_S = 5.0
"""An answer after this is worth nothing to a client."""
CUSTOMERS = (16, 32, 64, 128)
PRINCIPALS = 200
TICK_S = 0.01
TARGET = 0.9
NICE = 10
CLIENTS_S = 60.0


@dataclass
class Came:
    """What became of the calls of one phase.

    Attributes:
        offered: calls that were begun.
        answered: orders that were answered in time.
        ended: how calls ended, by status.
        latencies: of the answered, in seconds.
    """

    offered: int = 0
    answered: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The latency that this share of the answered stayed below, in seconds."""
        known = sorted(self.latencies)
        return known[min(len(known) - 1, int(share * len(known)))] if known else 0.0

    def latency(self) -> str:
        """How long the answered waited, in words."""
        return f"p50 {self.quantile(0.5):.2f} s, p99 {self.quantile(0.99):.2f} s"


async def _order(stub: OrderServiceAsyncStub, came: Came, counts: asyncio.Event) -> str:
    request: PlaceOrderRequest = asked([LINE], random.choice(ZONES), IN_TIME_S)
    caller = (("x-principal", f"customer-{random.randrange(PRINCIPALS)}"), ("idempotency-key", uuid.uuid4().hex))
    began = time.perf_counter()
    counted = counts.is_set()
    came.offered += counted
    try:
        order = (await stub.PlaceOrder(request, metadata=caller, timeout=IN_TIME_S + 1)).order
        ending = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
    except grpc.aio.AioRpcError as error:
        ending = error.code().name
    took = time.perf_counter() - began
    if counts.is_set():
        came.ended[ending] += 1
        if ending in ("CONFIRMED", "REJECTED") and took <= IN_TIME_S:
            came.answered += 1
            came.latencies.append(took)
    return ending


async def _closed(stub: OrderServiceAsyncStub, customers: int, seconds: float, warm_s: float) -> tuple[Came, float]:
    """So many customers, each with one order at a time; what is answered per second."""
    came, counts, stop = Came(), asyncio.Event(), asyncio.Event()

    async def customer() -> None:
        while not stop.is_set():
            if await _order(stub, came, counts) == "RESOURCE_EXHAUSTED":
                await asyncio.sleep(random.uniform(0.5, 1.5))

    tasks = [asyncio.create_task(customer()) for _ in range(customers)]
    await asyncio.sleep(warm_s)
    counts.set()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = came.answered / (time.perf_counter() - began)
    stop.set()
    await asyncio.gather(*tasks)
    return came, rate


async def _open(stub: OrderServiceAsyncStub, rate: float, seconds: float, warm_s: float) -> tuple[Came, float, float]:
    """So many orders a second, whatever becomes of them; what is answered and what was offered per second."""
    came, counts, under_way = Came(), asyncio.Event(), set[asyncio.Task[str]]()
    began = time.perf_counter()
    counted_from, started = began, 0
    while (elapsed := time.perf_counter() - began) < warm_s + seconds:
        if elapsed >= warm_s and not counts.is_set():
            counts.set()
            counted_from = time.perf_counter()
        due = int(rate * elapsed)
        for _ in range(due - started):
            task = asyncio.create_task(_order(stub, came, counts))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        started = due
        await asyncio.sleep(TICK_S)
    took = time.perf_counter() - counted_from
    answered, offered = came.answered / took, came.offered / took
    await asyncio.gather(*under_way)
    return came, answered, offered


async def _measure(address: str, seconds: float, warm_s: float, times: float) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: OrderServiceAsyncStub = OrderServiceStub(channel)
        peak = 0.0
        for customers in CUSTOMERS:
            came, rate = await _closed(stub, customers, seconds, warm_s)
            peak = max(peak, rate)
            print(f"{customers:>4} customers: {rate:7.1f} /s answered in time, {came.latency()}", flush=True)
        came, goodput, offered = await _open(stub, times * peak, 2 * seconds, warm_s)
    ended = ", ".join(f"{name.lower()} {count}" for name, count in came.ended.most_common())
    print(f"{offered:7.1f} /s offered: {goodput:7.1f} /s answered in time, {came.latency()} ({ended})")
    print(f"peak {peak:.1f} /s; {offered / peak:.1f} times that offered; goodput / peak goodput = {goodput / peak:.2f} (target {TARGET})")
    return {"peak": peak, "offered": offered, "goodput": goodput, "ratio": goodput / peak, "p99_s": came.quantile(0.99)}


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def step_back() -> None:
    """Let the platform have the processor first."""
    os.nice(NICE)


def run(folder: Path, seconds: float, warm_s: float, times: float, fixed: int) -> dict[str, float]:
    """Start the platform on an empty log, and measure.

    Args:
        seconds: how long each phase counts, after `warm_s` that do not; the overload counts twice as long.
        times: how many times the peak is offered.
        fixed: a limit of orders that does not adapt, to compare with; 0 for none.
    """
    environment = {"GATEWAY_ORDERS_LEAST": str(fixed), "GATEWAY_ORDERS_MOST": str(fixed)} if fixed else {}
    files = {
        "catalogue": _write(
            folder / "catalogue.csv", ("sku", "title", "unit_price_cents", "sold"), [(LINE.sku, "an article", LINE.cents, 0)]
        ),
        "receipts": _write(
            folder / "receipts.csv",
            ("receipt_id", "pool_id", "sku", "quantity"),
            [(f"bench/{zone}/{n}", zone, LINE.sku, 100_000) for zone in ZONES for n in range(STOCK // 100_000 // 10)],
        ),
    }
    with running(folder / "stack", shop, fresh=True, files=files, environment=environment) as here:
        wait_for_rest(here.kafka(), here.health, 60.0)
        phases = [f"--seconds={seconds}", f"--warm={warm_s}", f"--times={times}"]
        told = folder / "measured.json"
        clients = [sys.executable, "-m", "benchmarks.overload", "--door", here.grpc, "--into", str(told), *phases]
        subprocess.run(clients, check=True, timeout=CLIENTS_S + 20 * (seconds + warm_s), preexec_fn=step_back)
        found: dict[str, float] = json.loads(told.read_text())
        with urllib.request.urlopen(f"{here.health['gateway']}/status", timeout=5) as answer:
            door = json.load(answer)["edges"]["gateway.door"]
        print(f"the door: {door}")
    return found


def main() -> int:
    """Measure, print, and write .backbone/bench-overload.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each phase counts [8]")
    parser.add_argument("--warm", type=float, default=4.0, help="seconds before each that do not count [4]")
    parser.add_argument("--times", type=float, default=10.0, help="how many times the peak is offered [10]")
    parser.add_argument("--fixed", type=int, default=0, help="a limit of orders that does not adapt, to compare with")
    parser.add_argument("--door", default="", help="only the clients: address of the gateway's gRPC server")
    parser.add_argument("--into", type=Path, help="only the clients: file for what they measured")
    given = parser.parse_args()
    if given.door:
        given.into.write_text(json.dumps(asyncio.run(_measure(given.door, given.seconds, given.warm, given.times))))
        return 0
    with tempfile.TemporaryDirectory(prefix="backbone-overload-") as folder:
        found = run(Path(folder), given.seconds, given.warm, given.times, given.fixed)
    file = Path(".backbone/bench-overload.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    return 0 if found.get("ratio", 0.0) >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())

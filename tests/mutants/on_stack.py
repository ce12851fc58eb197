"""Runs the mistakes of the gateway on one real stack, one after the other, and says what the checker finds of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import grpc

from backbone.errors import BackboneError
from laws.history import Recorder
from tests.checker.check import judge
from tests.checker.reading import world
from tests.e2e.client import Customer
from tests.e2e.running import Shop
from tests.faults.campaign import PLENTY
from tests.faults.load import Load
from tests.mutants.gateway import MISTAKES, Mistake
from tests.mutants.table import Looked

WAITS_S = 6.0
MOST_KILLS = 12
LOOKS_S = 40.0
LOADED = 60
"""Orders after which a mistake that takes many has shown."""


def look_on_stack(shop: Shop, name: str) -> Looked:
    """Plant a mistake in the gateway's process, let customers order, and judge what they were told."""
    mistake = MISTAKES[name]
    path = shop.here.stack.folder / f"history-{name.replace(' ', '-')}.jsonl"
    with planted(shop, name), closing(Recorder(path)) as history:
        _trade(shop, mistake, history)
    with suppress(BackboneError):
        shop.rest(5.0 if name == "never appended" else 60.0)
    found = [
        str(finding)
        for finding in judge(replace(world(shop.here.stack.folder, path, at_rest=False), at_rest=True)).findings
        if finding.rule in mistake.reasons and "call " in finding.text
    ]
    return Looked(name, 0 if found else None, min(found, key=len, default=""))


@contextmanager
def planted(shop: Shop, name: str) -> Iterator[None]:
    """The gateway's process with a mistake in it, for a while."""
    supervisor = shop.here.stack.supervisor
    process = supervisor.processes["gateway"]
    right = process.spec
    supervisor.stop(["gateway"])
    process.spec = replace(right, argv=(sys.executable, "-m", "tests.mutants.child", name, *right.argv[3:]))
    try:
        supervisor.resume(["gateway"])
        yield
    finally:
        supervisor.stop(["gateway"])
        process.spec = right
        supervisor.resume(["gateway"])


def _trade(shop: Shop, mistake: Mistake, history: Recorder) -> None:
    if mistake.killing:
        _kill_between(shop, history)
        return
    if mistake.loaded:
        with Load(shop.here.grpc, history, PLENTY, seed=1) as load:
            until = time.monotonic() + LOOKS_S
            while len(load.answered) < LOADED and time.monotonic() < until:
                time.sleep(0.05)
        return
    with Customer(shop.here.grpc, history=history) as customer:
        for number in range(3):
            with suppress(grpc.RpcError):
                quick = customer.place([("T-ONE", 1, 1000)], key=f"quick-{number}", wait_s=0.0)
                customer.get(quick.order_id)
        for lines in ([("T-ONE", 1, 1000)], [("T-ONE", 1, 999)], [("T-TWO", 2, 1000)]):
            for again in range(2):
                with suppress(grpc.RpcError):
                    key = f"wish-{lines[0][0]}-{lines[0][2]}"
                    customer.place([*lines, ("T-KEY", 1, 1000)] if again and lines[0][1] == 2 else lines, key=key, wait_s=WAITS_S)


def _kill_between(shop: Shop, history: Recorder) -> None:
    """SIGKILL the process of the orders while answers are written and not committed."""
    with Load(shop.here.grpc, history, PLENTY, seed=1) as load:
        kills, until = 0, time.monotonic() + LOOKS_S
        while kills < MOST_KILLS and time.monotonic() < until:
            with shop.frozen("ordering"):
                if not any(place.startswith("retail.ordering.orders.v1") for place in shop.open_transactions("ordering")):
                    continue
                time.sleep(0.3)  # what is written is heard meanwhile by who hears too much
                shop.here.stack.supervisor.kill(["ordering"])
                kills += 1
            shop.here.stack.supervisor.resume(["ordering"])
            answered = len(load.answered)
            while len(load.answered) < answered + 5 and time.monotonic() < until:
                time.sleep(0.02)

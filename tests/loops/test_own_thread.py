"""The thread of an edge: calls in turns, and one that hangs, which neither the edge nor the process waits for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from retail.payments.effects.v1.payment_pb2 import AuthorizeCard, CardAuthorized, CommandGaveUp

from backbone.adapters.grpc import connect_sibling
from backbone.declare import Effect, on
from backbone.errors import Unavailable, WorkerEnded
from backbone.loops import own_thread
from backbone.loops.act import Act
from backbone.loops.own_thread import OwnThread
from backbone.ports import Log
from backbone.settings import Settings
from tests.loops.edges import WITHIN_S, FailingLog, in_memory, until


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a planted call waits for, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


async def test_calls_are_made_on_one_thread_and_in_turns() -> None:
    with OwnThread("edge") as on_thread:
        names = await asyncio.gather(*(on_thread(lambda: threading.current_thread().name) for _ in range(3)))
        thread = next(one for one in threading.enumerate() if one.name == "edge")
        assert await on_thread(divmod, 7, 2) == (3, 1)
    assert names == ["edge"] * 3
    assert not thread.is_alive()


async def test_what_a_call_raises_is_raised_and_a_log_that_fails_ends_the_edge() -> None:
    def unavailable() -> None:
        raise Unavailable("no broker")

    with OwnThread("edge") as on_thread:
        with pytest.raises(ZeroDivisionError):
            await on_thread(divmod, 1, 0)
        with pytest.raises(WorkerEnded, match="the log failed: no broker"):
            await on_thread(unavailable)
        assert await on_thread(divmod, 7, 2) == (3, 1)


async def test_a_call_that_hangs_ends_the_edge_by_name_and_nobody_waits_for_it_again(
    monkeypatch: pytest.MonkeyPatch, never: threading.Event
) -> None:
    monkeypatch.setattr(own_thread, "HANGS_S", 0.2)
    began = time.monotonic()
    with OwnThread("payments.payments.effects") as on_thread:
        with pytest.raises(WorkerEnded, match=r"wait on thread payments.payments.effects has taken 0.2 s: it hangs"):
            await on_thread(never.wait)
        with pytest.raises(WorkerEnded, match="it hangs"):
            await on_thread.last(lambda: None)
    assert time.monotonic() - began < 5.0


async def test_the_last_call_waits_a_bounded_time_for_one_whose_edge_was_told_to_end(
    monkeypatch: pytest.MonkeyPatch, never: threading.Event
) -> None:
    monkeypatch.setattr(own_thread, "LAST_S", 0.2)
    under_way = threading.Event()

    def hangs() -> None:
        under_way.set()
        never.wait()

    with OwnThread("edge") as on_thread:
        call = asyncio.create_task(on_thread(hangs))
        assert await asyncio.to_thread(under_way.wait, 10.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        began = time.monotonic()
        with pytest.raises(WorkerEnded, match="it hangs"):
            await on_thread.last(lambda: None)
    assert time.monotonic() - began < 5.0


async def test_an_effect_whose_consumer_hangs_ends_with_that_reason(monkeypatch: pytest.MonkeyPatch, never: threading.Event) -> None:
    monkeypatch.setattr(own_thread, "HANGS_S", 0.5)
    numbers = iter(range(10))
    ground = in_memory(lambda word: f"{word}-{next(numbers)}")

    @asynccontextmanager
    async def connect(_: Settings) -> AsyncIterator[None]:
        yield

    async def authorized(_: None, command: AuthorizeCard) -> CardAuthorized:
        return CardAuthorized(order_id=command.order_id)

    def given_up(command: AuthorizeCard, _: str) -> CommandGaveUp:
        return CommandGaveUp(order_id=command.order_id)

    def hang() -> None:
        never.wait()

    log = FailingLog(ground.log())
    service = ground.effects(Effect(connect, on(AuthorizeCard, authorized), gave_up=given_up))
    act = Act(service, cast("Log", log), ground.settings, connect_sibling)
    running = asyncio.create_task(act.run(asyncio.Event()))
    await until(lambda: act.ready, "its partitions are read")
    log.consumers[0].once = hang
    with pytest.raises(WorkerEnded, match=r"turn on thread payments.payments-\d.effects has taken 0.5 s: it hangs"):
        await asyncio.wait_for(running, WITHIN_S)


PROGRAM = """
import sys, threading
from backbone import run
from backbone.adapters.memory import MemoryLog, MemoryProducer
from backbone.loops import own_thread
from backbone.topology import topology
from contexts.fulfilment.context import fulfilment

log = MemoryLog()
for topic in topology(fulfilment).topics:
    log.create_topic(topic.name, 4)
run.KafkaLog = lambda *_: log
own_thread.HANGS_S, own_thread.LAST_S, run.END_S = 1.0, 1.0, 3.0
MemoryProducer.commit = lambda _: threading.Event().wait()
if sys.argv[1] == "leaving":
    log.close = lambda: threading.Event().wait()
sys.exit(run.main(fulfilment, ["receiving"]))
"""


@pytest.mark.parametrize(("hangs", "last_words"), [("committing", ": it hangs"), ("leaving", "; not ended 3 s later, left as it is")])
def test_a_process_with_a_call_that_hangs_ends_with_the_reason_and_not_with_success(tmp_path: Path, hangs: str, last_words: str) -> None:
    """Of its intake's thread; and, when it leaves, of the event loop itself."""
    receipts = tmp_path / "receipts.csv"
    receipts.write_text("receipt_id,pool_id,sku,quantity\none,zone-1,CD-00001,5\n")
    told = {"KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", "REDIS_URL": "redis://127.0.0.1:1", "OUTSIDE_RECEIPTS": str(receipts)}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, hangs], env=os.environ | told, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1, ended.stderr
    (*_, last) = ended.stderr.strip().splitlines()
    assert last.startswith("backbone run fulfilment: fulfilment.receiving.intake: WorkerEnded: write on thread"), ended.stderr
    assert last.endswith(last_words)

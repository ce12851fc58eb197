"""Redis loses everything, and processes die where it hurts most: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis

from backbone.adapters.kafka import KafkaLog
from backbone.contract import ResolvedView, resolve_context
from backbone.envelope import decode, moment_of_ms
from backbone.loops.folding import RowTable
from backbone.ownership import READER
from backbone.stored import Lineage
from demo.placing import Progress, place_all
from demo.purchases import Purchase
from shop import shop
from tests.e2e.conftest import FLUSHED, KILLED
from tests.e2e.running import Shop
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

KILLS = 5
"""How often each context's process is killed."""


class Customers:
    """Customers who place purchases in a thread, until all are answered."""

    def __init__(self, shop: Shop, purchases: Sequence[Purchase], at_once: int) -> None:
        """Begins at once."""
        self.progress = Progress(len(purchases))
        self._pool = ThreadPoolExecutor(1)
        self._placing = self._pool.submit(
            lambda: asyncio.run(place_all(shop.here.grpc, purchases, self.progress, at_once, 150.0, shop.history))
        )

    def until_answered(self, count: int) -> None:
        """Wait until so many have their answer."""
        wait_until(lambda: len(self.progress.answers) >= count or self._placing.done(), 240.0, f"{count} orders are answered")

    @property
    def done(self) -> bool:
        """Whether all have left."""
        return self._placing.done()

    def leave(self) -> None:
        """Wait until all have left."""
        self._placing.result(300.0)
        self._pool.shutdown()


def test_no_order_is_refused_because_redis_forgot_everything(shop_up: Shop) -> None:
    """Each Redis is flushed twice while known articles in stock are asked for: decisions wait for their views, which heal."""
    purchases = shop_up.purchases[KILLED : KILLED + FLUSHED]
    customers = Customers(shop_up, purchases, at_once=8)
    for flushed, context in enumerate([*shop_up.here.stack.state.redis] * 2, start=1):
        customers.until_answered(flushed * len(purchases) // 10)
        assert not customers.done, "all were served before everything was forgotten"
        with Redis.from_url(shop_up.here.stack.state.redis[context]) as redis:
            redis.flushall()
    customers.leave()
    assert customers.progress.defects == {}
    assert customers.progress.confirmed == len(purchases), customers.progress.reasons()
    assert shop_up.verdict().violations == ()
    assert different_rows(shop_up) == []
    assert shop_up.findings() == ()


@dataclass
class Kill:
    """How one process stood when it was killed."""

    name: str
    answered: int
    open_transactions: list[str]
    open_commands: int = 0


@dataclass
class Killer:
    """Kills one process again and again, each time while it holds something open."""

    shop: Shop
    customers: Customers
    name: str
    kills: list[Kill] = field(default_factory=list)

    def run(self) -> None:
        """Kill it `KILLS` times, spread over all orders."""
        for number in range(KILLS):
            self.customers.until_answered(10 + number * (KILLED - 60) // KILLS)
            wait_until(self._killed, 60.0, f"{self.name} holds something open")
            self.shop.here.stack.supervisor.resume([self.name])

    def _killed(self) -> bool:
        """Stop it where it stands; kill it if it holds something open, else let it go on."""
        with self.shop.frozen(self.name):
            open_transactions = self.shop.open_transactions(self.name)
            open_commands = len(self.shop.open_commands()) if self.name == "payments" and not open_transactions else 0
            if not open_transactions and not open_commands:
                return False
            self.kills.append(Kill(self.name, len(self.customers.progress.answers), open_transactions, open_commands))
            self.shop.here.stack.supervisor.kill([self.name])
        return True


def test_every_context_may_be_killed_in_the_middle_of_its_work(shop_up: Shop) -> None:
    """Each of five times or more, with a transaction or a command open: every accepted order is answered and every law holds."""
    customers = Customers(shop_up, shop_up.purchases[:KILLED], at_once=12)
    killers = [Killer(shop_up, customers, name) for name in ("ordering", "payments", "fulfilment")]
    in_parallel([killer.run for killer in killers])
    customers.leave()
    for killer in killers:
        assert len(killer.kills) == KILLS
        assert all(kill.open_transactions or kill.open_commands for kill in killer.kills)
        assert all(kill.answered < KILLED for kill in killer.kills), "everything was answered before the last kill"
    assert customers.progress.defects == {}
    assert customers.progress.confirmed == KILLED, customers.progress.reasons()
    verdict = shop_up.verdict()
    assert verdict.violations == ()
    assert verdict.totals.quarantined == 0
    assert different_rows(shop_up) == []
    assert shop_up.findings() == ()


def in_parallel(works: Sequence[Callable[[], None]]) -> None:
    """Do all at once; the first failure counts."""
    failed: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300.0)
    if failed:
        raise failed[0]


def different_rows(up: Shop) -> list[str]:
    """Rows in Redis that differ from a fresh fold of the log, missing and superfluous ones among them."""
    log = KafkaLog(up.here.log, READER)
    try:
        return [
            f"{view.name}/{partition}: {key}"
            for context in shop.contexts
            for service in resolve_context(context)
            for view in service.views
            for partition in range(up.here.stack.state.partitions)
            for key in _different(log, view, partition, up.here.stack.state.redis[context.name])
        ]
    finally:
        log.close()


def _different(log: KafkaLog, view: ResolvedView, partition: int, redis_url: str) -> list[str]:
    place = (view.topic.name, partition)
    lines = {reaction.number: reaction.line for reaction in view.reactions}
    table = RowTable(view.view, view.name, view.key, {}, Lineage(view.topic.name))
    until = log.high_watermarks([place])[place]
    for record in log.read(place, log.starts([place])[place], until):
        came = decode(view.topic, record)
        if came.number in lines:
            where = f"{record.topic}/{record.partition}@{record.offset}"
            line, at, after = lines[came.number], moment_of_ms(record.timestamp_ms), came.meta.after
            assert table.fold(line, came.key, came.event, at, where, after=after, next_offset=record.offset + 1) is None
    fresh = {key: row for key, row in table.change(0, until).rows.items() if row is not None}
    with Redis.from_url(redis_url) as redis:
        found: Any = redis.hgetall(f"{{{view.name}.v{view.view.version}.{partition}}}:rows")
    stored = {key.decode(): row for key, row in found.items()}
    return sorted(key for key in fresh.keys() | stored.keys() if fresh.get(key) != stored.get(key))

"""Views on a real Kafka and a real Valkey: what the other tests try in memory holds there too."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.adapters.kafka_consumer import KafkaConsumer
from backbone.adapters.memory_rows import MemoryRows
from backbone.adapters.redis import AsyncRedisRows, RedisRows
from backbone.errors import Unavailable
from backbone.local.kafka import Kafka
from backbone.local.valkey import Valkey
from backbone.loops.project import Project
from backbone.loops.serve import Views
from backbone.partitioner import partition_of
from backbone.ports import Change, Fragment, Place
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNDECODABLE
from tests.examples import payment_authorized
from tests.loops.histories import PARTITIONS, Shown, customers, shown
from tests.users import TESTER

pytestmark = pytest.mark.integration


@pytest.fixture
def here(kafka: Kafka, unique: Callable[[str], str]) -> Iterator[Shown]:
    """The view on topics of its own."""
    settings = kafka.settings()
    log = KafkaLog(settings, TESTER)

    def make(names: Sequence[str]) -> None:
        KafkaAdmin(settings).create_topics([TopicSpec(name, PARTITIONS, KEPT_FOR_EVER) for name in names])

    yield shown(log, unique("risk"), make, settings)
    log.close()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that the test may flush and stop."""
    with Valkey(tmp_path) as server:
        yield server


@contextmanager
def projecting(project: Project) -> Iterator[Project]:
    """The projection on its thread, as a process runs it."""
    stop = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not stop.is_set():
                project.step(0.1)
        except Exception as error:  # noqa: BLE001 - told below, by the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield project
    finally:
        stop.set()
        thread.join(20)
        project.close()
    assert not failed, failed


def wait_for(here: Shown, rows: RedisRows) -> None:
    """Wait until the rows are as far as the log."""
    deadline = time.monotonic() + 30
    while here.watermarks(rows) != here.ends():
        assert time.monotonic() < deadline, f"{here.watermarks(rows)} of {here.ends()}"
        time.sleep(0.02)


def test_a_flush_in_the_middle_of_the_traffic_heals_and_equals_a_fresh_fold(here: Shown, own_valkey: Valkey) -> None:
    """Three times, and once more while nothing comes."""
    rows, seen = RedisRows(own_valkey.url), RedisRows(own_valkey.url)
    admin = Redis.from_url(own_valkey.url)
    with projecting(here.project(rows, batch=7)):
        for number in range(30):
            here.tell(*customers(20))
            if number in (8, 16, 24):
                admin.flushall()
        wait_for(here, seen)
        assert [row.authorized for row in here.rows(seen).values()] == [30] * 20
        admin.flushall()
        wait_for(here, seen)
        assert here.stored(seen) == here.afresh(MemoryRows())


def test_a_server_that_is_down_for_a_while_is_waited_for(here: Shown, own_valkey: Valkey) -> None:
    """The member keeps its place, says why it waits, and goes on."""
    rows, seen = RedisRows(own_valkey.url), RedisRows(own_valkey.url)
    with projecting(here.project(rows)) as project:
        here.tell(*customers(20))
        wait_for(here, seen)
        own_valkey.stop()
        here.tell(*customers(20))
        deadline = time.monotonic() + 20
        while (project.status()["waiting"] or {}).get("age_s", 0) < 1:
            assert time.monotonic() < deadline, project.status()
            time.sleep(0.02)
        assert str(own_valkey.port) in project.status()["waiting"]["reason"]
        own_valkey.start()
        wait_for(here, seen)
        assert [row.authorized for row in here.rows(seen).values()] == [2] * 20


def test_a_zombie_changes_nothing(here: Shown, valkey: Valkey) -> None:
    """It has read a batch, another projector of its view has folded all, and only then it writes."""

    class Slow(RedisRows):
        """Rows whose first change comes late."""

        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.reached, self.go_on = threading.Event(), threading.Event()

        def apply(self, fragment: Fragment, change: Change) -> int | None:
            self.reached.set()
            assert self.go_on.wait(30)
            return super().apply(fragment, change)

    here.tell(*customers(10))
    slow, rows = Slow(valkey.url), RedisRows(valkey.url)
    with projecting(here.project(slow, batch=3)) as zombie:
        assert slow.reached.wait(30)
        # A worker of another group stands for one that got the partitions while this one hung.
        successor = Project(here.service, here.view, _Apart(here.settings, TESTER), rows, here.settings)
        here.fold(successor, rows)
        successor.close()
        left = here.stored(rows), here.watermarks(rows)
        slow.go_on.set()
        deadline = time.monotonic() + 20
        while zombie.status()["positions"] != {str(partition): mark for (_, partition), mark in left[1].items()}:
            assert time.monotonic() < deadline, zombie.status()
            time.sleep(0.02)
        assert (here.stored(rows), here.watermarks(rows)) == left
        assert zombie.status()["folded"] == 0
        here.tell(*customers(10))
        wait_for(here, rows)
        assert [row.authorized for row in here.rows(rows).values()] == [2] * 10


class _Apart(KafkaLog):
    """The same log for a group of another name."""

    def group_consumer(
        self,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> KafkaConsumer:
        """A member of that group."""
        return super().group_consumer(f"{group}.apart", instance, topics, assigned, revoked)


def test_quarantined_bytes_are_those_that_were_written_and_the_next_record_is_folded(here: Shown, valkey: Valkey) -> None:
    """In one partition: good, four bad ones, good."""
    bad: list[tuple[bytes | None, bytes | None]] = [(b"a", b"\xff\x00garbage"), (None, b"x"), (b"a", None), (b"a", b"")]
    good = here.value(payment_authorized("o-1", "a"))
    partition = partition_of(b"a", PARTITIONS)
    here.append([(b"a", good, partition), *((key, value, partition) for key, value in bad), (b"a", good, partition)])
    rows = RedisRows(valkey.url)
    project = here.project(rows)
    here.fold(project, rows)
    project.close()
    aside = here.set_aside()
    found = [(one.key if one.HasField("key") else None, one.value if one.HasField("value") else None) for one in aside]
    assert found == bad
    assert [(one.topic, one.partition, one.offset) for one in aside] == [(here.topic, partition, offset) for offset in (1, 2, 3, 4)]
    assert {one.reason for one in aside} == {QUARANTINE_REASON_UNDECODABLE}
    assert here.rows(rows)["a"] == CustomerHistory(customer_id="a", authorized=2)


def test_a_killed_projection_is_taken_over_where_its_rows_are(here: Shown, valkey: Valkey) -> None:
    """Without a goodbye: the next one has the same slot."""
    rows = RedisRows(valkey.url)
    first = here.project(rows, batch=5)
    here.tell(*customers(20))
    here.step_until(first, lambda: sum(here.watermarks(rows).values()) > 0, "begun")
    second = here.project(rows)
    here.fold(second, rows)
    assert [row.authorized for row in here.rows(rows).values()] == [1] * 20
    second.close()
    first.close()


async def test_a_question_sees_its_own_write_within_its_deadline(here: Shown, valkey: Valkey) -> None:
    """Twenty times: append, ask at least that position, find it counted; then once for what never comes."""
    rows = AsyncRedisRows(valkey.url)
    views = Views([here.view], here.log, rows, PARTITIONS)
    await views.look()
    place = (here.topic, partition_of(b"a", PARTITIONS))
    with projecting(here.project(RedisRows(valkey.url))):
        for number in range(1, 21):
            after = await asyncio.to_thread(here.say, payment_authorized(f"o-{number}", "a"))
            row = await views.reader(here.view.view, views.question(10, after)).get("a")
            assert row is not None
            assert row.authorized == number
        began = time.monotonic()
        with pytest.raises(Unavailable, match="demands 100000"):
            await views.reader(here.view.view, views.question(0.3, {place: 100000})).get("a")
        assert 0.1 < time.monotonic() - began < 1.5
    await rows.close()

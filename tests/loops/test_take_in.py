"""Events enter from outside: raised one by one, or polled from a source, each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from retail.fulfilment.v1.receipt_pb2 import GoodsReceived
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone import envelope
from backbone.adapters.memory import MemoryLog
from backbone.declare import Intake, Unreadable
from backbone.errors import DeclarationError, Overloaded, SettingsError, Unconfirmed, WorkerEnded
from backbone.loops.take_in import BoundIntake, Poll
from backbone.partitioner import partition_of
from backbone.rules import BreaksRules
from backbone.settings import Settings
from backbone.sources import CsvTail, csv_tail
from backbone.v1.private_pb2 import QUARANTINE_REASON_INVALID, QUARANTINE_REASON_UNDECODABLE
from tests.loops.edges import PARTITIONS, FailingLog, Ground, committed, in_memory, on_kafka, quarantined, running, until

COLUMNS = ("receipt_id", "pool_id", "sku", "quantity")


@pytest.fixture
def ground(unique: Callable[[str], str]) -> Ground:
    """A log in memory."""
    return in_memory(unique)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def real_ground(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> Ground:
    """A log in memory and one on Kafka: for what the log itself must do right."""
    return in_memory(unique) if request.param == "memory" else on_kafka(request.getfixturevalue("kafka"), unique)


def received(quantity: int = 1, receipt_id: str = "r-1", pool_id: str = "north") -> GoodsReceived:
    return GoodsReceived(receipt_id=receipt_id, pool_id=pool_id, sku="CD", quantity=quantity)


Pairs = Sequence[tuple[str, Message | Unreadable]]


class Foreign:
    """A foreign system: a list of things, read from an index on, that can be out of order."""

    def __init__(self, *things: Message | Unreadable) -> None:
        self.things = list(things)
        self.broken: Exception | None = None
        self.opened = 0
        self.reads = 0

    @asynccontextmanager
    async def connect(self, _: Settings) -> AsyncIterator[Foreign]:
        """Open it."""
        self.opened += 1
        yield self

    async def read(self, cursor: str) -> Pairs:
        """What comes after a cursor."""
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        first = int(cursor or 0)
        return [(str(at + 1), thing) for at, thing in enumerate(self.things[first:], first)]

    def intake(self) -> Intake:
        """An intake that polls it."""
        return Intake(GoodsReceived, source=(self.connect, Foreign.read), every_s=0.01)


class Scene:
    """One service with an intake, on topics of its own."""

    def __init__(self, ground: Ground, intake: Intake) -> None:
        self.ground = ground
        self.service = ground.intake(intake)
        self.topic = self.service.raises[0]
        self.log = ground.log()

    def poll(self, log: Any = None, **settings: Any) -> Poll:
        """A worker of the service."""
        return Poll(self.service, log or self.log, self.ground.settings.model_copy(update=settings))

    def events(self) -> list[envelope.Decoded]:
        """Every event that is committed."""
        return [envelope.decode(self.topic, record) for record in committed(self.log, self.topic.name)]

    def receipts(self) -> list[str]:
        """Ids of all receipts, as often as they are there."""
        return sorted(event.event.receipt_id for event in self.events())


async def test_what_a_source_gives_is_written_once_with_an_id_made_of_its_cursor(ground: Ground) -> None:
    foreign = Foreign(received(3), received(4, "r-2", "south"))
    scene = Scene(ground, foreign.intake())
    poll = scene.poll()
    async with running(poll):
        await until(lambda: poll.status()["raised"] == 2, "both raised")
        await until(lambda: bool(poll.status()["caught_up"]), "caught up")
        foreign.things.append(received(5, "r-3"))
        await until(lambda: poll.status()["raised"] == 3, "the third raised")
    first, third, second = sorted(scene.events(), key=lambda event: event.key)
    assert (first.event, first.key) == (received(3), "north")
    assert (first.meta.id, second.meta.id, third.meta.id) == tuple(f"{scene.service.name}:{cursor}" for cursor in (1, 2, 3))
    assert first.meta.correlation_id == "north"
    assert first.meta.causation_id == ""
    assert first.meta.writer == scene.service.name
    assert first.meta.build == "test"
    assert first.meta.HasField("occurred_at")
    assert poll.status()["cursor"] == "3"


def lines_of(count: int, since: int = 0) -> str:
    return "".join(f"r-{number:04},north,CD-{number % 7},{number % 5 + 1}\n" for number in range(since, count))


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
async def test_a_source_restarted_in_the_middle_is_taken_in_line_by_line_exactly_once(
    real_ground: Ground, tmp_path: Path, after: bool
) -> None:
    path = tmp_path / "receipts.csv"
    path.write_text(",".join(COLUMNS) + "\n" + lines_of(1200))
    scene = Scene(real_ground, of_file(path))
    for commits in (3, 0, 5):
        with pytest.raises(WorkerEnded, match="killed"):
            await asyncio.wait_for(scene.poll(FailingLog(scene.log, commits, after), batch=50).run(asyncio.Event()), 30)
    poll = scene.poll(batch=50)
    async with running(poll):
        await until(lambda: bool(poll.status()["caught_up"]), "caught up")
        with path.open("a") as file:
            file.write(lines_of(1210, since=1200))
        await until(lambda: poll.status()["cursor"] == str(path.stat().st_size), "the whole file taken in")
    assert scene.receipts() == [f"r-{number:04}" for number in range(1210)]
    assert len({event.meta.id for event in scene.events()}) == 1210


def of_file(path: Path) -> Intake:
    """An intake that polls a file of goods receipts."""

    async def read(file: CsvTail, cursor: str) -> Pairs:
        return await file.read(
            cursor,
            lambda line: GoodsReceived(
                receipt_id=line["receipt_id"], pool_id=line["pool_id"], sku=line["sku"], quantity=int(line["quantity"])
            ),
        )

    return Intake(GoodsReceived, source=(lambda _: csv_tail(str(path), COLUMNS), read), every_s=0.01)


async def test_a_zombie_of_the_slot_cannot_write_after_its_successor_started(real_ground: Ground) -> None:
    foreign = Foreign(received())
    scene = Scene(real_ground, foreign.intake())
    zombie = scene.poll()
    task = asyncio.create_task(zombie.run(asyncio.Event()))
    await until(lambda: zombie.status()["raised"] == 1, "the zombie raised one")
    zombie_reads, foreign.broken = foreign.reads, ConnectionError("for a while")
    await until(lambda: zombie.status()["failures"] > 0 and foreign.reads > zombie_reads, "the zombie waits")
    successor = scene.poll()
    async with running(successor):
        await until(lambda: successor.status()["failures"] > 0, "the successor started")
        foreign.broken = None
        foreign.things.append(received(2, "r-2"))
        await until(lambda: successor.status()["raised"] == 1, "the successor raised the second")
        await until(task.done, "the zombie ended")
    with pytest.raises(WorkerEnded):
        await task
    assert scene.receipts() == ["r-1", "r-2"]


async def test_what_breaks_its_rules_or_cannot_be_read_is_set_aside_and_the_cursor_moves_on(real_ground: Ground) -> None:
    foreign = Foreign(received(0, "none"), Unreadable(b"\xff,x\n", "receipts.csv line 3: no UTF-8"), received(1, "good"))
    scene = Scene(real_ground, foreign.intake())
    poll = scene.poll()
    async with running(poll):
        await until(lambda: poll.status()["cursor"] == "3", "past all three")
        assert poll.status()["raised"] == 1
        assert poll.status()["quarantined"] == 2
        assert "line 3" in poll.status()["last_quarantined"]
    assert scene.receipts() == ["good"]
    broken, unreadable = quarantined(scene.log, scene.service)
    assert broken.reason == QUARANTINE_REASON_INVALID
    assert broken.detail.startswith("cursor 1: GoodsReceived breaks its contract: quantity: ")
    assert (broken.topic, broken.aggregate, broken.service) == (scene.topic.name, "north", scene.service.name)
    assert scene.topic.wrapper.FromString(broken.value).goods_received == received(0, "none")  # type: ignore[attr-defined]
    assert (unreadable.reason, unreadable.value) == (QUARANTINE_REASON_UNDECODABLE, b"\xff,x\n")
    again = scene.poll()
    async with running(again):
        await until(lambda: bool(again.status()["caught_up"]), "caught up")
    assert len(quarantined(scene.log, scene.service)) == 2


async def test_a_source_that_fails_is_shown_opened_again_and_read_on(ground: Ground) -> None:
    foreign = Foreign(received())
    foreign.broken = ConnectionError("the warehouse is closed")
    scene = Scene(ground, foreign.intake())
    poll = scene.poll()
    async with running(poll):
        await until(lambda: poll.status()["failures"] >= 2, "failed twice")
        assert poll.status()["error"] == "ConnectionError: the warehouse is closed"
        assert poll.status()["waits_s"] > 0
        foreign.broken = None
        await until(lambda: poll.status()["raised"] == 1, "raised")
        await until(lambda: poll.status()["error"] == "" and poll.status()["failures"] == 0, "nothing wrong any more")
    assert foreign.opened >= 3


async def test_a_source_that_does_not_answer_is_given_up_and_opened_again(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbone.loops.take_in.READ_S", 0.05)
    foreign = Foreign()

    async def hang(_: Foreign, __: str) -> Pairs:
        await asyncio.Event().wait()
        return ()

    scene = Scene(ground, Intake(GoodsReceived, source=(foreign.connect, hang)))
    poll = scene.poll()
    async with running(poll):
        await until(lambda: poll.status()["failures"] > 0, "failed")
        assert "did not answer within" in poll.status()["error"]


async def test_only_slot_0_polls(ground: Ground) -> None:
    foreign = Foreign(received())
    scene = Scene(ground, foreign.intake())
    first, second = scene.poll(), scene.poll(slot=1)
    async with running(second), running(first):
        await until(lambda: foreign.reads >= 3, "read")
        assert second.status()["polls"] is False
    assert foreign.opened == 1


async def test_a_stop_ends_the_pause_between_two_reads(ground: Ground) -> None:
    foreign = Foreign()
    scene = Scene(ground, Intake(GoodsReceived, source=(foreign.connect, Foreign.read), every_s=600))
    async with running(scene.poll()):
        await until(lambda: foreign.reads == 1, "read")


async def test_after_a_suspect_commit_the_producer_is_renewed(ground: Ground) -> None:
    foreign = Foreign()
    scene = Scene(ground, foreign.intake())
    log = FailingLog(scene.log)
    poll = scene.poll(log)
    async with running(poll):
        await until(lambda: foreign.reads > 0, "read")
        log.producers[0].suspicion = "the connection to the coordinator failed"
        foreign.things.append(received())
        await until(lambda: poll.status()["raised"] == 1 and log.producers[0].renewed == 1, "raised and renewed")
        foreign.things.append(received(2, "r-2"))
        await until(lambda: poll.status()["raised"] == 2, "the next raised")
    assert scene.receipts() == ["r-1", "r-2"]


async def test_a_source_whose_address_is_not_set_ends_the_worker_with_the_name_of_the_setting(ground: Ground) -> None:
    async def read(_: CsvTail, __: str) -> Pairs:
        return ()

    scene = Scene(ground, Intake(GoodsReceived, source=(lambda settings: csv_tail(settings.require("receipts"), COLUMNS), read)))
    with pytest.raises(SettingsError, match="OUTSIDE_RECEIPTS"):
        await asyncio.wait_for(scene.poll().run(asyncio.Event()), 10)


async def test_a_source_that_gives_events_of_others_ends_the_worker(ground: Ground) -> None:
    scene = Scene(ground, Foreign(ItemCatalogued(sku="CD")).intake())
    with pytest.raises(DeclarationError, match="ItemCatalogued"):
        await asyncio.wait_for(scene.poll().run(asyncio.Event()), 10)


@pytest.fixture
def raising(real_ground: Ground) -> Iterator[tuple[Scene, BoundIntake]]:
    """An intake that is bound, and where its events go."""
    scene = Scene(real_ground, Intake(GoodsReceived))
    intake = BoundIntake(scene.service, scene.log, real_ground.settings)
    yield scene, intake
    intake.close()


async def test_a_raised_event_answers_with_its_position_and_the_same_request_is_the_same_event(
    raising: tuple[Scene, BoundIntake],
) -> None:
    scene, raise_ = raising
    partition = partition_of(b"north", PARTITIONS)
    first = await raise_(received(), request_id="request-1", correlation_id="order-1", traceparent="00-trace")
    second = await raise_(received(), request_id="request-1", correlation_id="order-1")
    assert first == {(scene.topic.name, partition): 1}
    assert second == {(scene.topic.name, partition): 2}
    event, again = scene.events()
    assert event.meta.id == again.meta.id == f"{scene.service.name}:request-1"
    assert (event.meta.correlation_id, event.meta.traceparent, event.meta.causation_id) == ("order-1", "00-trace", "")
    assert raise_.status() == {"raised": 2, "under_way": 0}


async def test_an_event_that_breaks_its_rules_is_not_raised_and_every_violation_is_named(raising: tuple[Scene, BoundIntake]) -> None:
    scene, raise_ = raising
    with pytest.raises(BreaksRules, match="GoodsReceived breaks its contract") as raised:
        await raise_(received(quantity=0, receipt_id=""), request_id="request-1", correlation_id="order-1")
    assert [violation.field for violation in raised.value.violations] == ["receipt_id", "quantity"]
    assert isinstance(raised.value, ValueError)
    assert scene.events() == []


async def test_an_event_of_others_is_not_raised(raising: tuple[Scene, BoundIntake]) -> None:
    _, raise_ = raising
    with pytest.raises(DeclarationError, match="does not raise ItemCatalogued"):
        await raise_(ItemCatalogued(sku="CD"), request_id="request-1", correlation_id="order-1")


@pytest.mark.parametrize("error", [Overloaded("the queue is full"), Unconfirmed("no acknowledgement came in time")])
async def test_what_the_log_says_of_a_raised_event_reaches_who_raised_it(ground: Ground, error: Exception) -> None:
    class Refusing:
        def append(self, *_: Any) -> Future[tuple[int, int]]:
            if isinstance(error, Overloaded):
                raise error
            appended: Future[tuple[int, int]] = Future()
            appended.set_exception(error)
            return appended

    class RefusingLog(MemoryLog):
        def appender(self) -> Any:
            return Refusing()

    service = ground.intake(Intake(GoodsReceived))
    intake = BoundIntake(service, RefusingLog(), ground.settings)
    with pytest.raises(type(error)):
        await intake(received(), request_id="request-1", correlation_id="order-1")
    assert intake.status() == {"raised": 0, "under_way": 0}

"""Commands are done outside, each until it has one outcome, whatever ends in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.message import Message
from retail.payments.effects.v1.payment_pb2 import (
    GIVEN_UP_COMMAND_AUTHORIZE_CARD,
    AuthorizeCard,
    CardAuthorized,
    CardCaptured,
    CardVoided,
    CommandGaveUp,
    VoidCard,
)

from backbone import envelope
from backbone.adapters.grpc import connect_sibling
from backbone.because import because
from backbone.declare import Effect, command_id, on
from backbone.errors import Fenced, WorkerEnded
from backbone.loops import act as act_module
from backbone.loops.act import Act
from backbone.partitioner import partition_of
from backbone.positions import from_proto
from backbone.settings import Settings
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNDECODABLE
from tests.loops.edges import (
    PARTITIONS,
    WITHIN_S,
    FailingLog,
    Ground,
    Payments,
    authorize,
    in_memory,
    on_kafka,
    quarantined,
    running,
    until,
)


class Outside:
    """A payment provider made of a function; remembers who asked for what."""

    def __init__(self, answer: Callable[[AuthorizeCard, str], Awaitable[Message]] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.under_way = 0
        self.open = False
        self._answer = answer or yes

    @asynccontextmanager
    async def connect(self, _: Settings) -> AsyncIterator[Outside]:
        """The tool of the effect: this."""
        self.open = True
        try:
            yield self
        finally:
            self.open = False

    async def authorize(self, command: AuthorizeCard, key: str) -> Message:
        """One call."""
        self.asked.append((command.order_id, key))
        self.under_way += 1
        try:
            return await self._answer(command, key)
        finally:
            self.under_way -= 1

    def effect(self) -> Effect[Outside]:
        """The effect that asks it."""
        return Effect(
            self.connect,
            on(AuthorizeCard, Outside.authorize, look_up=command_id),
            on(VoidCard, voided),
            gave_up=gave_up,
        )


async def yes(command: AuthorizeCard, key: str) -> Message:
    return CardAuthorized(order_id=command.order_id, authorization_id=f"auth-{key}")


async def voided(_: Outside, command: VoidCard) -> Message:
    return CardVoided(order_id=command.order_id)


def gave_up(command: Any, last_error: str) -> Message:
    return CommandGaveUp(order_id=command.order_id, command=GIVEN_UP_COMMAND_AUTHORIZE_CARD, last_error=last_error)


def never() -> Callable[[AuthorizeCard, str], Awaitable[Message]]:
    """An answer that does not come."""

    async def wait(_: AuthorizeCard, __: str) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    return wait


class Scene:
    """One service with a provider, on topics of its own."""

    def __init__(self, ground: Ground, outside: Outside) -> None:
        self.ground = ground
        self.outside = outside
        self.service = ground.effects(outside.effect())
        self.log = ground.log()
        self.payments = Payments(ground, self.service, self.log)

    def act(self, log: Any = None, slot: int = 0) -> Act:
        """A worker of the service."""
        return Act(self.service, log or self.log, self.ground.settings.model_copy(update={"slot": slot}), connect_sibling)


def scenes(ground: Ground) -> Iterator[Callable[[Outside], Scene]]:
    """Makes scenes and closes their logs."""
    made: list[Scene] = []

    def make(outside: Outside) -> Scene:
        made.append(Scene(ground, outside))
        return made[-1]

    yield make
    for one in made:
        one.log.close()


@pytest.fixture
def scene(unique: Callable[[str], str]) -> Iterator[Callable[[Outside], Scene]]:
    """Makes scenes on a log in memory."""
    yield from scenes(in_memory(unique))


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def real_scene(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> Iterator[Callable[[Outside], Scene]]:
    """Makes scenes, once in memory and once on Kafka: for what the log itself must do right."""
    yield from scenes(in_memory(unique) if request.param == "memory" else on_kafka(request.getfixturevalue("kafka"), unique))


Make = Callable[[Outside], Scene]


async def test_a_command_is_done_and_its_outcome_says_for_which_command_when_and_after_what(real_scene: Make) -> None:
    outside = Outside()
    stage = real_scene(outside)
    [command] = stage.payments.say(authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "done")
        assert act.ready
        assert act.status()["open"] == 0
    assert outside.asked == [("order-1", command)]
    assert not outside.open
    [told] = stage.payments.outcomes()
    assert told.event == CardAuthorized(order_id="order-1", authorization_id=f"auth-{command}")
    assert told.meta.causation_id == command
    assert told.meta.correlation_id == "order-1"
    assert told.meta.traceparent == "00-trace"
    assert told.meta.writer == stage.service.name
    assert told.meta.build == "test"
    assert told.meta.sequence == 0
    assert told.meta.HasField("occurred_at")
    topic_id = stage.log.topics()[stage.payments.commands.name][0]
    partition = partition_of(b"order-1", PARTITIONS)
    assert told.meta.id == f"{stage.service.name}:{topic_id}:{partition}:0:0"
    assert from_proto(told.meta.after) == {("t", 0): 7, (stage.payments.commands.name, partition): 1}
    assert stage.payments.tombstones() == [envelope.entry_key("order-1", command)]


async def test_at_restart_open_commands_are_done_and_closed_ones_are_not(real_scene: Make) -> None:
    outside = Outside()
    stage = real_scene(outside)
    orders = [f"order-{number}" for number in range(20)]
    commands = stage.payments.say(*(authorize(order) for order in orders))
    for order, command in list(zip(orders, commands, strict=True))[::2]:
        stage.payments.close_by_hand(order, command)
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 10, "all open ones done")
    assert sorted(order for order, _ in outside.asked) == sorted(orders[1::2])


async def test_a_crash_between_doing_and_committing_does_the_command_again_under_the_same_id(real_scene: Make) -> None:
    outside = Outside()
    stage = real_scene(outside)
    [command] = stage.payments.say(authorize("order-1"))
    with pytest.raises(WorkerEnded, match="killed"):
        async with running(stage.act(FailingLog(stage.log, commits=0))) as task:
            await until(task.done, "ended")
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "done again")
    assert outside.asked == [("order-1", command), ("order-1", command)]
    assert stage.payments.outcomes_of("order-1") == ["CardAuthorized"]


async def test_a_crash_after_committing_does_nothing_again(real_scene: Make) -> None:
    outside = Outside()
    stage = real_scene(outside)
    stage.payments.say(authorize("order-1"))
    with pytest.raises(WorkerEnded, match="killed"):
        async with running(stage.act(FailingLog(stage.log, commits=0, after=True))) as task:
            await until(task.done, "ended")
    act = stage.act()
    async with running(act):
        stage.payments.say(authorize("order-2"))
        await until(lambda: act.status()["done"] == 1, "the next one done")
    assert [order for order, _ in outside.asked] == ["order-1", "order-2"]
    assert stage.payments.outcomes_of("order-1") == ["CardAuthorized"]


async def test_what_raises_is_tried_again_until_it_answers(scene: Make) -> None:
    async def third_time(command: AuthorizeCard, key: str) -> Message:
        if len(outside.asked) < 3:
            raise ConnectionError("refused")
        return await yes(command, key)

    outside = Outside(third_time)
    stage = scene(outside)
    stage.payments.say(authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: bool(act.status()["waiting"]), "waiting")
        [waiting] = act.status()["waiting"]
        assert waiting["aggregate"] == "order-1"
        assert waiting["command"] == "AuthorizeCard"
        await until(lambda: act.status()["done"] == 1, "done")
        assert act.status()["tries"] == 3
    assert stage.payments.outcomes_of("order-1") == ["CardAuthorized"]


async def test_after_answer_by_the_outcome_says_that_it_was_given_up_and_why(scene: Make) -> None:
    async def down(_: AuthorizeCard, __: str) -> Message:
        raise ConnectionError("refused")

    stage = scene(Outside(down))
    act = stage.act()
    async with running(act):
        await until(lambda: act.ready, "ready")
        stage.payments.say(authorize("order-1", within_s=1))
        await until(lambda: act.status()["done"] == 1, "given up")
        assert act.status()["gave_up"] == 1
    [told] = stage.payments.outcomes()
    assert told.event == CommandGaveUp(order_id="order-1", command=GIVEN_UP_COMMAND_AUTHORIZE_CARD, last_error="ConnectionError: refused")


async def test_nothing_is_tried_after_answer_by(scene: Make) -> None:
    outside = Outside()
    stage = scene(outside)
    stage.payments.say(authorize("order-1", within_s=-1))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "given up")
    assert outside.asked == []
    assert stage.payments.outcomes_of("order-1") == ["CommandGaveUp"]


async def test_a_try_that_hangs_ends_at_answer_by(scene: Make) -> None:
    stage = scene(Outside(never()))
    act = stage.act()
    async with running(act):
        await until(lambda: act.ready, "ready")
        stage.payments.say(authorize("order-1", within_s=1))
        await until(lambda: act.status()["done"] == 1, "given up")
    [told] = stage.payments.outcomes()
    assert told.event.last_error.startswith("no answer within ")


async def test_a_call_cancelled_from_within_is_tried_again(scene: Make) -> None:
    async def cancelled_once(command: AuthorizeCard, key: str) -> Message:
        if len(outside.asked) == 1:
            raise asyncio.CancelledError
        return await yes(command, key)

    outside = Outside(cancelled_once)
    stage = scene(outside)
    stage.payments.say(authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "done")
    assert len(outside.asked) == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (VoidCard(order_id="order-1"), "does not hold"),
        (CardCaptured(order_id="order-2"), "is about 'order-1'"),
    ],
)
async def test_an_outcome_that_is_none_or_of_another_order_is_an_error_of_the_try(scene: Make, wrong: Message, words: str) -> None:
    async def answer(_: AuthorizeCard, __: str) -> Message:
        return wrong

    stage = scene(Outside(answer))
    act = stage.act()
    async with running(act):
        await until(lambda: act.ready, "ready")
        stage.payments.say(authorize("order-1", within_s=1))
        await until(lambda: act.status()["done"] == 1, "given up")
    [told] = stage.payments.outcomes()
    assert words in told.event.last_error


async def test_commands_of_one_order_are_done_in_order_and_those_of_others_meanwhile(scene: Make) -> None:
    gate = asyncio.Event()

    async def first_waits(command: AuthorizeCard, key: str) -> Message:
        if command.order_id == "order-1" and len(outside.asked) == 1:
            await gate.wait()
        return await yes(command, key)

    outside = Outside(first_waits)
    stage = scene(outside)
    first, second = stage.payments.say(authorize("order-1"), authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: outside.asked == [("order-1", first)], "the first asked")
        [other] = stage.payments.say(authorize("order-2"))
        await until(lambda: act.status()["done"] == 1, "the other done")
        assert outside.asked == [("order-1", first), ("order-2", other)]
        gate.set()
        await until(lambda: act.status()["done"] == 3, "all done")
    assert outside.asked == [("order-1", first), ("order-2", other), ("order-1", second)]


async def test_the_next_command_of_an_order_starts_only_when_the_outcome_before_it_is_in_the_log(scene: Make) -> None:
    """Else a crash would do the first again after the second."""
    outside = Outside()
    stage = scene(outside)
    first, second = stage.payments.say(authorize("order-1"), authorize("order-1"))
    with pytest.raises(WorkerEnded, match="killed"):
        async with running(stage.act(FailingLog(stage.log, commits=0))) as task:
            await until(task.done, "ended")
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 2, "both done")
    assert [command for _, command in outside.asked] == [first, first, second]


async def test_no_more_than_the_bound_is_tried_at_once(scene: Make) -> None:
    outside = Outside(never())
    stage = scene(outside)
    stage.payments.say(*(authorize(f"order-{number}") for number in range(act_module.TRIED_AT_ONCE + 10)))
    act = stage.act()
    task = asyncio.create_task(act.run(asyncio.Event()))
    await until(lambda: outside.under_way == act_module.TRIED_AT_ONCE, "as many as the bound")
    await until(lambda: act.status()["open"] == act_module.TRIED_AT_ONCE + 10, "all known")
    assert outside.under_way == act_module.TRIED_AT_ONCE
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outside.under_way == 0


async def test_too_many_open_commands_pause_reading_until_some_are_done(real_scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act_module, "HELD", 4)
    gate = asyncio.Event()

    async def when_opened(command: AuthorizeCard, key: str) -> Message:
        await gate.wait()
        return await yes(command, key)

    stage = real_scene(Outside(when_opened))
    log = FailingLog(stage.log)
    act = stage.act(log)
    async with running(act):
        await until(lambda: act.ready, "ready")
        stage.payments.say(*(authorize(f"order-{number}") for number in range(4)))
        await until(lambda: act.status()["paused"], "paused")
        stage.payments.say(authorize("order-later"))
        polls = log.consumers[0].polls
        await until(lambda: log.consumers[0].polls > polls + 20, "asked for more, many times")
        assert act.status()["open"] == 4
        gate.set()
        await until(lambda: act.status()["done"] == 5, "all done")
        await until(lambda: not act.status()["paused"], "reading again")


async def test_a_worker_whose_place_was_taken_cannot_close_commands(real_scene: Make) -> None:
    """Only the group's generation protects here: the zombie has a transactional id of its own."""
    gate = asyncio.Event()

    async def slow_for_the_first(command: AuthorizeCard, key: str) -> Message:
        if len(outside.asked) == 1:
            await gate.wait()
            return CardAuthorized(order_id=command.order_id, authorization_id="of the zombie")
        return await yes(command, key)

    outside = Outside(slow_for_the_first)
    stage = real_scene(outside)
    zombie_log = FailingLog(stage.log, alias=".zombie")
    [command] = stage.payments.say(authorize("order-1"))
    zombie = asyncio.create_task(stage.act(zombie_log).run(asyncio.Event()))
    await until(lambda: outside.under_way == 1, "the zombie asks")
    zombie_log.consumers[0].deaf = True
    await until(lambda: zombie_log.consumers[0].missed > 0, "the zombie is deaf")
    successor = stage.act()
    async with running(successor):
        await until(lambda: successor.status()["done"] == 1, "the successor has done it")
        gate.set()
        await until(zombie.done, "the zombie ended")
    with pytest.raises(Fenced):
        await zombie
    [told] = stage.payments.outcomes()
    assert told.event.authorization_id == f"auth-{command}"
    zombie_log.producers[0].abort()


async def test_an_outcome_of_a_partition_lost_before_it_was_written_is_dropped(scene: Make) -> None:
    gate = asyncio.Event()

    async def when_opened(command: AuthorizeCard, key: str) -> Message:
        await gate.wait()
        return await yes(command, key)

    outside = Outside(when_opened)
    stage = scene(outside)
    log = FailingLog(stage.log)
    stage.payments.say(authorize("order-1"))
    loop = asyncio.get_running_loop()
    act = stage.act(log)

    def answer_then_lose() -> None:
        loop.call_soon_threadsafe(gate.set)
        deadline = time.monotonic() + WITHIN_S
        while outside.under_way and time.monotonic() < deadline:
            time.sleep(0.001)
        consumer.revoked(list(consumer.positions()))

    async with running(act):
        await until(lambda: outside.under_way == 1, "asked")
        consumer = log.consumers[0]
        consumer.once = answer_then_lose
        await until(lambda: act.status()["partitions"] == [], "lost")
        polls = consumer.polls
        await until(lambda: consumer.polls > polls + 2, "went on")
        assert act.status()["done"] == 0
    assert outside.under_way == 0
    assert stage.payments.outcomes() == []


async def test_who_gets_a_partition_does_what_is_open_and_who_lost_it_does_not_write(real_scene: Make) -> None:
    gate = asyncio.Event()

    async def when_opened(command: AuthorizeCard, key: str) -> Message:
        await gate.wait()
        return await yes(command, key)

    outside = Outside(when_opened)
    stage = real_scene(outside)
    orders = [f"order-{number}" for number in range(12)]
    stage.payments.say(*(authorize(order) for order in orders))
    first, second = stage.act(), stage.act(slot=1)
    async with running(first):
        await until(lambda: outside.under_way == 12, "all under way at the first")
        async with running(second):
            await until(lambda: first.ready and second.ready and len(second.status()["partitions"]) == 1, "both have a partition")
            await until(lambda: first.status()["open"] + second.status()["open"] == 12, "each knows its own")
            await until(lambda: outside.under_way == 12, "all under way again")
            gate.set()
            await until(lambda: first.status()["done"] + second.status()["done"] == 12, "all done")
            assert {first.status()["done"], second.status()["done"]} != {0, 12}
    assert sorted(told.event.order_id for told in stage.payments.outcomes()) == sorted(orders)


async def test_a_stop_waits_for_what_is_being_tried_and_leaves_the_rest_open(real_scene: Make) -> None:
    gate = asyncio.Event()

    async def one_answers(command: AuthorizeCard, key: str) -> Message:
        if command.order_id == "failing":
            raise ConnectionError("refused")
        await gate.wait()
        return await yes(command, key)

    outside = Outside(one_answers)
    stage = real_scene(outside)
    stage.payments.say(authorize("order-1"), authorize("failing"))
    stop = asyncio.Event()
    task = asyncio.create_task(stage.act().run(stop))
    await until(lambda: outside.under_way == 1 and len(outside.asked) >= 2, "both asked")
    stop.set()
    asyncio.get_running_loop().call_later(0.3, gate.set)
    await asyncio.wait_for(task, 10)
    assert [told.event.order_id for told in stage.payments.outcomes()] == ["order-1"]
    assert len(stage.payments.tombstones()) == 1


async def test_a_stop_abandons_what_does_not_end_and_its_successor_does_it(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act_module, "FINISH_S", 0.3)

    async def hangs_once(command: AuthorizeCard, key: str) -> Message:
        if len(outside.asked) == 1:
            await asyncio.Event().wait()
        return await yes(command, key)

    outside = Outside(hangs_once)
    stage = scene(outside)
    [command] = stage.payments.say(authorize("order-1"))
    async with running(stage.act()):
        await until(lambda: outside.under_way == 1, "asked")
    assert outside.under_way == 0
    assert stage.payments.outcomes() == []
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "done")
    assert outside.asked == [("order-1", command)] * 2


async def test_garbage_among_commands_is_set_aside_with_its_bytes_and_what_lies_behind_is_done(real_scene: Make) -> None:
    stage = real_scene(Outside())
    partition = partition_of(b"order-1", PARTITIONS)
    stage.payments.append(stage.payments.commands.name, b"no entry key", b"\xff\x00garbage", partition)
    stage.payments.append(stage.payments.commands.name, envelope.entry_key("order-1", "truncated"), b"\x12\x20abc", partition)
    stage.payments.say(authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 3, "all closed")
    assert stage.payments.outcomes_of("order-1") == ["CardAuthorized"]
    first, second = quarantined(stage.log, stage.service)
    assert (first.key, first.value, first.partition, first.offset) == (b"no entry key", b"\xff\x00garbage", partition, 0)
    assert (second.value, second.offset, second.aggregate) == (b"\x12\x20abc", 1, "order-1")
    assert first.reason == second.reason == QUARANTINE_REASON_UNDECODABLE
    again = stage.act()
    async with running(again):
        await until(lambda: again.ready, "ready")
    assert len(quarantined(stage.log, stage.service)) == 2


async def test_a_command_of_a_newer_build_stays_open_and_holds_back_its_own_order_only(scene: Make) -> None:
    outside = Outside()
    stage = scene(outside)
    newer = envelope.field(14, b"") + envelope.META_TAG + b"\x07" + envelope.field(1, b"newer")
    stage.payments.append(stage.payments.commands.name, envelope.entry_key("order-1", "newer"), newer, partition_of(b"order-1", PARTITIONS))
    stage.payments.say(authorize("order-1"), authorize("order-2"))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1 and act.status()["open"] == 2, "the other order done")
        assert act.status()["unknown"] == 1
    assert [order for order, _ in outside.asked] == ["order-2"]
    assert quarantined(stage.log, stage.service) == []


async def test_a_command_that_cannot_even_be_given_up_is_shown_and_stays_open(scene: Make) -> None:
    outside = Outside()
    effect: Effect[Any] = Effect(outside.connect, on(AuthorizeCard, Outside.authorize, look_up=command_id), gave_up=no)
    stage = scene(outside)
    service = stage.ground.effects(effect)
    payments = Payments(stage.ground, service, stage.log)
    payments.say(authorize("order-1", within_s=-1), authorize("order-2"))
    act = Act(service, stage.log, stage.ground.settings, connect_sibling)
    async with running(act):
        await until(lambda: act.status()["done"] == 1 and act.status()["stuck"] == 1, "one done, one stuck")
        [stuck] = act.status()["waiting"]
        assert stuck["error"] == "gave_up raised KeyError: 'no'"
    assert [told.event.order_id for told in payments.outcomes()] == ["order-2"]


def no(_: Message, __: str) -> Message:
    raise KeyError("no")


async def test_a_call_knows_why_it_is_made(scene: Make) -> None:
    known = []

    async def remembers(command: AuthorizeCard, key: str) -> Message:
        known.append(because.get())
        return await yes(command, key)

    stage = scene(Outside(remembers))
    stage.payments.say(authorize("order-1"))
    act = stage.act()
    async with running(act):
        await until(lambda: act.status()["done"] == 1, "done")
    [why] = known
    assert why is not None
    assert (why.after, why.traceparent) == ({("t", 0): 7}, "00-trace")
    assert because.get() is None


async def test_after_a_suspect_commit_the_producer_is_renewed_and_work_goes_on(real_scene: Make) -> None:
    stage = real_scene(Outside())
    log = FailingLog(stage.log)
    act = stage.act(log)
    async with running(act):
        await until(lambda: act.ready, "ready")
        log.producers[0].suspicion = "the connection to the coordinator failed"
        stage.payments.say(authorize("order-1"))
        await until(lambda: act.status()["done"] == 1, "done")
        assert log.producers[0].renewed == 1
        stage.payments.say(authorize("order-2"))
        await until(lambda: act.status()["done"] == 2, "done")
    assert sorted(told.event.order_id for told in stage.payments.outcomes()) == ["order-1", "order-2"]
    log.producers[0].abort()

"""Questions are answered from rows that know enough, or with the reason why not; over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest
from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceStub

from backbone.adapters.grpc import Serve, connect_sibling
from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import AsyncMemoryRows, MemoryRows
from backbone.because import Because, because
from backbone.errors import DataLoss, NotComparable, SettingsError, Unavailable
from backbone.local.ports import free_port
from backbone.loops.project import Project
from backbone.loops.serve import Views
from backbone.partitioner import partition_of
from backbone.ports import Fetched, Fragment, Place
from backbone.positions import Vector, decode, encode
from backbone.settings import Settings
from tests.examples import payment_authorized, payment_captured
from tests.loops.histories import PARTITIONS, WRONG, Shown, customers, shown

if TYPE_CHECKING:
    from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceAsyncStub

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAME = "retail.payments.views.v1.RiskViewService"
WITHIN_S = 20.0


@pytest.fixture
def here() -> Shown:
    """The view on a log of its own."""
    log = MemoryLog()

    def make(names: Sequence[str]) -> None:
        for name in names:
            log.create_topic(name, PARTITIONS)

    return shown(log, "risk", make, Settings())


@pytest.fixture
def rows() -> MemoryRows:
    """Empty rows."""
    return MemoryRows()


@pytest.fixture
def project(here: Shown, rows: MemoryRows) -> Iterator[Project]:
    """The projection of the view into the rows."""
    running = here.project(rows)
    yield running
    running.close()


def views_of(here: Shown, rows: MemoryRows, clock: Callable[[], float] = time.monotonic) -> Views:
    """The view for those who ask."""
    return Views([here.view], here.log, AsyncMemoryRows(rows), PARTITIONS, clock=clock)


@asynccontextmanager
async def serving(here: Shown, views: Views) -> AsyncIterator[Settings]:
    """The server; yields settings that lead to it."""
    stop = asyncio.Event()
    looking = asyncio.create_task(views.run(stop))
    try:
        async with Serve([here.service], views, here.settings).serving() as address:
            yield here.settings.model_copy(update={"views_target": address})
    finally:
        stop.set()
        await looking


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[RiskViewServiceAsyncStub]:
    """A sibling's stub."""
    async with connect_sibling(settings, RiskViewServiceStub) as stub:
        yield cast("RiskViewServiceAsyncStub", stub)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition; fail with what it stands for."""
    deadline = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < deadline, f"after {WITHIN_S} s not {what}"
        await asyncio.sleep(0.01)


async def health(settings: Settings, service: str = NAME) -> int:
    """What the server says of itself."""
    async with grpc.aio.insecure_channel(settings.views_target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return int(answer.status)


async def ask(settings: Settings, customer: str, at_least: str = "", within_s: float | None = None) -> CustomerHistory:
    """Ask once."""
    metadata = (("backbone-at-least", at_least),) if at_least else ()
    async with asking(settings) as stub:
        answer = await stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id=customer), metadata=metadata, timeout=within_s)
        return answer.row


async def refusal(settings: Settings, customer: str, at_least: str = "", within_s: float | None = None) -> str:
    """Ask once what cannot be answered; code and text."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(settings, customer, at_least, within_s)
    return f"{raised.value.code().name}: {raised.value.details()}"


async def test_a_row_is_answered_over_grpc_with_its_position_and_age(here: Shown, rows: MemoryRows, project: Project) -> None:
    """The position is that of the one partition the answer comes from."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        async with asking(settings) as stub:
            call = stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id="a"))
            assert (await call).row == CustomerHistory(customer_id="a", authorized=1)
            trailing = dict(await call.trailing_metadata())
        partition = partition_of(b"a", PARTITIONS)
        assert decode(str(trailing["backbone-as-of"])) == {(here.topic, partition): here.ends()[here.topic, partition]}
        assert 0 <= int(trailing["backbone-age-ms"]) < 5000
        nobody = await ask(settings, "nobody")
        assert not nobody.customer_id


async def _is(settings: Settings, status: int) -> bool:
    return await health(settings) == status


async def test_not_serving_until_the_view_has_caught_up_with_what_was_there_at_the_start(
    here: Shown, rows: MemoryRows, project: Project
) -> None:
    """Until then siblings ask elsewhere; who asks all the same is refused with what is missing. Absence is never told."""
    here.tell(*customers(5))
    async with serving(here, views_of(here, rows)) as settings:
        assert await health(settings) == NOT_SERVING
        assert await health(settings, "") == NOT_SERVING
        assert (await refusal(settings, "customer-1", within_s=0.5)).startswith("UNAVAILABLE: ")
        async with grpc.aio.insecure_channel(settings.views_target) as channel:
            question = GetCustomerHistoryRequest(customer_id="customer-1")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await RiskViewServiceStub(channel).GetCustomerHistory(question, timeout=0.5)
        said = str(raised.value.details())
        assert "up to 0, it must reach" in said or "the log has not told yet" in said
        here.fold(project, rows)
        await until(lambda: _is(settings, SERVING), "serving")
        assert await health(settings, "") == SERVING
        assert (await ask(settings, "customer-1")).authorized == 1


async def test_questions_go_to_the_replicas_that_serve_and_to_no_other(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Of three addresses one has nobody, one has not caught up: the third answers everything."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    async with serving(here, views_of(here, MemoryRows())) as behind, serving(here, views_of(here, rows)) as knows:
        await until(lambda: _is(knows, SERVING), "serving")
        addresses = (f"127.0.0.1:{free_port()}", behind.views_target, knows.views_target)
        settings = Settings.read({"VIEWS_TARGET": f"ipv4:{','.join(addresses)}"})
        async with asking(settings) as stub:
            for _ in range(20):
                answer = await stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id="a"), timeout=5, wait_for_ready=True)
                assert answer.row.authorized == 1


async def test_a_question_waits_for_the_position_it_demands(here: Shown, rows: MemoryRows, project: Project) -> None:
    """It is answered as soon as the view knows it."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        at_least = encode(here.say(payment_authorized("o-2", "a")))
        asked = asyncio.create_task(ask(settings, "a", at_least))
        await asyncio.sleep(0)
        assert (await ask(settings, "a")).authorized == 1, "who demands nothing is answered at once"
        assert not asked.done()
        here.fold(project, rows)
        assert (await asked).authorized == 2


async def test_a_position_that_does_not_come_in_time_is_named(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Within the deadline of who asks; the default of a sibling is 2 s."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    partition = partition_of(b"a", PARTITIONS)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        for within_s, at_most in ((0.5, 1.5), (None, 3.0)):
            began = time.monotonic()
            said = await refusal(settings, "a", f"{here.topic}/{partition}@1000", within_s)
            assert said.startswith("UNAVAILABLE: payments.risk.customer_history knows")
            assert said.endswith("the question demands 1000")
            assert (within_s or 2.0) - 0.3 < time.monotonic() - began < at_most


async def test_positions_of_other_partitions_are_left_aside(here: Shown, rows: MemoryRows, project: Project) -> None:
    """No part of the answer comes from there."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    other = 1 - partition_of(b"a", PARTITIONS)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        assert (await ask(settings, "a", f"{here.topic}/{other}@1000", within_s=1)).authorized == 1


ELSEWHERE: Place = ("retail.ordering.orders.v1", 3)


def elsewhere(offset: int, topic: str = ELSEWHERE[0]) -> Vector:
    """A position of a topic that the view does not fold."""
    return {(topic, ELSEWHERE[1]): offset}


async def told(settings: Settings, customer: str, *metadata: tuple[str, str], within_s: float = 5.0) -> dict[str, str]:
    """What an answer says of itself."""
    async with asking(settings) as stub:
        call = stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id=customer), metadata=metadata, timeout=within_s)
        await call
        return {str(key): str(value) for key, value in await call.trailing_metadata()}


async def info(settings: Settings, customer: str, *metadata: tuple[str, str], within_s: float = 5.0) -> tuple[grpc.StatusCode, ErrorInfo]:
    """Code and reason of what cannot be answered."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await told(settings, customer, *metadata, within_s=within_s)
    found = ErrorInfo()
    status = rpc_status.from_call(cast("Any", raised.value))
    assert status is not None
    assert status.details[0].Unpack(found)
    return raised.value.code(), found


async def test_on_a_topic_the_view_does_not_fold_the_row_decides(here: Shown, rows: MemoryRows, project: Project) -> None:
    """It knows what came before what it folded, however far the view is; what it does not know yet is waited for."""
    here.say(payment_authorized("o-1", "a"), elsewhere(5))
    here.say(payment_authorized("o-2", "b"), elsewhere(50))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        assert (await ask(settings, "a", encode(elsewhere(5)), within_s=1)).authorized == 1
        code, why = await info(settings, "a", ("backbone-at-least", encode(elsewhere(6))), within_s=0.3)
        assert (code, why.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET")
        assert dict(why.metadata) == {"position": "retail.ordering.orders.v1/3", "demanded": "6", "reached": "5"}
        asked = asyncio.create_task(ask(settings, "a", encode(elsewhere(6)), within_s=10))
        await asyncio.sleep(0)
        here.say(payment_authorized("o-3", "a"), elsewhere(6))
        await asyncio.to_thread(here.fold, project, rows)
        assert (await asked).authorized == 2


async def test_a_row_that_is_not_there_yet_is_waited_for(here: Shown, rows: MemoryRows, project: Project) -> None:
    """If the view hears of that topic at all; several demands are one."""
    here.say(payment_authorized("o-1", "a"), elsewhere(5))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        demands = (("backbone-at-least", encode(elsewhere(9))), ("backbone-at-least", encode(elsewhere(7))))
        code, why = await info(settings, "b", *demands, within_s=0.3)
        assert (code, why.reason, why.metadata["demanded"]) == (grpc.StatusCode.UNAVAILABLE, "NOT_YET", "9")
        asked = asyncio.create_task(told(settings, "b", *demands, within_s=10))
        here.say(payment_authorized("o-2", "b"), elsewhere(9))
        await asyncio.to_thread(here.fold, project, rows)
        assert decode((await asked)["backbone-position"]) == decode((await told(settings, "b"))["backbone-position"])


async def test_what_the_view_never_heard_of_is_not_comparable_at_once(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Waiting would be in vain; a sibling that does not know what the view folds may have it left aside."""
    here.say(payment_authorized("o-1", "a"), elsewhere(5))
    here.fold(project, rows)
    never = ("backbone-at-least", encode(elsewhere(1, "retail.fulfilment.stock.v1")))
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        began = time.monotonic()
        code, why = await info(settings, "a", never, within_s=10)
        assert time.monotonic() - began < 2
        assert (code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_COMPARABLE")
        assert dict(why.metadata) == {"topic": "retail.fulfilment.stock.v1"}
        assert await told(settings, "a", never, ("backbone-elsewhere", "ignore"), within_s=1)


async def test_a_list_has_no_row_of_its_own_to_decide_by(here: Shown, rows: MemoryRows, project: Project) -> None:
    """On the topic it folds, all partitions decide."""
    here.say(payment_authorized("o-1", "a"), elsewhere(5))
    here.fold(project, rows)
    views = views_of(here, rows)
    await views.look()
    question = views.question(5, elsewhere(5))
    reader = views.reader(here.view.view, question)
    with pytest.raises(NotComparable, match=r"retail\.ordering\.orders\.v1"):
        await views.answer(question, lambda: reader.newest("by_success", "seldom", 10))
    question = views.question(5, here.ends())
    reader = views.reader(here.view.view, question)
    assert [row.customer_id for row in await views.answer(question, lambda: reader.newest("by_success", "seldom", 10))] == ["a"]
    assert question.position == here.ends()


async def test_what_an_answer_rests_on_is_what_changed_its_row_last(here: Shown, rows: MemoryRows, project: Project) -> None:
    """So that others can be held to it; for a missing row there is only the watermark."""
    last = here.say(payment_authorized("o-1", "a"))
    here.tell(payment_captured("o-1", "a"))
    here.tell(*customers(8))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        found = await told(settings, "a")
        assert decode(found["backbone-position"]) == last
        assert decode(found["backbone-as-of"]) == {place: end for place, end in here.ends().items() if place in last}
        missing = await told(settings, "nobody")
        assert missing["backbone-position"] == missing["backbone-as-of"]


async def test_positions_of_another_cluster_are_refused(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Offsets of one log mean nothing in another."""
    here.settings = here.settings.model_copy(update={"cluster_id": "ours"})
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        assert (await told(settings, "a", ("backbone-cluster", "ours")))["backbone-cluster"] == "ours"
        code, why = await info(settings, "a", ("backbone-cluster", "theirs"))
        assert (code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ANOTHER_CLUSTER")


async def test_what_cannot_be_answered_gets_its_code(here: Shown, rows: MemoryRows, project: Project) -> None:
    """A damaged row, a defective query, a position that is none."""
    here.tell(payment_authorized("o-1", WRONG))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        assert (await refusal(settings, WRONG)).startswith("DATA_LOSS: row 'customer-wrong' of payments.risk.customer_history is damaged")
        assert await refusal(settings, "raises") == "INTERNAL: on(GetCustomerHistoryRequest, get_history) raised ArithmeticError"
        assert await refusal(settings, "lies") == "INTERNAL: on(GetCustomerHistoryRequest, get_history) gave no GetCustomerHistoryResponse"
        assert (await refusal(settings, "a", "nonsense")).startswith("INVALID_ARGUMENT: not a position")
        assert (await ask(settings, "nobody")).customer_id == "", "the server goes on"


async def test_the_server_tells_what_it_answers(here: Shown, rows: MemoryRows) -> None:
    """Reflection."""
    async with serving(here, views_of(here, rows)) as settings, grpc.aio.insecure_channel(settings.views_target) as channel:
        asked = cast("Any", reflection_pb2).ServerReflectionRequest(list_services="")
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        answers = stub.ServerReflectionInfo(iter([asked]), timeout=5)
        names = [service.name async for answer in answers for service in answer.list_services_response.service]
        assert NAME in names


async def test_rows_that_vanish_are_waited_for_not_taken_for_absent(here: Shown, rows: MemoryRows, project: Project) -> None:
    """What was answered once is known; below it nothing is answered."""
    here.tell(*customers(5))
    here.fold(project, rows)
    views = views_of(here, rows)
    await views.look()
    reader = views.reader(here.view.view)
    rows.flush()
    with pytest.raises(Unavailable, match="it must reach"):
        await views.reader(here.view.view, views.question(0.1)).get("customer-1")
    asked = asyncio.create_task(reader.get("customer-1"))
    await asyncio.sleep(0)
    await asyncio.to_thread(here.fold, project, rows)
    assert (await asked or CustomerHistory()).authorized == 1


async def test_below_what_was_answered_nothing_is_answered(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Even if it is more than was there at the start."""
    views = views_of(here, rows)
    await views.look()
    here.tell(*customers(5))
    here.fold(project, rows)
    question = views.question(0.1)
    assert await views.reader(here.view.view, question).get("customer-1") is not None
    rows.flush()
    with pytest.raises(Unavailable, match="it must reach"):
        await views.reader(here.view.view, views.question(0.1)).get("customer-1")


async def test_many_rows_come_at_once_and_lists_come_in_order(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Over all partitions; missing rows are left out."""
    here.tell(*(payment_authorized("o", key) for key in "aabccc"))
    here.fold(project, rows)
    views = views_of(here, rows)
    await views.look()
    question = views.question()
    reader = views.reader(here.view.view, question)
    assert {key: row.authorized for key, row in (await reader.get_many(["c", "x", "a", "c"])).items()} == {"a": 2, "c": 3}
    assert [row.customer_id for row in await reader.newest("by_success", "seldom", 10)] == ["a", "b"]
    assert [row.customer_id for row in await reader.newest("by_success", "seldom", 1)] == ["a"]
    assert list(await reader.newest("by_success", "nobody", 10)) == []
    assert await reader.get_many([]) == {}
    assert question.as_of == here.ends()
    with pytest.raises(ValueError, match="declares no index 'by_age'"):
        await reader.newest("by_age", "seldom", 1)


async def test_a_list_waits_for_every_partition(here: Shown, rows: MemoryRows, project: Project) -> None:
    """What it must know it knows of all of them."""
    here.tell(payment_authorized("o", "a"))
    here.fold(project, rows)
    views = views_of(here, rows)
    await views.look()
    other: Vector = {(here.topic, 1 - partition_of(b"a", PARTITIONS)): 1000}
    with pytest.raises(Unavailable, match="demands 1000"):
        await views.reader(here.view.view, views.question(0.1, other)).newest("by_success", "seldom", 10)


async def test_a_damaged_row_is_told_in_a_list_too(here: Shown, rows: MemoryRows, project: Project) -> None:
    """A list without it would be wrong."""
    here.tell(payment_authorized("o", "a"))
    here.fold(project, rows)
    here.tell(payment_authorized("o", WRONG))
    here.fold(project, rows)
    views = views_of(here, rows)
    await views.look()
    with pytest.raises(DataLoss):
        await views.reader(here.view.view).get_many(["a", WRONG])


async def test_the_age_is_the_time_since_the_log_ended_where_the_answer_ends(here: Shown, rows: MemoryRows) -> None:
    """Measured with a clock of the test."""
    now = [100.0]
    views = views_of(here, rows, lambda: now[0])
    place: Place = (here.topic, 0)
    await views.look()
    now[0] = 103.0
    assert views.age_ms({place: 0}) == 3000
    await views.look()
    assert views.age_ms({place: 0}) == 0
    here.append([(b"a", b"x", 0)])
    now[0] = 110.0
    await views.look()
    assert views.age_ms({place: 0}) == 7000
    assert views.age_ms({place: here.ends()[place]}) == 0


async def test_rows_that_cannot_be_reached_are_waited_for_within_the_deadline(here: Shown, project: Project) -> None:
    """Then the reason is told."""

    class Down(AsyncMemoryRows):
        async def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
            raise Unavailable("Redis does not answer")

    views = Views([here.view], here.log, Down(MemoryRows()), PARTITIONS)
    await views.look()
    assert not await views.caught_up()
    assert views.status()["waiting"] == "Redis does not answer"
    with pytest.raises(Unavailable, match="Redis does not answer"):
        await views.reader(here.view.view, views.question(0.05)).get("a")


async def test_a_sibling_says_why_it_asks(here: Shown) -> None:
    """Deadline, position and trace go along without the effect knowing; metadata of its own stays."""
    seen: list[tuple[dict[str, str], float]] = []

    async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        seen.append((metadata, context.time_remaining()))
        return b""

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(NAME, {"GetCustomerHistory": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = here.settings.model_copy(update={"views_target": f"127.0.0.1:{port}"})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with asking(settings) as stub:
        await stub.GetCustomerHistory(GetCustomerHistoryRequest())
        because.set(Because({("topic", 3): 7}, trace))
        await stub.GetCustomerHistory(GetCustomerHistoryRequest(), metadata=(("own", "1"),), timeout=9)
    await server.stop(0)
    (plain, left), (told, longer) = seen
    assert "backbone-at-least" not in plain
    assert 1 < left < 3
    assert told["backbone-at-least"] == "topic/3@7"
    assert told["backbone-elsewhere"] == "ignore", "it does not know what its siblings fold"
    assert told["traceparent"] == trace
    assert told["own"] == "1"
    assert 8 < longer < 10


async def test_a_sibling_that_is_restarted_is_found_again(here: Shown, rows: MemoryRows, project: Project) -> None:
    """On the same port, by the same stub."""
    here.tell(payment_authorized("o", "a"))
    here.fold(project, rows)
    async with serving(here, views_of(here, rows)) as settings:
        pass
    port = int(settings.views_target.rpartition(":")[2])
    async with asking(settings) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id="a"))
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        here.settings = here.settings.model_copy(update={"grpc_port": port})
        async with serving(here, views_of(here, rows)):

            async def answered() -> bool:
                try:
                    return (await stub.GetCustomerHistory(GetCustomerHistoryRequest(customer_id="a"))).row.authorized == 1
                except grpc.aio.AioRpcError:
                    return False

            await until(answered, "answered")


async def test_a_port_that_is_taken_is_named(here: Shown, rows: MemoryRows) -> None:
    """With what to do."""
    async with serving(here, views_of(here, rows)) as settings:
        here.settings = here.settings.model_copy(update={"grpc_port": int(settings.views_target.rpartition(":")[2])})
        with pytest.raises(SettingsError, match="GRPC_PORT"):
            async with Serve([here.service], views_of(here, rows), here.settings).serving():
                pass


async def test_a_stop_lets_the_question_under_way_finish(here: Shown, rows: MemoryRows, project: Project) -> None:
    """It does not accept new ones."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    views = views_of(here, rows)
    async with serving(here, views) as settings:
        await until(lambda: _is(settings, SERVING), "serving")
        at_least = encode(here.say(payment_authorized("o-2", "a")))
        asked = asyncio.create_task(ask(settings, "a", at_least))
        await until(lambda: _true(views.status()["asking"] == 1), "waiting")
        folding = asyncio.create_task(asyncio.to_thread(here.fold, project, rows))
    await folding
    assert (await asked).authorized == 2


async def _true(value: bool) -> bool:
    return value


async def test_without_an_address_the_setting_is_named() -> None:
    """Not a channel to nowhere."""
    with pytest.raises(SettingsError, match="VIEWS_TARGET"):
        async with connect_sibling(Settings(), RiskViewServiceStub):
            pass

"""Every method answers what it answered when its contract was recorded, over every transport: messages, order, status and reason.

`python -m tests.rpc` records anew. `buf breaking` sees none of this.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from retail.payments.views.v1 import risk_pb2

from backbone.adapters.grpc import Serve
from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import AsyncMemoryRows, MemoryRows
from backbone.contract import resolve
from backbone.loops.project import Project
from backbone.loops.serve import Views
from backbone.operations.contracts import buf
from backbone.operations.contracts.image import Image
from backbone.positions import encode
from backbone.settings import Settings
from contexts.payments.context import payments
from contexts.payments.risk.service import risk
from tests.examples import payment_authorized, payment_captured, payment_declined, payment_voided
from tests.loops.histories import PARTITIONS, Shown
from tests.rpc import golden
from tests.rpc.door import CASES, METHODS, OVER, played
from tests.rpc.golden import Case
from tests.rpc.transports import Method, answer, over_grpc

ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0
RISK = risk_pb2.DESCRIPTOR.services_by_name["RiskViewService"]
HISTORY = Method.of(RISK, "GetCustomerHistory")
Written = dict[str, Any]


async def of_door(over: str, folder: Path) -> dict[str, list[Written]]:
    """What each method of the public API answers over a transport, by its name."""
    answers: dict[str, list[Written]] = defaultdict(list)
    async with played(folder) as (stage, transports):
        for case in CASES:
            case.before(stage)

            def each(message: Message, case: Case = case) -> None:
                case.each(stage, message)

            given = await answer(transports[over], METHODS[case.method], case.request, case.metadata, each)
            case.after(stage)
            answers[case.method].append(golden.written(case, given))
    return answers


ELSEWHERE = {("retail.fulfilment.stock.v1", 0): 7}
OF_RISK = [
    Case("a customer with a history", "GetCustomerHistory", risk_pb2.GetCustomerHistoryRequest(customer_id="customer-1")),
    Case("a customer without", "GetCustomerHistory", risk_pb2.GetCustomerHistoryRequest(customer_id="nobody")),
    Case("nobody is asked for", "GetCustomerHistory", risk_pb2.GetCustomerHistoryRequest()),
    Case(
        "refused: a position that is none",
        "GetCustomerHistory",
        risk_pb2.GetCustomerHistoryRequest(customer_id="customer-1"),
        {"backbone-at-least": "nonsense"},
    ),
    Case(
        "refused: a position on a topic that nothing here comes after",
        "GetCustomerHistory",
        risk_pb2.GetCustomerHistoryRequest(customer_id="customer-1"),
        {"backbone-at-least": encode(ELSEWHERE)},
    ),
]


async def of_risk() -> list[Written]:
    """What the view service of payments answers."""
    log, rows = MemoryLog(), MemoryRows()
    service = resolve(payments, risk)
    here = Shown(log, service, service.views[0], Settings().model_copy(update={"partitions": PARTITIONS}))
    for name in (here.topic, here.quarantine):
        log.create_topic(name, PARTITIONS)
    here.tell(
        payment_authorized(), payment_authorized("order-2"), payment_captured(), payment_declined("order-3"), payment_voided("order-2")
    )
    project = Project(service, here.view, log, rows, here.settings)
    here.fold(project, rows)
    project.close()
    views, stop = Views([here.view], log, AsyncMemoryRows(rows), PARTITIONS), asyncio.Event()
    looking = asyncio.create_task(views.run(stop))
    try:
        async with Serve([service], views, here.settings).serving() as address, grpc.aio.insecure_channel(address) as channel:
            await serves(channel)
            call = over_grpc(channel)
            return [golden.written(one, await answer(call, HISTORY, one.request, one.metadata)) for one in OF_RISK]
    finally:
        stop.set()
        await looking


async def serves(channel: grpc.aio.Channel) -> None:
    """Wait until the server says that it serves."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    deadline = time.monotonic() + WITHIN_S
    while (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status != health_pb2.HealthCheckResponse.SERVING:
        assert time.monotonic() < deadline, f"after {WITHIN_S} s not serving"
        await asyncio.sleep(0.01)


def differences(recorded: list[Written], given: list[Written]) -> list[str]:
    """What is another answer now, by the name of its case."""
    then, now = ({one["case"]: one for one in all_cases} for all_cases in (recorded, given))
    return [
        f"{name}: {part} was {then.get(name, {}).get(part)!r}, now {now.get(name, {}).get(part)!r}"
        for name in {**then, **now}
        for part in sorted({*then.get(name, {}), *now.get(name, {})})
        if then.get(name, {}).get(part) != now.get(name, {}).get(part)
    ]


@pytest.mark.parametrize("over", OVER)
async def test_the_door_answers_as_its_contract_says_over(over: str, tmp_path: Path) -> None:
    answers = await of_door(over, tmp_path)
    wrong = [f"{name}, {one}" for name, method in METHODS.items() for one in differences(golden.read(method), answers[name])]
    assert wrong == [], "python -m tests.rpc, if it is meant and breaks no client"


async def test_the_view_of_risk_answers_as_its_contract_says() -> None:
    assert differences(golden.read(HISTORY), await of_risk()) == [], "python -m tests.rpc, if it is meant and breaks no sibling"


def test_every_method_has_a_contract() -> None:
    declared = {f"/{name}" for name in Image.of(buf.build(ROOT, sources=False)).rpcs}
    assert declared == {method.path for method in (*METHODS.values(), HISTORY)}
    recorded: Mapping[str, list[Written]] = {method.path: golden.read(method) for method in (*METHODS.values(), HISTORY)}
    for path, cases in recorded.items():
        assert any(case["status"] == "OK" for case in cases), path
        assert any(case["status"] != "OK" for case in cases), path
    assert len({case["reason"] for cases in recorded.values() for case in cases if "reason" in case}) >= 8


def test_another_answer_is_found() -> None:
    recorded = golden.read(METHODS["ListOrders"])
    for change in ({"status": "NOT_FOUND"}, {"responses": [*recorded[1]["responses"], {}]}, {"reason": "ELSE"}):
        assert differences(recorded, [recorded[0], recorded[1] | change, *recorded[2:]])
    assert differences(recorded, recorded[1:])
    assert differences(recorded[1:], recorded)
    listed = recorded[1]["responses"][0]["orders"]
    turned = recorded[1] | {"responses": [{"orders": listed[::-1]}]}
    assert differences(recorded, [recorded[0], turned, *recorded[2:]]), "the order of a page is part of it"

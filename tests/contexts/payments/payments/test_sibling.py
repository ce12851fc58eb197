"""What payments asks of its sibling risk, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from retail.payments.effects.v1.payment_pb2 import GivenUpCommand
from retail.payments.views.v1 import risk_pb2_grpc
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest, GetCustomerHistoryResponse

from backbone.adapters.grpc import connect_sibling
from backbone.declare import sibling
from backbone.positions import AS_OF, encode
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Position
from contexts.payments.payments import effects
from tests.examples import (
    CUSTOMER,
    assess_risk,
    authorize_card,
    capture_card,
    command_gave_up,
    risk_assessed,
    void_card,
)

stub = sibling(risk_pb2_grpc.RiskViewServiceStub).stub

TOPIC = "retail.payments.payments-by-customer.v1"


class Risk(risk_pb2_grpc.RiskViewServiceServicer):
    """Knows one customer."""

    async def GetCustomerHistory(  # noqa: N802 - the name of the RPC
        self, request: GetCustomerHistoryRequest, context: grpc.aio.ServicerContext[GetCustomerHistoryRequest, GetCustomerHistoryResponse]
    ) -> GetCustomerHistoryResponse:
        context.set_trailing_metadata(((AS_OF, encode({(TOPIC, 1): 7, (TOPIC, 0): 3})),))
        if request.customer_id != CUSTOMER:
            return GetCustomerHistoryResponse()
        return GetCustomerHistoryResponse(row=CustomerHistory(customer_id=CUSTOMER, authorized=4, declined=2))


@pytest.fixture
async def settings() -> AsyncIterator[Settings]:
    """Settings of a process whose view server answers."""
    server = grpc.aio.server()
    risk_pb2_grpc.add_RiskViewServiceServicer_to_server(Risk(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Settings.read({"VIEWS_TARGET": f"127.0.0.1:{port}"})
    await server.stop(None)


READ_AT = [Position(topic=TOPIC, partition=0, next_offset=3), Position(topic=TOPIC, partition=1, next_offset=7)]


async def test_the_outcome_records_the_answer_and_where_the_view_stood(settings: Settings) -> None:
    async with connect_sibling(settings, stub) as risk:
        outcome = await effects.assess(risk, assess_risk())
    assert outcome == risk_assessed(authorized=4, declined=2, read_at=READ_AT)


async def test_a_customer_without_a_history_has_none(settings: Settings) -> None:
    async with connect_sibling(settings, stub) as risk:
        outcome = await effects.assess(risk, assess_risk(customer_id="customer-2"))
    assert outcome == risk_assessed(read_at=READ_AT)


async def test_a_sibling_that_does_not_answer_is_no_outcome() -> None:
    async with connect_sibling(Settings.read({"VIEWS_TARGET": "127.0.0.1:1"}), stub) as risk:
        with pytest.raises(grpc.aio.AioRpcError):
            await effects.assess(risk, assess_risk())


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (assess_risk(), GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK),
        (authorize_card(), GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD),
        (capture_card(), GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD),
        (void_card(), GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD),
    ],
    ids=["assess", "authorize", "capture", "void"],
)
def test_a_command_that_was_given_up_is_named_with_the_last_error(command: effects.Command, name: GivenUpCommand.ValueType) -> None:
    assert effects.gave_up(command, "503") == command_gave_up(name, last_error="503")

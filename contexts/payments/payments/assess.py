"""What payments asks of its sibling risk, and what it says when nobody waits any longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retail.payments.effects.v1.payment_pb2 import (
    AssessRisk,
    AuthorizeCard,
    CaptureCard,
    CommandGaveUp,
    GivenUpCommand,
    RiskAssessed,
    VoidCard,
)
from retail.payments.views.v1.risk_pb2 import GetCustomerHistoryRequest

from backbone.positions import decode, to_proto

if TYPE_CHECKING:
    from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceAsyncStub

GIVEN_UP: dict[type[AssessRisk | AuthorizeCard | CaptureCard | VoidCard], GivenUpCommand.ValueType] = {
    AssessRisk: GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK,
    AuthorizeCard: GivenUpCommand.GIVEN_UP_COMMAND_AUTHORIZE_CARD,
    CaptureCard: GivenUpCommand.GIVEN_UP_COMMAND_CAPTURE_CARD,
    VoidCard: GivenUpCommand.GIVEN_UP_COMMAND_VOID_CARD,
}


async def assess(risk: RiskViewServiceAsyncStub, command: AssessRisk) -> RiskAssessed:
    """Ask what is known of a customer; the outcome records the answer and where the view stood."""
    call = risk.GetCustomerHistory(GetCustomerHistoryRequest(customer_id=command.customer_id))
    row = (await call).row
    as_of = (await call.trailing_metadata()).get("backbone-as-of", "")
    return RiskAssessed(order_id=command.order_id, authorized=row.authorized, declined=row.declined, read_at=to_proto(decode(str(as_of))))


def gave_up(command: AssessRisk | AuthorizeCard | CaptureCard | VoidCard, last_error: str) -> CommandGaveUp:
    """Nobody waits any longer; whether it was done is not known."""
    return CommandGaveUp(order_id=command.order_id, command=GIVEN_UP[type(command)], last_error=last_error)

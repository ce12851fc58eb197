"""Payments: the money of an order, from the customer's history to the provider and back."""

from __future__ import annotations

from retail.ordering.v1.order_pb2 import OrderCancelled, OrderConfirmed, OrderRejected, OrderValidated
from retail.payments.effects.v1.payment_pb2 import (
    AssessRisk,
    AuthorizeCard,
    CaptureCard,
    CardAuthorized,
    CardCaptured,
    CardRefused,
    CardVoided,
    CommandGaveUp,
    RiskAssessed,
    VoidCard,
)
from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceStub

from backbone.declare import Decider, Effect, Service, command_id, happened_at, on, sibling
from contexts.payments.payments import decisions, effects, state

decider = Decider(
    state.Payment,
    state.evolve,
    on(OrderValidated, decisions.start),
    on(RiskAssessed, decisions.weigh),
    on(CardAuthorized, decisions.authorized, look_up=happened_at),
    on(CardRefused, decisions.refused),
    on(OrderConfirmed, decisions.capture, look_up=happened_at),
    on(CardCaptured, decisions.captured),
    on(OrderRejected, decisions.abandon, look_up=happened_at),
    on(OrderCancelled, decisions.abandon, look_up=happened_at),
    on(CardVoided, decisions.voided),
    on(CommandGaveUp, decisions.give_up, look_up=happened_at),
    version=2,
    done=state.end,
    forget_after=state.KEPT,
)

payments = Service(
    "payments",
    decider,
    Effect(
        sibling(RiskViewServiceStub),
        on(AssessRisk, effects.assess),
        gave_up=effects.gave_up,
    ),
    Effect(
        effects.connect,
        on(AuthorizeCard, effects.authorize, look_up=command_id),
        on(CaptureCard, effects.capture, look_up=command_id),
        on(VoidCard, effects.void, look_up=command_id),
        gave_up=effects.gave_up,
    ),
)

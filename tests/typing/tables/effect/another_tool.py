"""Effects with an outside tool and with a sibling."""

from __future__ import annotations

from retail.payments.effects.v1 import payment_pb2 as effects
from retail.payments.views.v1.risk_pb2_grpc import RiskViewServiceStub

from backbone.declare import Effect, on, sibling
from tests.typing.tables import words

outside = Effect(words.dial, on(effects.CaptureCard, words.capture, look_up=words.identity), gave_up=words.gave_up)  # error
inside = Effect(sibling(RiskViewServiceStub), on(effects.AssessRisk, words.assess), gave_up=words.gave_up)

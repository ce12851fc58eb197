"""How the provider misbehaves when told to: rules that tests and demonstrations switch on and off.

Everything is counted or drawn from a seed, so the same requests in the same order meet the same misbehaviour. Rules
live in memory: a restarted provider behaves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from outside.provider.requests import Name, Operation, Shape

MOST_RULES = 32

Seconds = Annotated[float, Field(gt=0, le=600)]


@dataclass(frozen=True, slots=True)
class Call:
    """What a rule may look at; captures and voids name neither customer nor amount."""

    operation: Operation
    reference: str
    customer: str | None = None
    minor: int | None = None


class Filters(Shape):
    """To which calls a rule applies: the first `next` of those that meet every filter, or a share (`rate`) of them."""

    operations: Annotated[list[Operation], Field(min_length=1, max_length=3)] | None = None
    reference: Name | None = None
    customer: Name | None = None
    over_minor: Annotated[int, Field(ge=0)] | None = None
    next: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    def concerns(self, call: Call) -> bool:
        """Whether every filter given is met."""
        return (
            (self.operations is None or call.operation in self.operations)
            and (self.reference is None or call.reference == self.reference)
            and (self.customer is None or call.customer == self.customer)
            and (self.over_minor is None or (call.minor is not None and call.minor > self.over_minor))
        )


class Decline(Filters):
    """Refuses a new authorisation with 402 and this reason."""

    kind: Literal["decline"]
    reason: Name = "card_declined"


class Slow(Filters):
    """Waits before it does anything."""

    kind: Literal["slow"]
    seconds: Seconds


class Hold(Filters):
    """Time-out, then success: does the work, holds the answer back, and at last gives it or breaks it off."""

    kind: Literal["hold"]
    seconds: Seconds
    then: Literal["answer", "close"] = "answer"


class Fail(Filters):
    """Answers 5xx without doing anything."""

    kind: Literal["fail"]
    status: Annotated[int, Field(ge=500, le=599)] = 500


class DuplicateAnswer(Filters):
    """Gives a stored answer again as if it were new, without `Idempotency-Replayed`."""

    kind: Literal["duplicate_answer"]


class Down(Shape):
    """Answers 503 to everything but /livez and /v1/behaviour."""

    kind: Literal["down"]


Rule = Annotated[Decline | Slow | Hold | Fail | DuplicateAnswer | Down, Field(discriminator="kind")]
Filtered = TypeVar("Filtered", Decline, Slow, Hold, Fail, DuplicateAnswer)


class Rules(Shape):
    """All rules of misbehaviour, replacing all earlier ones. Of two of a kind that fit a call, the first acts."""

    rules: Annotated[list[Rule], Field(max_length=MOST_RULES)]


@dataclass(slots=True)
class _Switch:
    """A rule, how often it acted, and where its random numbers stand."""

    rule: Decline | Slow | Hold | Fail | DuplicateAnswer | Down
    applied: int = 0
    draws: random.Random = field(default_factory=random.Random)


class Behaviour:
    """The rules in force."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        """Starts every count and every random sequence anew."""
        self._switches = [_Switch(rule, draws=random.Random(0 if isinstance(rule, Down) else rule.seed)) for rule in rules]

    @property
    def down(self) -> bool:
        """Whether everything is to be answered with 503."""
        return any(isinstance(switch.rule, Down) for switch in self._switches)

    def first(self, kind: type[Filtered], call: Call) -> Filtered | None:
        """The first rule of this kind that acts on the call, counted as applied; None if there is none."""
        for switch in self._switches:
            rule = switch.rule
            if not isinstance(rule, kind) or not rule.concerns(call):
                continue
            if rule.next is not None and switch.applied >= rule.next:
                continue
            if switch.draws.random() >= rule.rate:
                continue
            switch.applied += 1
            return rule
        return None

    def described(self) -> list[dict[str, object]]:
        """Every rule as it was put, with the number of calls it acted on."""
        return [{**switch.rule.model_dump(exclude_defaults=True), "applied": switch.applied} for switch in self._switches]

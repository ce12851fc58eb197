"""What a client is told when it does not get what it asked for: canonical codes and google.rpc details, whatever the transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from backbone.errors import BackboneError, DataLoss, NotComparable, NotYet, Overloaded, Unavailable, WorkerEnded

DOMAIN = "gateway.retail"


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request.

    Attributes:
        place: field of the request, or metadata, as a path.
        text: what it must be.
        rule: name of the rule it breaks.
    """

    place: str
    text: str
    rule: str


@dataclass(eq=False)
class Refusal(Exception):
    """A call that is not answered as the client wished.

    Attributes:
        code: canonical code (google.rpc.Code).
        reason: the same in one constant word, for programs.
        text: the same for people.
        violations: what is wrong with the request.
        retry_after_s: when the same call may be tried again, in seconds; None if that is of no use.
        facts: what a program may want to know besides.
    """

    code: int
    reason: str
    text: str
    violations: Sequence[Violation] = ()
    retry_after_s: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def details(self) -> list[Message]:
        """The refusal as google.rpc details."""
        details: list[Message] = [ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=dict(self.facts))]
        if self.violations:
            wrong = [BadRequest.FieldViolation(field=v.place, description=v.text, reason=v.rule) for v in self.violations]
            details.append(BadRequest(field_violations=wrong))
        if self.retry_after_s is not None:
            retry = RetryInfo()
            retry.retry_delay.FromMilliseconds(round(self.retry_after_s * 1000))
            details.append(retry)
        return details


def invalid(*violations: Violation) -> Refusal:
    """The request cannot be understood or breaks a rule of its contract."""
    told = "; ".join(f"{v.place}: {v.text}" if v.place else v.text for v in violations[:5])
    return Refusal(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", told, violations=violations)


def nobody() -> Refusal:
    """The caller does not say who it is."""
    return Refusal(code_pb2.UNAUTHENTICATED, "NO_PRINCIPAL", "say who you are in the metadata x-principal")


def another_order(order_id: str) -> Refusal:
    """The idempotency key stands for another order."""
    return Refusal(
        code_pb2.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_USED",
        "this idempotency key stands for an order with other content; use a new key for a new order",
        facts={"order_id": order_id},
    )


def unknown_order(order_id: str) -> Refusal:
    """The caller has no such order."""
    return Refusal(code_pb2.NOT_FOUND, "UNKNOWN_ORDER", f"you have no order {order_id}", facts={"order_id": order_id})


def interrupted() -> Refusal:
    """A stream ends before the order does."""
    return Refusal(code_pb2.UNAVAILABLE, "INTERRUPTED", "the stream ends here; go on with after_step", retry_after_s=0.1)


def overloaded(what: str, most: int, of: int, retry_after_s: float) -> Refusal:
    """Too much is under way; nothing was done.

    Args:
        what: what there is too much of: calls or orders.
        most: how many the caller may have under way now; all of them if it is not the caller's share that is used up.
        of: how many there may be in all.
    """
    if most < of:
        reason, text = f"SHARE_OF_{what.upper()}", f"you have your share of {of} {what} under way; what is left is for who has less"
    else:
        reason, text = f"TOO_MANY_{what.upper()}", f"{of} {what} are under way already"
    facts = {"limit": what, "most": str(of), "share": str(most)}
    return Refusal(code_pb2.RESOURCE_EXHAUSTED, reason, text, retry_after_s=retry_after_s, facts=facts)


def refusal_of(error: BackboneError) -> Refusal:
    """What a client is told about an error of ours. Every one of them says that nothing was done; `Unconfirmed` does not get here."""
    if isinstance(error, Overloaded):
        return Refusal(code_pb2.RESOURCE_EXHAUSTED, "OVERLOADED", str(error), retry_after_s=error.retry_after_s, facts={"limit": "appends"})
    if isinstance(error, NotYet):
        facts = {"position": error.place, "demanded": str(error.demanded), "reached": str(error.reached)}
        return Refusal(code_pb2.UNAVAILABLE, "NOT_YET", str(error), retry_after_s=error.retry_after_s, facts=facts)
    if isinstance(error, NotComparable):
        return Refusal(code_pb2.FAILED_PRECONDITION, "NOT_COMPARABLE", str(error), facts={"topic": error.topic})
    if isinstance(error, Unavailable):
        return Refusal(code_pb2.UNAVAILABLE, "UNAVAILABLE", str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, WorkerEnded):
        return Refusal(code_pb2.UNAVAILABLE, "RESTARTING", "this gateway starts again", retry_after_s=2.0)
    if isinstance(error, DataLoss):
        return Refusal(code_pb2.DATA_LOSS, "DAMAGED", "what is known of this order is damaged; it is being mended")
    return Refusal(code_pb2.INTERNAL, "DEFECT", "a defect of ours; it is in our log")

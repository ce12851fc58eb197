"""What may enter: who calls, how large a request may be and what its contract demands. Checked before anything is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from backbone import rules
from gateway.freshness import Knowing, Tokens
from gateway.refusals import Refusal, Violation, invalid, nobody

Request = TypeVar("Request", bound=Message)

# A hundred lines with the longest names take 30 KiB.
MAX_REQUEST_BYTES = 64 * 1024
# Above this the servers themselves refuse, before they hold it; below, we say what is wrong.
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
MAX_NAME_BYTES = 256
WAIT_S = 10.0
# A client that does not say how long it waits: views are milliseconds behind, and one that is seconds behind is being rebuilt.
FRESH_S = 2.0
PRINCIPAL, IDEMPOTENCY_KEY, TRACEPARENT = "x-principal", "idempotency-key", "traceparent"
# W3C: what does not look like this is not passed on.
TRACE = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# What the way back of an answer may take, so that a client with a deadline gets PENDING and its handle instead of nothing.
WAY_BACK_S = 0.2


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        idempotency_key: names the request of this principal; empty where none is needed.
        traceparent: W3C trace context, empty if there is none.
        time_left_s: how long the client still waits; None if it does not say.
        knowing: what the answer must know, and what it turns out to know.
    """

    principal: str
    idempotency_key: str = ""
    traceparent: str = ""
    time_left_s: float | None = None
    knowing: Knowing = field(default_factory=Knowing, compare=False, repr=False)

    @property
    def reading_patience(self) -> float:
        """How long a read may wait for what it must know, in seconds."""
        return FRESH_S if self.time_left_s is None else max(0.0, min(WAIT_S, self.time_left_s - WAY_BACK_S))

    def patience(self, wait: Duration | None) -> float:
        """How long a call of this caller may wait, in seconds.

        Args:
            wait: what the request says; None if it says nothing.
        """
        wished = WAIT_S if wait is None else wait.seconds + wait.nanos / 1e9
        return wished if self.time_left_s is None else max(0.0, min(wished, self.time_left_s - WAY_BACK_S))


def caller_of(metadata: Mapping[str, str], at_least: Iterable[str], time_left_s: float | None, tokens: Tokens) -> Caller:
    """The caller of a request by its metadata.

    Args:
        metadata: by name.
        at_least: every value of `backbone-at-least`.
        time_left_s: how long the client still waits; None if it does not say.
        tokens: reads them.

    Raises:
        Refusal: it does not say who it is, or not in a usable form; or it demands something with a token that is not its own.
    """
    principal = metadata.get(PRINCIPAL, "")
    if not principal:
        raise nobody()
    if not _is_name(principal):
        raise invalid(Violation(PRINCIPAL, f"must be 1 to {MAX_NAME_BYTES} visible ASCII characters", "metadata.name"))
    traceparent = metadata.get(TRACEPARENT, "")
    knowing = Knowing(tokens.read(principal, at_least))
    return Caller(principal, metadata.get(IDEMPOTENCY_KEY, ""), traceparent if TRACE.fullmatch(traceparent) else "", time_left_s, knowing)


def idempotency_key_of(caller: Caller) -> str:
    """The key under which the caller places an order.

    Raises:
        Refusal: it is missing or unusable.
    """
    if not caller.idempotency_key:
        raise invalid(Violation(IDEMPOTENCY_KEY, "is required: one key for one order, the same at every retry", "metadata.required"))
    if not _is_name(caller.idempotency_key):
        raise invalid(Violation(IDEMPOTENCY_KEY, f"must be 1 to {MAX_NAME_BYTES} visible ASCII characters", "metadata.name"))
    return caller.idempotency_key


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME_BYTES and text.isascii() and text.isprintable() and bool(text.strip())


def check_size(kind: type[Message], size: int) -> None:
    """Refuse what is too large to be looked at.

    Raises:
        Refusal: it is.
    """
    if size > MAX_REQUEST_BYTES:
        raise invalid(Violation("", f"a {kind.DESCRIPTOR.name} has at most {MAX_REQUEST_BYTES} bytes, not {size}", "request.size"))


def read(kind: type[Request], raw: bytes) -> Request:
    """A request from its bytes.

    Raises:
        Refusal: they are too many, or not such a request.
    """
    check_size(kind, len(raw))
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise unreadable(kind) from None


def unreadable(kind: type[Message], why: str = "they end too early, or a text in them is not UTF-8") -> Refusal:
    """The refusal of bytes that are not a request."""
    return invalid(Violation("", f"these bytes are not a {kind.DESCRIPTOR.full_name}; {why}", "request.form"))


def check(request: Message) -> None:
    """Refuse what breaks a rule of its contract.

    Raises:
        Refusal: it does; names every field.
    """
    if found := rules.violations(request):
        raise invalid(*(Violation(one.field, one.description, one.rule) for one in found))

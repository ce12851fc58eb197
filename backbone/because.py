"""Why a question is asked: what an effect's calls to siblings carry along without the effect knowing."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from backbone.positions import Vector


@dataclass(frozen=True, slots=True)
class Because:
    """The cause of what is being done.

    Attributes:
        after: positions the cause comes after: an answer must know them (`backbone-at-least`).
        traceparent: W3C trace context of the conversation; empty if it has none.
    """

    after: Vector
    traceparent: str


because: ContextVar[Because | None] = ContextVar("because", default=None)
"""Set by the act loop around each try of an effect; None elsewhere."""

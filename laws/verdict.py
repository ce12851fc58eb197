"""What the laws of the shop are, and what can be said of a log: which are broken, by what, and what happened in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from laws.entries import Place

LAWS: Mapping[str, str] = {
    "readable": "every record is what its topic holds, under its own key",
    "one writer": "a topic is written by the one service its contract names",
    "unique ids": "no two facts have one identity",
    "cause": "what was caused names a cause that exists",
    "conversation": "what concerns an order belongs to the order's conversation",
    "sequence": "the facts of an aggregate are numbered 1, 2, 3, ...",
    "copies": "copies are their primaries, byte for byte, all of them and once",
    "stock": "in no pool is anything ever negative, or more reserved than there is",
    "levels": "the levels that were told are what was received, held and released",
    "told": "the last level told of everything in every pool is the true one",
    "receipts": "what came in at the ramp lies in its pool, once",
    "one answer": "an order has at most one answer, and nothing but refusals to cancel come after it",
    "answered": "every accepted order and every wish to cancel has its answer",
    "as requested": "an order is what was asked for, at the price that was shown and listed",
    "confirmed": "confirmed means: held once, authorised once for the exact total, both before the answer, and still so",
    "given back": "rejected or cancelled means: nothing is held, authorised or captured any more",
    "captured": "captured is the total of the confirmed orders, order by order and to the cent",
    "provider": "the provider's own books say the same, entry by entry",
    "done": "every command is done",
}
"""Every law by name, in one sentence."""

AT_REST = ("cause", "copies", "told", "receipts", "answered", "as requested", "confirmed", "given back", "captured", "provider", "done")
"""Laws that only hold once nothing is under way: they compare topics, or the shop with the provider."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken law, and where to see it.

    Attributes:
        law: its name in LAWS.
        text: what is wrong, in one line.
        witnesses: coordinates of the records that show it.
    """

    law: str
    text: str
    witnesses: tuple[Place, ...] = ()


@dataclass(slots=True)
class Totals:
    """What happened in the shop, counted; money in minor units.

    Attributes:
        rejected: orders by the name of the reason.
        authorized_minor, captured_minor: of payments.
        books_captured_minor: what the provider says it gave us.
    """

    records: int = 0
    placed: int = 0
    confirmed: int = 0
    cancelled: int = 0
    unanswered: int = 0
    free: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    placed_minor: int = 0
    confirmed_minor: int = 0
    rejected_minor: int = 0
    cancelled_minor: int = 0
    authorized_minor: int = 0
    captured_minor: int = 0
    books_captured_minor: int = 0
    books_entries: int = 0
    open_commands: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the laws say of a log.

    Attributes:
        checked: how many things each law looked at; laws that were not asked are missing.
    """

    violations: tuple[Violation, ...]
    checked: Mapping[str, int]
    totals: Totals

    @property
    def holds(self) -> bool:
        """Whether every law that was asked holds."""
        return not self.violations

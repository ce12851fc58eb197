"""The laws of the shop, asked of a log. Pure: entries and the provider's books in, verdict out.

Safety laws hold at every prefix of the log. The others hold at rest, when every accepted order has its answer and what follows from it
is done; of a shop at work they would say too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from retail.ordering.v1.order_pb2 import RejectionReason

from laws.entries import BookEntry, Entry
from laws.facts import ANSWERS, NotExact, minor
from laws.fold import Fold
from laws.rest import settle
from laws.verdict import AT_REST, LAWS, Totals, Verdict, Violation

__all__ = ["AT_REST", "LAWS", "NotExact", "Totals", "Verdict", "Violation", "check", "minor"]


def check(entries: Iterable[Entry], books: Iterable[BookEntry], *, at_rest: bool = True) -> Verdict:
    """Fold a log and judge it.

    Args:
        entries: records of all topics, each partition in its order, topics in any order.
        books: the provider's lines.
        at_rest: whether nothing is under way; if not, only the safety laws are asked.
    """
    fold, lines = Fold(), list(books)
    for entry in entries:
        fold.hear(entry)
    _count(fold, lines)
    if at_rest:
        settle(fold, lines)
    asked = [law for law in LAWS if at_rest or law not in AT_REST]
    broken = sorted(fold.violations, key=lambda violation: list(LAWS).index(violation.law))
    return Verdict(
        tuple(violation for violation in broken if violation.law in asked), {law: fold.checked[law] for law in asked}, fold.totals
    )


def _count(fold: Fold, books: Sequence[BookEntry]) -> None:
    totals = fold.totals
    for book in fold.orders.values():
        request = book.first("OrderRequested")
        if request is None:
            continue
        total = sum(line.quantity * minor(line.unit_price) for line in request.event.lines)
        answer = book.first(*ANSWERS)
        totals.placed += 1
        totals.placed_minor += total
        totals.free += total == 0
        if answer is None:
            totals.unanswered += 1
        elif answer.name == "OrderConfirmed":
            totals.confirmed += 1
            totals.confirmed_minor += minor(answer.event.total)
        elif answer.name == "OrderCancelled":
            totals.cancelled += 1
            totals.cancelled_minor += total
        else:
            reason = RejectionReason.Name(answer.event.reason).removeprefix("REJECTION_REASON_").lower()
            totals.rejected[reason] = totals.rejected.get(reason, 0) + 1
            totals.rejected_minor += total
        totals.authorized_minor += sum(minor(fact.event.total) for fact in book.of("PaymentAuthorized"))
        totals.captured_minor += sum(minor(fact.event.total) for fact in book.of("PaymentCaptured"))
    totals.books_entries = len(books)
    totals.books_captured_minor = sum(entry.minor for entry in books if entry.kind == "captured")
    totals.open_commands = len(fold.commands)

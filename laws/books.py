"""The payment provider's own books, read over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from laws.entries import BookEntry

__all__ = ["BookEntry", "BooksUnreadable", "read"]

ANSWERS_WITHIN_S = 30.0


class BooksUnreadable(Exception):
    """The provider does not show its books."""


def read(provider: str, reference: str | None = None) -> list[BookEntry]:
    """All lines of the books, or those of one reference, in order.

    Args:
        provider: its address, http://host:port.

    Raises:
        BooksUnreadable: it does not answer, or not with its books.
    """
    try:
        asked = httpx.get(
            f"{provider}/v1/ledger", params={} if reference is None else {"reference": reference}, timeout=ANSWERS_WITHIN_S, trust_env=False
        )
        asked.raise_for_status()
        return [_entry(line) for line in asked.json()["entries"]]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise BooksUnreadable(f"the provider at {provider} does not show its books: {error}") from error


def _entry(line: dict[str, Any]) -> BookEntry:
    amount = line["amount"] or {"currency": "", "minor": 0}
    return BookEntry(
        sequence=line["sequence"],
        kind=line["kind"],
        reference=line["reference"],
        customer=line["customer"] or "",
        authorization_id=line["authorization_id"] or "",
        currency=amount["currency"],
        minor=amount["minor"],
    )

"""The provider's books: an append-only ledger in one SQLite file, and the rules of what may be entered next.

Rules
1. All that is known of a reference is the fold of its entries: nothing, then authorized (once or more), then captured
   or voided, and both are final. A void is entered even where nothing was held: it blocks the reference for ever, so an
   authorisation that arrives late cannot stay open.
2. The answer to an idempotency key is stored, for ever, in the transaction that enters the work: a key works once.
3. A card's limit bounds, per currency, what is authorised or captured and not voided.

Durability: WAL with `synchronous=FULL`: what is answered has been synced to disk (fsync, about 0.3 ms where measured):
neither `kill -9` nor a power cut loses an acknowledged entry.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outside.provider.requests import Amount, Authorize, Capture, Void

PAGE = 500
"""Entries read at a time when the ledger is listed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('authorized', 'captured', 'voided', 'declined')),
    reference TEXT NOT NULL,
    customer TEXT,
    authorization_id TEXT,
    currency TEXT,
    minor INTEGER,
    reason TEXT,
    key TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_reference ON entries (reference, sequence);
CREATE INDEX IF NOT EXISTS entries_by_customer ON entries (customer, currency);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS cards (customer TEXT PRIMARY KEY, limit_minor INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body; `replayed` tells a stored answer from a new one."""

    status: int
    body: dict[str, Any]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """One authorisation."""

    authorization_id: str
    customer: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class _Account:
    """What the entries of one reference add up to."""

    status: str = "new"
    held: tuple[_Held, ...] = ()

    @property
    def total(self) -> Amount | None:
        """The sum of what was authorised; None if nothing was."""
        if not self.held:
            return None
        return self.held[0].amount.model_copy(update={"minor": sum(one.amount.minor for one in self.held)})


class Ledger:
    """The books. Not thread-safe: one thread asks, so requests are entered one after the other."""

    def __init__(self, path: Path) -> None:
        """Opens the file, which is made if it is missing.

        Raises `sqlite3.DatabaseError` if it is something else.
        """
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def authorize(self, key: str, asked: Authorize, declined_by: Callable[[], str | None]) -> Answer:
        """Holds the amount unless the reference is closed, the limit forbids it or `declined_by` names a reason."""

        def work(at: str) -> Answer:
            account = self._account(asked.reference)
            if account.status in ("voided", "captured"):
                return _conflict(account.status, asked.reference, at)
            if account.total is not None and account.total.currency != asked.amount.currency:
                return Answer(409, {"reason": "currency_differs", "reference": asked.reference, "at": at})
            reason = "card_limit_exceeded" if self._exceeds(asked) else declined_by()
            if reason is not None:
                self._enter("declined", key, at, asked.reference, asked.customer, asked.amount, reason=reason)
                return Answer(402, {"status": "declined", "reason": reason, "reference": asked.reference, "at": at})
            name = f"auth_{secrets.token_hex(12)}"
            self._enter("authorized", key, at, asked.reference, asked.customer, asked.amount, name)
            body = {"authorization_id": name, "status": "authorized", "reference": asked.reference}
            return Answer(201, {**body, "amount": asked.amount.model_dump(), "at": at})

        return self._once(key, "authorize", asked, work)

    def capture(self, key: str, asked: Capture) -> Answer:
        """Takes all that is held under the reference."""

        def work(at: str) -> Answer:
            account = self._account(asked.reference)
            if account.status in ("voided", "captured"):
                return _conflict(account.status, asked.reference, at)
            if account.total is None:
                return Answer(404, {"reason": "not_authorized", "reference": asked.reference, "at": at})
            for one in account.held:
                self._enter("captured", key, at, asked.reference, one.customer, one.amount, one.authorization_id)
            body = {"status": "captured", "reference": asked.reference, "amount": account.total.model_dump(), "at": at}
            return Answer(201, body)

        return self._once(key, "capture", asked, work)

    def void(self, key: str, asked: Void) -> Answer:
        """Gives back what is held under the reference, if anything is, and blocks the reference."""

        def work(at: str) -> Answer:
            account = self._account(asked.reference)
            if account.status == "captured":
                return _conflict(account.status, asked.reference, at)
            if account.status == "authorized":
                for one in account.held:
                    self._enter("voided", key, at, asked.reference, one.customer, one.amount, one.authorization_id)
            elif account.status == "new":
                self._enter("voided", key, at, asked.reference)
            given_back = account.total if account.status == "authorized" else None
            amount = None if given_back is None else given_back.model_dump()
            return Answer(201, {"status": "voided", "reference": asked.reference, "amount": amount, "at": at})

        return self._once(key, "void", asked, work)

    def set_limit(self, customer: str, limit_minor: int | None) -> None:
        """Bounds the customer's card from now on; None lifts the limit."""
        with self._transaction():
            self._db.execute("DELETE FROM cards WHERE customer = ?", (customer,))
            if limit_minor is not None:
                self._db.execute("INSERT INTO cards VALUES (?, ?)", (customer, limit_minor))

    def limit(self, customer: str) -> int | None:
        """The limit of the customer's card in minor units; None if there is none."""
        row = self._db.execute("SELECT limit_minor FROM cards WHERE customer = ?", (customer,)).fetchone()
        return None if row is None else int(row[0])

    def page(self, after: int, reference: str | None = None) -> list[dict[str, Any]]:
        """At most `PAGE` entries behind the sequence number `after`, of one reference or of all."""
        chosen, values = ("reference = ? AND", [reference]) if reference is not None else ("", [])
        rows = self._db.execute(
            "SELECT sequence, kind, reference, customer, authorization_id, currency, minor, reason, key, at"
            f" FROM entries WHERE {chosen} sequence > ? ORDER BY sequence LIMIT ?",
            (*values, after, PAGE),
        )
        return [
            {
                "sequence": sequence,
                "kind": kind,
                "reference": of,
                "customer": customer,
                "authorization_id": name,
                "amount": None if currency is None else {"currency": currency, "minor": minor},
                "reason": reason,
                "key": key,
                "at": at,
            }
            for sequence, kind, of, customer, name, currency, minor, reason, key, at in rows
        ]

    def _once(self, key: str, operation: str, asked: Authorize | Capture | Void, work: Callable[[str], Answer]) -> Answer:
        fingerprint = hashlib.sha256(f"{operation} {asked.model_dump_json()}".encode()).digest()
        with self._transaction():
            stored = self._db.execute("SELECT fingerprint, status, body FROM answers WHERE key = ?", (key,)).fetchone()
            if stored is not None:
                if stored[0] != fingerprint:
                    return Answer(409, {"reason": "idempotency_key_reused", "key": key})
                return Answer(stored[1], json.loads(stored[2]), replayed=True)
            answer = work(datetime.now(UTC).isoformat(timespec="microseconds"))
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", (key, fingerprint, answer.status, json.dumps(answer.body)))
        return answer

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _account(self, reference: str) -> _Account:
        account = _Account()
        for kind, name, customer, currency, minor in self._db.execute(
            "SELECT kind, authorization_id, customer, currency, minor FROM entries"
            " WHERE reference = ? AND kind <> 'declined' ORDER BY sequence",
            (reference,),
        ):
            account = replace(account, status=kind)
            if kind == "authorized":
                held = _Held(name, customer, Amount(currency=currency, minor=minor))
                account = replace(account, held=(*account.held, held))
        return account

    def _exceeds(self, asked: Authorize) -> bool:
        limit = self.limit(asked.customer)
        if limit is None:
            return False
        (used,) = self._db.execute(
            "SELECT COALESCE(SUM(CASE kind WHEN 'authorized' THEN minor WHEN 'voided' THEN -minor ELSE 0 END), 0)"
            " FROM entries WHERE customer = ? AND currency = ?",
            (asked.customer, asked.amount.currency),
        ).fetchone()
        return int(used) + asked.amount.minor > limit

    def _enter(
        self,
        kind: str,
        key: str,
        at: str,
        reference: str,
        customer: str | None = None,
        amount: Amount | None = None,
        authorization_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        currency, minor = (None, None) if amount is None else (amount.currency, amount.minor)
        self._db.execute(
            "INSERT INTO entries (kind, reference, customer, authorization_id, currency, minor, reason, key, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (kind, reference, customer, authorization_id, currency, minor, reason, key, at),
        )


def _conflict(status: str, reference: str, at: str) -> Answer:
    return Answer(409, {"reason": "reference_voided" if status == "voided" else "captured", "reference": reference, "at": at})

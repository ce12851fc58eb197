"""`python -m demo.outage`: what an outage of one context is to the others, in two acts: shorter, then longer than customers wait.

Exit codes: 0 all that is claimed is so, 1 something is not, 2 it could not be shown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import grpc
import httpx
from retail.gateway.v1.order_service_pb2 import OrderRejectionReason, OrderStatus

from backbone.errors import BackboneError
from backbone.local.platform import RunningPlatform
from demo.account import Account, Identities, changed, identities, shown
from demo.door import Door, stand
from demo.purchases import Purchase, read_purchases
from demo.rest import Restless
from demo.stage import PATIENCE_S, rest, staged, story_of
from laws import books, log
from laws.__main__ import dollars
from laws.check import check
from laws.entries import WRAPPERS, Entry

FOLDER = Path(".backbone/outage")
ON_THE_LINE_S = 1.0
"""How long the customers of the first act wait for an answer before they take the handle."""
COMES_WITHIN_S = 60.0
"""How long what must come may take on a slow machine."""
MORE_THAN_PATIENCE_S = 15.0
"""How much longer than their patience the customers of the second act stay on the line, to hear what becomes of their orders."""
PLENTY = 10_000

PENDING, CONFIRMED, REJECTED = OrderStatus.ORDER_STATUS_PENDING, OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_REJECTED
OVERDUE = OrderRejectionReason.ORDER_REJECTION_REASON_OVERDUE
ONCE = ("OrderRequested", "OrderValidated", "PaymentStarted", "PaymentAuthorized", "OrderConfirmed", "PaymentCaptured")
"""What is said once, and no more, of an order that waited for payments."""

Facts: TypeAlias = dict[str, list[Entry]]
"""What the log says of some orders, by the name of the event; copies are left out."""
Found = TypeVar("Found")


class Late(Exception):
    """Something that must come did not come in time; says what."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is shown.

    Attributes:
        orders: how many are placed in each act.
        patience_s: after how many seconds an order of the second act is overdue.
        folder: where the log lies; emptied first.
    """

    orders: int = 6
    patience_s: float = 6.0
    folder: Path = FOLDER


def main(arguments: Sequence[str] | None = None) -> int:
    """Show it; see the exit codes above."""
    options = _options(arguments)
    account = Account()
    try:
        outage(options, account)
    except KeyboardInterrupt:
        print("interrupted")
        return 2
    except grpc.RpcError as error:
        print(f"outage: the gateway says {error.code().name}: {error.details()}", file=sys.stderr)
        return 2
    except (BackboneError, Restless, Late, log.Unreadable, books.BooksUnreadable, httpx.HTTPError) as error:
        print(f"outage: {error}", file=sys.stderr)
        return 2
    return account.end()


def outage(options: Options, account: Account) -> None:
    """Show both acts; what is not as claimed is in `account.wrong`."""
    chosen = _of_different_customers(2 * options.orders + 1)
    stock = {(purchase.zone, line.sku): PLENTY for purchase in chosen for line in purchase.lines}
    with staged(options.folder, chosen, stock, account) as here:
        _shorter(here, chosen[: options.orders], account)
        _longer(here, chosen[options.orders : -1], chosen[-1], options.patience_s, account)
        account.heading("the laws of the shop, over the whole log and the provider's books")
        verdict = check(log.read(here.kafka()), books.read(here.outside["provider"]))
        account.more(f"BROKEN {one.law}: {one.text}" for one in verdict.violations)
        account.claim(f"all {len(verdict.checked)} laws hold", verdict.holds)
        account.claim("every order in the log has its answer", verdict.totals.unanswered == 0, f"{verdict.totals.unanswered} have none")


def _shorter(here: RunningPlatform, chosen: Sequence[Purchase], account: Account) -> None:
    account.heading(f"act 1: payments is stopped for less than customers wait (ANSWER_WITHIN_S={PATIENCE_S})")
    before = identities(here)
    here.stack.supervisor.stop(["payments"])
    account.say("payments is stopped; everybody else runs (process id @ start time)")
    account.more(shown(identities(here)))
    account.say(f"{len(chosen)} customers order for {dollars(sum(one.cents for one in chosen))} and stay {ON_THE_LINE_S:.0f} s on the line")
    with Door(here.grpc) as door:
        orders = door.place(chosen, ON_THE_LINE_S)
        ids = [order.order_id for order in orders]
        account.claim(
            "every order answers PENDING, with a handle", {order.status for order in orders} == {PENDING} and all(ids), stand(orders)
        )
        account.more(f"{purchase.customer}: PENDING, handle {order_id}" for purchase, order_id in zip(chosen, ids, strict=True))
        facts = _wait_for(
            lambda: _facts(here, ids), lambda found: len(found.get("OrderReserved", ())) == len(ids), "stock to hold every order"
        )
        account.claim("stock holds all of it; payments says nothing", not _by_payments(facts), _counted(facts))
        account.say(f"of these orders the log has {_counted(facts)}")
        account.say("no caller has an error, a retry or a queue that fills: nobody calls payments. What it has to hear lies in the log,")
        account.more([f"{ids[0]} at {_of(facts, 'OrderValidated', ids[0]).place}, and when payments is back, it asks for it"])
        began = time.monotonic()
        here.stack.supervisor.resume(["payments"])
        account.say(f"payments is started again; ready after {time.monotonic() - began:.1f} s, it reads on where it had stopped")
        answered = door.answers(chosen, orders, COMES_WITHIN_S)
        account.claim("every order is confirmed", {order.status for order in answered} == {CONFIRMED}, stand(answered))
    rest(here)
    facts = _facts(here, ids)
    account.claim(
        "each was requested, validated, paid, confirmed and captured exactly once",
        all(sorted(entry.event.order_id for entry in facts.get(name, ())) == sorted(ids) for name in ONCE),
        _counted(facts),
    )
    _claim_only_payments_changed(before, identities(here), account)
    account.say("the story of one of them: the gap lies before payments speaks")
    account.more(story_of(here, ids[0]))


def _longer(here: RunningPlatform, chosen: Sequence[Purchase], unlucky: Purchase, patience_s: float, account: Account) -> None:
    account.heading(f"act 2: payments is down for longer than customers wait (ANSWER_WITHIN_S={patience_s:g})")
    supervisor, on_the_line_s = here.stack.supervisor, patience_s + MORE_THAN_PATIENCE_S
    gateway = supervisor.processes["gateway"].spec
    supervisor.stop(["gateway"])
    here.stack.run([replace(gateway, environment={**gateway.environment, "ANSWER_WITHIN_S": str(patience_s)})])
    account.say("the gateway has that setting now and was started anew; each request says until when its answer is of use")
    before = identities(here)
    with Door(here.grpc) as door, _answers_held_back(here, unlucky):
        call = door.order(unlucky, on_the_line_s)
        account.say(f"{unlucky.customer} orders for {dollars(unlucky.cents)}; the provider is slow to answer")
        _wait_for(lambda: _open(here), lambda found: found == unlucky.cents, "the provider to hold the money")
        supervisor.kill(["payments"])
        account.say("the provider holds the money and has not said so, when payments is killed (SIGKILL)")
        account.say(f"{len(chosen)} more customers order for {dollars(sum(one.cents for one in chosen))} and stay on the line")
        began = time.monotonic()
        orders = [*door.place(chosen, on_the_line_s), call.result().order]
        took_s = time.monotonic() - began
        down = identities(here)["payments"] is None
    account.claim(
        f"after {took_s:.1f} s all {len(orders)} orders are rejected as overdue: ordering watches the time, and needs nobody for it",
        {(order.status, order.rejection_reason) for order in orders} == {(REJECTED, OVERDUE)} and took_s >= patience_s,
        stand(orders),
    )
    account.claim(f"payments is still down, and the provider holds {dollars(unlucky.cents)}", down and _open(here) == unlucky.cents)
    supervisor.resume(["payments"])
    account.say("payments is started again, and finds what it had not finished")
    rest(here)
    ids = [order.order_id for order in orders]
    facts = _facts(here, ids)
    account.say(f"of these orders the log now has {_counted(facts)}")
    ended = {entry.event.order_id for name in ("PaymentAbandoned", "PaymentDeclined", "PaymentVoided") for entry in facts.get(name, ())}
    account.claim("every one of their payments is abandoned, declined or voided", ended == set(ids), _counted(facts))
    account.claim(
        f"{unlucky.customer}'s money is given back, and nobody else's was ever held",
        _books_of(here, ids[-1:]) == ["authorized", "voided"] and not {"authorized", "captured"} & {*_books_of(here, ids[:-1])},
    )
    account.claim("nothing is open in the provider's books", _open(here) == 0, f"{dollars(_open(here))} is")
    _claim_only_payments_changed(before, identities(here), account)
    account.say(f"the story of {unlucky.customer}'s order")
    account.more(story_of(here, ids[-1]))


def _claim_only_payments_changed(before: Identities, after: Identities, account: Account) -> None:
    account.claim(
        f"nothing but payments was restarted; the other {len(after) - 1} are the same processes as before",
        changed(before, after) == ["payments"],
        f"changed are {', '.join(changed(before, after)) or 'none'}",
    )
    account.more(shown(after))


def _of_different_customers(count: int) -> list[Purchase]:
    """The oldest purchases for money, each by somebody else."""
    first: dict[str, Purchase] = {}
    for purchase in read_purchases():
        if purchase.cents:
            first.setdefault(purchase.customer, purchase)
    return list(first.values())[:count]


def _facts(here: RunningPlatform, order_ids: Sequence[str]) -> Facts:
    found: Facts = {}
    for entry in log.read(here.kafka()):
        wrapper = WRAPPERS.get(entry.place.topic)
        if wrapper is not None and not wrapper.copy_of and entry.meta.correlation_id in order_ids:
            found.setdefault(entry.name, []).append(entry)
    return found


def _of(facts: Facts, name: str, order_id: str) -> Entry:
    return next(entry for entry in facts[name] if entry.event.order_id == order_id)


def _by_payments(facts: Facts) -> list[str]:
    return [name for name in facts if name.startswith("Payment")]


def _counted(facts: Facts) -> str:
    return ", ".join(f"{len(entries)} {name}" for name, entries in facts.items()) or "nothing"


def _books_of(here: RunningPlatform, order_ids: Sequence[str]) -> list[str]:
    """What the provider wrote down about these orders, in order."""
    return [entry.kind for entry in books.read(here.outside["provider"]) if entry.reference in order_ids]


def _open(here: RunningPlatform) -> int:
    """Minor units that the provider holds and has neither taken nor given back."""
    signs = {"authorized": 1, "captured": -1, "voided": -1}
    return sum(signs.get(entry.kind, 0) * entry.minor for entry in books.read(here.outside["provider"]))


@contextmanager
def _answers_held_back(here: RunningPlatform, purchase: Purchase) -> Iterator[None]:
    """Let the provider do what it is asked for this customer, and tell nobody for a while."""
    rule = {"kind": "hold", "seconds": 12.0, "customer": purchase.customer, "operations": ["authorize"]}
    with httpx.Client(base_url=here.outside["provider"], timeout=10.0, trust_env=False) as client:
        client.put("/v1/behaviour", json={"rules": [rule]}).raise_for_status()
        try:
            yield
        finally:
            client.delete("/v1/behaviour").raise_for_status()


def _wait_for(look: Callable[[], Found], good: Callable[[Found], bool], what: str) -> Found:
    deadline = time.monotonic() + COMES_WITHIN_S
    while not good(found := look()):
        if time.monotonic() > deadline:
            raise Late(f"after {COMES_WITHIN_S:.0f} s, still waiting for {what}")
        time.sleep(0.1)
    return found


def _options(arguments: Sequence[str] | None) -> Options:
    default, environment = Options(), os.environ
    parser = argparse.ArgumentParser(
        prog="python -m demo.outage", description="An outage of one context, shorter and longer than customers wait."
    )
    parser.add_argument("--orders", type=int, default=int(environment.get("ORDERS") or default.orders), help="in each act [ORDERS, 6]")
    parser.add_argument(
        "--patience",
        type=float,
        default=float(environment.get("PATIENCE") or default.patience_s),
        help="seconds after which an order of the second act is overdue [PATIENCE, 6]",
    )
    parser.add_argument("--folder", type=Path, default=default.folder, help=f"where its log lies; emptied first ({FOLDER})")
    given = parser.parse_args(arguments)
    if not 1 <= given.orders <= 500:
        parser.error(f"--orders is {given.orders}: a number from 1 to 500")
    if not 1 <= given.patience <= 10:
        parser.error(f"--patience is {given.patience:g}: a number of seconds from 1 to 10")
    return Options(given.orders, given.patience, given.folder)


if __name__ == "__main__":
    sys.exit(main())

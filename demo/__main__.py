"""`python -m demo`: starts the whole platform on a log of its own, places real orders, and checks what came of it.

Exit codes: 0 every law holds and every order is answered, 1 not so, 2 it could not be shown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
from retail.gateway.v1.order_service_pb2 import OrderRejectionReason, OrderStatus
from rich.console import Console

from backbone.adapters.kafka import KafkaLog
from backbone.errors import BackboneError
from backbone.local.platform import RunningPlatform, running
from backbone.operations import story
from backbone.operations.decoding import Decoder
from backbone.ownership import READER
from demo import purchases as data
from demo.placing import Progress, place_all
from demo.purchases import Purchase
from demo.rest import Restless, wait_for_rest
from demo.show import show
from laws import books, log
from laws.__main__ import as_text, dollars
from laws.check import Verdict, check
from laws.history import Recorder
from shop import shop

FOLDER = Path(".backbone/demo")
STOCKED_WITHIN_S = 180.0
RESTS_WITHIN_S = 180.0
ANSWERS_WITHIN_S = 900.0
REQUESTS = "retail.gateway.order-requests.v1"


class NotEmpty(BackboneError):
    """The log is not one of our own."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is shown.

    Attributes:
        orders: how many; None for all.
        scarce: less stock than is asked for, and some cards with a limit.
        at_once: customers at a time.
    """

    orders: int | None
    scarce: bool
    at_once: int
    folder: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Show it; see the exit codes above."""
    options = _options(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=200, color_system=None, highlight=False, soft_wrap=True)
    try:
        return _shown(options, console)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 2
    except (BackboneError, Restless, log.Unreadable, books.BooksUnreadable) as error:
        console.print(f"demo: {error}", markup=False, style="bold red")
        return 2


def _shown(options: Options, console: Console) -> int:
    began = time.monotonic()
    chosen, sold = data.read_purchases()[: options.orders], data.read_sold()
    spare = data.spare_article(chosen, sold)
    stock = data.scarce_stock(chosen, spare) if options.scarce else data.ample_stock(sold)
    limits = data.card_limits(chosen) if options.scarce else {}
    options.folder.parent.mkdir(parents=True, exist_ok=True)
    receipts = options.folder.parent / "demo-receipts.csv"
    came = data.write_receipts(receipts, stock)

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {text}", markup=False, highlight=False)

    say(f"{len(chosen):,} real orders of {chosen[0].date} to {chosen[-1].date}, {dollars(sum(one.cents for one in chosen))} in all")
    say("starting the platform on an empty log: real Kafka, a Valkey per context, one process per context")
    with running(options.folder, shop, fresh=True, files={"catalogue": data.CATALOGUE, "receipts": receipts}, announce=say) as here:
        kafka = here.kafka()
        if any(log.ends(kafka, [REQUESTS]).values()):
            raise NotEmpty(
                f"the log at {here.log.kafka} holds orders already: the demo needs an empty one. Unset KAFKA_BOOTSTRAP_SERVERS to get one"
            )
        say(f"gateway: gRPC {here.grpc}, HTTP {here.http}; payment provider: {here.outside['provider']}")
        _limit_cards(here.outside["provider"], limits)
        say(f"loading {len(sold):,} articles and {came:,} goods receipts; {len(limits)} cards get a limit")
        wait_for_rest(kafka, here.health, STOCKED_WITHIN_S)
        say("catalogue and stock are in the log; the doors open")
        progress = asyncio.run(_placed(here, chosen, options, console))
        if progress.first_confirmed_at is not None:
            say(f"first confirmed order {progress.first_confirmed_at - began:.1f} s after the start")
        say("all customers have left; waiting until the log is at rest")
        wait_for_rest(kafka, here.health, RESTS_WITHIN_S)
        _tell_stories(here, progress, console)
        well = _judged(here, chosen, progress, console)
        say("all is well" if well else "something is broken")
        if sys.stdout.isatty() and sys.stdin.isatty():
            _stay(here, options, spare, console)
    return 0 if well else 1


def _judged(here: RunningPlatform, chosen: Sequence[Purchase], progress: Progress, console: Console) -> bool:
    """Print laws and money, and tell whether all of it is well."""
    verdict = check(log.read(here.kafka()), books.read(here.outside["provider"]))
    console.rule("the laws of the shop, over the whole log and the provider's books", align="left")
    console.print(as_text(verdict), markup=False, highlight=False)
    console.rule("the money, against the input file", align="left")
    _tell_money(chosen, verdict, console)
    wrong = _wrong(chosen, progress, verdict)
    for text in wrong:
        console.print(f"WRONG: {text}", markup=False, style="bold red")
    return verdict.holds and not wrong


def _limit_cards(provider: str, limits: dict[str, int]) -> None:
    with httpx.Client(base_url=provider, timeout=10.0, trust_env=False) as client:
        for customer, cents in limits.items():
            client.put(f"/v1/customers/{customer}", json={"limit_minor": cents}).raise_for_status()


async def _placed(here: RunningPlatform, chosen: Sequence[Purchase], options: Options, console: Console) -> Progress:
    progress, done = Progress(len(chosen)), asyncio.Event()
    shown = asyncio.create_task(show(progress, console, done))
    try:
        with closing(Recorder(options.folder / "history.jsonl")) as history:
            await place_all(here.grpc, chosen, progress, options.at_once, ANSWERS_WITHIN_S + 60, history)
    finally:
        done.set()
        await shown
    return progress


def _tell_stories(here: RunningPlatform, progress: Progress, console: Console) -> None:
    decoder, settings = Decoder.of(shop), here.log
    stories = KafkaLog(settings, READER)
    try:
        for what, status in (("confirmed", OrderStatus.ORDER_STATUS_CONFIRMED), ("rejected", OrderStatus.ORDER_STATUS_REJECTED)):
            orders = [order for order in progress.answers.values() if order.status == status]
            if not orders:
                continue
            # The one with the most to tell: bought for money, and not refused at the door.
            declined = OrderRejectionReason.ORDER_REJECTION_REASON_PAYMENT_DECLINED
            order = max(orders, key=lambda order: (order.rejection_reason == declined, bool(order.total.units)))
            console.rule(f"the story of one {what} order", align="left")
            for text in story.lines(story.find(stories, decoder, settings, order.order_id)):
                console.print(text, markup=False, highlight=False)
    finally:
        stories.close()


def _wrong(chosen: Sequence[Purchase], progress: Progress, verdict: Verdict) -> list[str]:
    """What does not add up between the input file, what customers were told, and the log."""
    totals, cents = verdict.totals, {one.ref: one.cents for one in chosen}

    def told(status: OrderStatus.ValueType) -> int:
        return sum(cents[ref] for ref, order in progress.answers.items() if order.status == status)

    compared = [
        ("placed, by the input file and by the log", sum(cents.values()), totals.placed_minor),
        ("confirmed, as customers were told and by the log", told(OrderStatus.ORDER_STATUS_CONFIRMED), totals.confirmed_minor),
        ("rejected, as customers were told and by the log", told(OrderStatus.ORDER_STATUS_REJECTED), totals.rejected_minor),
        ("placed, and its parts", totals.placed_minor, totals.confirmed_minor + totals.rejected_minor + totals.cancelled_minor),
        ("captured and confirmed", totals.captured_minor, totals.confirmed_minor),
        ("captured, by us and by the provider", totals.captured_minor, totals.books_captured_minor),
    ]
    wrong = [f"{what}: {dollars(one)} and {dollars(other)}" for what, one, other in compared if one != other]
    wrong += [f"{ref} has no answer: {why}" for ref, why in progress.defects.items()]
    if totals.placed != len(chosen):
        wrong.append(f"{len(chosen)} orders are in the input file, {totals.placed} in the log")
    return wrong


def _tell_money(chosen: Sequence[Purchase], verdict: Verdict, console: Console) -> None:
    totals = verdict.totals
    rows = [
        (f"input file, {len(chosen):,} orders", sum(one.cents for one in chosen)),
        (f"placed, {totals.placed:,} orders in the log", totals.placed_minor),
        (f"confirmed, {totals.confirmed:,}", totals.confirmed_minor),
        (f"rejected, {sum(totals.rejected.values()):,}", totals.rejected_minor),
        ("captured, by our log", totals.captured_minor),
        ("captured, by the provider's books", totals.books_captured_minor),
    ]
    for what, cents in rows:
        console.print(f"{what:<36}{cents:>14,} cents", markup=False, highlight=False)


def _stay(here: RunningPlatform, options: Options, spare: str, console: Console) -> None:
    victim = here.stack.supervisor.processes["payments"].pid
    inside = f"export BACKBONE_FOLDER={options.folder}"
    console.rule("it stays up; try, in another terminal", align="left")
    for command, what in (
        (inside, "what follows is about this platform"),
        (f"make order SKU={spare} QTY=2", "one more order"),
        (".venv/bin/backbone story --last", "its story"),
        (".venv/bin/backbone status", "who holds and waits for what"),
        (f"kill -9 {victim}", "payments dies, comes back and goes on"),
        (".venv/bin/python -m laws", "the laws again"),
        (f"curl -s {here.health['ordering']}/metrics", "figures"),
    ):
        console.print(f"  {command:<{max(44, len(inside))}}  {what}", markup=False, highlight=False)
    here.stack.until_interrupted("Ctrl-C ends it")


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole platform on a log of its own, with real orders.")
    environment = os.environ
    parser.add_argument("--orders", default=environment.get("ORDERS") or "300", help="how many, or `all` [ORDERS, 300]")
    parser.add_argument(
        "--stock",
        choices=("scarce", "full"),
        default=environment.get("STOCK") or "scarce",
        help="less than is asked for, or enough [STOCK, scarce]",
    )
    parser.add_argument("--at-once", type=int, default=int(environment.get("AT_ONCE") or 24), help="customers at a time [AT_ONCE, 24]")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where its log lies; emptied first ({FOLDER})")
    given = parser.parse_args(arguments)
    if given.orders != "all" and not (given.orders.isdecimal() and int(given.orders)):
        parser.error(f"--orders is {given.orders!r}: a number from 1, or all")
    if given.stock not in ("scarce", "full"):
        parser.error(f"STOCK is {given.stock!r}: scarce or full")
    if not 1 <= given.at_once <= 1000:
        parser.error(f"--at-once is {given.at_once}: a number from 1 to 1000")
    return Options(None if given.orders == "all" else int(given.orders), given.stock == "scarce", given.at_once, given.folder)


if __name__ == "__main__":
    sys.exit(main())

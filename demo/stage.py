"""The whole platform on an empty log of its own, stocked for a few real purchases: ready within seconds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backbone.adapters.kafka import KafkaLog
from backbone.local.platform import RunningPlatform, running
from backbone.operations import story
from backbone.operations.decoding import Decoder
from backbone.ownership import READER
from demo.account import Account
from demo.purchases import CATALOGUE, Purchase, read_prices, write_receipts
from demo.rest import wait_for_rest
from shop import shop

RESTS_WITHIN_S = 120.0
PATIENCE_S = 900
"""How long an order may stay without an answer, in seconds, whatever the caller's environment says."""


@contextmanager
def staged(
    folder: Path, purchases: Sequence[Purchase], stock: Mapping[tuple[str, str], int], account: Account
) -> Iterator[RunningPlatform]:
    """A platform that sells the articles of these purchases.

    Args:
        folder: where its log lies; emptied first.
        stock: how many of each article each pool has, by (zone, sku).
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = {name: folder.parent / f"{folder.name}-{name}.csv" for name in ("catalogue", "receipts")}
    skus = {line.sku for purchase in purchases for line in purchase.lines}
    _write_catalogue(files["catalogue"], {sku: cents for sku, cents in read_prices(CATALOGUE).items() if sku in skus})
    write_receipts(files["receipts"], stock)
    account.say("starting the whole platform on an empty log: real Kafka, a Valkey per context, one process per context")
    environment = {"ANSWER_WITHIN_S": str(PATIENCE_S)}
    with running(folder, shop, fresh=True, environment=environment, files=files, announce=account.say) as here:
        rest(here)
        account.say(f"{len(skus)} articles and {len(stock)} goods receipts are in the log; the doors are open at {here.grpc}")
        yield here


def rest(here: RunningPlatform) -> None:
    """Wait until nothing is under way.

    Raises:
        Restless: something still was, after two minutes.
    """
    wait_for_rest(here.kafka(), here.health, RESTS_WITHIN_S)


def story_of(here: RunningPlatform, order_id: str) -> list[str]:
    """The story of one order, a line for each thing that was said or done."""
    settings = here.log
    log = KafkaLog(settings, READER)
    try:
        told = story.find(log, Decoder.of(shop), settings, order_id)
    finally:
        log.close()
    return [
        f"{step.number:>3}  {story.clock(step.at)}  {story.title(step)}, {f'because of {step.because}' if step.because else 'a beginning'}"
        for step in told.steps
    ]


def _write_catalogue(path: Path, prices: Mapping[str, int]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sku", "title", "unit_price_cents", "sold"))
        writer.writerows((sku, sku, cents, 0) for sku, cents in sorted(prices.items()))

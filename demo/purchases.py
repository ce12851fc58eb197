"""Real purchases, the articles they name, and the stock that can or cannot serve them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from google.type.money_pb2 import Money

DATA = Path(__file__).parent.parent / "data"
ORDERS = DATA / "cdnow-sample-orders.csv"
CATALOGUE = DATA / "cdnow-sample-catalogue.csv"

CURRENCY = "USD"
ZONES = ("zone-1", "zone-2", "zone-3")
"""Delivery zones; the pool of the same name serves each."""

SPARE = 10
"""How many of the spare article each pool gets when stock is scarce: something is left to order afterwards."""
SHORT_OF_TEN = 1
"""Scarce stock: of so many in ten articles per pool, one is missing."""
LIMITED_OF_TWENTY = 1
"""Scarce stock: so many in twenty customers have a card that bears half of what they order."""


@dataclass(frozen=True, slots=True)
class Line:
    """So many of one article, at the price of one in cents."""

    sku: str
    quantity: int
    cents: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """One order of the file.

    Attributes:
        date: ISO 8601; the file knows no time of day.
    """

    ref: str
    customer: str
    date: str
    lines: tuple[Line, ...]

    @property
    def cents(self) -> int:
        """What it costs."""
        return sum(line.quantity * line.cents for line in self.lines)

    @property
    def zone(self) -> str:
        """Where it goes: the same for all orders of a customer, wherever this runs."""
        return zone_of(self.customer)


def zone_of(customer: str) -> str:
    """The delivery zone of a customer."""
    return ZONES[crc32(customer.encode()) % len(ZONES)]


def money(cents: int) -> Money:
    """Cents as contracts write them."""
    return Money(currency_code=CURRENCY, units=cents // 100, nanos=cents % 100 * 10_000_000)


def read_purchases(path: Path = ORDERS) -> list[Purchase]:
    """All purchases, the oldest first."""
    found: dict[str, tuple[str, str, list[Line]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            _, _, lines = found.setdefault(row["order_ref"], (row["customer_ref"], row["date"], []))
            lines.append(Line(row["sku"], int(row["quantity"]), int(row["unit_price_cents"])))
    purchases = [Purchase(ref, customer, date, tuple(lines)) for ref, (customer, date, lines) in found.items()]
    return sorted(purchases, key=lambda purchase: (purchase.date, purchase.ref))


def read_prices(path: Path = CATALOGUE) -> dict[str, int]:
    """The price of every article in cents."""
    with path.open(newline="") as file:
        return {row["sku"]: int(row["unit_price_cents"]) for row in csv.DictReader(file)}


def read_sold(path: Path = CATALOGUE) -> dict[str, int]:
    """How many of every article were sold in all the time."""
    with path.open(newline="") as file:
        return {row["sku"]: int(row["sold"]) for row in csv.DictReader(file)}


def ample_stock(sold: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """In each pool as many as were ever sold: enough for every order."""
    return {(zone, sku): quantity for zone in ZONES for sku, quantity in sold.items() if quantity}


def scarce_stock(purchases: Iterable[Purchase], spare: str = "") -> dict[tuple[str, str], int]:
    """In each pool what is going to be asked for, less one of some articles: the same ones every time; and some of a spare one."""
    wanted: Counter[tuple[str, str]] = Counter()
    for purchase in purchases:
        for line in purchase.lines:
            wanted[purchase.zone, line.sku] += line.quantity
    scarce = {of: quantity - (crc32("/".join(of).encode()) % 10 < SHORT_OF_TEN) for of, quantity in sorted(wanted.items())}
    return ({(zone, spare): SPARE for zone in ZONES} if spare else {}) | scarce


def spare_article(purchases: Iterable[Purchase], sold: Mapping[str, int]) -> str:
    """The best-selling article that none of these purchases asks for; of all, if they ask for every one."""
    wanted = {line.sku for purchase in purchases for line in purchase.lines}
    return max(sold, key=lambda sku: (sku not in wanted, sold[sku], sku))


def write_receipts(path: Path, stock: Mapping[tuple[str, str], int]) -> int:
    """Write opening stock as goods receipts and give their number; of what there is none of, none came."""
    rows = [(f"opening/{zone}/{sku}", zone, sku, quantity) for (zone, sku), quantity in stock.items() if quantity]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("receipt_id", "pool_id", "sku", "quantity"))
        writer.writerows(rows)
    return len(rows)


def card_limits(purchases: Sequence[Purchase]) -> dict[str, int]:
    """Limits in cents of the cards of some customers, the same ones every time: half of what they are going to order."""
    spent: Counter[str] = Counter()
    for purchase in purchases:
        spent[purchase.customer] += purchase.cents
    return {customer: cents // 2 for customer, cents in sorted(spent.items()) if crc32(customer.encode()) % 20 < LIMITED_OF_TWENTY}

"""The catalogue file: a CSV file `sku,title,unit_price_cents,sold` that grows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from google.protobuf.message import Message
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone.declare import Unreadable
from backbone.money import money_of
from backbone.settings import Settings
from backbone.sources import CsvTail, Line, csv_tail

CURRENCY = "USD"


def connect(settings: Settings) -> AbstractAsyncContextManager[CsvTail]:
    """The file that OUTSIDE_CATALOGUE names."""
    return csv_tail(settings.require("catalogue"), ("sku", "title", "unit_price_cents"))


async def read(file: CsvTail, cursor: str) -> Sequence[tuple[str, Message | Unreadable]]:
    """The next items."""
    return await file.read(cursor, catalogued)


def catalogued(line: Line) -> ItemCatalogued:
    """The event of a line.

    Raises:
        ValueError: the price is no whole number of cents, or negative.
    """
    cents = int(line["unit_price_cents"])
    if cents < 0:
        raise ValueError(f"unit_price_cents is {cents}; nothing costs less than nothing")
    return ItemCatalogued(sku=line["sku"], title=line["title"], list_price=money_of(cents, CURRENCY))

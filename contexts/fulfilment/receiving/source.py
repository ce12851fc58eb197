"""The goods-receipt file: a CSV file `receipt_id,pool_id,sku,quantity` that grows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from google.protobuf.message import Message
from retail.fulfilment.v1.receipt_pb2 import GoodsReceived

from backbone.declare import Unreadable
from backbone.settings import Settings
from backbone.sources import CsvTail, Line, csv_tail


def connect(settings: Settings) -> AbstractAsyncContextManager[CsvTail]:
    """The file that OUTSIDE_RECEIPTS names."""
    return csv_tail(settings.require("receipts"), ("receipt_id", "pool_id", "sku", "quantity"))


async def read(file: CsvTail, cursor: str) -> Sequence[tuple[str, Message | Unreadable]]:
    """The next receipts."""
    return await file.read(cursor, received)


def received(line: Line) -> GoodsReceived:
    """The event of a line.

    Raises:
        ValueError: the quantity is no whole number.
    """
    return GoodsReceived(receipt_id=line["receipt_id"], pool_id=line["pool_id"], sku=line["sku"], quantity=int(line["quantity"]))

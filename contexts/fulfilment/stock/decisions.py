"""What stock says to what it hears. An order is held whole or not at all, once, and never again after it was refused or released."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from retail.fulfilment.v1.receipt_pb2 import GoodsReceived
from retail.fulfilment.v1.stock_pb2 import (
    ItemsReserved,
    ReservationRefused,
    ReservationReleased,
    StockLevelChanged,
    StockLine,
    StockReceived,
)
from retail.ordering.v1.order_pb2 import OrderCancelled, OrderRejected, OrderValidated

from contexts.fulfilment.stock.state import Event, Pool, evolve


def receive(pool: Pool, goods: GoodsReceived) -> Iterator[Event]:
    """Count what came in, once per receipt."""
    if goods.receipt_id in pool.receipts:
        return
    said = StockReceived(pool_id=goods.pool_id, sku=goods.sku, quantity=goods.quantity, receipt_id=goods.receipt_id)
    yield said
    yield from levels_of(evolve(pool, said), said.pool_id, [said.sku])


def reserve(pool: Pool, order: OrderValidated) -> Iterator[Event]:
    """Hold every line of an order, or refuse it."""
    if order.order_id in pool.held or order.order_id in pool.closed:
        return
    wanted = quantities(order)
    if short := missing(pool, wanted):
        yield ReservationRefused(pool_id=order.delivery_zone, order_id=order.order_id, short=short)
        return
    said = ItemsReserved(
        pool_id=order.delivery_zone,
        order_id=order.order_id,
        lines=[StockLine(sku=sku, quantity=quantity) for sku, quantity in wanted.items()],
    )
    yield said
    yield from levels_of(evolve(pool, said), said.pool_id, wanted)


def release(pool: Pool, order: OrderRejected | OrderCancelled) -> Iterator[Event]:
    """Free what is held for an order that ended."""
    reservation = pool.held.get(order.order_id)
    if reservation is None:
        return
    said = ReservationReleased(
        pool_id=order.delivery_zone,
        order_id=order.order_id,
        lines=[StockLine(sku=sku, quantity=quantity) for sku, quantity in reservation],
    )
    yield said
    yield from levels_of(evolve(pool, said), said.pool_id, [sku for sku, _ in reservation])


def quantities(order: OrderValidated) -> dict[str, int]:
    """How many of each SKU an order wants in all its lines."""
    wanted: dict[str, int] = {}
    for line in order.lines:
        wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
    return wanted


def missing(pool: Pool, wanted: dict[str, int]) -> list[StockLine]:
    """What the pool cannot serve, and how many of it are missing."""
    return [
        StockLine(sku=sku, quantity=quantity - pool.level(sku).available)
        for sku, quantity in wanted.items()
        if pool.level(sku).available < quantity
    ]


def levels_of(pool: Pool, pool_id: str, skus: Iterable[str]) -> Iterator[Event]:
    """Where some SKUs stand now."""
    for sku in skus:
        level = pool.level(sku)
        yield StockLevelChanged(pool_id=pool_id, sku=sku, on_hand=level.on_hand, reserved=level.reserved)

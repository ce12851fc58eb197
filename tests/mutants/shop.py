"""Mistakes in what the shop decides, shows and does outside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from retail.fulfilment.v1.stock_pb2 import ItemsReserved, StockLine, StockReceived
from retail.ordering.v1.order_pb2 import REJECTION_REASON_PAYMENT_DECLINED, OrderCancelled, OrderConfirmed, OrderRejected

from contexts.fulfilment.stock import decisions as stock
from contexts.fulfilment.stock.state import evolve
from contexts.ordering.orders import decisions as orders
from contexts.ordering.orders import view
from contexts.ordering.orders.state import Status as Standing
from contexts.payments.payments import decisions as payments
from contexts.payments.payments import effects
from contexts.payments.payments.state import Status as Paying
from gateway import view as door
from tests.mutants.lines import decided_by, folded_by, lines_decided_by
from tests.mutants.planting import Mutant, Patches


def _new_keys() -> Patches:
    async def ask(provider: Any, path: str, asked: dict[str, object], key: str) -> Any:
        return await right(provider, path, asked, f"{key}/{next(numbers)}")

    right, numbers = effects._ask, itertools.count()
    return [(effects, "_ask", ask)]


def _every_receipt() -> Patches:
    def receive(pool: Any, goods: Any) -> Iterator[Any]:
        said = StockReceived(pool_id=goods.pool_id, sku=goods.sku, quantity=goods.quantity, receipt_id=goods.receipt_id)
        yield said
        yield from stock.levels_of(evolve(pool, said), said.pool_id, [said.sku])

    return [(decided_by(stock.receive), "function", receive)]


def _unchecked_stock() -> Patches:
    return [(stock, "missing", lambda pool, wanted: [])]


def _two_answers() -> Patches:
    def cancel(order: Any, request: Any) -> Iterator[Any]:
        if order.customer_id == request.customer_id:
            yield OrderCancelled(
                order_id=request.order_id, customer_id=request.customer_id, delivery_zone="north", fingerprint=order.fingerprint or "f"
            )
        else:
            yield from orders.cancel(order, request)

    return [(decided_by(orders.cancel), "function", cancel)]


def _confirmed_unpaid() -> Patches:
    def reserved(order: Any, held: Any) -> Iterator[Any]:
        yield from orders.reserved(replace(order, paid=True), held)

    return [(decided_by(orders.reserved), "function", reserved)]


def _partly_reserved() -> Patches:
    def reserve(pool: Any, order: Any) -> Iterator[Any]:
        wanted = {sku: min(quantity, pool.level(sku).available) for sku, quantity in stock.quantities(order).items()}
        lines = [StockLine(sku=sku, quantity=quantity) for sku, quantity in wanted.items() if quantity]
        if order.order_id in pool.held or order.order_id in pool.closed or not lines:
            yield from stock.reserve(pool, order)
            return
        said = ItemsReserved(pool_id=order.delivery_zone, order_id=order.order_id, lines=lines)
        yield said
        yield from stock.levels_of(evolve(pool, said), said.pool_id, [line.sku for line in lines])

    return [(decided_by(stock.reserve), "function", reserve)]


def _stock_of_before() -> Patches:
    """What a pool holds is looked at once and believed for a while: check, then act."""

    def missing(pool: Any, wanted: dict[str, int]) -> list[StockLine]:
        for sku in wanted:
            times, available = looked.get(sku, (0, 0))
            if times % 4 == 0:
                available = pool.level(sku).available
            looked[sku] = (times + 1, available)
        return [StockLine(sku=sku, quantity=1) for sku, quantity in wanted.items() if looked[sku][1] < quantity]

    looked: dict[str, tuple[int, int]] = {}
    return [(stock, "missing", missing)]


def _never_released() -> Patches:
    return [(line, "function", lambda pool, order: iter(())) for line in lines_decided_by(stock.release)]


def _no_refund() -> Patches:
    def abandon(payment: Any, order: Any, now: Any) -> Iterator[Any]:
        if payment.status is not Paying.AUTHORIZED:
            yield from payments.abandon(payment, order, now)

    return [(line, "function", abandon) for line in lines_decided_by(payments.abandon)]


def _captured_at_once() -> Patches:
    def authorized(payment: Any, outcome: Any, now: Any) -> Iterator[Any]:
        yield from payments.authorized(payment, outcome, now)
        if payment.status is Paying.ASSESSED:
            yield payments.take(payment, outcome.order_id, now)

    return [(decided_by(payments.authorized), "function", authorized)]


def _fold_forgets() -> Patches:
    def level_changed(rows: Any, level: Any) -> None:
        rows[level.sku].available[level.pool_id] = level.on_hand

    return [(folded_by(view.level_changed), "function", level_changed)]


def _own_time() -> Patches:
    """A view says when the order was answered by another clock than the log's."""

    def confirmed(rows: Any, event: Any, at: Any) -> None:
        door.confirmed(rows, event, at.replace(microsecond=0))

    return [(folded_by(door.confirmed), "function", confirmed)]


def _last_word() -> Patches:
    """A late refusal of the money rejects an order that is confirmed."""

    def declined(order: Any, refusal: Any) -> Iterator[Any]:
        if order.status is not Standing.NEW:
            yield OrderRejected(
                order_id=refusal.order_id,
                customer_id=order.customer_id,
                delivery_zone=order.delivery_zone or "north",
                reason=REJECTION_REASON_PAYMENT_DECLINED,
                fingerprint=order.fingerprint or "f",
            )

    return [(decided_by(orders.declined), "function", declined)]


def _other_lines() -> Patches:
    def confirmed(order: Any) -> OrderConfirmed:
        said = right(order)
        if said.lines[0].quantity > 1:
            said.lines[0].quantity -= 1
        return said

    right = orders.confirmed
    return [(orders, "confirmed", confirmed)]


OF_SHOP: Mapping[str, Mutant] = {
    "two answers": Mutant("an order is cancelled although it has its answer", _two_answers, ("prefix", "law: one answer")),
    "last word": Mutant(
        "an order that was answered is rejected by a late refusal of the money", _last_word, ("prefix", "law: one answer"), first=3
    ),
    "confirmed unpaid": Mutant("an order is confirmed before it is paid", _confirmed_unpaid, ("prefix",)),
    "partly reserved": Mutant("what is there is held, instead of all lines or none", _partly_reserved, ("prefix",)),
    "every receipt": Mutant("a receipt that came twice is put away twice", _every_receipt, ("law: receipts",)),
    "unchecked stock": Mutant("stock is promised without looking", _unchecked_stock, ("defect", "law: stock")),
    "check, then act": Mutant(
        "stock is promised by what was looked at some orders ago", _stock_of_before, ("defect", "law: stock"), first=5
    ),
    "never released": Mutant("what was held for a refused order stays held", _never_released, ("law: given back",)),
    "no refund": Mutant("what was authorised for a refused order stays authorised", _no_refund, ("law: given back",), first=3),
    "captured at once": Mutant("money is captured before the order is confirmed", _captured_at_once, ("prefix",)),
    "new keys": Mutant("each try has an idempotency key of its own", _new_keys, ("law: provider",)),
    "fold forgets": Mutant("a view forgets what is held", _fold_forgets, ("view",)),
    "own time": Mutant("a view rounds the times of the log", _own_time, ("view",)),
    "other lines": Mutant("an order is confirmed with other lines than were asked for", _other_lines, ("law: as requested",)),
}
"""Every one, by name."""

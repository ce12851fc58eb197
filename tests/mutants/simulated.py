"""More mistakes for the simulation: in the shop's decisions and views, and in what the runtime writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from retail.fulfilment.v1.stock_pb2 import ItemsReserved, StockLine
from retail.ordering.v1.order_pb2 import REJECTION_REASON_PAYMENT_DECLINED, OrderCancelled, OrderConfirmed, OrderRejected

from backbone import envelope
from backbone.adapters.memory import _MemoryMember
from backbone.errors import Unconfirmed
from backbone.loops import decide
from backbone.loops.decide import Decide
from backbone.loops.take_in import BoundIntake
from backbone.ports import Place, Record
from backbone.testing.simulated.ports import GatedConsumer, GatedProducer
from backbone.v1.private_pb2 import StateEntry
from contexts.fulfilment.stock import decisions as stock
from contexts.fulfilment.stock.state import evolve
from contexts.ordering.orders import decisions as orders
from contexts.ordering.orders import view
from contexts.ordering.orders.state import Status as Standing
from contexts.payments.payments import decisions as payments
from contexts.payments.payments.state import Status as Paying
from gateway import view as door
from tests.simulation.mutants import Mutant, _line
from tests.simulation.shop import services

Patches = Sequence[tuple[Any, str, Any]]


def _two_answers() -> Patches:
    def cancel(order: Any, request: Any) -> Iterator[Any]:
        if order.customer_id == request.customer_id:
            yield OrderCancelled(
                order_id=request.order_id, customer_id=request.customer_id, delivery_zone="north", fingerprint=order.fingerprint or "f"
            )
        else:
            yield from orders.cancel(order, request)

    return [(_line(orders.cancel), "function", cancel)]


def _confirmed_unpaid() -> Patches:
    def reserved(order: Any, held: Any) -> Iterator[Any]:
        yield from orders.reserved(replace(order, paid=True), held)

    return [(_line(orders.reserved), "function", reserved)]


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

    return [(_line(stock.reserve), "function", reserve)]


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
    return [
        (line, "function", lambda pool, order: iter(()))
        for service in services()
        if service.decider is not None
        for line in {id(one.line): one.line for one in service.decider.reactions}.values()
        if line.function is stock.release
    ]


def _no_refund() -> Patches:
    def abandon(payment: Any, order: Any, now: Any) -> Iterator[Any]:
        if payment.status is not Paying.AUTHORIZED:
            yield from payments.abandon(payment, order, now)

    return [
        (line, "function", abandon)
        for service in services()
        if service.decider is not None
        for line in {id(one.line): one.line for one in service.decider.reactions}.values()
        if line.function is payments.abandon
    ]


def _captured_at_once() -> Patches:
    def authorized(payment: Any, outcome: Any, now: Any) -> Iterator[Any]:
        yield from payments.authorized(payment, outcome, now)
        if payment.status is Paying.ASSESSED:
            yield payments.take(payment, outcome.order_id, now)

    return [(_line(payments.authorized), "function", authorized)]


def _dropped(topic: str, lands: Callable[[bytes | None, bytes | None], bool], share: float = 0.1) -> Callable[[], Patches]:
    """Some records of a topic never get there."""

    def plant() -> Patches:
        def produce(self: GatedProducer, name: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
            if not (name.endswith(topic) and lands(key, value) and lot.random() < share):
                right(self, name, key, value, partition)

        right, lot = GatedProducer.produce, Random(1)
        return [(GatedProducer, "produce", produce)]

    return plant


def _is_state(key: bytes | None, value: bytes | None) -> bool:
    return value is not None and StateEntry.FromString(value).WhichOneof("entry") == "aggregate"


def _nothing_observed() -> Patches:
    def because_of(**of: Any) -> envelope.Said:
        return right(**{**of, "observed": ()})

    right = envelope.because_of
    return [(decide, "because_of", because_of)]


def _short_memory() -> Patches:
    def because_of(**of: Any) -> envelope.Said:
        meta = type(of["meta"])()
        meta.CopyFrom(of["meta"])
        del meta.after[:]
        return right(**{**of, "meta": meta})

    right = envelope.because_of
    return [(decide, "because_of", because_of)]


def _skips() -> Patches:
    def may_decide(self: Decide, record: Record) -> bool:
        return right(self, record) and lot.random() > 0.03

    right, lot = Decide._may_decide, Random(1)
    return [(Decide, "_may_decide", may_decide)]


def _poison_dropped() -> Patches:
    """A decision that raises loses its record, and nobody hears of it."""

    def cancel(order: Any, request: Any) -> Iterator[Any]:
        if order.reserved:
            raise ValueError("planted")
        yield from orders.cancel(order, request)

    return [(_line(orders.cancel), "function", cancel), (Decide, "_park", lambda self, partition, came, staged, error: None)]


def _taken_on_trust() -> Patches:
    async def raise_(self: BoundIntake, event: Any, **of: Any) -> Mapping[Place, int]:
        try:
            return await right(self, event, **of)
        except Unconfirmed:
            return {("retail.gateway.order-requests.v1", 0): 1}

    right = BoundIntake.__call__
    return [(BoundIntake, "__call__", raise_)]


def _uniform() -> Patches:
    """Partitions of all inputs are dealt out evenly, whatever their numbers, and workers take what they get."""

    def share(self: _MemoryMember, members: Sequence[str]) -> list[Place]:
        places = [(topic, number) for topic in sorted(self._topics) for number in range(self._log.partitions(topic))]
        at = members.index(self._member.instance)
        return places[len(places) * at // len(members) : len(places) * (at + 1) // len(members)]

    def assigned(self: Decide, places: Sequence[Place]) -> Mapping[Place, int]:
        numbers = sorted({number for _, number in places})
        starts = right(self, [(topic, number) for topic in self._inputs for number in numbers])
        return {place: starts[place] for place in places}

    def seek(self: GatedConsumer, place: Place, offset: int) -> None:
        if place in self.real.positions():
            past(self, place, offset)

    right, past = Decide._assigned, GatedConsumer.seek
    return [(_MemoryMember, "_share", share), (Decide, "_assigned", assigned), (GatedConsumer, "seek", seek)]


def _fold_forgets() -> Patches:
    def level_changed(rows: Any, level: Any) -> None:
        rows[level.sku].available[level.pool_id] = level.on_hand

    return [(_view_line(view.level_changed), "function", level_changed)]


def _own_time() -> Patches:
    """A view says when the order was answered by another clock than the log's."""

    def confirmed(rows: Any, event: Any, at: Any) -> None:
        door.confirmed(rows, event, at.replace(microsecond=0))

    return [(_view_line(door.confirmed), "function", confirmed)]


def _view_line(function: Any) -> Any:
    return next(one.line for service in services() for shown in service.views for one in shown.reactions if one.line.function is function)


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

    return [(_line(orders.declined), "function", declined)]


def _other_price() -> Patches:
    def confirmed(order: Any) -> OrderConfirmed:
        said = right(order)
        if said.lines[0].quantity > 1:
            said.lines[0].quantity -= 1
        return said

    right = orders.confirmed
    return [(orders, "confirmed", confirmed)]


SIMULATED: Mapping[str, Mutant] = {
    "two answers": Mutant("an order is cancelled although it has its answer", _two_answers),
    "last word": Mutant("an order that was answered is rejected by a late refusal of the money", _last_word, first=3),
    "confirmed unpaid": Mutant("an order is confirmed before it is paid", _confirmed_unpaid),
    "partly reserved": Mutant("what is there is held, instead of all lines or none", _partly_reserved),
    "check, then act": Mutant("stock is promised by what was looked at some orders ago", _stock_of_before, first=5),
    "never released": Mutant("what was held for a refused order stays held", _never_released),
    "no refund": Mutant("what was authorised for a refused order stays authorised", _no_refund, first=3),
    "captured at once": Mutant("money is captured before the order is confirmed", _captured_at_once),
    "copy torn off": Mutant(
        "a copy is not written in the transaction of its event", _dropped("orders-by-zone.v1", lambda key, value: True)
    ),
    "state torn off": Mutant("a state is not written in the transaction of its events", _dropped(".state", _is_state, 0.3)),
    "nothing observed": Mutant("a refusal does not say what was looked up", _nothing_observed),
    "short memory": Mutant("an event does not say what its cause came after", _short_memory),
    "skips": Mutant("a record is passed over", _skips),
    "poison dropped": Mutant("a record whose decision raises is dropped, not set aside", _poison_dropped, first=2),
    "taken on trust": Mutant("a wish is acknowledged that nobody knows to be in the log", _taken_on_trust, first=6),
    "uniform": Mutant("partitions are dealt out evenly, whatever their number, and workers take what they get", _uniform, first=8),
    "fold forgets": Mutant("a view forgets what is held", _fold_forgets),
    "own time": Mutant("a view rounds the times of the log", _own_time),
    "other lines": Mutant("an order is confirmed with other lines than were asked for", _other_price),
}
"""Every mistake, by name."""

"""A simulated shop as the checker sees one: what lies in its log and rows, and nothing of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backbone.adapters.memory import _Fate
from backbone.ports import Fragment
from laws.entries import Place
from laws.history import OK, Call
from tests.checker.check import judge
from tests.checker.world import Finding, Lain, Sample, World
from tests.simulation.shop import PARTITIONS, Shop, services


def findings(shop: Shop) -> tuple[Finding, ...]:
    """What the checker finds in a shop at rest."""
    return judge(world_of(shop)).findings


def world_of(shop: Shop) -> World:
    """Everything of it."""
    log = shop.simulation.log
    return World(
        records=tuple(_lain(shop)),
        topic_ids={name: identity for name, (identity, _) in log.topics().items()},
        books=tuple(shop.provider.ledger.entries),
        calls=tuple(_calls(shop)),
        samples=tuple(_samples(shop)),
        receipts={event.receipt_id: (event.pool_id, event.sku, event.quantity) for _, event in _receipts(shop)},
    )


def _lain(shop: Shop) -> Iterator[Lain]:
    log = shop.simulation.log
    for topic in sorted(log.topics()):
        for record in log.history(topic):
            yield Lain(Place(topic, record.partition, record.offset), record.key, record.value, record.timestamp_ms)
        for partition in range(PARTITIONS):
            for entry in log.entries((topic, partition)):
                if (lost := entry.record) is not None and entry.transaction is not None and entry.transaction.fate is _Fate.ABORTED:
                    yield Lain(Place(topic, partition, lost.offset), lost.key, lost.value, lost.timestamp_ms, committed=False)


def _calls(shop: Shop) -> Iterator[Call]:
    """Customers of the simulated door are only told that their wish was taken, and where it lies."""
    for number, (wish, position) in enumerate(shop.told):
        event = wish.event
        op = "place" if event.DESCRIPTOR.name == "OrderRequested" else "cancel"
        payload = getattr(event, "fingerprint", "")
        call = Call(number, op, event.customer_id, key=wish.request_id, payload=payload, order_id=event.order_id, outcome=OK)
        call.position = [(topic, partition, offset) for (topic, partition), offset in position.items()]
        yield call


def _receipts(shop: Shop) -> Sequence[tuple[float, Any]]:
    return shop.receipts.lines


def _samples(shop: Shop) -> Iterator[Sample]:
    for service in services():
        for view in service.views:
            for partition in range(PARTITIONS):
                held = shop.simulation.rows[service.context].lies(Fragment(view.name, view.view.version, partition))
                scores = {group: dict(of) for (_, group), of in held.indexes.items()}
                yield Sample(view.name, view.view.version, partition, held.watermark, dict(held.rows), scores)

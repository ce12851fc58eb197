"""What the tests of the decide loop share: a log in memory with a service's topics, and words to write and read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.order_pb2 import OrderValidated
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price

from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import ResolvedService, resolve, topics_holding
from backbone.declare import Context, Decider, Service
from backbone.envelope import Decoded, decode, encode, root_meta
from backbone.loops.decide import Decide
from backbone.partitioner import partition_of
from backbone.ports import Change, Fragment, Log, Record, Rows
from backbone.settings import Settings
from backbone.topology import topology
from backbone.v1.private_pb2 import Quarantined
from contexts.ordering.orders import service as orders_table
from contexts.ordering.pricing.service import pricing
from tests import examples

PARTITIONS = 4
WITHIN_S = 20.0
CATALOGUE, PRICES = "retail.ordering.catalogue.v1", "retail.ordering.prices.v1"
ORDERS = "retail.ordering.orders.v1"
DAY_S = 86_400


@dataclass
class World:
    """A log with the topics of one service, and rows for its look-ups."""

    context: Context
    service: Service
    log: MemoryLog = field(default_factory=MemoryLog)
    rows: MemoryRows = field(default_factory=MemoryRows)
    requests: int = 0

    def __post_init__(self) -> None:
        wanted = topology(self.context)
        heard = {topic for group in wanted.groups for topic in group.topics}
        for name in sorted({topic.name for topic in wanted.topics} | heard):
            self.log.create_topic(name, PARTITIONS)

    @property
    def resolved(self) -> ResolvedService:
        """The service, resolved."""
        return resolve(self.context, self.service)

    def declares(self, service: Service) -> None:
        """Let the next worker run another build of the service."""
        self.context, self.service = Context(self.context.name, service), service

    def worker(self, log: Log | None = None, rows: Rows | None = None, clock: Callable[[], float] = time.time, **settings: str) -> Decide:
        """A worker of the service, as one process would run it."""
        read = Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS), "BACKBONE_TRANSACTION_TIMEOUT_S": "2", **settings})
        return Decide(self.resolved, log or self.log, rows or self.rows, read, clock)

    def comes(self, event: Message, topic_name: str = "", correlation_id: str = "conversation") -> Record:
        """Append an event to one of its topics, the primary if not named; the record as readers get it."""
        topic = next(topic for topic in topics_holding(type(event)) if topic_name in ("", topic.name))
        self.requests += 1
        meta = root_meta(
            writer=topic.writer,
            build="other",
            request_id=f"request-{self.requests}",
            correlation_id=correlation_id,
            occurred_at_ms=1_000,
        )
        value = encode(topic.number(type(event)) or 0, event.SerializeToString(), meta.SerializeToString())
        return self.raw(topic.name, getattr(event, topic.key).encode(), value)

    def raw(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> Record:
        """Append any bytes."""
        producer = self.log.producer("test")
        producer.begin()
        producer.produce(topic, key, value, partition)
        producer.commit()
        return next(record for record in reversed(self.records(topic)) if record.key == key and record.value == value)

    def records(self, topic: str) -> list[Record]:
        """Every committed record of a topic."""
        places = [(topic, partition) for partition in range(PARTITIONS)]
        ends = self.log.high_watermarks(places)
        return [record for place in places for record in self.log.read(place, 0, ends[place])]

    def said(self, topic_name: str, of: type[Message]) -> list[Decoded]:
        """Everything a topic holds, decoded."""
        topic = next(topic for topic in topics_holding(of) if topic.name == topic_name)
        return [decode(topic, record) for record in self.records(topic_name)]

    def quarantined(self) -> list[Quarantined]:
        """Everything the service set aside."""
        topic = self.resolved.private("quarantine")
        return [Quarantined.FromString(record.value or b"") for record in self.records(topic)]

    def shows(self, view: Any, partition: int, until: int, rows: dict[str, Message]) -> None:
        """Write rows and a watermark into a view, as its projector would."""
        fragment = Fragment(self.resolved.view_of(view).name, view.version, partition)
        since = self.rows.fetch([(fragment, ())])[0].watermark or 0
        raw = {key: row.SerializeToString() for key, row in rows.items()}
        assert self.rows.apply(fragment, Change(since, until, dict(raw))) is None

    def shows_to_the_end(self, view: Any, rows: dict[str, Message]) -> None:
        """Let a view be read to the end of its topic in every partition; each row lies where its key belongs."""
        topic = self.resolved.view_of(view).topic.name
        for partition in range(PARTITIONS):
            end = self.log.high_watermarks([(topic, partition)])[topic, partition]
            own = {key: row for key, row in rows.items() if partition_of(key.encode(), PARTITIONS) == partition}
            self.shows(view, partition, end, own)


def steps(worker: Decide, until: Callable[[], bool], what: str = "") -> None:
    """Let a worker work until something holds; fail with what it stands for when it does not come about."""
    deadline = time.monotonic() + WITHIN_S
    while not until():
        assert time.monotonic() < deadline, f"after {WITHIN_S} s: not {what or until}; {worker.status()}"
        worker.step(0.01)


def idle(worker: Decide, turns: int = 5) -> None:
    """Let a worker work on what is there."""
    for _ in range(turns):
        worker.step(0.01)


def sequences(decoded: Sequence[Decoded]) -> list[int]:
    """The sequence of each event."""
    return [one.meta.sequence for one in decoded]


@dataclass(frozen=True)
class Count:
    """A state that counts what was said."""

    said: int = 0


def counted(count: Count, event: PriceListed) -> Count:
    """One more."""
    return replace(count, said=count.said + 1)


def always(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
    """Say a price whatever is held; refuse what is called bad."""
    if item.title == "bad":
        raise ZeroDivisionError("one cannot share among none")
    yield PriceListed(sku=item.sku, unit_price=item.list_price)


def pricing_world(decider: Decider[Count, PriceListed] | None = None) -> World:
    """The pricing service, or another one in its place."""
    service = Service("pricing", decider) if decider else pricing
    return World(Context("ordering", service), service)


def prices(world: World) -> list[PriceListed]:
    """Every price said."""
    return [decoded.event for decoded in world.said(PRICES, PriceListed)]


def counted_by(step: int) -> Callable[[Count, PriceListed], Count]:
    """Another fold of the same events: it counts in steps."""

    def evolve(count: Count, event: PriceListed) -> Count:
        return Count(count.said + step)

    return evolve


def orders_world(log_clock: Callable[[], float] = time.time) -> World:
    """The orders service, and a log with a clock in seconds since the epoch."""
    log = MemoryLog(now_ms=lambda: int(log_clock() * 1000))
    return World(Context("ordering", orders_table.orders), orders_table.orders, log)


def known(world: World, show: bool = True) -> None:
    """Let everything that is ordered in the examples be said, and shown by both views of orders."""
    for sku, _, cents in examples.LINES:
        world.comes(examples.stock_level_changed(sku=sku), "retail.fulfilment.stock-by-sku.v1")
        world.comes(examples.price_listed(sku=sku, unit_price=examples.usd(cents)))
    if show:
        shown(world)


def shown(world: World) -> None:
    """Let both views of orders be read to the end."""
    world.shows_to_the_end(orders_table.availability, {sku: _available(sku) for sku, _, _ in examples.LINES})
    world.shows_to_the_end(orders_table.prices, {sku: Price(sku=sku, unit_price=examples.usd(cents)) for sku, _, cents in examples.LINES})


def _available(sku: str) -> Availability:
    row = Availability(sku=sku)
    row.available[examples.ZONE] = 10
    return row


def answers(world: World, of: type[Message]) -> list[Message]:
    """The events of one class in the orders topic."""
    return [decoded.event for decoded in world.said(ORDERS, OrderValidated) if isinstance(decoded.event, of)]


def request(world: World, order_id: str = examples.ORDER, lines: examples.Lines = examples.LINES) -> Record:
    """A customer asks, and will wait for a day."""
    expires_at = datetime.now(UTC) + timedelta(seconds=DAY_S)
    return world.comes(examples.order_requested(order_id=order_id, lines=lines, expires_at=expires_at), correlation_id=order_id)

"""The decide loop against the loop an expert writes by hand: same job, same records, same guarantee, same batches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from google.type.money_pb2 import Money
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.price_pb2 import PriceEvent

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import COMPACTED, KafkaAdmin, TopicSpec
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import primary_of, resolve
from backbone.declare import Context
from backbone.envelope import encode, root_meta
from backbone.local.kafka import Kafka
from backbone.loops.decide import Decide
from backbone.operations import topics
from backbone.ownership import BROKER
from backbone.settings import Settings
from benchmarks.expert import IN, Expert
from benchmarks.side_by_side import Bench, side_by_side
from contexts.ordering.pricing.service import pricing

RECORDS = 20_000
SKUS = 2_000
PARTITIONS = 4
ROUNDS = 5
OURS, THEIRS = "retail.ordering.prices.v1", "bench.prices"
LONGEST_S = 120.0


def run() -> list[Bench]:
    """Measure at batches of 500 and 2000 records; the outputs of both sides are compared record by record."""
    return [_measured(batch) for batch in (500, 2000)]


def _measured(batch: int) -> Bench:
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder)) as kafka:
        settings = Settings.read({**kafka.variables, "BACKBONE_PARTITIONS": str(PARTITIONS), "BACKBONE_BATCH": str(batch)})
        context = Context("ordering", pricing)
        topics.apply(context, settings)
        KafkaAdmin(settings).create_topics(
            [TopicSpec(IN, PARTITIONS), TopicSpec(THEIRS, PARTITIONS), TopicSpec("bench.state", PARTITIONS, dict(COMPACTED))]
        )
        log = KafkaLog(settings, BROKER)
        loop = Decide(resolve(context, pricing), log, MemoryRows(), settings)
        expert = Expert(kafka.credentials(), out=THEIRS, state="bench.state", topic_id=log.topics()[IN][0], batch=batch)
        expected = 0

        def prepare() -> None:
            nonlocal expected
            _append(log, expected)
            expected += RECORDS

        def ours() -> float:
            return _rate(lambda: loop.decided >= expected, lambda: loop.step(1.0))

        def theirs() -> float:
            return _rate(lambda: expert.decided >= expected, lambda: expert.step(1.0))

        try:
            name = f"decide loop / hand-written loop, batches of {batch}"
            bench = side_by_side(name, ours, theirs, prepare=prepare, rounds=ROUNDS, unit="records")
            _compare(log, expected)
            return bench
        finally:
            loop.close()
            expert.close()
            log.close()


def _append(log: KafkaLog, start: int) -> None:
    """Append a round's catalogue items: each SKU again and again, at another price each time."""
    topic = primary_of(ItemCatalogued)
    producer = log.producer("bench.catalogue")
    producer.begin()
    for number in range(start, start + RECORDS):
        sku = f"SKU-{number % SKUS:06d}"
        item = ItemCatalogued(sku=sku, title="A bench", list_price=Money(currency_code="USD", units=1 + number // SKUS))
        meta = root_meta(writer=topic.writer, build="bench", request_id=str(number), correlation_id=sku, occurred_at_ms=0)
        producer.produce(topic.name, sku.encode(), encode(1, item.SerializeToString(), meta.SerializeToString()))
    producer.commit()
    producer.close()


def _rate(done: Callable[[], bool], step: Callable[[], object]) -> float:
    start = time.perf_counter()
    while not done():
        step()
        if time.perf_counter() - start > LONGEST_S:
            raise TimeoutError(f"a round did not end within {LONGEST_S:.0f} s")
    return RECORDS / (time.perf_counter() - start)


def _compare(log: KafkaLog, expected: int) -> None:
    """Both sides said the same: event by event, meta included.

    Raises:
        ValueError: they did not.
    """
    count = 0
    for partition in range(PARTITIONS):
        places = [(topic, partition) for topic in (OURS, THEIRS)]
        ends = log.high_watermarks(places)
        ours, theirs = (log.read(place, 0, ends[place]) for place in places)
        for one, other in zip(ours, theirs, strict=True):
            if one.key != other.key or PriceEvent.FromString(one.value or b"") != PriceEvent.FromString(other.value or b""):
                raise ValueError(f"partition {partition}: {one} is not {other}")
            count += 1
    if count != expected:
        raise ValueError(f"{expected} prices expected, {count} said")

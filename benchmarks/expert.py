"""The loop an expert writes with confluent-kafka for one job: hear catalogue items, say prices, exactly once, restorable.

It does what the service `ordering.pricing` does on the runtime, with the same guarantee and the same records, and nothing that another
job would need: one event class, one topic, no parking, no look-ups, no deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from protovalidate import Validator
from retail.ordering.v1.catalogue_pb2 import CatalogueEvent
from retail.ordering.v1.price_pb2 import PriceEvent, PriceListed

from backbone.v1.meta_pb2 import Meta, Position
from backbone.v1.private_pb2 import Aggregate, StateEntry

IN = "retail.ordering.catalogue.v1"


class Expert:
    """The hand-written loop.

    Args:
        kafka: options of librdkafka that say where Kafka is and as whom it is used.
        out: topic of the prices.
        state: compacted topic of the restorable state.
        topic_id: Kafka's id of the input topic, for the identities of what is said.
        batch: records per transaction.
    """

    def __init__(self, kafka: Mapping[str, str], *, out: str, state: str, topic_id: str, batch: int) -> None:
        self._out, self._state, self._topic_id, self._batch = out, state, topic_id, batch
        self._validate = Validator().validate
        self._prices: dict[str, tuple[int, Money]] = {}
        self._consumer = Consumer({
            **kafka,
            "group.id": out,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 2,
        })  # fmt: skip
        self._producer = Producer({
            **kafka,
            "transactional.id": out,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "retry.backoff.ms": 1,
        })  # fmt: skip
        self._producer.init_transactions(10.0)
        self._consumer.subscribe([IN])
        self.decided = 0

    def step(self, timeout_s: float) -> None:
        """Decide a batch."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        messages = [first, *self._consumer.consume(self._batch - 1, 0)]
        produce, changed, offsets = self._producer.produce, set(), {}
        self._producer.begin_transaction()
        for message in messages:
            item = self._decide(message)
            if item is not None:
                changed.add(item)
            offsets[message.partition()] = (message.offset() or 0) + 1
        for sku in changed:
            sequence, money = self._prices[sku]
            kept = Aggregate(sequence=sequence, state=money.SerializeToString())
            produce(self._state, StateEntry(version=1, aggregate=kept).SerializeToString(), sku.encode())
        self._producer.send_offsets_to_transaction(
            [TopicPartition(IN, partition or 0, offset) for partition, offset in offsets.items()],
            self._consumer.consumer_group_metadata(),
            10.0,
        )
        self._producer.commit_transaction(10.0)
        self.decided += len(messages)

    def _decide(self, message: Message) -> str | None:
        heard = CatalogueEvent.FromString(message.value() or b"")
        item = heard.item_catalogued
        self._validate(item)
        sequence, money = self._prices.get(item.sku, (0, Money()))
        if money == item.list_price:
            return None
        sequence += 1
        said = PriceListed(sku=item.sku, unit_price=item.list_price)
        self._validate(said)
        appended_ms = message.timestamp()[1]
        meta = Meta(
            id=f"ordering.pricing:{self._topic_id}:{message.partition()}:{message.offset()}:0",
            correlation_id=heard.meta.correlation_id,
            causation_id=heard.meta.id,
            sequence=sequence,
            occurred_at=Timestamp(seconds=appended_ms // 1000, nanos=appended_ms % 1000 * 1_000_000),
            writer="ordering.pricing",
            build="dev",
            after=[Position(topic=IN, partition=message.partition() or 0, next_offset=(message.offset() or 0) + 1)],
        )
        value = PriceEvent(price_listed=said, meta=meta).SerializeToString()
        self._producer.produce(self._out, value, item.sku.encode())
        self._prices[item.sku] = (sequence, item.list_price)
        return item.sku

    def close(self) -> None:
        """Leave the group and let go."""
        self._consumer.close()
        self._producer.close()

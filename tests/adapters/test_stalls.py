"""A client that gives nothing of what there is, without an error: it is told to read anew, and given up if that does not help."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from backbone.adapters import kafka_consumer
from backbone.adapters.kafka_clients import Signs
from backbone.adapters.kafka_consumer import KafkaConsumer
from backbone.errors import WorkerEnded

PLACE = ("orders", 0)


class Client:
    """Stands still at its start; the topic ends elsewhere."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.assigned: list[int] = []

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned.append(partitions[0].offset)

    def pause(self, partitions: list[TopicPartition]) -> None:
        pass

    def poll(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        assert not cached
        if self.end < 0:
            raise KafkaException("nobody answers")
        return 0, self.end


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is seen at once."""
    monkeypatch.setattr(kafka_consumer, "STALLS_AFTER_S", 0.05)
    monkeypatch.setattr(kafka_consumer, "LOOK_EVERY_S", 0.01)


def consumer_of(client: Client) -> KafkaConsumer:
    consumer = KafkaConsumer(cast("Consumer", client), Signs(), 1.0, 1_000)
    consumer.assign({PLACE: 5})
    return consumer


def polled(consumer: KafkaConsumer, times: int = 30) -> Any:
    return [consumer.poll(10, 0.01) for _ in range(times)]


def test_a_partition_that_gives_nothing_is_read_anew_and_then_given_up() -> None:
    client = Client(end=9)
    with pytest.raises(WorkerEnded, match="gives nothing of orders/0 after 5"):
        polled(consumer_of(client), 100)
    assert client.assigned == [5, 5]


@pytest.mark.parametrize("end", [5, -1], ids=["at its end", "Kafka does not answer"])
def test_who_has_nothing_to_read_is_left_alone(end: int) -> None:
    client = Client(end)
    polled(consumer_of(client))
    assert client.assigned == [5]


def test_what_is_paused_does_not_stall() -> None:
    client = Client(end=9)
    consumer = consumer_of(client)
    consumer.pause([PLACE])
    polled(consumer)
    assert client.assigned == [5]


def test_who_reads_the_same_again_and_again_does_not_stall() -> None:
    """As a reader does that is lent to one after the other, each from the beginning."""
    client = Client(end=9)
    consumer = consumer_of(client)
    for _ in range(10):
        consumer.assign({PLACE: 5})
        polled(consumer, 2)
    assert client.assigned == [5] * 11

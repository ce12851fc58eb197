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


class Other:
    """A record of another partition."""

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return PLACE[0]

    def partition(self) -> int:
        return PLACE[1] + 1

    def offset(self) -> int:
        return 7

    def key(self) -> bytes:
        return b""

    value = key

    def timestamp(self) -> tuple[int, int]:
        return 0, 0

    def __len__(self) -> int:
        return 1


class Client:
    """Stands still at its start; the topic ends elsewhere."""

    def __init__(self, end: int, other: bool = False) -> None:
        self.end = end
        self.other = other
        self.assigned: list[int] = []

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned.append(partitions[0].offset)

    def pause(self, partitions: list[TopicPartition]) -> None:
        pass

    def poll(self, timeout_s: float) -> Other | None:
        time.sleep(timeout_s)
        return Other() if self.other else None

    def consume(self, wanted: int, timeout_s: float) -> list[Other]:
        return []

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


def test_what_stands_behind_others_in_the_hands_of_the_client_does_not_stall() -> None:
    """As in a rebuild, when what one partition has fills all that is fetched ahead."""
    client = Client(end=9, other=True)
    polled(consumer_of(client))
    assert client.assigned == [5]

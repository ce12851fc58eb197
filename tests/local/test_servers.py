"""Embedded Kafka and Valkey: what a client sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from redis import Redis

from backbone.local.errors import StartError
from backbone.local.kafka import Kafka, answering_cluster, stored_cluster_id
from tests.conftest import Broker

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(broker: Broker, unique: Callable[[str], str]) -> Iterator[str]:
    """A topic of two partitions, deleted afterwards."""
    name = unique("local.servers")
    admin = AdminClient({**broker.credentials()})
    admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])[name].result(timeout=20)
    yield name
    admin.delete_topics([name])[name].result(timeout=20)


def test_a_broker_answers_as_its_own_cluster(broker: Broker) -> None:
    assert answering_cluster(broker.settings(), within=10.0) == broker.cluster_id


def test_a_transaction_is_read_back_with_the_time_of_appending(broker: Broker, topic: str) -> None:
    producer = Producer({**broker.credentials(), "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"key", partition=1, timestamp=1)
    producer.commit_transaction(20)

    consumer = Consumer(
        {
            **broker.credentials(),
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    try:
        record = consumer.poll(20)
        assert record is not None, "nothing within 20 s"
        assert (record.key(), record.value(), record.partition()) == (b"key", b"value", 1)
        kind, milliseconds = record.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert milliseconds > 1
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("auto.create.topics.enable", "false"),
        ("log.retention.ms", "-1"),
        ("offsets.retention.minutes", "2147483647"),
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10000"),
        ("broker.session.timeout.ms", "60000"),
        ("log.index.size.max.bytes", "1048576"),
    ],
)
def test_a_broker_runs_with_our_settings(broker: Broker, setting: str, value: str) -> None:
    resource = ConfigResource(ResourceType.BROKER, "1")
    admin = AdminClient({**broker.credentials()})
    answer = admin.describe_configs([resource])[resource].result(20)
    assert answer[setting].value == value


def test_a_valkey_keeps_an_append_only_file_and_evicts_nothing(redis_url: str) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_data_folder_whose_formatting_was_cut_off_is_formatted_anew(tmp_path: Path) -> None:
    (tmp_path / "kafka.new").mkdir()
    (tmp_path / "kafka.new" / "bootstrap.checkpoint").write_bytes(b"half")
    with Kafka(tmp_path) as kafka:
        assert stored_cluster_id(kafka.data) == kafka.cluster_id
        assert not (tmp_path / "kafka.new").exists()


def test_a_formatted_folder_keeps_its_cluster_and_refuses_to_become_another(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "meta.properties").write_text("version=1\ncluster.id=-first\nnode.id=1\n")
    assert Kafka(tmp_path).cluster_id == "-first"
    with pytest.raises(StartError, match="holds cluster -first, not second"):
        Kafka(tmp_path, cluster_id="second")


def test_a_broker_that_cannot_start_shows_its_last_lines(tmp_path: Path) -> None:
    broken = Kafka(tmp_path, settings={"num.io.threads": "none"})
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "meta.properties").write_text("version=1\ncluster.id=first\nnode.id=1\n")
    with pytest.raises(StartError, match=r"ended with code 1 while starting\n(.*\n)*.*num\.io\.threads"):
        broken.start()

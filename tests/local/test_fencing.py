"""A broker that was killed comes back without leaving transactions open for ever."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pytest
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from backbone.local import fencing
from backbone.local.kafka import Kafka
from tests.conftest import scratch
from tests.local.waiting import wait_until

IN_CHARGE = b"INFO [QuorumController id=1] Becoming the active controller at epoch 7, next write offset 9.\n"
REGISTERED = b"Replayed RegisterBrokerRecord for broker 1: RegisterBrokerRecord(brokerId=1, brokerEpoch=5, fenced=true, logDirs=[])\n"
ALIVE = b"Replayed BrokerRegistrationChangeRecord: BrokerRegistrationChangeRecord(brokerId=1, brokerEpoch=5, fenced=-1, logDirs=[])\n"
OTHER = b"Replayed BrokerRegistrationChangeRecord: BrokerRegistrationChangeRecord(brokerId=1, brokerEpoch=5, fenced=0, logDirs=[])\n"
FENCED = b"Replayed BrokerRegistrationChangeRecord: BrokerRegistrationChangeRecord(brokerId=1, brokerEpoch=5, fenced=1, logDirs=[])\n"


@pytest.mark.parametrize(
    ("said", "fenced"),
    [
        (b"", False),
        (IN_CHARGE, True),
        (REGISTERED + FENCED, False),
        (REGISTERED + ALIVE + IN_CHARGE, False),
        (REGISTERED + ALIVE + OTHER + IN_CHARGE, False),
        (REGISTERED + ALIVE + IN_CHARGE + FENCED, True),
        (REGISTERED + IN_CHARGE, True),
        (REGISTERED + ALIVE + FENCED + REGISTERED.replace(b"true", b"false") + IN_CHARGE, False),
    ],
)
def test_the_controller_is_believed_when_it_is_in_charge_and_no_broker_is_alive(said: bytes, fenced: bool) -> None:
    assert fencing.has_fenced(said) is fenced


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_a_broker_killed_in_the_middle_of_transactions_leaves_none_open_for_ever() -> None:
    """They time out one after the other while it comes back: if it believed it still led, it would drop the markers of most."""
    often = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "50"}
    with scratch("fencing") as folder, Kafka(folder, settings=often) as kafka:
        admin = AdminClient({**kafka.credentials(), "log_level": 0})
        topics = [f"topic-{number}" for number in range(20)]
        for made in admin.create_topics([NewTopic(topic, 4, 1) for topic in topics]).values():
            made.result(30)
        producers = [_producer(kafka, number) for number in range(30)]
        for producer in producers:
            producer.init_transactions(20)
        for number, producer in enumerate(producers):
            producer.begin_transaction()
            for step in range(8):
                producer.produce(topics[(number + step) % len(topics)], b"value", partition=step % 4)
        for producer in producers:
            with suppress(KafkaException):  # it took so long that its time was over
                producer.flush(5)
        assert _open(admin), "nothing was open when the broker died"
        kafka.kill()
        kafka.start()
        wait_until(lambda: not _open(admin), 30.0, "every transaction is ended")
        assert (folder / "logs" / "kafka.fencing.log").exists()


def _producer(kafka: Kafka, number: int) -> Producer:
    timeout_ms = 2_000 + 100 * number
    told: Mapping[str, str | int] = {
        **kafka.credentials(),
        "transactional.id": f"open-{number}",
        "transaction.timeout.ms": timeout_ms,
        "message.timeout.ms": timeout_ms,
        "socket.timeout.ms": timeout_ms,
        "linger.ms": 0,
        "log_level": 0,
    }
    return Producer(dict(told))


def _open(admin: AdminClient) -> list[str]:
    """Partitions in which something is written and not committed; all of them while the broker does not answer for one."""
    latest: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]
    places = [
        TopicPartition(name, partition) for name, topic in admin.list_topics(timeout=10).topics.items() for partition in topic.partitions
    ]
    ends = []
    for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
        asked = admin.list_offsets(dict.fromkeys(places, latest), isolation_level=level, request_timeout=10)
        try:
            ends.append({f"{place.topic}/{place.partition}": answer.result(10).offset for place, answer in asked.items()})
        except KafkaException:
            return ["unknown"]
    written, committed = ends
    return [place for place in written if written[place] > committed[place]]

"""What is read of a real log: everything that is committed, nothing else, to the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backbone.local.kafka import Kafka
from backbone.v1.meta_pb2 import Meta
from laws import log
from laws.entries import WRAPPERS, Entry
from tests import examples
from tests.conftest import scratch
from tests.laws.history import a_lawful_history, primary_of, wrapped

pytestmark = pytest.mark.integration

ORDERS = "retail.ordering.orders.v1"
COMMANDS = "private.payments.payments.commands"
STATE = "private.payments.payments.state"


@pytest.fixture(scope="module")
def own() -> Iterator[dict[str, str]]:
    """How to reach a log that holds these tests only."""
    with scratch("laws") as folder, Kafka(folder) as broker:
        yield broker.credentials()


def make(kafka: dict[str, str], *topics: str) -> None:
    """Topics of two partitions."""
    admin = AdminClient({**kafka})
    for made in admin.create_topics([NewTopic(topic, 2, 1) for topic in topics]).values():
        made.result(20.0)


def drop(kafka: dict[str, str], *topics: str) -> None:
    """Leave no topic behind."""
    admin = AdminClient({**kafka})
    for dropped in admin.delete_topics(list(topics)).values():
        dropped.result(20.0)


def transactional(kafka: dict[str, str], name: str) -> Producer:
    """A transactional producer."""
    producer = Producer({**kafka, "transactional.id": name, "retry.backoff.ms": 1})
    producer.init_transactions(20.0)
    return producer


def paid(order_id: str) -> bytes:
    """An event of an order."""
    event = examples.order_paid(order_id)
    return wrapped(primary_of(event), event, Meta(id=f"id-of-{order_id}", writer="ordering.orders", sequence=1))


def test_what_was_aborted_is_not_read_and_an_end_of_markers_is_an_end(own: dict[str, str]) -> None:
    """Committed records of all partitions, though the last offsets are an aborted record and markers."""
    make(own, ORDERS)
    try:
        producer = transactional(own, "test")
        for order_id, partition, commit in (("a", 0, True), ("b", 1, True), ("c", 1, True), ("d", 1, False)):
            producer.begin_transaction()
            producer.produce(ORDERS, key=order_id, value=paid(order_id), partition=partition)
            producer.flush(10.0)
            producer.commit_transaction(10.0) if commit else producer.abort_transaction(10.0)
        entries = sorted(log.read(own), key=lambda entry: entry.place)
        assert [(str(entry.place), entry.name, entry.meta.id) for entry in entries] == [
            (f"{ORDERS}/0@0", "OrderPaid", "id-of-a"),
            (f"{ORDERS}/1@0", "OrderPaid", "id-of-b"),
            (f"{ORDERS}/1@2", "OrderPaid", "id-of-c"),
        ]
        assert log.ends(own, [ORDERS]) == {(ORDERS, 0): 2, (ORDERS, 1): 6}
        assert [entry.event.order_id for entry in log.read(own, since={(ORDERS, 0): 2, (ORDERS, 1): 1})] == ["c"]
    finally:
        drop(own, ORDERS)


def test_an_open_transaction_below_the_end_is_said_and_not_read_over(own: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the laws would hold of half a log."""
    monkeypatch.setattr(log, "STALLS_AFTER_S", 1.0)
    make(own, ORDERS)
    try:
        producer = transactional(own, "open")
        producer.begin_transaction()
        producer.produce(ORDERS, key="a", value=paid("a"), partition=0)
        producer.flush(10.0)
        with pytest.raises(log.Unreadable, match=f"nothing comes before {ORDERS}/0@1 .* is a transaction open"):
            list(log.read(own))
        producer.abort_transaction(10.0)
    finally:
        drop(own, ORDERS)


def test_of_private_topics_only_what_causes_and_what_is_open_is_read(own: dict[str, str]) -> None:
    """Commands with their meta, and their tombstones; states are nobody's business."""
    make(own, COMMANDS, STATE)
    try:
        producer = Producer(own)
        for topic, key, value in a_lawful_history().private[:3]:
            producer.produce(COMMANDS if "command" in topic else STATE, key=key, value=value, partition=0)
        assert producer.flush(10.0) == 0
        entries: list[Entry] = list(log.read(own))
        assert [(entry.place.topic, entry.meta.id, entry.value is None, entry.event) for entry in entries] == [
            (COMMANDS, "command-0", False, None),
            (COMMANDS, "", True, None),
        ]
    finally:
        drop(own, COMMANDS, STATE)


def test_a_topic_without_a_contract_is_refused(own: dict[str, str]) -> None:
    """A law that does not look everywhere must not say that it holds."""
    make(own, "retail.ordering.unheard-of.v1")
    try:
        with pytest.raises(log.Unreadable, match=r"topic retail.ordering.unheard-of.v1 has no contract here"):
            list(log.read(own))
    finally:
        drop(own, "retail.ordering.unheard-of.v1")


def test_a_log_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and by name."""
    monkeypatch.setattr(log, "ANSWERS_WITHIN_S", 0.5)
    with pytest.raises(log.Unreadable, match=r"127.0.0.1:9 "):
        list(log.read({"bootstrap.servers": "127.0.0.1:9"}))


def test_every_wrapper_of_the_shop_is_known() -> None:
    """By the contracts themselves: one that is added must be added to the laws."""
    from backbone.contract import all_topics

    public = {name for name in all_topics("retail") if name.startswith("retail.")}
    assert set(WRAPPERS) == public

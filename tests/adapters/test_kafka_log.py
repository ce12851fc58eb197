"""What only Kafka can do to us: lose connections, refuse passwords, freeze, die, be somebody else."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER, KafkaAdmin, TopicSpec
from backbone.errors import DeclarationError, Overloaded, Refused, SettingsError, StrangeCluster, Unavailable, Unconfirmed, WorkerEnded
from backbone.local.kafka import Kafka
from backbone.local.ports import free_port
from backbone.passwords import make_passwords, password_of
from backbone.ports import Appender, Place
from backbone.settings import Settings
from backbone.testing.conformance.log import A_MOMENT_S, WITHIN_S, MakeName, MakeTopic, Member, append, poll_until, take, until
from tests.adapters.proxy import END_TRANSACTION, Proxy
from tests.conftest import scratch
from tests.users import TESTER, admit_tester

pytestmark = pytest.mark.integration

TRANSACTION_S = 2.0


@dataclass(frozen=True, slots=True)
class Fragile:
    """A broker of our own to hurt, reached directly or through a proxy."""

    kafka: Kafka
    proxy: Proxy
    proxy_port: int

    def settings(self, port: int | None = None) -> Settings:
        """Short timeouts."""
        return self.kafka.settings().model_copy(
            update={
                "kafka": f"127.0.0.1:{port or self.kafka.port}",
                "transaction_timeout_s": TRANSACTION_S,
                "session_timeout_s": 3.0,
            }
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The broker answers nothing, but its connections stay."""
        os.kill(self.kafka.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.kafka.process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def fragile() -> Iterator[Fragile]:
    """One for this file."""
    taken: set[int] = set()
    for _ in range(4):
        taken.add(free_port(frozenset(taken)))
    port, controller_port, behind_proxy, proxy_port = taken
    with (
        scratch("fragile") as folder,
        Proxy(proxy_port, behind_proxy) as proxy,
        Kafka(folder, port=port, controller_port=controller_port, listeners={"PROXIED": (behind_proxy, proxy_port)}) as kafka,
    ):
        admit_tester(kafka.admit)
        yield Fragile(kafka, proxy, proxy_port)


@pytest.fixture
def log(fragile: Fragile) -> Iterator[KafkaLog]:
    """Reached directly."""
    log = KafkaLog(fragile.settings(), TESTER)
    yield log
    log.close()


@pytest.fixture
def proxied(fragile: Fragile) -> Iterator[KafkaLog]:
    """Reached through the proxy."""
    log = KafkaLog(fragile.settings(fragile.proxy_port), TESTER)
    yield log
    log.close()


@pytest.fixture
def topic(fragile: Fragile, name: MakeName) -> MakeTopic:
    """Topics of this broker."""
    admin = KafkaAdmin(fragile.settings())

    def make(partitions: int = 4) -> str:
        made = name("topic")
        admin.create_topics([TopicSpec(made, partitions)])
        return made

    return make


@pytest.fixture
def name(unique: Callable[[str], str]) -> MakeName:
    """Names of this test."""
    return unique


def test_a_request_that_ends_a_transaction_too_late_cannot_end_the_next_one(
    fragile: Fragile, proxied: KafkaLog, topic: MakeTopic, name: MakeName
) -> None:
    """The lost connection makes the commit suspect, and the next transaction is begun on a new one; librdkafka lacks KIP-890."""
    at = (topic(), 0)
    consumer = proxied.consumer({at: 0})
    producer = proxied.producer(name("writer"))
    producer.begin()
    producer.produce(at[0], b"k", b"1", 0)
    fragile.proxy.hold_next(END_TRANSACTION)
    producer.commit()
    assert producer.suspect is not None
    assert "TxnCoordinator" in producer.suspect
    producer.begin()
    assert producer.suspect is None
    producer.produce(at[0], b"k", b"2", 0)
    until(lambda: proxied.high_watermarks([at]) == {at: 3})
    _, _, code = struct.unpack(">iih", fragile.proxy.held().release()[:10])
    assert code in {KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
    assert [record.value for record in take(consumer, 1)] == [b"1"]
    assert list(consumer.poll(1, A_MOMENT_S)) == []
    producer.commit()
    assert [record.value for record in take(consumer, 1)] == [b"2"]
    producer.close()
    consumer.close()


def test_a_slow_commit_is_suspect(fragile: Fragile, proxied: KafkaLog, topic: MakeTopic, name: MakeName) -> None:
    """And a quick one is not."""
    at = topic()
    producer = proxied.producer(name("writer"))
    for delay_s, is_suspect in ((0.0, False), (0.4, True), (0.0, False)):
        fragile.proxy.delay(END_TRANSACTION, delay_s)
        producer.begin()
        producer.produce(at, b"k", b"v")
        producer.commit()
        assert (producer.suspect is not None) is is_suspect, producer.suspect
    producer.close()


def test_offsets_of_an_earlier_generation_are_refused(log: KafkaLog, topic: MakeTopic, name: MakeName) -> None:
    """What a member decided before a rebalance does not count after it."""
    at, out, group = topic(4), (topic(), 0), name("group")
    one = Member(log, group, "slot-0", [at])
    poll_until(lambda: len(one.held) == 4, one)
    earlier = one.consumer.membership()  # type: ignore[attr-defined]
    other = Member(log, group, "slot-1", [at])
    poll_until(lambda: len(one.held) == len(other.held) == 2, one, other)
    one.consumer.membership = lambda: earlier  # type: ignore[attr-defined]
    producer = log.producer(name("writer"))
    producer.begin()
    producer.produce(out[0], b"k", b"stale", 0)
    with pytest.raises(WorkerEnded):
        producer.send_offsets({(at, 0): 1}, one.consumer)
    append(log, out[0], (0, b"after"))
    assert [record.value for record in take(log.consumer({out: 0}), 1)] == [b"after"]
    producer.close()
    one.consumer.close()
    other.consumer.close()


def test_a_wrong_password_ends_the_wait(fragile: Fragile, tmp_path: Path) -> None:
    """The client itself would try for ever; the right one is served."""
    (tmp_path / TESTER).write_text("wrong")
    start = time.monotonic()
    with pytest.raises(Refused, match=rf"refuses {TESTER}.*password"):
        KafkaLog(fragile.settings().model_copy(update={"kafka_secrets": str(tmp_path)}), TESTER, within_s=60.0)
    assert time.monotonic() - start < 30
    (tmp_path / TESTER).write_text(password_of(fragile.kafka.secrets, TESTER) + "\n")
    KafkaLog(fragile.settings().model_copy(update={"kafka_secrets": str(tmp_path)}), TESTER).close()


def test_without_a_password_nobody_is_asked(fragile: Fragile, tmp_path: Path) -> None:
    """The file that is missing, and the folder that is not set, are named."""
    with pytest.raises(SettingsError, match=f"{TESTER} has no password: there is no file {tmp_path}/{TESTER}"):
        KafkaLog(fragile.settings().model_copy(update={"kafka_secrets": str(tmp_path)}), TESTER)
    with pytest.raises(SettingsError, match="KAFKA_SECRETS is not set"):
        KafkaLog(fragile.settings().model_copy(update={"kafka_secrets": ""}), TESTER)


def test_another_cluster_than_expected_is_refused(fragile: Fragile) -> None:
    """Both are named."""
    settings = fragile.settings().model_copy(update={"cluster_id": "some-other-cluster"})
    with pytest.raises(StrangeCluster, match=f"{fragile.kafka.cluster_id}.*some-other-cluster"):
        KafkaLog(settings, TESTER)


def test_nobody_there_is_unavailable_and_no_address_is_a_wrong_setting(tmp_path: Path) -> None:
    """Bounded, in any case."""
    make_passwords(tmp_path, [TESTER])
    settings = Settings(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", KAFKA_SECRETS=str(tmp_path))
    start = time.monotonic()
    with pytest.raises(Unavailable, match="no Kafka answers"):
        KafkaLog(settings, TESTER, within_s=1.0)
    assert time.monotonic() - start < 5
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
        KafkaLog(Settings(), TESTER)


def test_appends_to_a_frozen_broker_are_unconfirmed_and_bounded_and_later_ones_go_on(
    fragile: Fragile, log: KafkaLog, topic: MakeTopic
) -> None:
    """Unconfirmed is not refused: the record may come after all."""
    at = (topic(), 0)
    appender = log.appender(confirm_within_s=1.0, queued=5)
    appender.append(at[0], b"k", b"before", 0).result(WITHIN_S)
    with fragile.frozen():
        waiting = [appender.append(at[0], b"k", b"%d" % number, 0) for number in range(4)]
        # The client may count the acknowledged record for a moment more, so the fifth fits or not; a sixth never does.
        with pytest.raises(Overloaded):
            waiting += [appender.append(at[0], b"k", b"too many", 0) for _ in range(2)]
        assert {type(each.exception(WITHIN_S)) for each in waiting} == {Unconfirmed}
    until(lambda: is_appended(appender, at, b"after"))
    appender.close()
    values = [record.value for record in log.read(at, 0, log.high_watermarks([at])[at])]
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert values.count(b"too many") <= 1


def test_every_call_to_a_frozen_broker_ends(fragile: Fragile, log: KafkaLog, topic: MakeTopic, name: MakeName) -> None:
    """A commit without an answer is unknown, and ends the worker."""
    at = (topic(1), 0)
    member = Member(log, name("group"), "slot-0", [at[0]])
    poll_until(lambda: at in member.held, member)
    committing, offering = log.producer(name("writer")), log.producer(name("writer"))
    for producer in (committing, offering):
        producer.begin()
        producer.produce(at[0], b"k", b"v", 0)
    with fragile.frozen():
        start = time.monotonic()
        with pytest.raises(WorkerEnded, match="unknown"):
            committing.commit()
        with pytest.raises(WorkerEnded):
            offering.send_offsets({at: 1}, member.consumer)
        committing.close()
        offering.close()
        assert list(member.consumer.poll(1, 0.1)) == []
        member.consumer.close()
        assert time.monotonic() - start < 4 * TRANSACTION_S


def test_clients_go_on_after_a_broker_was_killed_and_started_again(
    fragile: Fragile, log: KafkaLog, topic: MakeTopic, name: MakeName
) -> None:
    """Nobody starts anything anew; a producer whose connection broke is suspect."""
    at = (topic(1), 0)
    member = Member(log, name("group"), "slot-0", [at[0]])
    poll_until(lambda: at in member.held, member)
    appender, producer = log.appender(), log.producer(name("writer"))
    producer.begin()
    producer.produce(at[0], b"k", b"1", 0)
    producer.commit()
    fragile.kafka.kill()
    with ThreadPoolExecutor(1) as elsewhere:
        starting = elsewhere.submit(fragile.kafka.start)
        poll_until(starting.done, member, within_s=90.0)
        starting.result()
    producer.begin()
    producer.produce(at[0], b"k", b"2", 0)
    producer.commit()
    until(lambda: is_appended(appender, at, b"3"))
    poll_until(lambda: len(member.records) >= 3, member)
    assert {record.value for record in member.records} == {b"1", b"2", b"3"}
    for each in (appender, producer, member.consumer):
        each.close()


def is_appended(appender: Appender, place: Place, value: bytes) -> bool:
    """Whether one record could be appended."""
    try:
        return appender.append(place[0], b"k", value, place[1]).exception(WITHIN_S) is None
    except Overloaded:
        return False


def test_topics_are_made_once_with_their_settings(fragile: Fragile, name: MakeName) -> None:
    """Again changes nothing; what came back is what was asked for."""
    admin = KafkaAdmin(fragile.settings())
    events, state = TopicSpec(name("events"), 3, KEPT_FOR_EVER), TopicSpec(name("state"), 3, COMPACTED)
    assert admin.create_topics([events, state]) == (events.name, state.name)
    assert admin.create_topics([events, state]) == ()
    found = admin.describe()
    for spec in (events, state):
        assert found[spec.name].partitions == 3
        assert spec.config.items() <= found[spec.name].config.items()


def test_another_number_of_partitions_is_refused_naming_both(fragile: Fragile, name: MakeName) -> None:
    """Growing would re-map keys; nothing else is made either."""
    admin = KafkaAdmin(fragile.settings())
    old, new = name("old"), name("new")
    admin.create_topics([TopicSpec(old, 3)])
    with pytest.raises(DeclarationError, match=rf"{old} has 3 partitions, this platform has 4"):
        admin.create_topics([TopicSpec(new, 4), TopicSpec(old, 4)])
    assert new not in admin.describe()


def test_anybody_can_ask_how_far_a_group_is(fragile: Fragile, log: KafkaLog, topic: MakeTopic, name: MakeName) -> None:
    """`backbone status` is no member."""
    at, group = (topic(1), 0), name("group")
    admin = KafkaAdmin(fragile.settings())
    assert admin.committed(group) == {}
    member = Member(log, group, "slot-0", [at[0]])
    poll_until(lambda: at in member.held, member)
    producer = log.producer(name("writer"))
    producer.begin()
    producer.produce(at[0], b"k", b"v", 0)
    producer.send_offsets({at: 7}, member.consumer)
    producer.commit()
    until(lambda: admin.committed(group) == {at: 7})
    producer.close()
    member.consumer.close()

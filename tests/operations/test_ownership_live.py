"""Who may do what, asked of a broker: every user, every topic, group and transactional id, every operation, against the declared table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import KafkaAdmin, TopicSpec
from backbone.errors import Fenced, Refused, Unavailable, Unconfirmed, WorkerEnded
from backbone.local.kafka import Kafka
from backbone.operations import topics
from backbone.ownership import BROKER, READER, RELEASER, Kind, Operation, Right, rights, users
from backbone.topology import topology
from shop import shop
from tests.conftest import scratch
from tests.local.waiting import wait_until

pytestmark = pytest.mark.integration

OF = topology(shop)
DECLARED = rights(OF)
ROGUE = "rogue"
NEIGHBOUR = "ordering.orders2"
"""A name that begins as that of a service does, without its dot."""
EVERYBODY = (*users(OF), ROGUE, NEIGHBOUR)
TOPICS = (*(topic.name for topic in OF.topics), "private.ordering.orders2.state", "somebody.else")
GROUPS = (*(group.name for group in OF.groups), *(f"{user}.following" for user in users(OF)), "ordering.orders2", "ordering.orders2.v1")
IDS = (*(f"{name}.0" for name in OF.transactional_ids), "ordering.orders2.decide.0", "ordering.orders")
WITHIN_S = 20.0
TOLD = {Operation.READ, Operation.WRITE, Operation.DESCRIBE, Operation.CREATE, Operation.DELETE, Operation.ALTER} | {
    Operation.DESCRIBE_CONFIGS,
    Operation.ALTER_CONFIGS,
}


def may(user: str, kind: Kind, name: str) -> frozenset[Operation]:
    """What the table says a user may do to a resource, and what Kafka reads into it: whoever may do anything may know that it is there."""
    found = {right.operation for right in DECLARED if right.user == user and right.covers(kind, name)}
    if found & {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}:
        found.add(Operation.DESCRIBE)
    if Operation.ALTER_CONFIGS in found:
        found.add(Operation.DESCRIBE_CONFIGS)
    return frozenset(found)


@dataclass(frozen=True)
class Ground:
    """A broker with the shop's topics, users and rights, and two users whom nobody declared."""

    kafka: Kafka

    def client(self, user: str, **options: str | int | bool) -> dict[str, Any]:
        """Options of a client of a user."""
        return {**self.kafka.credentials(user), **options}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Made as `make up` makes it, and its coordinator of groups at work."""
    with scratch("ownership") as folder, Kafka(folder) as kafka:
        topics.apply(shop, kafka.settings())
        for user in (ROGUE, NEIGHBOUR):
            kafka.admit(user, ())
        operator = KafkaAdmin(kafka.settings())
        operator.create_topics([TopicSpec(name, 4) for name in TOPICS if name not in operator.describe()])
        member = Consumer({**kafka.credentials(), "group.id": "somebody"})
        member.subscribe([TOPICS[0]])
        wait_until(lambda: member.poll(0.1) is not None or bool(member.assignment()), WITHIN_S, "a group can be joined")
        member.close()
        yield Ground(kafka)


def for_everybody(ask: Callable[[str], Mapping[str, frozenset[Operation]]]) -> dict[str, Mapping[str, frozenset[Operation]]]:
    """The answers for each user, side by side."""
    with ThreadPoolExecutor(6) as threads:
        return dict(zip(EVERYBODY, threads.map(ask, EVERYBODY), strict=True))


def wrong(found: Mapping[str, Mapping[str, frozenset[Operation]]], kind: Kind) -> list[str]:
    """Every cell in which the broker and the table differ."""
    return [
        f"{user} {kind} {name}: the broker says {sorted(operations)}, the table {sorted(may(user, kind, name))}"
        for user, by_name in found.items()
        for name, operations in by_name.items()
        if operations != may(user, kind, name)
    ]


def nothing(error: KafkaException, refusal: int) -> frozenset[Operation]:
    """What may be done where the broker refuses to say anything; any other error is a defect."""
    if error.args[0].code() != refusal:
        raise error
    return frozenset()


def told(operations: Any) -> frozenset[Operation]:
    """What the broker says may be done, as far as we have a word for it."""
    return frozenset(Operation[one.name] for one in operations or () if one.name in Operation.__members__) & frozenset(TOLD)


def verdicts(asked: Mapping[str, Future[Any]], refusal: int) -> dict[str, frozenset[Operation]]:
    """What the broker says of each name; nothing where it refuses to say anything."""
    found: dict[str, frozenset[Operation]] = {}
    for name, future in asked.items():
        try:
            found[name] = told(future.result(WITHIN_S).authorized_operations)
        except KafkaException as error:
            found[name] = nothing(error, refusal)
    return found


def test_every_user_may_do_to_every_topic_what_the_table_says_and_nothing_else(ground: Ground) -> None:
    """The broker's own verdict on each operation of each cell; a topic that may not be described is refused."""

    def ask(user: str) -> dict[str, frozenset[Operation]]:
        admin = AdminClient(ground.client(user))
        asked = admin.describe_topics(TopicCollection(list(TOPICS)), include_authorized_operations=True)
        return verdicts(asked, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    found = for_everybody(ask)
    assert sum(map(len, found.values())) == len(EVERYBODY) * len(TOPICS)
    assert wrong(found, Kind.TOPIC) == []
    assert all(found[ROGUE][name] == found[NEIGHBOUR][name] == frozenset() for name in TOPICS)


def test_every_user_may_do_to_every_group_what_the_table_says_and_nothing_else(ground: Ground) -> None:
    def ask(user: str) -> dict[str, frozenset[Operation]]:
        admin = AdminClient(ground.client(user))
        asked = admin.describe_consumer_groups(list(GROUPS), include_authorized_operations=True)
        return verdicts(asked, KafkaError.GROUP_AUTHORIZATION_FAILED)

    assert wrong(for_everybody(ask), Kind.GROUP) == []


def test_every_user_may_take_every_transactional_id_as_the_table_says(ground: Ground) -> None:
    """By taking it: who may not is told so, and whoever has it is not fenced."""

    def take(user: str) -> dict[str, frozenset[Operation]]:
        found: dict[str, frozenset[Operation]] = {}
        for name in IDS:
            try:
                Producer(ground.client(user, **{"transactional.id": name})).init_transactions(WITHIN_S)
                found[name] = frozenset({Operation.WRITE, Operation.DESCRIBE})
            except KafkaException as error:
                found[name] = nothing(error, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        return found

    assert wrong(for_everybody(take), Kind.TRANSACTIONAL_ID) == []


def test_every_user_writes_to_the_topics_that_the_table_says_and_to_no_other(ground: Ground) -> None:
    """With real records: what is refused is not in the log."""

    def write(user: str) -> dict[str, frozenset[Operation]]:
        came: dict[str, KafkaError | None] = {}

        def keep(error: KafkaError | None, message: Message) -> None:
            came[str(message.topic())] = error

        producer = Producer(ground.client(user))
        for name in TOPICS:
            producer.produce(name, b"v", b"k", 0, on_delivery=keep)
        assert producer.flush(WITHIN_S) == 0
        assert {error.code() for error in came.values() if error} <= {KafkaError.TOPIC_AUTHORIZATION_FAILED}
        return {name: frozenset() if error else frozenset({Operation.WRITE}) for name, error in came.items()}

    before = ends(ground)
    found = for_everybody(write)
    for user, by_name in found.items():
        for name, operations in by_name.items():
            assert (Operation.WRITE in operations) == (Operation.WRITE in may(user, Kind.TOPIC, name)), f"{user} {name}"
    for name, end in ends(ground).items():
        assert end - before[name] == sum(bool(by_name[name]) for by_name in found.values()), name


def test_every_user_reads_the_topics_that_the_table_says_and_no_other(ground: Ground) -> None:
    """With real fetches, without a group: as the gateway follows the answers."""
    prepare = Producer(ground.client(BROKER))
    for name in TOPICS:
        prepare.produce(name, b"v", b"k", 1)
    assert prepare.flush(WITHIN_S) == 0

    def read(user: str) -> dict[str, frozenset[Operation]]:
        found: dict[str, frozenset[Operation]] = {}
        consumer = Consumer({**ground.client(user), "group.id": f"{user}.following", "enable.auto.commit": False})
        try:
            for name in TOPICS:  # a client asks for nothing of a topic that is not shown to it, and waits in silence
                error = consumer.list_topics(name, WITHIN_S).topics[name].error
                if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    found[name] = frozenset()
            consumer.assign([TopicPartition(name, 1, 0) for name in TOPICS if name not in found])
            while len(found) < len(TOPICS):
                message = consumer.poll(WITHIN_S)
                assert message is not None, f"{user} was told nothing of {sorted(set(TOPICS) - set(found))}"
                error = message.error()
                assert error is None or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, f"{user}: {error}"
                found.setdefault(str(message.topic()), frozenset() if error else frozenset({Operation.READ}))
        finally:
            consumer.close()
        return found

    for user, by_name in for_everybody(read).items():
        for name, operations in by_name.items():
            assert (Operation.READ in operations) == (Operation.READ in may(user, Kind.TOPIC, name)), f"{user} {name}"


def test_a_rogue_cannot_fence_a_producer_join_a_group_or_write(ground: Ground) -> None:
    """As somebody nobody knows, as another service, and as one whose name begins like the victim's."""
    settings, place = ground.kafka.settings(), ("retail.ordering.orders.v1", 0)
    victim = KafkaLog(settings, "ordering.orders")
    producer = victim.producer("ordering.orders.decide.7")
    rogues = (ROGUE, "payments.payments", NEIGHBOUR, READER, RELEASER)
    for user in rogues:
        producer.begin()
        producer.produce(place[0], b"k", b"said", 0)
        log = KafkaLog(settings, user)
        with pytest.raises(Refused) as refusal:
            log.producer("ordering.orders.decide.7")
        assert not isinstance(refusal.value, Fenced)
        producer.commit()
        member = Consumer(ground.client(user, **{"group.id": "ordering.orders", "group.instance.id": "ordering.orders.0"}))
        member.subscribe(["private.ordering.orders.state"])
        message = member.poll(WITHIN_S)
        assert message is not None
        assert (error := message.error()) is not None
        assert error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
        member.close()
        appender = log.appender()
        with pytest.raises((Unavailable, Unconfirmed, WorkerEnded)):  # at once, or once the client has asked
            appender.append(place[0], b"k", b"forged", place[1]).result(WITHIN_S)
        appender.close()
        log.close()
    producer.close()
    said = [record.value for record in victim.read(place, 0, victim.high_watermarks([place])[place])]
    assert b"forged" not in said
    assert said.count(b"said") == len(rogues)
    victim.close()


def test_nobody_but_the_operator_changes_topics_users_or_rights(ground: Ground) -> None:
    for user in ("ordering.orders", READER, RELEASER, ROGUE):
        admin = KafkaAdmin(ground.kafka.settings(), user)
        with pytest.raises(Refused):
            admin.create_topics([TopicSpec(f"retail.made.by.{user}", 4)])
        with pytest.raises(Refused):
            admin.grant([Right(user, Kind.TOPIC, "*", Operation.WRITE)])
        with pytest.raises(Refused):
            admin.set_passwords({user: "mine"})
        assert admin.rights() == frozenset(), "who may not look is shown nothing"
    assert KafkaAdmin(ground.kafka.settings()).rights() == DECLARED


def ends(ground: Ground) -> dict[str, int]:
    """Where partition 0 of each topic ends."""
    log = KafkaLog(ground.kafka.settings(), BROKER)
    found = log.high_watermarks([(name, 0) for name in TOPICS])
    log.close()
    return {name: end for (name, _), end in found.items()}

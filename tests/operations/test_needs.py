"""Each option that the design needs is missed by name when it is another: planted in real servers and in our own clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from redis import Redis

from backbone.adapters import kafka as kafka_adapter
from backbone.adapters import kafka_clients
from backbone.adapters.kafka import KafkaLog
from backbone.adapters.kafka_admin import COMPACTED, KEPT_FOR_EVER
from backbone.cli import main
from backbone.errors import Unavailable
from backbone.local.kafka import SETTINGS, Kafka
from backbone.local.valkey import SETTINGS as REDIS
from backbone.local.valkey import Valkey
from backbone.operations import doctor, needs, topics
from backbone.operations.checkout import Checkout, find_checkout
from backbone.operations.doctor import Finding, Verdict
from backbone.operations.needs import Of
from backbone.ownership import BROKER
from backbone.settings import Settings
from backbone.topology import Kept
from tests.conftest import scratch
from tests.local.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "retail.ordering.orders.v1"
STATE = "private.ordering.orders.state"


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    """A broker of our own: nobody has rights on it that nobody declared."""
    with scratch("needs") as folder, Kafka(folder) as broker:
        yield broker


@pytest.fixture(scope="module")
def checkout(kafka: Kafka, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The shop on the servers of this run."""
    variables = kafka.variables
    variables |= {f"{name}_REDIS_URL": valkey.url for name in ("ORDERING", "PAYMENTS", "FULFILMENT", "GATEWAY")}
    found = find_checkout(tmp_path_factory.mktemp("doctor"), start=ROOT, variables=variables)
    topics.apply(found.platform(), found.settings())
    wait_until(lambda: _settled(found), 30, "every partition of the new topics has its leader")
    return found


def _settled(checkout: Checkout) -> bool:
    try:
        list(doctor.kafka(checkout))
    except Unavailable:
        return False
    return True


def missed(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    """What is wrong, and of what."""
    return [(one.about, one.found.partition(" ")[0]) for one in findings if one.verdict is Verdict.WRONG]


@contextmanager
def altered(kafka: Kafka, kind: ResourceType, name: str, option: str, value: str) -> Iterator[None]:
    """Another value, for a while."""
    admin = AdminClient({**kafka.credentials()})

    def now() -> str | None:
        (asked,) = admin.describe_configs([ConfigResource(kind, name)]).values()
        found: str | None = asked.result(10)[option].value
        return found

    def alter(what: AlterConfigOpType, to: str) -> None:
        entry = ConfigEntry(option, to, incremental_operation=what)
        (done,) = admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=[entry])]).values()
        done.result(10)

    before = now()
    given = topics.CONFIG[Kept.COMPACTED if name == STATE else Kept.FOR_EVER].get(option) if kind is ResourceType.TOPIC else None
    alter(AlterConfigOpType.SET, value)
    try:
        wait_until(lambda: now() == value, 10, f"{option} is {value}")
        yield
    finally:
        alter(AlterConfigOpType.SET, given) if given is not None else alter(AlterConfigOpType.DELETE, "")
        wait_until(lambda: now() == before, 10, f"{option} is {before} again")


@pytest.mark.integration
def test_servers_of_ours_are_as_the_design_needs_them(checkout: Checkout) -> None:
    assert missed(doctor.kafka(checkout)) == []
    assert missed(doctor.redis(checkout)) == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("topic", "option", "value"),
    [
        (TOPIC, "retention.ms", "604800000"),
        (TOPIC, "cleanup.policy", "compact"),
        (TOPIC, "max.message.bytes", "1000"),
        (STATE, "delete.retention.ms", "1000"),
        (STATE, "segment.bytes", "1073741824"),
        (STATE, "unclean.leader.election.enable", "true"),
    ],
)
def test_an_option_of_a_topic_that_somebody_changed_is_named(checkout: Checkout, kafka: Kafka, topic: str, option: str, value: str) -> None:
    with altered(kafka, ResourceType.TOPIC, topic, option, value):
        found = [one for one in doctor.kafka(checkout) if one.about == f"topic {topic}"]
        assert [(one.verdict, one.found.split(",")[0]) for one in found] == [(Verdict.WRONG, f"{option} is {value}")]
        assert topic in found[0].remedy
    assert missed(doctor.kafka(checkout)) == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("option", "value"), [("unclean.leader.election.enable", "true"), ("transaction.partition.verification.enable", "false")]
)
def test_an_option_of_a_broker_that_somebody_changed_while_it_runs_is_named(
    checkout: Checkout, kafka: Kafka, option: str, value: str
) -> None:
    with altered(kafka, ResourceType.BROKER, "1", option, value):
        assert ("broker 1", option) in missed(doctor.kafka(checkout))
    assert missed(doctor.kafka(checkout)) == []


@pytest.mark.integration
@pytest.mark.parametrize(("option", "value"), [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no"), ("timeout", "5")])
def test_an_option_of_redis_that_somebody_changed_is_named(tmp_path: Path, option: str, value: str) -> None:
    with Valkey(tmp_path) as server, Redis.from_url(server.url) as client:
        assert missed(doctor.redis_options("redis", server.url)) == []
        client.config_set(option, value)
        assert missed(doctor.redis_options("redis", server.url)) == [("redis", option)]


@pytest.mark.integration
def test_the_command_tells_it_to_people_and_programs(checkout: Checkout, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in checkout.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BACKBONE_FOLDER", str(checkout.folder))
    monkeypatch.setattr(doctor, "LOOKS", {"kafka": doctor.kafka})
    with altered(kafka, ResourceType.TOPIC, TOPIC, "retention.ms", "604800000"):
        text, data = CliRunner().invoke(main, ["doctor"]), CliRunner().invoke(main, ["doctor", "--json"])
    assert (text.exit_code, data.exit_code) == (1, 1)
    assert f"topic {TOPIC}" in text.output
    assert "retention.ms is 604800000, must be -1: the log is the only truth" in text.output
    (found,) = [one for one in json.loads(data.output) if one["about"] == f"topic {TOPIC}"]
    assert (found["verdict"], "kafka-configs" in found["remedy"]) == ("wrong", True)


SOMEWHERE = Settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
WRONG_OPTIONS = {
    "common_options": ("socket.timeout.ms", 60_000, 3),  # of four: what belongs to a transaction overrules what belongs to every client
    "reading_options": ("isolation.level", "read_uncommitted", 2),
    "member_options": ("partition.assignment.strategy", "cooperative-sticky", 1),
    "writing_options": ("partitioner", "consistent_random", 2),
    "transaction_options": ("retry.backoff.ms", 100, 1),
}


def test_our_clients_are_told_what_the_design_needs() -> None:
    assert missed(doctor.clients(SOMEWHERE)) == []


@pytest.mark.parametrize("made_by", WRONG_OPTIONS)
def test_an_option_of_our_own_clients_that_somebody_changed_is_named(made_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    option, value, clients = WRONG_OPTIONS[made_by]
    right = getattr(kafka_clients, made_by)
    monkeypatch.setattr(kafka_clients, made_by, lambda *given: {**right(*given), option: value})
    found = missed(doctor.clients(SOMEWHERE))
    assert {name for _, name in found} == {option}
    assert len(found) == clients


@pytest.mark.integration
def test_the_clients_that_are_looked_at_are_those_that_the_log_makes(
    kafka: Kafka, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, object]] = []

    def noting(make: Any, options: dict[str, object], *more: Any) -> Any:
        made.append(options)
        return kafka_clients.connect(make, options, *more)

    monkeypatch.setattr(kafka_adapter, "connect", noting)
    settings = kafka.settings()
    log = KafkaLog(settings, BROKER)
    ours: list[Any] = [
        log.group_consumer(unique("group"), "slot", [unique("topic")], lambda _: {}, lambda _: None),
        log.consumer({}),
        log.producer(unique("slot")),
        log.appender(),
    ]
    for one in (*ours, log):
        one.close()
    named = {"group.id", "group.instance.id", "transactional.id", "delivery.timeout.ms", "queue.buffering.max.messages"}
    named |= set(kafka.credentials())
    looked_at = [options for _, options in kafka_clients.kinds(settings).values()]
    assert [{k: v for k, v in options.items() if k not in named} for options in made[1:]] == [
        {k: v for k, v in options.items() if k not in named} for options in looked_at
    ]


def test_what_we_give_meets_every_need_that_it_names() -> None:
    table = needs.needs(Settings())
    given = {Of.BROKER: SETTINGS, Of.FOR_EVER: KEPT_FOR_EVER, Of.TOPIC: KEPT_FOR_EVER, Of.COMPACTED: COMPACTED, Of.REDIS: REDIS}
    for of, options in given.items():
        assert [one for one in needs.unmet(table, [of], options) if one.found is not None] == []


def test_with_three_brokers_losing_one_must_lose_nothing() -> None:
    def of(brokers: int) -> set[str]:
        return {need.option for need in needs.needs(Settings(), brokers)}

    assert of(3) - of(1) >= {"min.insync.replicas", "default.replication.factor", "transaction.state.log.min.isr"}


def test_a_need_says_what_it_is_for() -> None:
    table = needs.needs(Settings())
    assert all(len(need.because) > 20 and not need.because.endswith(".") for need in table)
    assert len({(need.of, need.option) for need in table}) == len(table)
    (only,) = needs.unmet(table, [Of.REDIS], {**REDIS, "timeout": "0", "appendonly": "no"})
    assert str(only) == "appendonly is no, must be yes: a killed server loses all rows, and every view is built anew"

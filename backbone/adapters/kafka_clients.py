"""What all our Kafka clients have in common: their options, what they say besides their answers, what their errors mean."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from backbone.errors import BackboneError, Fenced, Refused, SettingsError, StrangeCluster, Unavailable, WorkerEnded
from backbone.ownership import BROKER
from backbone.passwords import password_of
from backbone.settings import Settings

CONNECT_WITHIN_S = 10.0
"""How long a client waits for the first answer of a cluster; three brokers need 4 to 6 s to start."""

SLICE_S = 0.5
"""How long one call of the client may block before we look whether Kafka refused us."""

LARGEST_RECORD_BYTES = 1_000_000
"""A little less than what a topic takes by default, `max.message.bytes`."""

NOISE = logging.getLogger("backbone.kafka")

Options = dict[str, Any]
Client = TypeVar("Client", Consumer, Producer, AdminClient)

REFUSALS = frozenset({
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
})  # fmt: skip

CHECK = "Check its password, and its rights by `backbone topics plan`"

FENCES = frozenset({
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.TRANSACTION_COORDINATOR_FENCED,
})  # fmt: skip


class Signs:
    """What a client says besides its answers; it speaks while it is polled.

    Args:
        user: who the client says it is.

    Attributes:
        refusal: why Kafka will never serve this client, if so. The client itself would go on trying, silently.
        failure: the last connection that failed since this client was made.
        fatal: the error after which this client can do nothing more.
    """

    def __init__(self, user: str = "") -> None:
        self.user = user
        self.refusal: str | None = None
        self.failure: str | None = None
        self.fatal: KafkaError | None = None

    def error(self, error: KafkaError) -> None:
        """The client's `error_cb`."""
        if error.code() in REFUSALS:
            self.refusal = error.str()
        if error.fatal():
            self.fatal = error

    def log(self, _level: int, pattern: str, *parts: object) -> None:
        """The client's `logger`: a line of librdkafka is its facility, its client and its text."""
        line = pattern % parts
        if line.startswith("FAIL"):
            self.failure = line
        NOISE.info("%s", line)  # what matters of it comes back as an error

    def listen(self, client: Consumer | Producer | AdminClient, timeout_s: float = 0.0) -> None:
        """Let a client speak; a fatal error, which it raises too, is in `fatal` afterwards."""
        try:
            client.poll(timeout_s)
        except KafkaException as error:
            self.fatal = self.fatal or error_of(error)

    def check(self) -> None:
        """End a wait that cannot end well.

        Raises:
            Refused: Kafka refused this client.
        """
        if self.refusal is not None:
            raise Refused(f"Kafka refuses {self.user or 'this client'}: {self.refusal}. {CHECK}")


def credentials(settings: Settings, user: str) -> dict[str, str]:
    """Where Kafka is, and how a client proves there who it is, for any client of librdkafka.

    Args:
        user: whose password is taken from the folder of the settings.

    Raises:
        SettingsError: no bootstrap servers or no folder of passwords are set, or the user has no password there.
    """
    if not settings.kafka:
        raise SettingsError("KAFKA_BOOTSTRAP_SERVERS is not set: where is Kafka?")
    if not settings.kafka_secrets:
        raise SettingsError(
            "KAFKA_SECRETS is not set: which folder holds a password per user of Kafka? Every client proves who it is (SASL); "
            "a cluster that asks nobody is not used"
        )
    return {
        "bootstrap.servers": settings.kafka,
        "security.protocol": settings.kafka_protocol,
        # the embedded broker knows itself from its own settings, which hold no SCRAM credentials
        "sasl.mechanism": "PLAIN" if user == BROKER else settings.kafka_mechanism,
        "sasl.username": user,
        "sasl.password": password_of(settings.kafka_secrets, user),
        **({"ssl.ca.location": settings.kafka_ca_file} if settings.kafka_ca_file else {}),
    }


def common_options() -> Options:
    """What every client is told, whoever it is."""
    return {
        "allow.auto.create.topics": False,
        "enable.metrics.push": False,
        "log_level": 6,  # the lines that tell of failed connections
        "log.connection.close": True,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 1000,
        "socket.timeout.ms": 10_000,
        "socket.connection.setup.timeout.ms": 5_000,
    }


def reading_options(settings: Settings) -> Options:
    """What every consumer is told on top: only what is committed, nothing behind our back, no more ahead than may be held."""
    return {
        "queued.max.messages.kbytes": settings.queue_bytes // 1024,
        "fetch.message.max.bytes": LARGEST_RECORD_BYTES,
        "fetch.max.bytes": settings.queue_bytes // 2,  # an answer that is on its way when the queue is full comes on top
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "check.crcs": True,
        "fetch.min.bytes": 1,
        # records wake a waiting fetch at once, but that an end is reached, a seek and a new assignment wait for it: 500 ms by default.
        # 20 idle consumers cost a broker 3.5 instead of 1.7 % of a core
        "fetch.wait.max.ms": 100,
        "fetch.queue.backoff.ms": 5,  # the default of 1000 can stall refills
    }


def member_options(settings: Settings, group: str, instance: str) -> Options:
    """What a group's consumer is told on top: only `range` keeps equal partition numbers of all topics on one member, and only the
    classic protocol gives a killed static member its place back at once."""
    session_ms = round(settings.session_timeout_s * 1000)
    return {
        "group.id": group,
        "group.protocol": "classic",
        "group.instance.id": instance,
        "partition.assignment.strategy": "range",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": max(100, session_ms // 12),
        "max.poll.interval.ms": max(300_000, session_ms),
    }


def hasty_options() -> Options:
    """What a consumer is told on top that jumps from partition to partition and is never idle for long."""
    return {"fetch.wait.max.ms": 10}


def writing_options(settings: Settings) -> Options:
    """What every producer is told on top."""
    return {
        "queue.buffering.max.kbytes": settings.queue_bytes // 1024,
        "message.max.bytes": LARGEST_RECORD_BYTES,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": 0,
    }


def transaction_options(settings: Settings, transactional_id: str) -> Options:
    """What a transactional producer is told on top."""
    timeout_ms = round(settings.transaction_timeout_s * 1000)
    return {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
        "socket.timeout.ms": timeout_ms,
        # commits back to back are refused once and tried again after this: 91 ms per commit at the default of 100, 3 ms at 1
        "retry.backoff.ms": 1,
    }


def kinds(settings: Settings) -> Mapping[str, tuple[type[Consumer] | type[Producer], Options]]:
    """Every kind of client that reads or writes, as `KafkaLog` makes it; names stand for those of a slot."""
    every = {"bootstrap.servers": settings.kafka, **common_options()}
    reading, writing = reading_options(settings), writing_options(settings)
    return {
        "group member": (Consumer, {**every, **reading, **member_options(settings, "group", "slot")}),
        "reader": (Consumer, {**every, **reading, "group.id": "none"}),
        "transactional producer": (Producer, {**every, **writing, **transaction_options(settings, "slot")}),
        "appender": (Producer, {**every, **writing}),
    }


OTHER_NAMES: Mapping[str, str] = {"request.required.acks": "acks", "queue.buffering.max.ms": "linger.ms"}
"""Names a client tells for names it was told."""


def in_effect(make: Callable[..., Consumer | Producer], options: Options) -> Mapping[str, str]:
    """What a client says itself that it was told; needs no broker, and leaves out what is at the client's own default."""
    told: dict[str, str] = {}

    class Lines:
        def log(self, _level: int, pattern: str, *parts: object) -> None:
            name, is_option, value = (pattern % parts).rpartition("]:")[2].partition(" = ")
            if is_option:
                told[OTHER_NAMES.get(name.strip(), name.strip())] = value.strip()

    client = make({**options, "debug": "conf", "log_level": 7}, logger=Lines())
    deadline = time.monotonic() + SLICE_S
    heard = -1
    while heard < len(told) or (not told and time.monotonic() < deadline):
        heard = len(told)
        client.poll(0.01)
    if isinstance(client, Consumer):
        client.close()
    # raised above only to hear the rest
    return {**told, "log_level": str(options.get("log_level", ""))}


def connect(make: Callable[..., Client], options: Options, settings: Settings, within_s: float = CONNECT_WITHIN_S) -> tuple[Client, Signs]:
    """A client that has met its cluster.

    Raises:
        Unavailable: nobody answers.
        StrangeCluster: another cluster answers than `settings.cluster_id`.
        Refused: Kafka does not let the client in.
    """
    signs = Signs(str(options.get("sasl.username", "")))
    client = make({**options, "error_cb": signs.error}, logger=signs)
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        signs.listen(client)
        signs.check()
        try:
            # asking for the cluster id alone sends nothing, and waits a second for the client's next look at its topics
            client.list_topics(timeout=min(left, SLICE_S))
            found = client.cluster_id(timeout=min(left, SLICE_S))
        except KafkaException as error:
            if not is_passing(error_of(error)):
                raise meaning(error_of(error), "looking for the cluster") from error
            continue
        if not found:
            continue
        if settings.cluster_id and found != settings.cluster_id:
            raise StrangeCluster(
                f"{settings.kafka} answers as cluster {found}, but this data belongs to {settings.cluster_id}: "
                "point KAFKA_BOOTSTRAP_SERVERS to the right one, or take a fresh folder"
            )
        return client, signs
    raise Unavailable(f"no Kafka answers at {settings.kafka} within {within_s:g} s")


def error_of(exception: KafkaException) -> KafkaError:
    """The error inside an exception of the client."""
    error: KafkaError = exception.args[0]
    return error


def is_passing(error: KafkaError) -> bool:
    """Whether trying again may help."""
    return error.retriable() or error.code() in PASSING


PASSING = frozenset({
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    # a broker that has just started and a client that knew it before disagree for a moment
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.REBALANCE_IN_PROGRESS,
})  # fmt: skip


REMEDIES: Mapping[int, str] = {
    KafkaError._AUTO_OFFSET_RESET: "the position asked for does not exist in this log; was the topic made anew, or were records deleted?",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "make the topics first: `backbone topics apply`",
    KafkaError._NOENT: "make the topics first: `backbone topics apply`",
    KafkaError._UNKNOWN_TOPIC: "make the topics first: `backbone topics apply`",
    KafkaError._UNKNOWN_PARTITION: "the topic has fewer partitions than this platform: see `backbone doctor`",
    KafkaError._MAX_POLL_EXCEEDED: "one step took longer than max.poll.interval.ms",
    KafkaError.MSG_SIZE_TOO_LARGE: "the record is larger than a topic takes",
}


def meaning(error: KafkaError, doing: str) -> BackboneError:
    """Our error for one of the client's.

    Args:
        doing: what was attempted.
    """
    code = error.code()
    remedy = REMEDIES.get(code)
    text = f"{doing}: {error.name()}, {error.str()}" + (f" ({remedy})" if remedy else "")
    # a consumer's fatal error hides its own code; only the text tells
    if code in FENCES or (code == KafkaError._FATAL and "fenced by other consumer" in error.str()):
        return Fenced(f"{text}: another process took this one's place")
    if code in REFUSALS:
        return Refused(f"Kafka refuses this client while {text}. {CHECK}")
    if is_passing(error) and not error.fatal():
        return Unavailable(text)
    return WorkerEnded(text)


@contextmanager
def attempting(what: str) -> Iterator[None]:
    """Within it, an error of the client is ours; see `meaning`."""
    try:
        yield
    except KafkaException as error:
        raise meaning(error_of(error), what) from error

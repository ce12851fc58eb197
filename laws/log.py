"""Reads the whole log as it stands: everything committed, from the first record to the end seen now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import LatestSpec, OffsetSpec

from laws.entries import WRAPPERS, Entry, Place, take_apart

ANSWERS_WITHIN_S = 10.0
STALLS_AFTER_S = 40.0
"""Longest silence of a partition that is not read to its end: an open transaction is aborted after 10 s, its markers 10 s later."""
BATCH = 500
SERVERS = "bootstrap.servers"
PRIVATE = (".commands", ".outcomes", ".ticks", ".quarantine")
"""Private topics that causes, open work and set-aside records are looked up in."""

READER = "backbone.reader"
"""The user of Kafka who may read everything and write nothing."""


class Unreadable(Exception):
    """The log cannot be read to its end now."""


def as_reader(servers: str, access: Mapping[str, str]) -> dict[str, str]:
    """Options of a client that reads the log as the one who reads everything and writes nothing.

    Args:
        servers: where Kafka answers.
        access: `kafka_access` of a stack, or variables of that meaning.

    Raises:
        Unreadable: the reader's password cannot be read.
    """
    path = Path(access.get("KAFKA_SECRETS") or ".") / READER
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        why = f"{READER} has no password ({path}: {error.strerror})"
        raise Unreadable(f"{why}: name its folder by --secrets or KAFKA_SECRETS") from error
    return {
        SERVERS: servers,
        "security.protocol": access.get("KAFKA_SECURITY_PROTOCOL") or "SASL_PLAINTEXT",
        "sasl.mechanism": access.get("KAFKA_SASL_MECHANISM") or "SCRAM-SHA-512",
        "sasl.username": READER,
        "sasl.password": password,
        **({"ssl.ca.location": access["KAFKA_CA_FILE"]} if access.get("KAFKA_CA_FILE") else {}),
    }


def read(kafka: Mapping[str, str], *, since: Mapping[tuple[str, int], int] | None = None) -> Iterator[Entry]:
    """Every committed record of all `retail.*` topics and of the private ones that tell causes and open work.

    One topic after the other, primaries first, so that no more than a batch is held.

    Args:
        kafka: options of librdkafka that say where Kafka answers and as whom it is asked.
        since: offsets to start at, by topic and partition; the first record where none is given.

    Raises:
        Unreadable: Kafka does not answer, a topic has no contract here, or a partition does not end.
    """
    consumer = Consumer(
        {
            **kafka,
            # nothing is kept under it, but a user has groups under his own name only
            "group.id": f"{kafka.get('sasl.username', 'nobody')}.laws",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "check.crcs": True,
            "allow.auto.create.topics": False,
            "fetch.queue.backoff.ms": 5,
            # The end of a partition is only told by an answer that brings nothing: it must not be waited for.
            "fetch.wait.max.ms": 5,
        }
    )
    try:
        found = sorted(consumer.list_topics(timeout=ANSWERS_WITHIN_S).topics)
        foreign = [name for name in found if name.startswith("retail.") and name not in WRAPPERS]
        if foreign:
            raise Unreadable(f"topic {foreign[0]} has no contract here: run the laws of the same checkout as the shop")
        public = sorted((name for name in found if name in WRAPPERS), key=lambda name: bool(WRAPPERS[name].copy_of))
        private = [name for name in found if name.startswith("private.") and name.endswith(PRIVATE)]
        stops = ends(kafka, (*public, *private))
        for topic in (*public, *private):
            yield from _topic(consumer, topic, {place: stop for place, stop in stops.items() if place[0] == topic}, since or {})
    except KafkaException as error:
        raise Unreadable(f"Kafka at {kafka[SERVERS]} cannot be read: {error}") from error
    finally:
        consumer.close()


def ends(kafka: Mapping[str, str], topics: Sequence[str] | None = None) -> dict[tuple[str, int], int]:
    """Offsets after the last record, committed or not, of every partition.

    Args:
        kafka: options of librdkafka that say where Kafka answers and as whom it is asked.
        topics: which ones; all public and private ones if not given.

    Raises:
        Unreadable: Kafka does not answer.
    """
    admin = AdminClient(dict(kafka))
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        try:
            return _ends(admin, topics)
        except (KafkaException, TimeoutError) as error:
            # A broker that has just started refuses for a moment what it will soon know.
            if isinstance(error, TimeoutError) or time.monotonic() > deadline:
                raise Unreadable(f"Kafka at {kafka[SERVERS]} does not answer: {error}") from error
            time.sleep(0.1)


def _ends(admin: AdminClient, topics: Sequence[str] | None) -> dict[tuple[str, int], int]:
    found = admin.list_topics(timeout=ANSWERS_WITHIN_S).topics
    wanted = [name for name in found if name.startswith(("retail.", "private."))] if topics is None else topics
    latest: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]
    asked: dict[TopicPartition, OffsetSpec] = {
        TopicPartition(name, partition): latest for name in wanted if name in found for partition in found[name].partitions
    }
    answers = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ANSWERS_WITHIN_S)
    return {(place.topic, place.partition): answer.result(ANSWERS_WITHIN_S).offset for place, answer in answers.items()}


def _topic(consumer: Consumer, topic: str, stops: Mapping[tuple[str, int], int], since: Mapping[tuple[str, int], int]) -> Iterator[Entry]:
    unread: dict[int, int] = {}
    starts: list[TopicPartition] = []
    for place, stop in stops.items():
        low, _ = consumer.get_watermark_offsets(TopicPartition(*place), timeout=ANSWERS_WITHIN_S)
        start = max(low, since.get(place, low))
        if start < stop:
            unread[place[1]] = stop
            starts.append(TopicPartition(*place, start))
    if not unread:
        return
    consumer.assign(starts)
    deadline = time.monotonic() + STALLS_AFTER_S
    while unread:
        polled = consumer.poll(0.1)
        if time.monotonic() > deadline:
            left = ", ".join(f"{topic}/{partition}@{stop}" for partition, stop in sorted(unread.items()))
            raise Unreadable(f"nothing comes before {left} for {STALLS_AFTER_S:.0f} s: is a transaction open?")
        for message in () if polled is None else (polled, *consumer.consume(BATCH, 0)):
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    continue
                raise Unreadable(f"{topic} cannot be read: {error}")
            if partition not in unread or offset is None:
                continue
            deadline = time.monotonic() + STALLS_AFTER_S
            if error is None and offset < unread[partition]:
                yield take_apart(Place(topic, partition, offset), message.key(), message.value())
            # A marker or an aborted record may be the last one: then only the end of the partition tells.
            if offset + (error is None) >= unread[partition]:
                del unread[partition]
    consumer.unassign()

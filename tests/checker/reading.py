"""Reads a running shop with raw clients: the log with and without what is not committed, the views, the provider's books, the ramp's."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from google.protobuf.message import DecodeError
from redis import Redis

from backbone.v1.private_pb2 import StateEntry
from laws import books, history
from laws.entries import Place
from laws.log import Unreadable, as_reader, ends
from tests.checker.rules.states import OWN
from tests.checker.rules.views import VIEWS
from tests.checker.world import Lain, Sample, World

ANSWERS_WITHIN_S = 10.0
STALLS_AFTER_S = 40.0
BATCH = 2000
DECIDED_WITHIN_S = 5.0
"""Positions that only moved over what nobody answers are written after a second without work."""

Where = Mapping[tuple[str, int], int]


def stack(folder: Path) -> dict[str, Any]:
    """Addresses of the stack in a folder, as its launcher wrote them down.

    Raises:
        Unreadable: there is none.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "stack.json").read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"no stack can be found in {folder}: {error}") from error
    return found


def world(folder: Path, recorded: Path | None = None, samples: tuple[Sample, ...] = (), *, at_rest: bool = True) -> World:
    """All of a shop as it stands.

    Args:
        folder: where its stack lies.
        recorded: the history of its clients.
        samples: what was seen of its views before; more are taken now.

    Raises:
        Unreadable: the log cannot be read to its end.
    """
    known = stack(folder)
    kafka = as_reader(known["kafka"], known["kafka_access"])
    lain = tuple(records(kafka))
    deadline = time.monotonic() + DECIDED_WITHIN_S
    while at_rest and _undecided(lain) and time.monotonic() < deadline:
        time.sleep(0.5)
        lain = tuple(records(kafka))
    calls, disturbed = history.read(recorded) if recorded is not None and recorded.exists() else ([], [])
    return World(
        records=lain,
        topic_ids=topic_ids(kafka),
        books=books.read(f"http://127.0.0.1:{known['ports']['provider']}"),
        calls=calls,
        disturbed=disturbed,
        samples=(*samples, *views(known["redis"], known["partitions"], final=True)),
        receipts=receipts(folder / "receipts.csv"),
        decided=decided(lain),
        at_rest=at_rest,
    )


def records(kafka: Mapping[str, str]) -> Iterator[Lain]:
    """Every record of every topic of the shop, each partition in its order, also what is not committed."""
    stops = {place: end for place, end in ends(kafka).items() if end}
    committed = {(topic, partition, offset) for (topic, partition), offset, *_ in _read(kafka, stops, "read_committed")}
    for (topic, partition), offset, key, value, at_ms in _read(kafka, stops, "read_uncommitted"):
        yield Lain(Place(topic, partition, offset), key, value, at_ms, (topic, partition, offset) in committed)


def topic_ids(kafka: Mapping[str, str]) -> dict[str, str]:
    """What Kafka calls each topic of the shop."""
    admin = AdminClient(dict(kafka))
    names = [name for name in admin.list_topics(timeout=ANSWERS_WITHIN_S).topics if name.startswith(("retail.", "private."))]
    asked = admin.describe_topics(TopicCollection(names), request_timeout=ANSWERS_WITHIN_S)
    return {name: str(answer.result(ANSWERS_WITHIN_S).topic_id) for name, answer in asked.items()}


def views(urls: Mapping[str, str], partitions: int, *, final: bool) -> Iterator[Sample]:
    """What lies in every partition of every view, each at one instant.

    Args:
        urls: address of each context's Redis.
        final: everything is at rest.
    """
    for view in VIEWS:
        with Redis.from_url(urls[view.partition(".")[0]], socket_timeout=ANSWERS_WITHIN_S) as redis:
            for partition in range(partitions):
                yield _sample(redis, view, partition, final=final)


def decided(lain: tuple[Lain, ...]) -> dict[str, dict[tuple[str, int], int]]:
    """How far each decider says that it has decided each of its inputs."""
    found: dict[str, dict[tuple[str, int], int]] = {decider: {} for decider in OWN}
    topics = {f"private.{decider}.state": decider for decider in OWN}
    for one in lain:
        decider = topics.get(one.place.topic)
        if decider is None or not one.committed or not one.value:
            continue
        try:
            entry = StateEntry.FromString(one.value)
        except DecodeError:
            continue
        for position in entry.positions.inputs:
            found[decider][position.topic, position.partition] = position.next_offset
    return found


def receipts(path: Path) -> dict[str, tuple[str, str, int]] | None:
    """The ramp's book; None if there is none."""
    if not path.exists():
        return None
    with path.open(newline="") as file:
        return {row["receipt_id"]: (row["pool_id"], row["sku"], int(row["quantity"])) for row in csv.DictReader(file)}


def _undecided(lain: tuple[Lain, ...]) -> bool:
    last: dict[tuple[str, int], int] = {}
    for one in lain:
        if one.committed:
            last[one.place.topic, one.place.partition] = one.place.offset
    return any(last.get(place, -1) >= offset for positions in decided(lain).values() for place, offset in positions.items())


def _sample(redis: Redis, view: str, partition: int, *, final: bool) -> Sample:
    """One partition of version 1 of a view; rows, watermark and index are read in one transaction of Redis."""
    tag = f"{{{view}.v1.{partition}}}"
    while True:
        groups = sorted(cast("list[bytes]", redis.keys(f"{tag}:index:*")))
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.get(f"{tag}:watermark")
            pipeline.hgetall(f"{tag}:rows")
            pipeline.keys(f"{tag}:index:*")
            for group in groups:
                pipeline.zrange(group, 0, -1, withscores=True)
            watermark, rows, now, *scored = pipeline.execute()
        if sorted(now) == groups:  # else one was made meanwhile
            break
    scores = {_group(key): {row.decode(): score for row, score in of} for key, of in zip(groups, scored, strict=True)}
    return Sample(
        view,
        1,
        partition,
        None if watermark is None else int(watermark),
        {key.decode(): row for key, row in rows.items()},
        scores,
        final,
    )


def _group(key: bytes) -> str:
    """The group of an index: what stands behind its length."""
    size, _, group = key.partition(b":index:")[2].partition(b":")[2].partition(b":")
    return group[: int(size)].decode()


def _read(kafka: Mapping[str, str], stops: Where, isolation: str) -> Iterator[tuple[tuple[str, int], int, bytes | None, bytes | None, int]]:
    consumer = Consumer(
        {
            **kafka,
            "group.id": f"{kafka['sasl.username']}.checker",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "check.crcs": True,
            "allow.auto.create.topics": False,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 20,
        }
    )
    found: dict[tuple[str, int], list[tuple[tuple[str, int], int, bytes | None, bytes | None, int]]] = {place: [] for place in stops}
    unread = dict(stops)
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in stops])
        deadline = time.monotonic() + STALLS_AFTER_S
        while unread:
            came = consumer.consume(BATCH, 0.05)
            if time.monotonic() > deadline:
                place, stop = min(unread.items())
                raise Unreadable(f"nothing comes before {place[0]}/{place[1]}@{stop} for {STALLS_AFTER_S:.0f} s: is a transaction open?")
            for one in came:
                topic, partition, offset = one.topic(), one.partition(), one.offset()
                error = one.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.retriable() or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                        continue
                    raise Unreadable(f"{topic} cannot be read: {error}")
                if topic is None or partition is None or offset is None or (topic, partition) not in unread:
                    continue
                place = (topic, partition)
                deadline = time.monotonic() + STALLS_AFTER_S
                if error is None and offset < unread[place]:
                    found[place].append((place, offset, one.key(), one.value(), one.timestamp()[1]))
                if offset + (error is None) >= unread[place]:
                    del unread[place]
    finally:
        consumer.close()
    for of in found.values():
        yield from of

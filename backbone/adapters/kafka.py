"""The log on Apache Kafka."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import EarliestSpec, LatestSpec, OffsetSpec

from backbone.adapters.kafka_clients import (
    CONNECT_WITHIN_S,
    Options,
    attempting,
    common_options,
    connect,
    credentials,
    error_of,
    hasty_options,
    is_passing,
    meaning,
    member_options,
    reading_options,
    transaction_options,
    writing_options,
)
from backbone.adapters.kafka_consumer import KafkaConsumer
from backbone.adapters.kafka_producer import KafkaAppender, KafkaProducer
from backbone.errors import Unavailable, WorkerEnded
from backbone.ports import Place, Record
from backbone.settings import Settings

ASK_WITHIN_S = 10.0
"""How long a question to the cluster may take."""

CLEANUP_S = 10.0
"""How often a broker looks for transactions past their timeout, by default."""

CONFIRM_WITHIN_S = 5.0
QUEUED_APPENDS = 10_000

LATEST: OffsetSpec = LatestSpec()  # type: ignore[no-untyped-call]
EARLIEST: OffsetSpec = EarliestSpec()  # type: ignore[no-untyped-call]

NO_GROUP = "following"
"""The client demands the name of a group, but nothing is kept under it. It lies below the user's name, as all the user's groups do."""

LEADERLESS = frozenset({
    KafkaError._NOENT,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
})  # fmt: skip
"""What a client is told whose picture of the leaders is old."""

READ_BATCH = 2_000
IDLE_READERS = 2


class KafkaLog:
    """The log of one cluster.

    Args:
        settings: where it is, which cluster it must be, and the timeouts.
        user: as whom every client of it authenticates.
        options: further options of librdkafka for every client.
        within_s: how long to wait for the first answer, in seconds.

    Raises:
        SettingsError: the user has no password.
        Unavailable: nobody answers.
        StrangeCluster: it is not the cluster of the settings.
        Refused: Kafka does not let the user in.
    """

    def __init__(
        self, settings: Settings, user: str, options: Mapping[str, str | int | bool] | None = None, within_s: float = CONNECT_WITHIN_S
    ) -> None:
        self._settings = settings
        self._options: Options = {**credentials(settings, user), **common_options(), **(options or {})}
        self._no_group: Options = {"group.id": f"{user}.{NO_GROUP}"}
        self._admin, self._signs = connect(AdminClient, self._options, settings, within_s)
        self._cluster_id = self._admin.cluster_id(timeout=ASK_WITHIN_S)
        self._idle: deque[KafkaConsumer] = deque()

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        return self._cluster_id

    def close(self) -> None:
        """Let go of what this log holds itself; consumers and producers are closed by those who asked for them."""
        while self._idle:
            self._idle.pop().close()

    def topics(self) -> Mapping[str, tuple[str, int]]:
        """Every topic that exists, but Kafka's own: its id and number of partitions.

        Raises:
            Unavailable: Kafka does not answer.
        """
        names = [name for name in self._listed() if not name.startswith("__")]
        if not names:
            return {}
        with attempting("describing topics"):
            asked = self._admin.describe_topics(TopicCollection(names), request_timeout=ASK_WITHIN_S)
            found = [future.result(ASK_WITHIN_S) for future in asked.values()]
        return {topic.name: (str(topic.topic_id), len(topic.partitions)) for topic in found}

    def _listed(self) -> Mapping[str, Collection[int]]:
        with attempting("listing topics"):
            return {name: topic.partitions for name, topic in self._admin.list_topics(timeout=ASK_WITHIN_S).topics.items()}

    def group_consumer(
        self,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> KafkaConsumer:
        """A static member of a group under the `range` assignor; see the port."""
        consumer = self._consumer(member_options(self._settings, group, instance))
        consumer.join(topics, assigned, revoked)
        return consumer

    def consumer(self, start: Mapping[Place, int]) -> KafkaConsumer:
        """A consumer without a group, reading the given partitions from the given offsets.

        Raises:
            WorkerEnded: there is no such partition.
        """
        # an assigned consumer waits in silence for a topic that is not there
        existing = self._listed()
        for topic, partition in start:
            if partition not in existing.get(topic, ()):
                raise WorkerEnded(f"there is no partition {topic}/{partition}: make the topics first: `backbone topics apply`")
        consumer = self._consumer(self._no_group)
        consumer.assign(start)
        return consumer

    def _consumer(self, options: Options) -> KafkaConsumer:
        client, signs = connect(Consumer, {**self._options, **reading_options(self._settings), **options}, self._settings)
        return KafkaConsumer(client, signs, self._open_transactions_s, self._settings.batch_bytes)

    def producer(self, transactional_id: str) -> KafkaProducer:
        """A transactional producer; takes the place of any earlier one of the same id and aborts what it left open."""
        options = {**self._options, **writing_options(self._settings), **transaction_options(self._settings, transactional_id)}
        return KafkaProducer(partial(connect, Producer, options, self._settings), self._settings.transaction_timeout_s)

    def appender(self, confirm_within_s: float = CONFIRM_WITHIN_S, queued: int = QUEUED_APPENDS) -> KafkaAppender:
        """An idempotent producer without transactions.

        Args:
            confirm_within_s: after how many seconds without an acknowledgement a record is unconfirmed.
            queued: how many records may wait for theirs.
        """
        options = {
            **self._options,
            **writing_options(self._settings),
            "delivery.timeout.ms": round(confirm_within_s * 1000),
            "queue.buffering.max.messages": queued,
        }
        return KafkaAppender(partial(connect, Producer, options, self._settings), confirm_within_s)

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets after the last record of each partition, committed or not.

        Asked of the admin client, because a consumer answers with the end of what is committed.
        """
        return self._offsets(places, LATEST)

    def starts(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets of the first record of each partition."""
        return self._offsets(places, EARLIEST)

    def _offsets(self, places: Sequence[Place], spec: OffsetSpec) -> Mapping[Place, int]:
        deadline = time.monotonic() + ASK_WITHIN_S
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                asked = self._admin.list_offsets(
                    {TopicPartition(*place): spec for place in places},
                    isolation_level=IsolationLevel.READ_UNCOMMITTED,
                    request_timeout=left,
                )
                return {(partition.topic, partition.partition): future.result(left + 1.0).offset for partition, future in asked.items()}
            except KafkaException as error:
                self._signs.listen(self._admin)
                self._signs.check()
                if not self._passes(error_of(error), places):
                    raise meaning(error_of(error), "asking for offsets") from error
                if time.monotonic() > deadline:
                    raise Unavailable(f"asking for offsets: {error_of(error).name()}, {error_of(error).str()}") from error
                time.sleep(0.05)

    def _passes(self, error: KafkaError, places: Sequence[Place]) -> bool:
        """Whether asking again may help, which needs a fresh look at who leads: "no leader" is said of a topic that is not there, and of
        one whose broker is away."""
        if error.code() not in LEADERLESS:
            return is_passing(error)
        try:
            existing = self._listed()
        except Unavailable:
            return True
        return all(partition in existing.get(topic, ()) for topic, partition in places)

    def read(self, place: Place, start: int, stop: int) -> Iterator[Record]:
        """Committed records of one partition in [start, stop); see the port.

        Raises:
            Unavailable: nothing came for longer than a transaction may stay open.
        """
        if start >= stop:
            return
        reader = self._reader()
        try:
            reader.assign({place: start})
            deadline = time.monotonic() + self._open_transactions_s
            while (reached := reader.positions()[place]) < stop:
                for record in reader.poll(READ_BATCH, 0.25):
                    if record.offset >= stop:
                        return
                    yield record
                if reader.positions()[place] > reached:
                    deadline = time.monotonic() + self._open_transactions_s
                elif time.monotonic() > deadline:
                    raise Unavailable(f"{place[0]}/{place[1]} cannot be read beyond {reached} up to {stop}: a transaction is still open")
        finally:
            self._give_back(reader)

    def _reader(self) -> KafkaConsumer:
        try:
            return self._idle.pop()
        except IndexError:
            return self._consumer({**self._no_group, **hasty_options()})

    def _give_back(self, reader: KafkaConsumer) -> None:
        if len(self._idle) < IDLE_READERS:
            reader.assign({})
            self._idle.append(reader)
        else:
            reader.close()

    @property
    def _open_transactions_s(self) -> float:
        return self._settings.transaction_timeout_s + CLEANUP_S + 2.0

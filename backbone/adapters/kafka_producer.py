"""Kafka producers of ours: transactions for loops, single records for the edges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as Client

from backbone.adapters.kafka_clients import NOISE, SLICE_S, Signs, error_of, meaning
from backbone.adapters.kafka_consumer import KafkaConsumer
from backbone.errors import BackboneError, Overloaded, Unavailable, Unconfirmed, WorkerEnded
from backbone.ports import Consumer, Place

SLOW_COMMIT_S = 0.25
SLOW_COMMIT_RATIO = 10
SMOOTHING = 16
"""The running average of commits is over about this many."""

POLL_S = 0.1
TAKING = "taking the transactional id"


class KafkaProducer:
    """A transactional producer.

    librdkafka has no KIP-890: a request to end transaction n that was held up in the network can end transaction n+1, silently. Such
    a request leaves traces, a slow commit or a failed connection; then the client is replaced before the next transaction, and the
    broker refuses whatever comes late from the old one (docs/adr: transactions).

    Args:
        make: connects a client of the transactional id.
        within_s: how long one call may take, in seconds.
    """

    def __init__(self, make: Callable[[], tuple[Client, Signs]], within_s: float) -> None:
        self._make = make
        self._within_s = within_s
        self._average_s = 0.0
        self._slow: str | None = None
        self._open = False
        self._dead = False
        self._client, self._signs = self._start()

    def _start(self) -> tuple[Client, Signs]:
        client, signs = self._make()
        try:
            _until(client, signs, client.init_transactions, TAKING, self._within_s)
        except KafkaException as error:
            meant = meaning(error_of(error), TAKING)
            raise meant if isinstance(meant, WorkerEnded) else WorkerEnded(str(meant)) from error
        return client, signs

    @property
    def suspect(self) -> str | None:
        """Why the last commit must not be followed by another on this connection, if so; `begin` renews it then."""
        return self._signs.failure or self._slow

    def begin(self) -> None:
        """Start a transaction, on a new connection if the last one is suspect."""
        self._signs.listen(self._client)
        if self.suspect is not None:
            self.renew()
        try:
            self._client.begin_transaction()
        except KafkaException as error:
            raise self._ended(error_of(error), "beginning a transaction") from error
        self._open = True

    def produce(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        """Add a record; partition -1 is chosen by the key."""
        try:
            self._client.produce(topic, value, key, partition)
        except BufferError:
            self._produce_when_there_is_room(topic, key, value, partition)
        except KafkaException as error:
            raise self._ended(error_of(error), f"producing to {topic}") from error

    def _produce_when_there_is_room(self, topic: str, key: bytes | None, value: bytes | None, partition: int) -> None:
        deadline = time.monotonic() + self._within_s
        while time.monotonic() < deadline:
            self._signs.listen(self._client, 0.01)
            try:
                self._client.produce(topic, value, key, partition)
            except BufferError:
                continue
            except KafkaException as error:
                raise self._ended(error_of(error), f"producing to {topic}") from error
            return
        raise WorkerEnded(f"the queue to {topic} did not empty within {self._within_s:g} s")

    def send_offsets(self, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        """Add the group's next offsets, after the records: this order spares a refusal of the broker (3 instead of 5 ms a commit)."""
        if not isinstance(consumer, KafkaConsumer):
            raise TypeError(f"the offsets of {type(consumer).__name__} cannot go into a transaction of Kafka")
        positions = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        membership = consumer.membership()
        client, within_s = self._client, self._within_s
        self._call(
            lambda left: _watched(lambda: client.send_offsets_to_transaction(positions, membership, left), within_s, "sending offsets"),
            "sending offsets",
        )

    def commit(self) -> None:
        """Make it readable.

        Raises:
            Fenced: another producer has the transactional id.
            WorkerEnded: it failed and was aborted, or its outcome is unknown.
        """
        start = time.perf_counter()
        self._call(self._client.commit_transaction, "committing")
        took = time.perf_counter() - start
        self._open = False
        self._signs.listen(self._client)  # the client's log is read here: lines of this commit must count for it
        if took > max(SLOW_COMMIT_S, SLOW_COMMIT_RATIO * self._average_s):
            self._slow = f"the commit took {took * 1000:.0f} ms, on average they take {self._average_s * 1000:.0f}"
        self._average_s += (took - self._average_s) / SMOOTHING

    def abort(self) -> None:
        """Drop the transaction."""
        if self._open and not self._dead:
            self._call(self._client.abort_transaction, "aborting")
        self._open = False

    def renew(self) -> None:
        """Replace the client under the same transactional id: the broker raises its epoch and refuses all that comes of the old one."""
        NOISE.warning("replacing a producer: %s", self.suspect)
        self._client, self._signs = self._start()  # the last reference to the old one goes: it drops what it still has in hand
        self._slow = None
        self._open = False
        self._dead = False

    def close(self) -> None:
        """Let go; an open transaction is aborted, by the broker's timeout if not otherwise."""
        try:
            self.abort()
        except BackboneError as error:
            NOISE.warning("could not abort while closing: %s", error)
        del self._client  # its own `close` would wait for what cannot be sent

    def _call(self, call: Callable[[float], object], doing: str) -> None:
        try:
            _until(self._client, self._signs, call, doing, self._within_s)
        except KafkaException as error:
            raise self._ended(error_of(error), doing) from error
        except WorkerEnded:
            self._dead = True  # the client is still in the middle of it and takes no other call
            raise

    def _ended(self, error: KafkaError, doing: str) -> WorkerEnded:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._dead = True
        elif doing != "aborting":
            self.abort()
        self._signs.listen(self._client)
        meant = meaning(self._signs.fatal or error, doing)
        return meant if isinstance(meant, WorkerEnded) else WorkerEnded(str(meant))


def _until(client: Client, signs: Signs, call: Callable[[float], object], doing: str, within_s: float) -> None:
    """Call again while the client says that calling again goes on with the same, within a bound."""
    deadline = time.monotonic() + within_s
    while True:
        left = deadline - time.monotonic()
        try:
            call(max(0.001, min(left, SLICE_S)))
        except KafkaException as exception:
            error = error_of(exception)
            if error.fatal() or error.txn_requires_abort() or not error.retriable():
                raise
            signs.listen(client, 0.005)
            signs.check()
            if left <= 0:
                text = f"{doing} did not end within {within_s:g} s; whether it was done is unknown: {error.str()}"
                raise WorkerEnded(text) from exception
        else:
            return


def _watched(call: Callable[[], object], within_s: float, doing: str) -> None:
    """Make a call of the client that may block past its own timeout, for ever where a broker died meanwhile: seen of sending offsets only.

    Raises:
        WorkerEnded: it hangs; its thread is left behind, and with it the client.
    """
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def made() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            ended.put(error)
        else:
            ended.put(None)

    threading.Thread(target=made, name=doing, daemon=True).start()
    try:
        error = ended.get(timeout=within_s)
    except Empty:
        raise WorkerEnded(f"{doing} hangs for {within_s:g} s in the client; whether it was done is unknown") from None
    if error is not None:
        raise error


class KafkaAppender:
    """Appends single records from any thread; a thread of its own resolves the futures.

    Args:
        make: connects an idempotent client.
        within_s: after how many seconds without an acknowledgement a record is unconfirmed.
    """

    def __init__(self, make: Callable[[], tuple[Client, Signs]], within_s: float) -> None:
        self._make = make
        self._within_s = within_s
        self._client, self._signs = make()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._thread.start()

    def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> Future[tuple[int, int]]:
        """Append one record.

        Returns:
            A future of (partition, offset); it fails with `Unconfirmed` when no acknowledgement came in time, with `Unavailable` when
            Kafka refused the record.

        Raises:
            Overloaded: the queue is full; nothing was appended.
            Unavailable: the client is being replaced, or the record cannot be sent; nothing was appended.
            WorkerEnded: Kafka refuses this client.
        """
        self._signs.check()
        if self._stopping.is_set():
            raise Unavailable("this appender is closed")
        appended: Future[tuple[int, int]] = Future()
        appended.set_running_or_notify_cancel()  # nobody can take back what is under way

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                appended.set_result((message.partition() or 0, message.offset() or 0))
            else:
                appended.set_exception(_undelivered(error, topic))

        try:
            self._client.produce(topic, value, key, partition, delivered)
        except BufferError:
            raise Overloaded(f"too many records wait to be appended to {topic}", retry_after_s=1.0) from None
        except KafkaException as error:
            raise Unavailable(str(meaning(error_of(error), f"appending to {topic}"))) from error
        return appended

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._signs.listen(self._client, POLL_S)
            if self._signs.fatal is not None and self._signs.refusal is None:
                self._replace()

    def _replace(self) -> None:
        NOISE.warning("replacing an appender: %s", self._signs.fatal)
        old = self._client
        try:
            self._client, self._signs = self._make()
        except Unavailable as error:
            NOISE.warning("not yet: %s", error)
            return
        old.flush(self._within_s)  # its futures get their answers

    def close(self) -> None:
        """Wait, bounded, for what is under way, then let go."""
        self._stopping.set()
        self._thread.join(2 * POLL_S + self._within_s)
        try:
            self._client.flush(self._within_s + 1.0)
        except KafkaException as error:
            NOISE.warning("an appender ends with: %s", error_of(error))
        del self._client  # its own `close` would wait without a bound


REFUSED_RECORDS = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
"""After these a record is surely not in the log; after anything else it may be."""


def _undelivered(error: KafkaError, topic: str) -> BackboneError:
    if error.code() in REFUSED_RECORDS:
        return Unavailable(str(meaning(error, f"appending to {topic}")))
    return Unconfirmed(f"no acknowledgement from {topic}: {error.str()}")

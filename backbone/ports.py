"""The two seams between the loops and the world: the log (Kafka) and the rows (Redis).

Every implementation passes the conformance suites in `backbone.testing.conformance`. All methods block at most as long as they are
told, and raise `Unavailable` (nothing was done), `Unconfirmed` (unknown) or `WorkerEnded` (start again).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Place = tuple[str, int]
"""A topic and a partition of it."""


class Record(NamedTuple):
    """What the log stores.

    Attributes:
        timestamp_ms: append time at the broker, milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


class Consumer(Protocol):
    """Reads what is committed of some partitions, in order; a member of a group, or assigned by hand."""

    def poll(self, limit: int, timeout_s: float) -> Sequence[Record]:
        """Up to `limit` records, and no more than about the `batch_bytes` of the settings: waits at most `timeout_s` seconds for the
        first, never for the others.

        Assignment callbacks run inside.
        """
        ...

    def positions(self) -> Mapping[Place, int]:
        """Next offsets of all assigned partitions as far as `poll` gave them out; transaction markers at an end count as read."""
        ...

    def seek(self, place: Place, offset: int) -> None:
        """Go on reading a partition at `offset`."""
        ...

    def pause(self, places: Sequence[Place]) -> None:
        """Stop fetching these; what was fetched and not given out is dropped and fetched again after `resume`."""
        ...

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch these again."""
        ...

    def committed(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """The group's committed offsets; waits while offsets of a transaction are pending."""
        ...

    def close(self) -> None:
        """Leave; a static member keeps its place for the session timeout."""
        ...


class Producer(Protocol):
    """Writes transactions: all of a transaction's records become readable, or none."""

    @property
    def suspect(self) -> str | None:
        """Why the last commit must not be followed by another on this connection, if so (docs/adr: transactions)."""
        ...

    def begin(self) -> None:
        """Start a transaction."""
        ...

    def produce(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        """Add a record; partition -1 is chosen by the key (murmur2)."""
        ...

    def send_offsets(self, offsets: Mapping[Place, int], consumer: Consumer) -> None:
        """Add the group's next offsets; refused if the consumer is no longer a member."""
        ...

    def commit(self) -> None:
        """Make it readable. Raises `WorkerEnded` if it failed or its outcome is unknown, `Fenced` if another took over."""
        ...

    def abort(self) -> None:
        """Drop the transaction."""
        ...

    def renew(self) -> None:
        """Replace the connection under the same transactional id, so that nothing late of the old one counts."""
        ...

    def close(self) -> None:
        """Let go; an open transaction is aborted."""
        ...


class Appender(Protocol):
    """Appends single records, outside transactions, from any thread."""

    def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> Future[tuple[int, int]]:
        """Append one record.

        Returns:
            A future of (partition, offset). It fails with `Unconfirmed` when no acknowledgement came in time.

        Raises:
            Overloaded: the queue is full; nothing was appended.
        """
        ...

    def close(self) -> None:
        """Wait, bounded, for what is under way, then let go."""
        ...


class Log(Protocol):
    """The log: topics of partitions of records."""

    @property
    def cluster_id(self) -> str:
        """Identity of the cluster."""
        ...

    def topics(self) -> Mapping[str, tuple[str, int]]:
        """Every topic that exists: its id (given by Kafka at creation) and number of partitions."""
        ...

    def group_consumer(
        self,
        group: str,
        instance: str,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> Consumer:
        """A static member of a group under the `range` assignor.

        Args:
            instance: name of the slot.
            assigned: called in `poll` with what the member got; answers where to start reading each of them.
            revoked: called in `poll` with what it lost.
        """
        ...

    def consumer(self, start: Mapping[Place, int]) -> Consumer:
        """A consumer without a group, reading the given partitions from the given offsets."""
        ...

    def producer(self, transactional_id: str) -> Producer:
        """A transactional producer; takes the place of any earlier one of the same id and aborts what it left open."""
        ...

    def appender(self) -> Appender:
        """An idempotent producer without transactions."""
        ...

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets after the last record of each partition, committed or not."""
        ...

    def starts(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Offsets of the first record of each partition."""
        ...

    def read(self, place: Place, start: int, stop: int) -> Iterator[Record]:
        """Committed records of one partition in [start, stop); waits out open transactions below `stop`, bounded by the
        transaction timeout, then raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Fragment:
    """One partition of one version of one view: the unit that is written and fenced at once.

    Attributes:
        view: full name of the view, <context>.<service>.<row>.
    """

    view: str
    version: int
    partition: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """Rows read together with the watermark of their fragment, atomically.

    Attributes:
        watermark: next offset of the topic the view folds; None if the fragment holds nothing.
        rows: serialised rows in the order asked for; None where there is no row.
    """

    watermark: int | None
    rows: Sequence[bytes | None]


@dataclass(slots=True)
class Change:
    """What one batch changes in one fragment.

    Attributes:
        since: watermark the change builds on; 0 on an empty fragment.
        until: watermark afterwards.
        rows: new row by key; None deletes.
        indexed: (index, group, row key) -> score, or None to take the entry out.
        upstream: topics, among others, that what was folded came after.
    """

    since: int
    until: int
    rows: dict[str, bytes | None] = field(default_factory=dict)
    indexed: dict[tuple[str, str, str], float | None] = field(default_factory=dict)
    upstream: set[str] = field(default_factory=set)


class Rows(Protocol):
    """The rows of a context's views."""

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark, all in one round trip."""
        ...

    def apply(self, fragment: Fragment, change: Change) -> int | None:
        """Write a change if the watermark is `change.since`.

        Returns:
            None if written, else the watermark found (0 on an empty fragment), and nothing was written.
        """
        ...


class AsyncRows(Protocol):
    """The same rows for those who answer questions."""

    async def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark, all in one round trip."""
        ...

    async def newest(self, fragments: Sequence[Fragment], index: str, group: str, limit: int) -> Sequence[str]:
        """Keys of one group of an index over the given fragments, highest score first, at most `limit`."""
        ...

    async def upstream(self, fragments: Sequence[Fragment]) -> Set[str]:
        """Topics that anything folded into the given fragments came after."""
        ...

"""Take in: how events enter from outside, pushed one by one by whoever serves clients, or pulled from a foreign source by cursor."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import structlog
from google.protobuf.message import Message

from backbone import envelope
from backbone.contract import ResolvedService, Topic
from backbone.declare import Intake, Unreadable
from backbone.errors import DeclarationError, SettingsError, WorkerEnded
from backbone.loops.own_thread import OwnThread
from backbone.ports import Log, Place, Producer
from backbone.rules import check, violations
from backbone.settings import Settings
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_INVALID,
    QUARANTINE_REASON_UNDECODABLE,
    Cursor,
    Quarantined,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Pauses after failures of a source double from the first to the longest, with jitter."""

READ_S = 30.0
"""Longest time a source may take to open or to be read once, in seconds."""

CURSOR_PARTITION = 0
CURSOR_KEY = envelope.entry_key("", "cursor")

_Pair = tuple[str, Message | Unreadable]

log_ = structlog.get_logger(__name__)


class _Raised:
    """The events a service may raise, ready to be written."""

    def __init__(self, service: ResolvedService, build: str) -> None:
        self._service = service
        self._build = build

    def topic(self, event: Message) -> Topic:
        """Where an event goes.

        Raises:
            DeclarationError: the service does not raise such events.
        """
        for topic in self._service.raises:
            if topic.number(type(event)) is not None:
                return topic
        raise DeclarationError(f"{self._service.name} does not raise {type(event).__name__}; name it in its Intake, if it is its writer")

    def encoded(
        self,
        topic: Topic,
        event: Message,
        *,
        request_id: str,
        correlation_id: str,
        traceparent: str = "",
        after: Mapping[Place, int] | None = None,
    ) -> bytes:
        """The value of its record."""
        meta = envelope.root_meta(
            writer=self._service.name,
            build=self._build,
            request_id=request_id,
            correlation_id=correlation_id,
            occurred_at_ms=time.time_ns() // 1_000_000,
            traceparent=traceparent,
            after=after,
        )
        number = topic.number(type(event))
        assert number is not None
        return envelope.encode(number, event.SerializeToString(deterministic=True), meta.SerializeToString(deterministic=True))


class BoundIntake:
    """Appends the events of one service's intake; implements `declare.Raise`.

    Args:
        service: a service with an intake.
        log: where its topics lie.
        settings: names the build.
    """

    def __init__(self, service: ResolvedService, log: Log, settings: Settings) -> None:
        self._events = _Raised(service, settings.build)
        self._appender = log.appender()
        self._raised = 0
        self._under_way = 0

    async def __call__(
        self, event: Message, *, request_id: str, correlation_id: str, traceparent: str = "", after: Mapping[Place, int] | None = None
    ) -> Mapping[Place, int]:
        """Append one event.

        Args:
            event: what happened.
            request_id: names the request; the event's id is made from it, so that a repetition is the same event.
            correlation_id: the conversation.
            traceparent: W3C trace context of the caller.
            after: what the caller had seen, as a position vector.

        Returns:
            The position after the record.

        Raises:
            BreaksRules: the event breaks value rules of its contract; nothing was appended.
            Overloaded: nothing was appended.
            Unconfirmed: no acknowledgement came in time; it may be in the log or get there.
        """
        topic = self._events.topic(event)
        check(event)
        value = self._events.encoded(
            topic, event, request_id=request_id, correlation_id=correlation_id, traceparent=traceparent, after=after
        )
        self._under_way += 1
        try:
            appended = self._appender.append(topic.name, getattr(event, topic.key).encode(), value)
            # A caller that goes away does not take back what is on its way: shielded, the producer can still finish its future.
            partition, offset = await asyncio.shield(asyncio.wrap_future(appended))
        finally:
            self._under_way -= 1
        self._raised += 1
        return {(topic.name, partition): offset + 1}

    def status(self) -> dict[str, Any]:
        """How many events were raised and how many wait for their acknowledgement, for /status."""
        return {"raised": self._raised, "under_way": self._under_way}

    def close(self) -> None:
        """Wait, bounded, for what is under way, then let go."""
        self._appender.close()


class Poll:
    """Polls the foreign source of one service's intake; cursor and events are one transaction, so each is taken in once.

    Only slot 0 polls: a source has one cursor.

    Args:
        service: a service whose intake has a source.
        log: where its topics lie.
        settings: given to the source's `connect`; `slot` names the transactional id.
    """

    def __init__(self, service: ResolvedService, log: Log, settings: Settings) -> None:
        intake = service.service.intake
        if intake is None or intake.source is None:
            raise DeclarationError(f"{service.name} has no source to poll; give its Intake source=(connect, read)")
        self._service = service
        self._intake: Intake = intake
        self._connect, self._read = intake.source
        self._log = log
        self._settings = settings
        self._events = _Raised(service, settings.build)
        self._quarantine = service.private("quarantine")
        self._cursor_place: Place = (service.private("cursor"), CURSOR_PARTITION)
        self._producer: Producer | None = None
        self._cursor = ""
        self._raised = 0
        self._quarantined = 0
        self._last_quarantined = ""
        self._failures = 0
        self._last_error = ""
        self._failing_since: float | None = None
        self._caught_up = False

    def status(self) -> dict[str, Any]:
        """Cursor, counts and what is wrong with the source, for /status."""
        return {
            "polls": self._settings.slot == 0,
            "cursor": self._cursor,
            "caught_up": self._caught_up,
            "raised": self._raised,
            "quarantined": self._quarantined,
            "last_quarantined": self._last_quarantined,
            "failures": self._failures,
            "error": self._last_error,
            "waits_s": 0.0 if self._failing_since is None else round(time.monotonic() - self._failing_since, 3),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until told to stop.

        Raises:
            WorkerEnded: the log failed or another took this worker's place; start again.
            SettingsError: the source's address is not set.
            DeclarationError: the source gives events that the intake does not name.
        """
        if self._settings.slot != 0:
            await stop.wait()
            return
        with ExitStack() as held:
            on_thread = held.enter_context(OwnThread(f"{self._service.name}.intake"))
            try:
                await on_thread(self._open)
                while not stop.is_set():
                    try:
                        async with AsyncExitStack() as source:
                            async with asyncio.timeout(READ_S):
                                tool = await source.enter_async_context(self._connect(self._settings))
                            await self._follow(tool, on_thread, stop)
                    except (WorkerEnded, DeclarationError, SettingsError):
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever a foreign source raises, it is opened and read again
                        self._failed(error)
                        await _pause(stop, self._pause_s())
            finally:
                await on_thread.last(self._close)

    async def _follow(self, tool: Any, on_thread: OwnThread, stop: asyncio.Event) -> None:
        while not stop.is_set():
            limit = asyncio.timeout(READ_S)
            try:
                async with limit:
                    pairs = await self._read(tool, self._cursor)
            except TimeoutError as error:
                if limit.expired():
                    raise TimeoutError(f"the source did not answer within {READ_S:.0f} s") from error
                raise
            for portion in _portions(pairs, self._settings.batch, self._settings.batch_bytes):
                await on_thread(self._write, portion)
            self._failures, self._last_error, self._failing_since = 0, "", None
            self._caught_up = not pairs
            if not pairs:
                await _pause(stop, self._intake.every_s)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._last_error = f"{type(error).__name__}: {error}"[:500]
        self._failing_since = self._failing_since or time.monotonic()
        self._caught_up = False
        log_.warning("source failed, is read again", service=self._service.name, cursor=self._cursor, error=self._last_error)

    def _pause_s(self) -> float:
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 16)) * random.uniform(0.5, 1.0)

    # On the log's thread.

    def _open(self) -> None:
        # The producer first: it ends what an earlier process of this slot left open, so that no cursor can follow the one read.
        self._producer = self._log.producer(f"{self._service.name}.intake.{self._settings.slot}")
        place = self._cursor_place
        start, stop = self._log.starts([place])[place], self._log.high_watermarks([place])[place]
        for record in self._log.read(place, start, stop):
            if record.key == CURSOR_KEY and record.value is not None:
                self._cursor = Cursor.FromString(record.value).cursor

    def _close(self) -> None:
        if self._producer is not None:
            self._producer.close()

    def _write(self, pairs: Sequence[_Pair]) -> None:
        """Events, what is set aside and the new cursor, in one transaction."""
        assert self._producer is not None
        producer = self._producer
        records: list[tuple[str, bytes, bytes]] = []
        aside: list[Quarantined] = []
        for cursor, event in pairs:
            if isinstance(event, Unreadable):
                aside.append(self._aside(cursor, QUARANTINE_REASON_UNDECODABLE, event.raw, event.reason))
                continue
            topic = self._events.topic(event)
            key: str = getattr(event, topic.key)
            value = self._events.encoded(topic, event, request_id=cursor, correlation_id=key)
            if broken := violations(event):
                detail = f"{type(event).__name__} breaks its contract: {'; '.join(map(str, broken))}"
                aside.append(self._aside(cursor, QUARANTINE_REASON_INVALID, value, detail, topic.name, key))
            else:
                records.append((topic.name, key.encode(), value))
        producer.begin()
        for name, key_bytes, value in records:
            producer.produce(name, key_bytes, value)
        for quarantined in aside:
            producer.produce(self._quarantine, self._service.name.encode(), quarantined.SerializeToString())
        cursor_after = pairs[-1][0]
        producer.produce(self._cursor_place[0], CURSOR_KEY, Cursor(cursor=cursor_after).SerializeToString(), CURSOR_PARTITION)
        producer.commit()
        self._raised += len(records)
        for quarantined in aside:
            self._quarantined += 1
            self._last_quarantined = quarantined.detail
            log_.error("set aside", service=self._service.name, reason=quarantined.detail)
        self._cursor = cursor_after  # last: who sees it in /status sees what was counted below it
        if producer.suspect is not None:
            log_.warning("commit is suspect, producer is renewed", service=self._service.name, reason=producer.suspect)
            producer.renew()

    def _aside(self, cursor: str, reason: Any, raw: bytes, detail: str, topic: str = "", key: str = "") -> Quarantined:
        return Quarantined(
            topic=topic,
            partition=-1,
            offset=-1,
            appended_at=envelope.timestamp(time.time_ns() // 1_000_000),
            key=key.encode() or None,
            value=raw,
            reason=reason,
            detail=f"cursor {cursor}: {detail}"[:1000],
            aggregate=key,
            service=self._service.name,
            build=self._settings.build,
        )


def _portions(pairs: Sequence[_Pair], count: int, most_bytes: int) -> Iterator[Sequence[_Pair]]:
    """What was read, cut so that each portion fits into one transaction; one pair alone always does."""
    first, size = 0, 0
    for index, (_, event) in enumerate(pairs):
        more = len(event.raw) if isinstance(event, Unreadable) else event.ByteSize()
        if index > first and (index - first >= count or size + more > most_bytes):
            yield pairs[first:index]
            first, size = index, 0
        size += more
    if pairs:
        yield pairs[first:]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)

"""The tail: hears events from now on in every replica, and tells the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from backbone.contract import ResolvedService, primary_of
from backbone.declare import Heard, Tail
from backbone.envelope import Undecodable, UnknownEvent, decode, moment_of_ms
from backbone.errors import Unavailable, WorkerEnded
from backbone.ports import Log, Place
from backbone.settings import Settings

STALLED_S = 2.0
"""A gap between two polls after which those who listen must look again."""
AGAIN_S = 0.5

log = structlog.get_logger()

Told = Callable[[Sequence[Heard]], None]


class Listen:
    """Hears the events of one `Tail` with a consumer without group, on a thread of its own.

    Args:
        service: whose tail it is.
        tail: what is heard.
        log: where.
        settings: number of partitions.
    """

    def __init__(self, service: ResolvedService, tail: Tail, log: Log, settings: Settings) -> None:
        self._name = service.name
        self._topic = primary_of(tail.messages[0])
        self._numbers = {self._topic.number(message) for message in tail.messages}
        self._places = [(self._topic.name, partition) for partition in range(settings.partitions)]
        self._log = log
        self._batch = settings.batch

    @contextlib.contextmanager
    def heard_by(self, heard: Told, stalled: Callable[[], None]) -> Iterator[None]:
        """Hear from the ends of all partitions, seen before this returns, until the block is left.

        Args:
            heard: called in the running event loop with what came.
            stalled: called in the event loop after a gap.
        """
        loop = asyncio.get_running_loop()
        ends = self._log.high_watermarks(self._places)
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(ends, heard, stalled, loop, stop), name=f"{self._name}.tail", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5.0)

    def _run(
        self, start: Mapping[Place, int], heard: Told, stalled: Callable[[], None], loop: asyncio.AbstractEventLoop, stop: threading.Event
    ) -> None:
        positions = dict(start)
        while not stop.is_set():
            try:
                self._until_trouble(positions, heard, stalled, loop, stop)
            except (Unavailable, WorkerEnded) as error:
                log.warning("tail interrupted", service=self._name, reason=str(error))
                stop.wait(AGAIN_S)
                _tell(loop, stalled)

    def _until_trouble(
        self,
        positions: dict[Place, int],
        heard: Told,
        stalled: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        stop: threading.Event,
    ) -> None:
        consumer = self._log.consumer(positions)
        last = time.monotonic()
        try:
            while not stop.is_set():
                batch: list[Heard] = []
                for record in consumer.poll(self._batch, 0.2):
                    position = {(record.topic, record.partition): record.offset + 1}
                    positions.update(position)
                    try:
                        decoded = decode(self._topic, record)
                    except (Undecodable, UnknownEvent):
                        continue  # the projector of the same topic sets it aside
                    if decoded.number in self._numbers:
                        batch.append(Heard(decoded.event, moment_of_ms(record.timestamp_ms), position))
                if batch:
                    _tell(loop, heard, batch)
                    self._await(loop, stop)
                now = time.monotonic()
                if now - last > STALLED_S:
                    _tell(loop, stalled)
                last = now
        finally:
            consumer.close()

    def _await(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Wait until the event loop has taken what it was told: while it is busy, the log keeps what comes, and we do not."""
        taken = threading.Event()
        _tell(loop, taken.set)
        while not taken.wait(AGAIN_S) and not stop.is_set() and not loop.is_closed():
            pass


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
        loop.call_soon_threadsafe(what, *arguments)

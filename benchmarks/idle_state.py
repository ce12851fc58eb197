"""What an idle aggregate takes in memory, as an object and as the bytes of its entry, and what using it costs."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from backbone.declare import Decider
from backbone.loops.aggregates import Aggregates, Forgotten
from backbone.loops.snapshots import Held, Snapshots
from contexts.ordering.orders import service as orders
from contexts.ordering.orders.state import Line, Order, Status
from contexts.payments.payments import service as payments
from contexts.payments.payments import state as payment

COUNT = 50_000
USED = 200_000


def measured() -> Iterator[str]:
    """A line for each kind of state, and one for using them."""
    for name, decider, made in KINDS:
        snapshots = Snapshots(decider, "bench")
        objects = _bytes_each(lambda made=made: dict(_held(made)))  # type: ignore[misc]
        held = _bytes_each(lambda snapshots=snapshots, made=made: _as_bytes(snapshots, made))  # type: ignore[misc]
        yield f"{name:<24} {objects:>6.0f} bytes as an object, {held:>6.0f} as bytes: {held / objects:.2f}"
    yield f"{'forgotten':<24} {_bytes_each(_fingerprints):>6.0f} bytes"
    snapshots = Snapshots(orders.decider, "bench")
    live = Aggregates(snapshots.decoded)
    plain: dict[str, Held] = {}
    raw = {key: _written(snapshots, key, held) for key, held in _held(confirmed)}
    of = list(_held(confirmed))
    more_us = (_seconds(lambda: _use(live, of, raw)) - _seconds(lambda: _use_plain(plain, of))) / USED * 1e6
    decode_us = _seconds(lambda: [snapshots.decoded(raw[key]) for key, _ in of]) / COUNT * 1e6
    yield f"{'used again at once':<24} {more_us:>6.2f} us more than in a dict of objects"
    yield f"{'used when it was idle':<24} {decode_us:>6.2f} us to decode it"


def validated(number: int) -> Any:
    """An order of two lines that waits for its answer."""
    lines = (Line(f"CD-{number % 999:05d}", 2, 1466), Line(f"CD-{number % 997:05d}", 1, 999))
    until = datetime(2026, 3, 2, 12, 15, tzinfo=UTC)
    return Order(Status.VALIDATED, f"order-{number:026d}", f"C{number:04d}", "zone-1", f"{number:064x}", lines, 3931, "USD", until)


def confirmed(number: int) -> Any:
    """An order with its answer."""
    return Order(Status.CONFIRMED, f"order-{number:026d}", f"C{number:04d}")


def captured(number: int) -> Any:
    """A payment at its end."""
    return payment.Payment(payment.Status.CAPTURED, f"C{number:04d}")


Made = Callable[[int], Any]
KINDS: tuple[tuple[str, Decider[Any, Any], Made], ...] = (
    ("order that waits", orders.decider, validated),
    ("order with its answer", orders.decider, confirmed),
    ("payment at its end", payments.decider, captured),
)


def _held(made: Made) -> Iterator[tuple[str, Held]]:
    for number in range(COUNT):
        key = f"order-{number:026d}"
        yield key, Held(made(number), 4, f"order-{number:026d}", 1_772_000_000_000 + number)  # a text of its own, as it is decoded


def _written(snapshots: Snapshots, key: str, held: Held) -> bytes:
    return list(snapshots.entries(key, held))[-1][1] or b""


def _as_bytes(snapshots: Snapshots, made: Made) -> Aggregates:
    held = Aggregates(snapshots.decoded)
    for key, one in _held(made):
        held.put_by(key, _written(snapshots, key, one), stub=True)
    return held


def _fingerprints() -> Forgotten:
    forgotten = Forgotten()
    for bucket, raw in forgotten.with_more(f"order-{number:026d}" for number in range(COUNT)).items():
        forgotten.put(bucket, raw)
    return forgotten


def _use(live: Aggregates, of: list[tuple[str, Held]], raw: dict[str, bytes]) -> None:
    for number in range(USED):
        key, held = of[number % 1000]
        live.get(key)
        live.keep(key, held, raw[key])


def _use_plain(plain: dict[str, Held], of: list[tuple[str, Held]]) -> None:
    for number in range(USED):
        key, held = of[number % 1000]
        plain.get(key)
        plain[key] = held


def _bytes_each(make: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        made = make()
        used, _ = tracemalloc.get_traced_memory()
        del made
    finally:
        tracemalloc.stop()
    return used / COUNT


def _seconds(work: Callable[[], object]) -> float:
    """The least of three runs, in seconds of CPU."""
    taken = []
    for _ in range(3):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


if __name__ == "__main__":
    for line in measured():
        print(line)

"""Whether a platform is at rest: everything in the log is read, decided, shown and done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from laws import log

STILL_FOR_S = 1.0
"""How long nothing may have been appended; the slowest reaction to a record takes a fraction of it."""
PAUSE_S = 0.25


class Restless(Exception):
    """The platform did not come to rest in time; says what is still under way."""


def wait_for_rest(
    kafka: Mapping[str, str], health: Mapping[str, str], within_s: float, told: Callable[[str], None] = lambda _: None
) -> None:
    """Wait until nothing is under way any more.

    Args:
        kafka: options of librdkafka that say where the log is and as whom it is asked.
        health: address of the health port of every process, by name.
        told: is given what it waits for, whenever that changes.

    Raises:
        Restless: something was still under way after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    before: dict[tuple[str, int], int] = {}
    still_since = time.monotonic()
    said = ""
    while True:
        ends = log.ends(kafka)
        if ends != before:
            before, still_since = ends, time.monotonic()
        waits = next(under_way(health, ends), "")
        if not waits and time.monotonic() - still_since >= STILL_FOR_S:
            return
        waits = waits or "the log to be still"
        if waits != said:
            told(waits)
            said = waits
        if time.monotonic() > deadline:
            raise Restless(f"after {within_s:.0f} s, still waiting for {waits}")
        time.sleep(PAUSE_S)


def under_way(health: Mapping[str, str], ends: Mapping[tuple[str, int], int]) -> Iterator[str]:
    """What is not done yet, told by the processes themselves."""
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        for name, address in health.items():
            try:
                status = client.get(f"{address}/status").json()
            except (httpx.HTTPError, ValueError) as error:
                yield f"{name} to answer ({error})"
                continue
            if not status["ready"]:
                yield f"{name}: {status['why_not']}"
            for part, of in {**status["loops"], **status["edges"]}.items():
                yield from _part(part, of, ends)


def _part(name: str, of: Mapping[str, Any], ends: Mapping[tuple[str, int], int]) -> Iterator[str]:
    for (topic, partition), position in _positions(of).items():
        # A transaction's marker at the end is an offset nobody has to read.
        if ends.get((topic, partition), 0) - position > 1:
            yield f"{name} to read {topic}/{partition} from {position} to {ends[topic, partition]}"
    for number, held in _partitions(of).items():
        if held["waiting"] or held["waits_for"]:
            yield f"{name}, partition {number}: {held['waits_for'] or held['waiting']}"
    if of.get("open"):
        yield f"{name} to do {of['open']} commands"
    if of.get("polls") and not of.get("caught_up"):
        yield f"{name} to read its source"
    if of.get("under_way"):
        yield f"{name} to append {of['under_way']} records"


def _partitions(of: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    found = of.get("partitions")
    return found if isinstance(found, dict) else {}


def _positions(of: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    if of.get("loop") == "project":
        return {(of["topic"], int(partition)): position for partition, position in of["positions"].items()}
    return {
        (topic, int(partition)): position
        for partition, held in _partitions(of).items()
        for topic, position in held["positions"].items()
        if not topic.endswith(".ticks")
    }

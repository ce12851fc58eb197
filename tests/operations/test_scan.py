"""One pass over many partitions: everything that is there, nothing that comes later, and never for ever."""

from __future__ import annotations

from backbone.adapters.memory import MemoryLog
from backbone.operations.scan import Scan, existing
from backbone.ports import Place

PLACES: list[Place] = [("a", 0), ("a", 1), ("b", 0)]


def log_with(**records: int) -> MemoryLog:
    """A log with so many records in partition 0 of each topic."""
    log = MemoryLog()
    for topic in ("a", "b"):
        log.create_topic(topic, 2)
    producer = log.producer("writer")
    for topic, count in records.items():
        producer.begin()
        for number in range(count):
            producer.produce(topic, b"key", b"%d" % number, 0)
        producer.commit()
    return log


def test_everything_is_read_once() -> None:
    found = list(Scan(log_with(a=3, b=2), PLACES))
    assert sorted((record.topic, record.value) for record in found) == [("a", b"0"), ("a", b"1"), ("a", b"2"), ("b", b"0"), ("b", b"1")]


def test_an_empty_log_is_read_at_once() -> None:
    scan = Scan(log_with(), PLACES)
    assert list(scan) == []
    assert scan.unread == {}


def test_what_comes_after_the_beginning_is_left_for_the_next_time() -> None:
    log = log_with(a=2)
    scan = Scan(log, PLACES)
    log.appender().append("a", b"key", b"late", 0)
    assert [record.value for record in scan] == [b"0", b"1"]


def test_reading_starts_where_it_is_told() -> None:
    found = list(Scan(log_with(a=3), PLACES, since={("a", 0): 2}))
    assert [record.value for record in found] == [b"2"]


def test_a_start_before_the_beginning_is_the_beginning() -> None:
    assert len(list(Scan(log_with(a=3), PLACES, since={("a", 0): -7}))) == 3


def test_an_open_transaction_is_left_unread_and_said_so() -> None:
    log = log_with(a=1)
    hanging = log.producer("hanging")
    hanging.begin()
    hanging.produce("a", b"key", b"unfinished", 0)
    scan = Scan(log, PLACES, stall_s=0.2)
    assert [record.value for record in scan] == [b"0"]
    assert list(scan.unread) == [("a", 0)]


def test_progress_ends_with_all_of_it() -> None:
    told: list[tuple[int, int]] = []
    list(Scan(log_with(a=3, b=1), PLACES, progress=lambda done, total: told.append((done, total))))
    done, total = told[-1]
    assert done == total >= 4


def test_partitions_that_do_not_exist_are_told_apart() -> None:
    assert existing(log_with(), [("a", 0), ("a", 9), ("none", 0)]) == [("a", 0)]

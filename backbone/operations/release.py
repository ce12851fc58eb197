"""An operator's word about records in quarantine: decide them now, or never."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backbone.envelope import entry_key
from backbone.errors import BackboneError
from backbone.loops.snapshots import PARKED
from backbone.operations.quarantine import Aside, NotQuarantined
from backbone.ports import Log, Place
from backbone.v1.private_pb2 import QUARANTINE_REASON_BEHIND_PARKED, QUARANTINE_REASON_RAISED, Parked, Quarantined, Release, StateEntry

DECIDED_WITHIN_S = 30.0
LOOK_EVERY_S = 0.1
TRIES = 5
"""Records that come for a parked key while its release is written make the release void; it is written anew this often."""

PARKS = frozenset({QUARANTINE_REASON_RAISED, QUARANTINE_REASON_BEHIND_PARKED})


class NotReleased(BackboneError):
    """The records stay where they are; says why."""


@dataclass(frozen=True, slots=True)
class Released:
    """What came of a release.

    Attributes:
        records: how many are decided now.
        dropped: how many nobody will decide.
        parked_again: why the aggregate is parked again, if it is.
    """

    service: str
    aggregate: str
    records: int
    dropped: int
    parked_again: str


def release(
    log: Log,
    asides: Callable[[], Sequence[Aside]],
    name: str,
    *,
    drop: bool,
    operator: str,
    because: str,
    committed: Callable[[str], Mapping[Place, int]],
) -> Released:
    """Release or drop a record, and with it all that waits behind it for the same aggregate.

    Args:
        asides: reads the quarantine.
        name: of the record, or of any record of a parked aggregate.
        drop: nobody will decide the named record; what is behind it is decided.
        operator: who says it.
        because: why; kept for ever with it.
        committed: the offsets of a group.

    Raises:
        NotQuarantined: there is no such record.
        NotReleased: it was released before, its service is not running, or it changes all the time.
        Unavailable: Kafka does not answer.
    """
    service = aggregate = ""
    for _ in range(TRIES):
        found = asides()
        named = _named(found, name)
        service, aggregate = named.quarantined.service, named.quarantined.aggregate
        partition = _partition(named)
        parked = _parked(log, service, partition, aggregate) if named.quarantined.reason in PARKS else None
        if named.quarantined.reason in PARKS and parked is None:
            raise NotReleased(f"{aggregate!r} of {service} is not parked: {name} was released before")
        if parked is None:
            _refuse_twice(log, service, partition, named.quarantined)
        waiting = _waiting(found, service, aggregate, parked.waiting) if parked is not None else [named]
        if drop and named not in waiting:
            raise NotReleased(f"{name} was released before; {len(waiting)} records of {aggregate!r} wait")
        word = Release(
            aggregate=aggregate if parked is not None else "",
            records=[one.quarantined for one in waiting if not (drop and one is named)],
            dropped=[named.quarantined] if drop else [],
            operator=operator,
            because=because,
        )
        _await(log, service, partition, word, committed)
        after = _parked(log, service, partition, aggregate)
        if (
            parked is None
            or after is None
            or (after.topic, after.partition, after.offset) != (parked.topic, parked.partition, parked.offset)
        ):
            return Released(service, aggregate, len(word.records), len(word.dropped), after.reason if after else "")
        if after.waiting == parked.waiting:
            return Released(service, aggregate, len(word.records), len(word.dropped), after.reason)
    raise NotReleased(f"more and more comes for {aggregate!r} of {service}; stop what causes it, or try again")


def _named(found: Sequence[Aside], name: str) -> Aside:
    matching = [aside for aside in found if aside.name == name]
    if not matching:
        raise NotQuarantined(f"nothing in quarantine under {name!r}; `backbone quarantine list` gives the names")
    return matching[-1]


def _partition(aside: Aside) -> int:
    """The partition of the decider: that of the quarantine record, which lies in the partition it came from."""
    return int(aside.name.rpartition("/")[2].partition("@")[0])


def _waiting(found: Sequence[Aside], service: str, aggregate: str, count: int) -> list[Aside]:
    """The last `count` records of a parked aggregate: each was set aside as its mark was counted up."""
    of = [a for a in found if (a.quarantined.service, a.quarantined.aggregate) == (service, aggregate) and a.quarantined.reason in PARKS]
    return sorted(of, key=lambda aside: int(aside.name.rpartition("@")[2]))[-count:]


def _parked(log: Log, service: str, partition: int, aggregate: str) -> Parked | None:
    place = (f"private.{service}.state", partition)
    if place[0] not in log.topics():
        return None
    key, parked = entry_key(aggregate, PARKED), None
    for record in log.read(place, log.starts([place])[place], log.high_watermarks([place])[place]):
        if record.key == key:
            parked = StateEntry.FromString(record.value).parked if record.value is not None else None
    return parked


def _refuse_twice(log: Log, service: str, partition: int, quarantined: Quarantined) -> None:
    place = (f"private.{service}.releases", partition)
    if place[0] not in log.topics():
        raise NotReleased(f"{service} decides nothing: a view takes up a record again when its version is raised")
    coordinate = (quarantined.topic, quarantined.partition, quarantined.offset)
    for record in log.read(place, log.starts([place])[place], log.high_watermarks([place])[place]):
        word = Release.FromString(record.value or b"")
        if any((one.topic, one.partition, one.offset) == coordinate for one in (*word.records, *word.dropped)):
            raise NotReleased(f"{quarantined.topic}/{quarantined.partition}@{quarantined.offset} was released before, by {word.operator}")


def _await(log: Log, service: str, partition: int, word: Release, committed: Callable[[str], Mapping[Place, int]]) -> None:
    place = (f"private.{service}.releases", partition)
    appender = log.appender()
    try:
        appended = appender.append(place[0], (word.aggregate or "-").encode(), word.SerializeToString(), partition)
        _, offset = appended.result(DECIDED_WITHIN_S)
    finally:
        appender.close()
    deadline = time.monotonic() + DECIDED_WITHIN_S
    while committed(service).get(place, 0) <= offset:
        if time.monotonic() > deadline:
            raise NotReleased(f"{service} has not taken the release up within {DECIDED_WITHIN_S:.0f} s; it will when it runs")
        time.sleep(LOOK_EVERY_S)

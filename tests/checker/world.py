"""What the checker is given: raw records, views, books and histories, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from laws.entries import BookEntry, Place
from laws.history import Call, Disturbance


@dataclass(frozen=True, slots=True)
class Lain:
    """A record as it lies in the log.

    Attributes:
        at_ms: when it was appended, by the broker's clock, in milliseconds since the epoch.
        committed: whether a reader of committed records sees it.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    at_ms: int
    committed: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """What lay in one partition of a view at one instant.

    Attributes:
        watermark: next offset of the topic the view folds; None if the view was not there.
        scores: index entries by group, for the views that have an index; None if it was not looked at.
        final: it was taken when everything was at rest.
    """

    view: str
    version: int
    partition: int
    watermark: int | None
    rows: Mapping[str, bytes]
    scores: Mapping[str, Mapping[str, float]] | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """All that is judged.

    Attributes:
        records: of every topic, aborted ones included.
        topic_ids: what Kafka calls each topic, by name.
        receipts: pool, SKU and quantity of every line of the ramp's book, by receipt; None if nobody looked.
        decided: next offset of each input partition, by service of the decider.
        at_rest: nothing is under way.
    """

    records: Sequence[Lain]
    topic_ids: Mapping[str, str]
    books: Sequence[BookEntry] = ()
    calls: Sequence[Call] = ()
    disturbed: Sequence[Disturbance] = ()
    samples: Sequence[Sample] = ()
    receipts: Mapping[str, tuple[str, str, int]] | None = None
    decided: Mapping[str, Mapping[tuple[str, int], int]] = field(default_factory=dict)
    at_rest: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule, and the smallest thing that shows it.

    Attributes:
        rule: its name.
        text: what is wrong, in one line.
        witnesses: where to see it.
        order_id: which order it is about, if it is about one.
    """

    rule: str
    text: str
    witnesses: tuple[Place, ...] = ()
    order_id: str = ""

    def __str__(self) -> str:
        places = f"  [{', '.join(map(str, self.witnesses))}]" if self.witnesses else ""
        return f"{self.rule}: {self.text}{places}"

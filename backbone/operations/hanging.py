"""Transactions that nobody will end any more, and the partitions whose readers they hold up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from backbone.ports import Place

CLEANUP_S = 10.0
"""How often a broker looks for transactions whose time is over, by default."""

SPARE_S = 5.0
LOOK_EVERY_S = 1.0


class Ends(Protocol):
    """Who knows how far partitions can be read."""

    def unstable(self) -> Mapping[Place, int]:
        """Partitions in which something lies that is neither committed nor aborted, with the offset where it begins."""
        ...


@dataclass(frozen=True, slots=True)
class Hanging:
    """A partition in which a transaction stays open though its time is over.

    Attributes:
        place: the partition.
        offset: readers of what is committed get no further.
    """

    place: Place
    offset: int

    def __str__(self) -> str:
        return f"{self.place[0]}/{self.place[1]}@{self.offset}"


def hanging(ends: Ends, transaction_timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> tuple[Hanging, ...]:
    """Partitions that stand still for longer than a broker lets a transaction stay open.

    Returns at once if nothing is open, and as soon as everything that was open has moved; a transaction that is not hanging is never named,
    since the broker would have ended it in this time.

    Args:
        transaction_timeout_s: the longest that any producer of this cluster may take.
        sleep: waits so many seconds.
    """
    standing = dict(ends.unstable())
    looks = 0
    while standing and looks * LOOK_EVERY_S < transaction_timeout_s + CLEANUP_S + SPARE_S:
        sleep(LOOK_EVERY_S)
        looks += 1
        now = ends.unstable()
        standing = {place: offset for place, offset in standing.items() if now.get(place) == offset}
    return tuple(Hanging(place, offset) for place, offset in sorted(standing.items()))


def remedy(bootstrap: str, found: Hanging) -> str:
    """How an operator ends it. Kafka's own tool asks the coordinator first; what it ends counts as aborted."""
    tool = f"kafka-transactions.sh --bootstrap-server {bootstrap}"
    topic, partition = found.place
    return (
        f"`{tool} describe-producers --topic {topic} --partition {partition}` names the producer and `{tool} list` its state; once that is "
        f"complete or gone, `{tool} abort --topic {topic} --partition {partition} --start-offset {found.offset}` lets readers go on. "
        "If it is CompleteCommit, what lies there was committed and is lost by that (ADR 15)"
    )

"""Faults: what may go wrong, drawn in advance from a seed, so that a failing run can be repeated with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Kind(StrEnum):
    """What happens. The first group strikes at a call of a worker to the outside, the second at a moment."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    REFUSED = "refused"
    REPLY_LOST = "reply lost"
    SUSPECT = "suspect"
    HANGS = "end of transaction hangs"
    USURPED = "successor starts meanwhile"
    OVERTAKEN = "others go first"
    FROZEN = "frozen"

    STOP = "stopped"
    KILL_CONTEXT = "context killed"
    ZOMBIE = "successor starts"
    SCALE = "second slot"
    REBALANCE = "rebalanced"
    FENCE = "fenced"
    FLUSH = "rows flushed"
    ROLL_BACK = "rows rolled back"
    ROWS_DOWN = "rows down"
    HIDE = "seen late"
    MARK_LATE = "markers late"
    COMPACT = "compacted"
    OFFSETS_LOST = "offsets lost"
    CLOCK = "clock jumps"
    OUTSIDE = "outside misbehaves"


AT_A_CALL: Mapping[Kind, Sequence[str]] = {
    Kind.CRASH_BEFORE: (),
    Kind.CRASH_AFTER: (),
    Kind.REFUSED: (),
    Kind.REPLY_LOST: ("commit", "apply", "append"),
    Kind.SUSPECT: ("commit",),
    Kind.HANGS: ("commit",),
    Kind.USURPED: (),
    Kind.OVERTAKEN: (),
    Kind.FROZEN: ("poll", "produce", "send_offsets", "commit", "apply", "committed"),
}
"""Kinds that strike at a call, with the only calls they strike at, if so."""

CALLS: Mapping[str, Sequence[str]] = {
    "decide": (
        *("poll", "begin", "produce", "produce", "send_offsets", "send_offsets", "commit", "commit"),
        *("committed", "high_watermarks", "read", "fetch", "renew", "starts"),
    ),
    "project": ("poll", "fetch", "apply", "apply", "high_watermarks", "starts"),
    "effects": ("poll", "begin", "produce", "produce", "send_offsets", "commit", "commit", "starts", "high_watermarks", "outside"),
    "intake": ("begin", "produce", "commit", "commit", "read"),
    "door": ("append",),
}
"""Calls to the outside by purpose of a worker; what is named twice is struck twice as often."""


AT_A_MOMENT: Sequence[Kind] = (
    *(kind for kind in Kind if kind not in AT_A_CALL),
    *(Kind.SCALE, Kind.SCALE, Kind.SCALE, Kind.MARK_LATE, Kind.MARK_LATE, Kind.CLOCK, Kind.OFFSETS_LOST, Kind.FLUSH, Kind.OUTSIDE),
)
"""Kinds that happen at a moment; what is named more than once comes more often."""

WEIGHTS: Mapping[str, int] = {"decide": 5, "effects": 5, "intake": 2}
"""How often a purpose is hit, compared with the others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        number: its place in the plan.
        at_s: when it happens, or from when on it waits for its call.
        target: name of a worker, or of a context.
        call: the call it waits for.
        skip: how many such calls it lets pass.
        length_s: how long it lasts.
    """

    number: int
    kind: Kind
    at_s: float
    target: str = ""
    call: str = ""
    skip: int = 0
    length_s: float = 0.0

    def __str__(self) -> str:
        where = f" of {self.target}" if self.target else ""
        call = f" at {self.call} {self.skip + 1}" if self.call else ""
        return f"{self.number}: {self.kind}{where}{call} at {self.at_s:.2f} s for {self.length_s:.2f} s"


def draw(lot: Random, count: int, within_s: float, workers: Mapping[str, str], contexts: Sequence[str]) -> list[Fault]:
    """A plan.

    Args:
        within_s: when all have begun.
        workers: purpose of every worker by name.
        contexts: names of what has rows of its own.
    """
    return [_one(lot, number, within_s, workers, contexts) for number in range(count)]


def _one(lot: Random, number: int, within_s: float, workers: Mapping[str, str], contexts: Sequence[str]) -> Fault:
    at_s, length_s = lot.uniform(0.0, within_s), lot.choice((0.05, 0.3, 1.0, 3.0)) * lot.uniform(0.5, 1.5)
    kind = lot.choice(list(AT_A_CALL)) if lot.random() < 0.6 else lot.choice(AT_A_MOMENT)
    weights = [WEIGHTS.get(purpose, 1) for purpose in workers.values()]
    target = lot.choices(list(workers), weights)[0]
    if kind in AT_A_CALL:
        possible = [call for call in CALLS[workers[target]] if not AT_A_CALL[kind] or call in AT_A_CALL[kind]]
        while not possible:
            target = lot.choices(list(workers), weights)[0]
            possible = [call for call in CALLS[workers[target]] if not AT_A_CALL[kind] or call in AT_A_CALL[kind]]
        return Fault(number, kind, at_s, target, lot.choice(possible), lot.choice((0, 0, 0, 1, 2, 5)), length_s)
    if kind in (Kind.FLUSH, Kind.ROLL_BACK, Kind.ROWS_DOWN, Kind.KILL_CONTEXT):
        target = lot.choice(list(contexts))
    elif kind in (Kind.HIDE, Kind.MARK_LATE, Kind.COMPACT, Kind.CLOCK, Kind.OUTSIDE):
        target = ""
    elif kind is Kind.OFFSETS_LOST:
        target = lot.choice([name for name, purpose in workers.items() if purpose == "decide"])
    return Fault(number, kind, at_s, target, "", 0, length_s)

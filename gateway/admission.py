"""Who may enter, and how much may be under way: decided before anything is produced, without I/O and by a clock that is given.

The rules it obeys
1. How many orders may be under way follows from how many of their answers come late: none late, and the limit grows while it is used;
   some late, and it shrinks by half their share, once per round (as DCTCP does with marked packets; concurrency-limits of Netflix does
   the like with gradients). It stays between a floor and a ceiling.
2. An order keeps its place until its answer is heard. Without one it keeps it until its caller has left, and for `HELD_S` at least: who
   asks and leaves at once takes no more than who waits. So orders that wait for something that is down neither close the door for ever
   nor open it without bound: it lets the floor in every `HELD_S`.
3. An order that is late counts as late when it becomes so, not when its answer comes; one that was let in under an earlier limit says
   nothing about this one.
4. Nobody may go beyond a fair share of the places while others, who have less, were turned away a moment ago; and the last places are
   kept for who has less than a fair share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from backbone.errors import Unavailable
from gateway.refusals import overloaded

# As long as a client waits that does not say how long.
HELD_S = 10.0
# A round has at least so many answers and lasts at least so long.
ROUND_ANSWERS, ROUND_S = 10, 0.5
# What may be late without the limit being to blame: a rebalance, a card that is looked at twice.
TOLERATED = 0.05
# The limit before anything is known.
FIRST = 64
# Growth per round below the limit at which answers were late last; above it, it grows by its square root.
QUICK = 1.5
# One place in so many is kept for who has less than a fair share.
KEPT = 10
# Who was turned away counts as wanting to enter for so long: a little longer than the longest pause that is asked for.
WANTS_S = 6.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 4.0
# Names that are kept of who was turned away.
NAMES = 1_000


class Limit:
    """How many orders may be under way.

    Args:
        least: the floor.
        most: the ceiling.
        late_after_s: an order without an answer for so many seconds is late.
    """

    def __init__(self, least: int, most: int, late_after_s: float) -> None:
        self.least = min(least, most)
        self.most = most
        self.late_after_s = late_after_s
        self.answer_s = 0.0
        self._current = float(min(max(self.least, FIRST), most))
        self._late_at = math.inf
        self._since = -math.inf
        self._answers = self._late = self._used = 0

    @property
    def current(self) -> int:
        """The limit now."""
        return int(self._current)

    def used(self, under_way: int) -> None:
        """So many are under way."""
        self._used = max(self._used, under_way)

    def answered(self, let_in: float, now: float) -> None:
        """An answer came in time, to an order that was let in then."""
        self.answer_s += (now - let_in - self.answer_s) / 16
        self._count(let_in, now, late=False)

    def late(self, let_in: float, now: float) -> None:
        """An order is late."""
        self.answer_s += (now - let_in - self.answer_s) / 16
        self._count(let_in, now, late=True)

    def _count(self, let_in: float, now: float, *, late: bool) -> None:
        if let_in < self._since:
            return
        self._answers += 1
        self._late += late
        if self._answers >= ROUND_ANSWERS and now - self._since >= ROUND_S:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        share = self._late / self._answers
        if share > TOLERATED:
            self._late_at = self._current
            self._current *= 1 - share / 2
        elif self._used * 2 >= self._current:
            # just below, growth goes on with care; far below, the limit was cut by something that is over
            self._current = self._current * QUICK if self._current * QUICK < self._late_at else self._current + math.sqrt(self._current)
        self._current = min(max(self._current, self.least), self.most)
        self._since = now
        self._answers = self._late = self._used = 0


class Shares:
    """Who holds how many of some places, and who was turned away."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._wanting: dict[str, float] = {}
        self.total = 0

    def take(self, principal: str, places: int, now: float) -> int | None:
        """Take a place.

        Args:
            places: how many there are.

        Returns:
            None if it was taken; else how many the principal may have now, which is `places` if there is no place at all.
        """
        self._forget(now)
        held = self._held.get(principal, 0)
        others = len(self._held) - (principal in self._held)
        others += sum(name != principal and name not in self._held for name in self._wanting)
        share, share_with_one_more = max(1, places // (others + 1)), max(1, places // (others + 2))
        most = places
        if held >= share and any(self._held.get(name, 0) < share for name in self._wanting if name != principal):
            most = 0
        elif held >= share_with_one_more:
            most = places - places // KEPT
        if self.total < most:
            self._wanting.pop(principal, None)
            self._held[principal] = held + 1
            self.total += 1
            return None
        if held < share:
            self._wanting.pop(principal, None)
            if len(self._wanting) < NAMES:
                self._wanting[principal] = now + WANTS_S
        return places if self.total >= places else most or share

    def give_back(self, principal: str) -> None:
        """Leave a place."""
        self.total -= 1
        held = self._held.pop(principal) - 1
        if held:
            self._held[principal] = held

    @property
    def principals(self) -> int:
        """How many hold a place."""
        return len(self._held)

    def _forget(self, now: float) -> None:
        while self._wanting and next(iter(self._wanting.values())) <= now:
            del self._wanting[next(iter(self._wanting))]


@dataclass(eq=False, slots=True)
class Place:
    """The place of one order.

    Attributes:
        callers: how many calls are about it now.
        raised: whether it is in the log, or may get there.
        settled: whether it is known to be in time or late, or has nothing to tell.
    """

    principal: str
    order_id: str
    let_in: float
    callers: int = 0
    raised: bool = False
    settled: bool = False


@dataclass
class Door:
    """All that is under way at this door; bounded.

    Args:
        calls: how many calls may be under way at once, whatever they want.
        limit: how many orders.
        clock: seconds.
        chance: a number from 0 to 1, another each time.
    """

    calls: int
    limit: Limit
    clock: Callable[[], float]
    chance: Callable[[], float]
    refused: int = 0
    closed: bool = False
    _calling: Shares = field(default_factory=Shares)
    _ordering: Shares = field(default_factory=Shares)
    _places: dict[str, Place] = field(default_factory=dict)
    _by_age: deque[Place] = field(default_factory=deque)
    _leaving: deque[Place] = field(default_factory=deque)

    def __len__(self) -> int:
        return self._calling.total

    @contextmanager
    def call(self, principal: str) -> Iterator[None]:
        """Count a call, until the context is left, however it is left.

        Raises:
            Refusal: too many are under way, of all or of this principal.
            Unavailable: this door closes.
        """
        if self.closed:
            raise Unavailable("this gateway stops; another one answers")
        most = self._calling.take(principal, self.calls, self.clock())
        if most is not None:
            self._refuse("calls", most, self.calls)
        try:
            yield
        finally:
            self._calling.give_back(principal)

    @contextmanager
    def order(self, principal: str, order_id: str) -> Iterator[Place]:
        """Take a place for an order, or join the call that has it; set `raised` before anything is raised.

        Raises:
            Refusal: too many orders are under way, of all or of this principal.
        """
        now = self.clock()
        self._look(now)
        place = self._places.get(order_id)
        if place is None:
            most = self._ordering.take(principal, self.limit.current, now)
            if most is not None:
                self._refuse("orders", most, self.limit.current)
            place = self._places[order_id] = Place(principal, order_id, now)
            self._by_age.append(place)
            self.limit.used(self._ordering.total)
        place.callers += 1
        try:
            yield place
        finally:
            place.callers -= 1
            if not place.callers and self._places.get(order_id) is place:
                if place.raised:
                    self._leaving.append(place)
                    self._look(self.clock())
                else:
                    self._free(place)

    def heard(self, order_id: str) -> None:
        """The answer of an order is known."""
        place = self._places.get(order_id)
        if place is None:
            return
        now = self.clock()
        self._look(now)
        if place.raised and not place.settled:
            self.limit.answered(place.let_in, now)
        if self._places.get(order_id) is place:
            self._free(place)

    def status(self) -> Mapping[str, float]:
        """The limit of now, what is under way, and how many were turned away, for /status and /metrics."""
        self._look(self.clock())
        return {
            "limit": self.limit.current,
            "limit_least": self.limit.least,
            "limit_most": self.limit.most,
            "under_way": self._ordering.total,
            "calls": self._calling.total,
            "principals": self._ordering.principals,
            "answer_s": round(self.limit.answer_s, 3),
            "refused": self.refused,
        }

    def _look(self, now: float) -> None:
        """See who has become late, and whose place is free though no answer came."""
        while self._by_age and (self._by_age[0].settled or now - self._by_age[0].let_in >= self.limit.late_after_s):
            place = self._by_age.popleft()
            if place.raised and not place.settled:
                self.limit.late(place.let_in, now)
            place.settled = True
        while self._leaving and (self._leaving[0].order_id not in self._places or now - self._leaving[0].let_in >= HELD_S):
            place = self._leaving.popleft()
            if not place.callers and self._places.get(place.order_id) is place:
                self._free(place)

    def _free(self, place: Place) -> None:
        place.settled = True
        del self._places[place.order_id]
        self._ordering.give_back(place.principal)

    def _refuse(self, what: str, most: int, of: int) -> None:
        self.refused += 1
        pause = min(max(self.limit.answer_s, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
        raise overloaded(what, most, of, retry_after_s=pause * (0.5 + self.chance()))

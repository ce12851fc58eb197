"""Given what is under way and how answers come, who may enter: by a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from backbone.errors import Unavailable
from gateway.admission import FIRST, HELD_S, ROUND_ANSWERS, WANTS_S, Door, Limit, Place
from gateway.refusals import Refusal

LATE_S = 2.0


@dataclass
class Scene:
    """A door, and the orders that are under way."""

    least: int = 10
    most: int = 200
    calls: int = 1000
    now: float = 0.0
    number: int = 0
    let_in: int = 0
    chance: float = 0.5
    door: Door = field(init=False)
    due: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.door = Door(self.calls, Limit(self.least, self.most, LATE_S), lambda: self.now, lambda: self.chance)

    @property
    def limit(self) -> float:
        return self.door.status()["limit"]

    @property
    def under_way(self) -> float:
        return self.door.status()["under_way"]

    def placed(self, principal: str = "ann", *, stays: ExitStack | None = None) -> str:
        """An order that is in the log; its caller leaves at once, or stays."""
        self.number += 1
        order_id = f"order-{self.number}"
        with ExitStack() as leaves:
            place = (stays or leaves).enter_context(self.door.order(principal, order_id))
            place.raised = True
        self.let_in += 1
        return order_id

    def turned_away(self, principal: str) -> Refusal:
        with pytest.raises(Refusal) as refusal:
            self.placed(principal)
        return refusal.value

    def second(self, answers: Callable[[int], float | None], *, offered: int = 10_000) -> int:
        """A second in which as many enter as may, each answered after some seconds, depending on how many are under way, or never.

        Returns:
            How many were answered.
        """
        answered = 0
        for _ in range(20):
            self.now += 0.05
            for at, order_id in [one for one in self.due if one[0] <= self.now]:
                self.due.remove((at, order_id))
                self.door.heard(order_id)
                answered += 1
            for _ in range(offered // 20):
                try:
                    order_id = self.placed(f"customer-{self.number}")
                except Refusal:
                    break
                if (took := answers(int(self.under_way))) is not None:
                    self.due.append((self.now + took, order_id))
        return answered


def test_the_limit_grows_to_its_ceiling_while_answers_are_quick() -> None:
    scene = Scene()
    for _ in range(20):
        scene.second(lambda _: 0.2)
    assert scene.limit == 200


def test_the_limit_does_not_grow_while_few_enter() -> None:
    scene = Scene()
    for _ in range(20):
        scene.second(lambda _: 0.2, offered=20)
    assert scene.limit == FIRST


def test_a_shop_that_answers_so_many_a_second_is_kept_busy_and_hardly_anybody_is_answered_late() -> None:
    """Fifty answers a second: a queue of n takes n / 50 seconds. So 100 under way is where answers become late."""
    scene = Scene()
    free_at = 0.0
    late = 0

    def answers(_: int) -> float:
        nonlocal free_at, late
        free_at = max(free_at, scene.now) + 1 / 50
        late += free_at - scene.now > 1.5 * LATE_S
        return free_at - scene.now

    for _ in range(20):
        scene.second(answers)
    limits, answered, late = [], 0, 0
    for _ in range(60):
        answered += scene.second(answers)
        limits.append(scene.limit)
    assert answered > 0.95 * 50 * 60
    assert all(40 <= limit <= 140 for limit in limits), limits
    assert late == 0


def test_a_limit_that_does_not_look_at_answers_would_answer_late() -> None:
    """The same shop behind a fixed limit: what the test above is able to see."""
    scene = Scene(least=200, most=200)
    free_at, took = 0.0, 0.0

    def answers(_: int) -> float:
        nonlocal free_at, took
        free_at = max(free_at, scene.now) + 1 / 50
        took = free_at - scene.now
        return took

    for _ in range(20):
        scene.second(answers)
    assert took > 1.5 * LATE_S


def test_while_nothing_is_answered_the_door_lets_the_floor_in_again_and_again_and_no_more() -> None:
    """Payments is down: neither closed for ever nor open without bound."""
    scene = Scene()
    for _ in range(20):
        scene.second(lambda _: 0.2)
    for _ in range(70):
        scene.second(lambda _: None)
    assert scene.limit == 10
    before = scene.let_in
    for _ in range(60):
        scene.second(lambda _: None)
        assert scene.under_way <= 10
    assert 10 * 60 / HELD_S - 10 <= scene.let_in - before <= 10 * 60 / HELD_S + 10


def test_once_answers_come_again_the_limit_grows_again() -> None:
    scene = Scene()
    for _ in range(60):
        scene.second(lambda _: None)
    assert scene.limit == 10
    for _ in range(30):
        scene.second(lambda _: 0.2)
    assert scene.limit == 200


def test_who_asks_and_leaves_at_once_holds_the_place_until_the_answer() -> None:
    scene = Scene(least=1, most=1)
    order_id = scene.placed()
    assert scene.turned_away("bob").reason == "TOO_MANY_ORDERS"
    scene.door.heard(order_id)
    scene.placed("bob")


def test_a_place_whose_caller_has_left_is_free_after_a_while_without_answer() -> None:
    scene = Scene(least=1, most=1)
    scene.placed()
    scene.now = HELD_S - 0.01
    scene.turned_away("bob")
    scene.now = HELD_S
    scene.placed("bob")


def test_a_caller_who_stays_keeps_the_place() -> None:
    scene = Scene(least=1, most=1)
    with ExitStack() as stays:
        scene.placed(stays=stays)
        scene.now = 3 * HELD_S
        scene.turned_away("bob")
    scene.placed("bob")


def test_what_was_not_raised_leaves_its_place_at_once_and_tells_nothing() -> None:
    scene = Scene(least=10, most=10)
    for number in range(50):
        with suppress(ZeroDivisionError), scene.door.order("ann", f"order-{number}"):
            raise ZeroDivisionError
    scene.now += 10
    assert (scene.under_way, scene.door.status()["answer_s"]) == (0, 0)


def test_a_second_call_about_the_same_order_takes_no_second_place() -> None:
    scene = Scene(least=1, most=1)
    with scene.door.order("ann", "one") as first, scene.door.order("ann", "one") as second:
        assert first is second
        first.raised = True
    assert scene.under_way == 1
    scene.door.heard("one")
    scene.door.heard("one")
    assert scene.under_way == 0


def test_orders_that_were_let_in_under_an_earlier_limit_do_not_cut_it_twice() -> None:
    scene = Scene(least=10, most=100)
    scene.door.limit._current = 100.0
    with ExitStack() as stay:
        for number in range(100):
            scene.placed(f"customer-{number}", stays=stay)
        scene.now = LATE_S
        assert scene.limit == 50
        scene.now = 2 * LATE_S
        assert scene.limit == 50


def test_a_pause_is_asked_for_that_differs_from_caller_to_caller() -> None:
    pauses = []
    for chance in (0.0, 0.5, 0.999):
        scene = Scene(least=1, most=1, chance=chance)
        scene.placed()
        pauses.append(scene.turned_away("bob").retry_after_s)
    assert pauses == pytest.approx([0.1, 0.2, 0.3], abs=0.001)
    assert pauses[-1] is not None
    assert pauses[-1] < WANTS_S


@contextmanager
def held(scene: Scene, principal: str, count: int) -> Iterator[list[Place]]:
    with ExitStack() as stay:
        yield [stay.enter_context(scene.door.order(principal, f"{principal}-{n}")) for n in range(count)]


def test_one_alone_may_have_all_but_the_last_places() -> None:
    scene = Scene(least=100, most=100)
    with held(scene, "greedy", 90):
        refusal = scene.turned_away("greedy")
        assert (refusal.reason, refusal.facts["share"]) == ("SHARE_OF_ORDERS", "90")
        for name in "abcdefghij":
            scene.placed(name)
        assert scene.turned_away("k").reason == "TOO_MANY_ORDERS"


def test_while_others_are_turned_away_nobody_gets_more_than_a_share() -> None:
    scene = Scene(least=9, most=9)
    with held(scene, "greedy", 9) as places:
        scene.turned_away("ann")
        scene.turned_away("bob")
        for place in places[:3]:
            scene.door.heard(place.order_id)
        refusal = scene.turned_away("greedy")
        assert (refusal.reason, refusal.facts) == ("SHARE_OF_ORDERS", {"limit": "orders", "most": "9", "share": "3"})
        scene.placed("ann")
        scene.placed("bob")
        scene.placed("ann")
        assert scene.door.status()["principals"] == 3


def test_who_has_stopped_asking_keeps_nothing_free() -> None:
    scene = Scene(least=4, most=4)
    with held(scene, "greedy", 4) as places:
        scene.turned_away("ann")
        scene.door.heard(places[0].order_id)
        scene.turned_away("greedy")
        scene.now += WANTS_S
        scene.placed("greedy")


def test_a_greedy_principal_that_never_pauses_leaves_the_others_their_share() -> None:
    """Greedy asks a hundred times as often as each of nine others, who want two places each all the time."""
    scene = Scene(least=30, most=30)
    names = [f"customer-{n}" for n in range(9)]
    answered = dict.fromkeys([*names, "greedy"], 0)
    due: list[tuple[float, str, str]] = []
    for tick in range(400):
        scene.now = tick * 0.05
        for at, order_id, name in [one for one in due if one[0] <= scene.now]:
            due.remove((at, order_id, name))
            scene.door.heard(order_id)
            answered[name] += 1
        for name in ["greedy"] * 50 + names + ["greedy"] * 50:
            has = sum(one[2] == name for one in due)
            if name == "greedy" or has < 2:
                with suppress(Refusal):
                    due.append((scene.now + 0.5, scene.placed(name), name))
    wished, possible = 2 * 20 / 0.55, 30 * 20 / 0.55
    assert min(answered[name] for name in names) > 0.7 * wished
    assert sum(answered.values()) > 0.85 * possible


def test_calls_have_a_bound_of_their_own() -> None:
    scene = Scene(calls=2)
    with scene.door.call("ann"), scene.door.call("bob"):
        with pytest.raises(Refusal) as refusal, scene.door.call("eve"):
            pass
        assert (refusal.value.reason, refusal.value.facts["limit"]) == ("TOO_MANY_CALLS", "calls")
    assert len(scene.door) == 0


def test_a_closing_door_lets_nobody_in() -> None:
    scene = Scene()
    scene.door.closed = True
    with pytest.raises(Unavailable), scene.door.call("ann"):
        pass


def test_a_round_has_enough_answers_to_judge_by() -> None:
    scene = Scene()
    with ExitStack() as stay:
        for _ in range(ROUND_ANSWERS - 1):
            scene.placed(stays=stay)
        scene.now = 5.0
        assert scene.limit == FIRST
        scene.placed(stays=stay)
        scene.now = 8.0
        assert scene.limit == FIRST / 2

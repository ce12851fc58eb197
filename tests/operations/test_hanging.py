"""Which partitions are said to hang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backbone.operations.hanging import CLEANUP_S, SPARE_S, Hanging, hanging, remedy
from backbone.ports import Place

A, B = ("orders", 0), ("orders", 1)


class Looks:
    """What is open at each look; the last look holds from then on."""

    def __init__(self, *looks: Mapping[Place, int]) -> None:
        self._looks: Sequence[Mapping[Place, int]] = looks
        self.slept_s = 0.0
        self._at = -1

    def unstable(self) -> Mapping[Place, int]:
        self._at = min(self._at + 1, len(self._looks) - 1)
        return self._looks[self._at]

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def test_where_nothing_is_open_nobody_waits() -> None:
    looks = Looks({})
    assert hanging(looks, 10.0, looks.sleep) == ()
    assert looks.slept_s == 0.0


def test_what_moves_on_does_not_hang() -> None:
    looks = Looks({A: 5, B: 7}, {A: 6, B: 7}, {A: 6})
    assert hanging(looks, 10.0, looks.sleep) == ()
    assert looks.slept_s < 5.0


def test_what_stands_longer_than_a_transaction_may_take_hangs() -> None:
    looks = Looks({A: 5, B: 7}, {A: 5, B: 9})
    assert hanging(looks, 10.0, looks.sleep) == (Hanging(A, 5),)
    assert looks.slept_s >= 10.0 + CLEANUP_S + SPARE_S


def test_the_remedy_names_the_partition_and_where_it_begins() -> None:
    said = remedy("host:9092", Hanging(A, 5))
    assert "--bootstrap-server host:9092 abort --topic orders --partition 0 --start-offset 5" in said

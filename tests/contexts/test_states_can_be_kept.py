"""Every state of a decider survives being written to its state topic and read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from backbone.envelope import split_entry_key
from backbone.loops.snapshots import AGGREGATE, Held, Snapshots
from backbone.testing.scenario import scenario
from backbone.v1.private_pb2 import StateEntry
from contexts.fulfilment.stock import service as stock
from contexts.ordering.orders import service as orders
from contexts.ordering.pricing import service as pricing
from contexts.payments.payments import service as payments
from tests.contexts.golden.folds import FOLDS, recorded

DECIDERS = {
    "ordering.pricing": pricing.decider,
    "ordering.orders": orders.decider,
    "payments.payments": payments.decider,
    "fulfilment.stock": stock.decider,
}


def read_back(snapshots: Snapshots, entries: Sequence[tuple[bytes, bytes | None]], blank: Any) -> Held:
    """What a worker that takes over holds after reading these entries."""
    held = Held(blank)
    for key, value in entries:
        aggregate, name = split_entry_key(key)
        assert aggregate == "key"
        assert value is None or name == AGGREGATE or StateEntry.FromString(value).HasField("part")
        held = snapshots.without(held, name) if value is None else snapshots.taken_up(held, StateEntry.FromString(value))
    return held


@pytest.mark.parametrize("name", sorted(DECIDERS))
def test_a_state_is_taken_up_as_it_was_left_after_each_thing_said(name: str) -> None:
    decider: Any = DECIDERS[name]
    snapshots = Snapshots(decider, "test")
    fold = next(fold for fold in FOLDS if fold.name == name)
    for history, _ in recorded(fold)[1]:
        entries: list[tuple[bytes, bytes | None]] = []
        held = Held(decider.state())
        for number, said in enumerate(history, start=1):
            held = Held(decider.evolve(held.state, said), number, "order-1")
            entries += snapshots.entries("key", held)
            held = snapshots.kept(held)
            assert read_back(snapshots, entries, decider.state()) == held
        assert held.state == scenario(decider).given(*history).state()


def test_an_order_of_two_lines_writes_its_own_entries_however_large_the_pool() -> None:
    snapshots = Snapshots(stock.decider, "test")
    fold = next(fold for fold in FOLDS if fold.name == "fulfilment.stock")
    received, also, reserved = recorded(fold)[1][1][0]
    full = snapshots.kept(Held(scenario(stock.decider).given(received, also).state()))  # type: ignore[arg-type]
    after = Held(stock.decider.evolve(full.state, reserved))  # type: ignore[arg-type]
    entries = [split_entry_key(key)[1].partition("/")[0] for key, _ in snapshots.entries("key", after)]
    assert sorted(entries) == ["aggregate", "held", "levels", "levels"]

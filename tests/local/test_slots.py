"""How many processes of each context run, and how a command beside the launcher changes that."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backbone.local.errors import StackError
from backbone.local.processes import ProcessSpec
from backbone.local.slots import WISH, Slots, grant, process_name, wish, workers
from backbone.local.stack import Stack
from tests.local.waiting import wait_until

CONTEXTS = ("ordering", "payments")


def test_a_number_counts_for_all_contexts_and_a_named_one_for_its_own() -> None:
    assert workers([], CONTEXTS) == {"ordering": 1, "payments": 1}
    assert workers(["2", "payments=3"], CONTEXTS) == {"ordering": 2, "payments": 3}


@pytest.mark.parametrize("wrong", ["many", "ordering=", "nobody=3", "-1"])
def test_what_is_no_number_of_workers_is_refused(wrong: str) -> None:
    with pytest.raises(StackError, match="is no number of workers"):
        workers([wrong], CONTEXTS)


def test_the_first_slot_of_a_context_bears_its_name_alone() -> None:
    assert [process_name("payments", services, slot) for services in ((), ("risk",)) for slot in (0, 2)] == [
        "payments",
        "payments.2",
        "payments.risk",
        "payments.risk.2",
    ]


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    """Contexts whose processes only wait, on a stack without servers; one worker each."""
    stack = Stack(tmp_path, (), partitions=3, announce=lambda _: None)

    def make(context: str, services: Sequence[str], slot: int) -> ProcessSpec:
        code = "import time; time.sleep(600)"
        return ProcessSpec(process_name(context, services, slot), (sys.executable, "-c", code), {"BACKBONE_SLOT": str(slot)})

    held = Slots(stack, {"ordering": [["orders"], ["pricing"]], "payments": [[]]}, make)
    try:
        held.scale("ordering", 1)
        held.scale("payments", 1)
        yield held
    finally:
        stack.stop(2.0)
        stack.supervisor.close()


def running(slots: Slots) -> set[str]:
    return {name for name, process in slots._stack.supervisor.processes.items() if process.is_running()}


def test_workers_come_and_go_and_what_should_run_is_written_down(slots: Slots, tmp_path: Path) -> None:
    first = {"ordering.orders", "ordering.pricing", "payments"}
    assert running(slots) == first
    slots.scale("payments", 3)
    assert running(slots) == first | {"payments.1", "payments.2"}
    written = json.loads((tmp_path / "stack.json").read_text())
    assert set(written["processes"]) == running(slots)
    assert slots.names("payments") == ["payments", "payments.1", "payments.2"]
    slots.scale("payments", 1)
    slots.scale("ordering", 2)
    assert running(slots) == first | {"ordering.orders.1", "ordering.pricing.1"}
    slots.scale("payments", 2)
    assert "payments.1" in running(slots), "a slot that was taken away comes back"


@pytest.mark.parametrize("count", [0, 4])
def test_more_workers_than_partitions_are_refused(slots: Slots, count: int) -> None:
    """They would have nothing to do."""
    with pytest.raises(StackError, match="has work for 1 to 3"):
        slots.scale("payments", count)


def test_a_rolling_restart_replaces_one_process_after_the_other(slots: Slots) -> None:
    slots.scale("payments", 2)
    supervisor = slots._stack.supervisor
    before = {name: process.pid for name, process in supervisor.processes.items()}
    slots.roll("payments")
    after = {name: process.pid for name, process in supervisor.processes.items()}
    assert {name for name in before if before[name] != after[name]} == {"payments", "payments.1"}


def test_a_command_asks_the_launcher_and_hears_what_came_of_it(slots: Slots, tmp_path: Path) -> None:
    ended = threading.Event()

    def launch() -> None:
        while not ended.wait(0.02):
            grant(tmp_path, slots, lambda _: None)

    launcher = threading.Thread(target=launch, daemon=True)
    launcher.start()
    try:
        wish(tmp_path, {"context": "payments", "workers": 2}, within_s=20.0)
        assert slots.count("payments") == 2
        with pytest.raises(StackError, match="there is no context nobody"):
            wish(tmp_path, {"context": "nobody"}, within_s=20.0)
        wait_until(lambda: not (tmp_path / WISH).exists(), 5.0, "the wish is taken up")
    finally:
        ended.set()
        launcher.join(10.0)


def test_a_launcher_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="did not do it within"):
        wish(tmp_path, {"context": "payments"}, within_s=0.2)

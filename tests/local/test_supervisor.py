"""The supervisor: a process that ends is started again in its slot, but not for ever."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbone.local.errors import StartError
from backbone.local.processes import Identity, Process, ProcessSpec, Supervisor, recorded
from tests.local.waiting import wait_until

SLEEP = "import time; print('up', flush=True); time.sleep(300)"


def python(name: str, code: str) -> ProcessSpec:
    """A Python program as a slot."""
    return ProcessSpec(name, (sys.executable, "-c", code))


def broken(folder: Path) -> ProcessSpec:
    """A program that runs until it is killed, and from then on ends as soon as it is started."""
    mark = folder / "was-started"
    code = (
        f"import pathlib, time; mark = pathlib.Path({str(mark)!r})\n"
        "if mark.exists(): raise SystemExit('it broke')\n"
        "mark.touch(); time.sleep(300)"
    )
    return ProcessSpec("broken", (sys.executable, "-c", code), ready=mark.exists)


def given_up(supervisor: Supervisor) -> list[str]:
    """The slots that are not started again."""
    return sorted(supervisor.given_up)


@pytest.fixture
def said() -> list[str]:
    """What the supervisor announced."""
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    """One with short pauses."""
    supervisor = Supervisor(tmp_path, said.append, backoff=(0.05, 0.2))
    yield supervisor
    supervisor.kill()
    supervisor.close()


def test_a_killed_process_is_back_in_its_slot(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.start([python("payments", SLEEP)])
    process = supervisor.processes["payments"]
    first = process.pid
    process.kill()
    wait_until(lambda: process.is_running() and process.pid != first, 10, "another process in the slot")
    assert supervisor.restarts("payments") == 1
    assert said[0].startswith("payments ended with code 137")


def test_who_sees_the_end_of_a_process_while_it_is_started_again_does_not_end_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(python("payments", SLEEP), tmp_path)
    process.start()
    starter = threading.Thread(target=process.start)
    is_running = Identity.is_running

    def start_meanwhile(identity: Identity) -> bool:
        if threading.current_thread() is threading.main_thread() and starter.ident is None and not is_running(identity):
            starter.start()
            starter.join(timeout=1.0)  # as far as it gets before the asker has forgotten the old run
        return is_running(identity)

    try:
        process.kill()
        monkeypatch.setattr(Identity, "is_running", start_meanwhile)
        wait_until(lambda: process.poll() is not None, 10, "its end is seen")
        starter.join(timeout=10.0)
        assert not process.wait(1.0)
    finally:
        process.kill()
        process.wait(10.0)


def test_a_process_that_ends_five_times_in_a_minute_is_given_up_and_the_others_go_on(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    supervisor.start([broken(tmp_path), python("sound", SLEEP)])
    sound = supervisor.processes["sound"].pid
    supervisor.processes["broken"].kill()
    wait_until(lambda: given_up(supervisor) == ["broken"], 20, "it is given up")
    assert supervisor.restarts("broken") == 4
    assert len(said) == 5
    assert said[-1].startswith("GIVEN UP: broken ended with code 1\n    it broke\n")
    assert "5 times within 60 s" in said[-1]
    assert supervisor.processes["sound"].pid == sound
    assert supervisor.processes["sound"].is_running()


def test_pauses_double_up_to_the_longest(supervisor: Supervisor, said: list[str], tmp_path: Path) -> None:
    supervisor.start([broken(tmp_path)])
    supervisor.processes["broken"].kill()
    wait_until(lambda: given_up(supervisor) == ["broken"], 20, "it is given up")
    pauses = [line.rsplit("in ", 1)[1] for line in said[:-1]]
    assert pauses == ["0.1 s", "0.1 s", "0.2 s", "0.2 s"]  # 0.05, 0.1, 0.2, then the longest


def test_ends_that_lie_further_apart_than_the_window_are_forgiven(tmp_path: Path, said: list[str]) -> None:
    supervisor = Supervisor(tmp_path, said.append, ends=2, window=0.01, backoff=(0.05, 0.2))
    try:
        supervisor.start([python("flaky", "import time; time.sleep(0.3)")])
        wait_until(lambda: supervisor.restarts("flaky") >= 4, 20, "it goes on")
        assert given_up(supervisor) == []
    finally:
        supervisor.kill()
        supervisor.close()


def test_what_was_stopped_stays_down_until_it_is_resumed(supervisor: Supervisor, said: list[str]) -> None:
    supervisor.start([python("payments", SLEEP), python("witness", SLEEP)])
    payments, witness = supervisor.processes["payments"], supervisor.processes["witness"]
    supervisor.stop(["payments"])
    witness.kill()
    wait_until(lambda: supervisor.restarts("witness") == 1 and witness.is_running(), 10, "the supervisor went round")
    assert not payments.is_running()
    assert supervisor.restarts("payments") == 0
    supervisor.resume(["payments"])
    assert payments.is_running()
    payments.kill()
    wait_until(lambda: supervisor.restarts("payments") == 1 and payments.is_running(), 10, "it is watched again")


def test_what_was_given_up_can_be_resumed(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start([broken(tmp_path)])
    supervisor.processes["broken"].kill()
    wait_until(lambda: given_up(supervisor) == ["broken"], 20, "it is given up")
    (tmp_path / "was-started").unlink()
    supervisor.resume(["broken"])
    assert given_up(supervisor) == []
    assert supervisor.processes["broken"].is_running()


def test_a_start_that_fails_leaves_nothing_running(supervisor: Supervisor, tmp_path: Path) -> None:
    never = ProcessSpec("never", (sys.executable, "-c", SLEEP), ready=lambda: False, ready_within=0.3)
    with pytest.raises(StartError, match="never was not ready"):
        supervisor.start([python("sound", SLEEP), never])
    assert recorded(tmp_path) == {}


def test_a_slot_holds_one_process(supervisor: Supervisor) -> None:
    supervisor.start([python("payments", SLEEP)])
    with pytest.raises(ValueError, match="two processes are named payments"):
        supervisor.start([python("payments", SLEEP)])
    assert supervisor.processes["payments"].is_running()


def test_what_prepares_a_start_runs_before_every_start(supervisor: Supervisor) -> None:
    starts: list[int] = []
    spec = ProcessSpec("payments", (sys.executable, "-c", SLEEP), prepare=lambda: starts.append(1))
    supervisor.start([spec])
    supervisor.processes["payments"].kill()
    wait_until(lambda: supervisor.restarts("payments") == 1, 10, "it was started again")
    assert len(starts) == 2

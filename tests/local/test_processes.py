"""Child processes: they end with their launcher, and say why they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from backbone.local.errors import StartError
from backbone.local.processes import Identity, Process, ProcessSpec, end_leftovers, kill_all, recorded
from tests.local.waiting import wait_until

ROOT = Path(__file__).parents[2]
SLEEP = "import time; print('up', flush=True); time.sleep(300)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"

Starts = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    """Starts a Python program as a process; all of them are killed after the test."""
    processes: list[Process] = []

    def start(code: str, name: str = "child", **fields: object) -> Process:
        spec = ProcessSpec(name, (sys.executable, "-c", code), **fields)  # type: ignore[arg-type] # fields of a spec
        processes.append(Process(spec, tmp_path))
        processes[-1].start()
        return processes[-1]

    yield start
    kill_all(processes)


def says_up(process: Process) -> bool:
    """Whether the program got as far as its first line."""
    return process.tail() == ["up"]


def launcher_of(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """A Python process that starts `code` as a child process of its own and then waits."""
    program = (
        "import sys, threading; from pathlib import Path; from backbone.local.processes import *;"
        f"Process(ProcessSpec('child', (sys.executable, '-c', {code!r})), Path({str(folder)!r})).start();"
        "threading.Event().wait()"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)


@pytest.mark.parametrize(("code", "within"), [(SLEEP, 4.0), (DEAF, 12.0)], ids=["willing", "deaf to SIGTERM"])
def test_a_child_and_its_guard_end_when_their_launcher_is_killed(code: str, within: float, tmp_path: Path) -> None:
    launcher = launcher_of(code, tmp_path)
    try:
        log = tmp_path / "logs" / "child.log"
        wait_until(lambda: log.exists() and "up" in log.read_text(), 20, "the child is up")
        identities = recorded(tmp_path)["child"]
        assert len(identities) == 2, "guard and program"
    finally:
        launcher.kill()
        launcher.wait(10)
    wait_until(lambda: not any(identity.is_running() for identity in identities), within, "both are gone")


def test_a_child_ends_when_its_guard_is_killed(start: Starts, tmp_path: Path) -> None:
    process = start(SLEEP)
    guard, child = recorded(tmp_path)["child"]
    guard.kill()
    wait_until(lambda: process.poll() == 128 + signal.SIGKILL, 10, "the process counts as killed")
    assert not child.is_running()


def test_a_program_that_ends_leaves_its_exit_code_and_last_lines(start: Starts, tmp_path: Path) -> None:
    process = start("print('one'); print('two'); raise SystemExit(7)")
    assert process.wait(10)
    assert process.poll() == 7
    assert process.tail() == ["one", "two"]
    assert recorded(tmp_path) == {}


def test_the_last_lines_are_those_of_the_last_start(start: Starts) -> None:
    process = start("import os; print(os.environ['WORD'])", environment={"WORD": "first"})
    assert process.wait(10)
    process.start()
    assert process.wait(10)
    assert process.tail() == ["first"]
    assert process.log.read_text() == "first\nfirst\n"


def test_a_killed_program_shows_the_signal(start: Starts) -> None:
    process = start(SLEEP)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10)
    assert process.poll() == 137


def test_a_stubborn_process_is_killed_aloud(start: Starts) -> None:
    process = start(DEAF)
    wait_until(lambda: says_up(process), 20, "it ignores SIGTERM")
    lines: list[str] = []
    process.stop(within=0.3, announce=lines.append)
    assert not process.is_running()
    assert lines == [f"child did not end within 0 s of SIGTERM: killing child, process {process.pid}"]


def test_a_willing_process_is_stopped_without_a_word(start: Starts) -> None:
    process = start(SLEEP)
    lines: list[str] = []
    process.stop(announce=lines.append)
    assert not process.is_running()
    assert lines == []


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    process = Process(ProcessSpec("child", ("/no/such/program",)), tmp_path)
    with pytest.raises(StartError, match=r"child could not be started: .*No such file.*: '/no/such/program'"):
        process.start()
    assert not process.is_running()


def test_a_process_that_ends_before_it_is_ready_shows_its_last_lines(start: Starts) -> None:
    process = start("raise SystemExit('no database')", ready=lambda: False)
    with pytest.raises(StartError, match=r"child ended with code 1 while starting\n    no database; see .*child\.log"):
        process.await_ready()


def test_a_process_that_is_not_ready_in_time_shows_its_last_lines(start: Starts) -> None:
    process = start(SLEEP, ready=lambda: False, ready_within=0.5)
    with pytest.raises(StartError, match="child was not ready after 0 s"):
        process.await_ready()


def test_ready_is_an_address_that_answers_200(start: Starts) -> None:
    answers = [503, 200]

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        start(SLEEP, ready=f"http://127.0.0.1:{server.server_port}/readyz").await_ready()
        assert answers == []
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_a_child_may_open_as_many_files_as_the_hard_limit_allows(start: Starts) -> None:
    process = start("import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))")
    assert process.wait(10)
    soft, hard = (int(number) for number in process.tail()[0].split())
    assert soft >= min(65_536, hard if hard >= 0 else 65_536)


def test_leftovers_are_known_by_pid_and_start_time(start: Starts, tmp_path: Path) -> None:
    process = start(SLEEP, name="left")
    stranger = start(SLEEP, name="stranger")
    entry = {"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 1_000}
    stranger.record.write_text(json.dumps([entry]))  # as if an old record named a pid that was given out again
    (tmp_path / "pids" / "cut.json").write_text('[{"pid": 12')
    lines: list[str] = []
    end_leftovers(tmp_path, lines.append, grace=0.2)
    assert not process.is_running()
    assert stranger.is_running()
    assert lines[1] == f"killing left, process {process.pid}, left by an earlier launcher"
    assert list((tmp_path / "pids").iterdir()) == []


def test_an_identity_is_not_fooled_by_a_zombie_or_a_later_process() -> None:
    own = Identity.of(os.getpid())
    assert own is not None
    assert own.is_running()
    assert not Identity(own.pid, own.started + 60).is_running()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        identity = Identity.of(child.pid)
        assert identity is not None
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 10, "it ended, unwaited for")
        assert not identity.is_running()

"""A process whose code changes while it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.waiting import wait_until

PROGRAM = """
import signal, sys
from backbone.local.live import Live
sys.exit(Live((sys.executable, "-u", "child.py")).run())
"""
CHILD = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("ends"), sys.exit(0)))
print("{words}")
signal.pause()
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "child.py").write_text(CHILD.format(words="first"))
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=said, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def said(folder: Path) -> list[str]:
    return (folder / "said").read_text().split()


def test_changed_code_runs_in_the_same_process_when_it_is_told_to(live: subprocess.Popen[bytes], tmp_path: Path) -> None:
    wait_until(lambda: said(tmp_path) == ["first"], 20, "the child speaks")
    (tmp_path / "child.py").write_text(CHILD.format(words="second"))
    live.send_signal(signal.SIGHUP)
    wait_until(lambda: said(tmp_path) == ["first", "ends", "second"], 20, "the child speaks")
    assert live.poll() is None


def test_it_ends_with_its_child(live: subprocess.Popen[bytes], tmp_path: Path) -> None:
    wait_until(lambda: said(tmp_path) == ["first"], 20, "the child speaks")
    live.terminate()
    assert live.wait(20) == 0
    assert said(tmp_path) == ["first", "ends"]


def test_a_child_that_fails_ends_it_with_the_same_code(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("raise SystemExit(7)")
    assert subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, timeout=30, check=False).returncode == 7

"""The set-up refuses clearly, notices every change, and does nothing when there is none."""

from __future__ import annotations

import ast
import fcntl
import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import bootstrap

ROOT = Path(__file__).resolve().parents[2]


def test_an_old_python_is_refused_by_version_path_and_remedy() -> None:
    """The reader learns which interpreter was found and how to name another."""
    reason = bootstrap.refusal((3, 10, 13), "Linux", "glibc", "/usr/bin/python3")
    assert "Python 3.10.13 (/usr/bin/python3) is too old" in reason
    assert "make PYTHON=" in reason


@pytest.mark.parametrize(("system", "libc", "word"), [("Windows", "", "Windows"), ("Linux", "", "musl"), ("FreeBSD", "", "FreeBSD")])
def test_a_machine_without_wheels_is_refused_by_name(system: str, libc: str, word: str) -> None:
    """Otherwise pip would fail after minutes, in its own words."""
    assert word in bootstrap.refusal((3, 13, 0), system, libc)


@pytest.mark.parametrize(("system", "libc"), [("Linux", "glibc"), ("Darwin", "")])
def test_a_fitting_machine_is_not_refused(system: str, libc: str) -> None:
    """The oldest supported version is supported."""
    assert bootstrap.refusal((3, 11, 0), system, libc) == ""


def test_an_old_python_can_read_the_script_that_refuses_it() -> None:
    """A SyntaxError would hide the sentence."""
    ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_a_missing_ensurepip_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian ships Python without it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    version = ".".join(platform.python_version_tuple()[:2])
    with pytest.raises(bootstrap.SetupError, match=rf"ensurepip.*apt-get install python{version}-venv"):
        bootstrap.make_venv(tmp_path)
    assert not (tmp_path / ".venv").exists()


def test_a_second_setup_prints_nothing_and_touches_nothing() -> None:
    """Every make target begins with it."""
    stamp = ROOT / ".venv" / "stamp"
    before = stamp.stat().st_mtime_ns
    python = ROOT / ".venv" / "bin" / "python"
    done = subprocess.run([python, "bootstrap.py"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
    assert stamp.stat().st_mtime_ns == before


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout whose set-up is finished."""
    for name in ("requirements.lock", "bootstrap.py"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / "stamp").write_text(bootstrap.stamp_text(tmp_path), encoding="utf-8")
    assert bootstrap.is_ready(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["requirements.lock", "bootstrap.py"])
def test_a_changed_input_makes_the_environment_stale(checkout: Path, name: str) -> None:
    """A pull that moves a version must be installed by the next make."""
    (checkout / name).write_text("another\n", encoding="utf-8")
    assert not bootstrap.is_ready(checkout)


@pytest.mark.parametrize("name", ["stamp", "bin/python"])
def test_an_unfinished_environment_is_not_ready(checkout: Path, name: str) -> None:
    """An interrupted set-up leaves no stamp."""
    (checkout / ".venv" / name).unlink()
    assert not bootstrap.is_ready(checkout)


def test_a_moved_checkout_is_not_ready(checkout: Path) -> None:
    """The scripts in .venv/bin begin with the old place."""
    moved = checkout.rename(checkout.with_name("elsewhere"))
    assert not bootstrap.is_ready(moved)


def test_a_set_up_that_another_one_never_lets_in_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two `make` in one checkout take turns, within a limit."""
    monkeypatch.setattr(bootstrap, "PATIENCE_S", 0.3)
    path = tmp_path / "requirements.lock"
    path.touch()
    with path.open() as holder, path.open() as waiter:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(bootstrap.SetupError, match="does not end"):
            bootstrap.hold(waiter.fileno())


def test_a_failing_pip_is_told_with_its_last_words(tmp_path: Path) -> None:
    """The reason is on the screen, the whole output in a file."""
    log = tmp_path / "pip.log"
    code = "print('Collecting a'); print('ERROR: THESE PACKAGES DO NOT MATCH THE HASHES'); raise SystemExit(3)"
    with pytest.raises(bootstrap.SetupError, match=r"(?s)exit code 3.*DO NOT MATCH.*pip\.log"):
        bootstrap.run_pip([sys.executable, "-c", code], 1, log)
    assert "Collecting a" in log.read_text(encoding="utf-8")


def test_a_hanging_pip_is_ended_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent process must not hold the set-up for ever."""
    monkeypatch.setattr(bootstrap, "PATIENCE_S", 0.3)
    pid = tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(bootstrap.SetupError, match=r"the limit is 0\.3 s"):
        bootstrap.run_pip([sys.executable, "-c", code], 1, tmp_path / "pip.log")
    if pid.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("line", "megabytes"),
    [
        ("  Downloading a-1.whl (5.0 MB)", 5.0),
        ("  Downloading a-1.whl (500 kB)", 0.5),
        ("  Downloading a-1.whl.metadata", 0.0),
    ],
)
def test_sizes_are_read_from_the_words_of_pip(line: str, megabytes: float) -> None:
    """The progress shows how much was fetched."""
    assert bootstrap.size_in_megabytes(line) == pytest.approx(megabytes)

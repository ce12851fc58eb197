"""Child processes that die with their launcher, and the slots in which they are started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from backbone.local import guard
from backbone.local.errors import LocalError, StartError

STOP_S = 20.0
"""Seconds a process has to end after SIGTERM before it gets SIGKILL, said aloud; longer than a transaction may stay open, and than a
process takes to let its callers go and to finish its batch."""

LOG_BYTES = 16 * 1024 * 1024
"""A log file that is longer when its process starts is set aside under `.1`, replacing an older one."""

Announce = Callable[[str], None]
"""Takes one line for the person in front of the terminal."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run.

    name: of the slot, its log file and its lines; unique in a stack.
    argv: the command; `argv[0]` is a path or found on the PATH.
    environment: set on top of the launcher's own.
    ready: an http(s) address that answers 200 when the process is ready, or a function that returns true then, called
        again and again and never for long; None means "as soon as it runs".
    ready_within: seconds until it has to be ready.
    outside: a server that the shop does not own; started before all others and stopped after them.
    prepare: called before every start, also after a crash; what it raises ends the start.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str | Callable[[], bool] | None = None
    ready_within: float = 60.0
    outside: bool = False
    prepare: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now, or None."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def is_running(self) -> bool:
        """Whether that very process still runs; one that ended and was not waited for does not."""
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to that very process, if it still runs."""
        if self.is_running():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return


class Process:
    """One child process behind its guard: started, watched, stopped, with its output in a log file."""

    def __init__(self, spec: ProcessSpec, folder: Path) -> None:
        """`folder` gets `logs/<name>.log` and, while the process runs, `pids/<name>.json`."""
        self.spec = spec
        self.log = folder / "logs" / f"{spec.name}.log"
        self.record = folder / "pids" / f"{spec.name}.json"
        self.identity: Identity | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._launcher_end = -1
        self._turn = threading.RLock()
        self._log_start = 0

    @property
    def name(self) -> str:
        """The name of its slot."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The process id of the program itself, not of its guard; 0 before the first start."""
        return self.identity.pid if self.identity else 0

    def start(self) -> None:
        """Starts it and returns at once.

        Raises:
            StartError: it runs already, or the program cannot be executed.
        """
        if self.is_running():
            raise StartError(f"{self.name} runs already as process {self.pid}", "stop it first")
        if self.spec.prepare is not None:
            self.spec.prepare()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self._turn:  # who polls meanwhile would take the end of the old run for that of the new one
            pid = self._start_guard()
            if not pid:
                self.wait(10.0)
                raise StartError(f"{self.name} could not be started: {' '.join(self.tail(3))}", f"see {self.log}")
            self.identity = Identity.of(pid)
            self._remember()

    def _start_guard(self) -> int:
        """Returns the pid of the program, or 0 if there is none."""
        launcher, self._launcher_end = os.pipe()
        report, reporter = os.pipe()
        try:
            with os.fdopen(report, "rb") as reported, self.log.open("ab") as log:
                self._log_start = log.tell()
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, str(launcher), str(reporter), *self.spec.argv],
                    env={**os.environ, **self.spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(launcher, reporter),
                    start_new_session=True,  # a Ctrl-C in the terminal reaches the launcher alone
                )
                os.close(reporter)
                reporter = -1
                return int(reported.read() or 0)
        except BaseException:
            self._forget()
            raise
        finally:
            os.close(launcher)
            if reporter >= 0:
                os.close(reporter)

    def poll(self) -> int | None:
        """The exit code, or None while it runs; 128 + n when signal n ended it."""
        with self._turn:
            if self._guard is None:
                return 0
            code = self._guard.poll()
            if code is None:
                return None
            if self.identity is not None and self.identity.is_running():
                self.identity.kill()  # its guard was killed: it would outlive us
                deadline = time.monotonic() + 5.0
                while self.identity.is_running() and time.monotonic() < deadline:
                    time.sleep(0.01)
            self._forget()
            return code if code >= 0 else 128 - code

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._guard is not None and self.poll() is None

    def signal(self, number: int) -> None:
        """Sends a signal to the program itself."""
        if self.identity is not None:
            self.identity.kill(number)

    def terminate(self) -> None:
        """Asks it to end."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self.signal(signal.SIGKILL)

    def wait(self, within: float) -> bool:
        """Whether it has ended, waiting for that at most `within` seconds."""
        deadline = time.monotonic() + within
        while self.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def stop(self, within: float = STOP_S, announce: Announce = print) -> None:
        """SIGTERM, then SIGKILL after `within` seconds, announced."""
        stop_all([self], within, announce)

    def is_ready(self) -> bool:
        """Whether it answers as its `ready` says, asked once."""
        ready = self.spec.ready
        if ready is None:
            return self.is_running()
        return _answers(ready) if isinstance(ready, str) else ready()

    def await_ready(self) -> None:
        """Waits until it is ready.

        Raises:
            StartError: it ended, or `ready_within` passed; with the last lines of its log.
        """
        deadline = time.monotonic() + self.spec.ready_within
        while True:
            code = self.poll()
            if code is not None:
                raise StartError(f"{self.name} ended with code {code} while starting{self.last_words()}", f"see {self.log}")
            if self.is_ready():
                return
            if time.monotonic() >= deadline:
                problem = f"{self.name} was not ready after {self.spec.ready_within:.0f} s{self.last_words()}"
                raise StartError(problem, f"see {self.log}")
            time.sleep(0.03)

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines it wrote since it was last started."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 16_384))
            text = log.read().decode("utf-8", "replace")
        return text.splitlines()[-lines:]

    def last_words(self) -> str:
        """Its last lines, indented, to be appended to a sentence; empty if it wrote nothing."""
        return "".join(f"\n    {line}" for line in self.tail())

    def _remember(self) -> None:
        assert self._guard is not None
        identities = [identity for identity in (Identity.of(self._guard.pid), self.identity) if identity]
        entries = [{"pid": identity.pid, "started": identity.started} for identity in identities]
        self.record.write_text(json.dumps(entries))

    def _forget(self) -> None:
        if self._launcher_end >= 0:
            os.close(self._launcher_end)
            self._launcher_end = -1
            self.record.unlink(missing_ok=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _never() -> bool:
    return False


def stop_all(
    processes: Sequence[Process],
    within: float = STOP_S,
    announce: Announce = print,
    hurry: Callable[[], bool] = _never,
) -> None:
    """Stops them side by side: SIGTERM, then SIGKILL for those that still run after `within` seconds, announced.

    As soon as `hurry` returns true, what still runs gets SIGKILL at once.
    """
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + within
    running = list(processes)
    while running and time.monotonic() < deadline and not hurry():
        running = [process for process in running if process.poll() is None]
        time.sleep(0.02)
    running = [process for process in running if process.poll() is None]
    for process in running:
        why = "interrupted again" if hurry() else f"{process.name} did not end within {within:.0f} s of SIGTERM"
        announce(f"{why}: killing {process.name}, process {process.pid}")
    kill_all(running)


def kill_all(processes: Sequence[Process]) -> None:
    """Ends them side by side with SIGKILL, and returns when they are gone."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(10.0)


def recorded(folder: Path) -> dict[str, list[Identity]]:
    """The processes started from this folder that still run, by name: the guard first, the program last.

    They are known by the pid and start time that their launcher wrote down, so a later process with an old pid is not
    mistaken for one of them.
    """
    found: dict[str, list[Identity]] = {}
    for record in sorted((folder / "pids").glob("*.json")):
        try:
            entries = json.loads(record.read_text())
            identities = [Identity(int(entry["pid"]), float(entry["started"])) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or cut off by a crash
            continue
        if running := [identity for identity in identities if identity.is_running()]:
            found[record.stem] = running
    return found


def end_leftovers(folder: Path, announce: Announce, grace: float = guard.GRACE_S + 1.0) -> None:
    """Ends what a dead launcher left running, first giving its guards `grace` seconds to do so themselves.

    Raises:
        StartError: something of it cannot be ended.
    """
    deadline = time.monotonic() + grace
    found = recorded(folder)
    if found:
        announce(f"an earlier launcher of {folder} died; waiting for what it left to end: {', '.join(found)}")
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = recorded(folder)
    for name, identities in found.items():
        announce(f"killing {name}, process {identities[-1].pid}, left by an earlier launcher")
        for identity in identities:
            identity.kill()
    while found := recorded(folder):
        if time.monotonic() > deadline + 10.0:
            raise StartError(f"{', '.join(found)} of an earlier launcher cannot be killed", "restart the machine")
        time.sleep(0.05)
    for record in (folder / "pids").glob("*.json"):
        record.unlink(missing_ok=True)


@dataclass(slots=True)
class Slot:
    """A named place of the supervisor: while it is watched, the process in it is replaced when it ends."""

    process: Process
    ends: deque[float] = field(default_factory=deque)
    restart_at: float | None = None
    restarts: int = 0
    given_up: bool = False
    watched: bool = False


class Supervisor:
    """Keeps processes running: one that ends is started again in its slot, until it has ended too often."""

    def __init__(
        self,
        folder: Path,
        announce: Announce = print,
        *,
        ends: int = 5,
        window: float = 60.0,
        backoff: tuple[float, float] = (0.2, 5.0),
    ) -> None:
        """A slot whose process ended `ends` times in `window` seconds is given up; the others go on.

        backoff: seconds before the first and before any later restart, doubled each time.
        """
        self._folder = folder
        self._announce_to = announce
        self._ends = ends
        self._window = window
        self._backoff = backoff
        self._slots: dict[str, Slot] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def processes(self) -> dict[str, Process]:
        """All processes by name, those that were given up too."""
        with self._lock:
            return {name: slot.process for name, slot in self._slots.items()}

    @property
    def given_up(self) -> frozenset[str]:
        """The names of the slots that are not started again."""
        with self._lock:
            return frozenset(name for name, slot in self._slots.items() if slot.given_up)

    def restarts(self, name: str) -> int:
        """How often the process of this slot was started again."""
        with self._lock:
            return self._slots[name].restarts

    def start(self, specs: Iterable[ProcessSpec]) -> None:
        """Starts them side by side, waits until all are ready, and watches them from then on.

        Raises:
            StartError: one of them ended or was not ready in time; those of this call are killed again.
            ValueError: a slot of that name is in use.
        """
        slots = [Slot(Process(spec, self._folder)) for spec in specs]
        with self._lock:
            for slot in slots:
                if slot.process.name in self._slots and self._slots[slot.process.name].process.is_running():
                    raise ValueError(f"two processes are named {slot.process.name}")
                self._slots[slot.process.name] = slot
        self._launch(slots)
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()

    def stop(
        self,
        names: Iterable[str] | None = None,
        within: float = STOP_S,
        hurry: Callable[[], bool] = _never,
    ) -> None:
        """Stops these processes (all of them if None) for good: SIGTERM, and SIGKILL after `within` seconds, announced.

        As soon as `hurry` returns true, what still runs gets SIGKILL at once. All keep their slot; `resume` starts them
        again.
        """
        stop_all([slot.process for slot in self._unwatch(names)], within, self._announce, hurry)

    def kill(self, names: Iterable[str] | None = None) -> None:
        """Ends these processes (all of them if None) for good, at once."""
        kill_all([slot.process for slot in self._unwatch(names)])

    def resume(self, names: Iterable[str]) -> None:
        """Starts processes again that were stopped or given up, waits until they are ready, and watches them.

        Raises:
            StartError: one of them ended or was not ready in time; those of this call are killed again.
        """
        with self._lock:
            slots = [self._slots[name] for name in names]
        self._launch(slots)

    def _launch(self, slots: Sequence[Slot]) -> None:
        try:
            for slot in slots:
                slot.process.start()
            for slot in slots:
                slot.process.await_ready()
        except BaseException:
            kill_all([slot.process for slot in slots])
            raise
        with self._lock:
            for slot in slots:
                slot.ends.clear()
                slot.restart_at = None
                slot.given_up = False
                slot.watched = True

    def _unwatch(self, names: Iterable[str] | None) -> list[Slot]:
        with self._lock:
            slots = [self._slots[name] for name in (self._slots if names is None else names) if name in self._slots]
            for slot in slots:
                slot.watched = False
        return slots

    def close(self) -> None:
        """Ends the watching; call `stop` before."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join(timeout=30.0)

    def _announce(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a closed terminal is no reason to stop looking after processes
            self._announce_to(line)

    def _watch(self) -> None:
        while not self._closing.wait(0.05):
            with self._lock:
                for slot in self._slots.values():
                    if slot.watched:
                        self._look_after(slot)

    def _look_after(self, slot: Slot) -> None:
        now = time.monotonic()
        if slot.restart_at is not None:
            if now >= slot.restart_at:
                slot.restart_at = None
                self._restart(slot)
            return
        code = slot.process.poll()
        if code is not None:
            self._ended(slot, now, f"ended with code {code}{slot.process.last_words()}")

    def _restart(self, slot: Slot) -> None:
        slot.restarts += 1
        try:
            slot.process.start()
        except (OSError, LocalError) as error:
            self._ended(slot, time.monotonic(), f"could not be started again: {error}")

    def _ended(self, slot: Slot, now: float, how: str) -> None:
        name = slot.process.name
        slot.ends.append(now)
        while slot.ends[0] < now - self._window:
            slot.ends.popleft()
        if len(slot.ends) >= self._ends:
            slot.given_up, slot.watched = True, False
            self._announce(
                f"GIVEN UP: {name} {how}\n    that was {len(slot.ends)} times within {self._window:.0f} s; "
                f"it is not started again, the others go on; see {slot.process.log}"
            )
            return
        first, longest = self._backoff
        pause = min(longest, first * 2.0 ** (len(slot.ends) - 1))
        slot.restart_at = now + pause
        self._announce(f"{name} {how}\n    starting it again in {pause:.1f} s")

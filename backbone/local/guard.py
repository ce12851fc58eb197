"""The process between a launcher and one child: ends the child when the launcher goes away, however it goes.

Java and Valkey cannot watch a pipe, so this does it for them: `launcher` is the reading end of a pipe whose other end
only the launcher holds, and the kernel closes that end even after a SIGKILL. Started as a plain file by
`backbone.local.processes`, it imports nothing but the standard library: a guard costs about 10 MB and 20 ms.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time

GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL for a child whose launcher is gone."""

FILES = 65_536
"""Open files a child may have, where the hard limit allows it: a broker holds about 2 per partition and connection."""

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def raise_file_limit() -> None:
    """Raises this process's soft limit of open files, which its children inherit, to `FILES` or the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def watch(launcher: int, wake: int, child: subprocess.Popen[bytes]) -> None:
    """Returns when the child has ended, by itself or because its launcher is gone."""
    watched = [launcher, wake]
    kill_at: float | None = None
    while child.poll() is None:
        patience = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        readable, _, _ = select.select(watched, [], [], patience)
        if launcher in readable:
            watched.remove(launcher)
            child.terminate()
            kill_at = time.monotonic() + GRACE_S
        if wake in readable:
            for number in os.read(wake, 64):
                if number in PASSED_ON:
                    child.send_signal(number)
        if kill_at is not None and time.monotonic() >= kill_at:
            child.kill()
            child.wait()


def main(arguments: list[str]) -> int:
    """Runs `arguments[2:]`; `arguments[:2]` are the descriptors of the launcher's pipe and of the pid report.

    Returns the child's exit code, or 128 + the signal that ended it, as a shell would.
    """
    launcher, report = int(arguments[0]), int(arguments[1])
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (*PASSED_ON, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    raise_file_limit()
    try:
        child = subprocess.Popen(arguments[2:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"cannot start {arguments[2]}: {error}", file=sys.stderr, flush=True)
        return 127
    os.write(report, f"{child.pid}\n".encode())
    os.close(report)
    watch(launcher, wake, child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`python -m backbone.local.live run ordering`: the `backbone` command as a child that starts anew when this process is told to (SIGHUP).

For a container whose code is changed while it runs: a container that ends is started again too, but after a pause that grows each time.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType

STOP_S = 30.0
"""How long the child has to end before it is killed; less than a pod's grace."""


class Live:
    """One child at a time, the next one when told to.

    Args:
        command: what the child runs.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._told = threading.Event()
        self._stopping = False

    def run(self) -> int:
        """Run until told to stop, or until the child ends by itself; returns its exit code."""
        signal.signal(signal.SIGHUP, self._again)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            self._told.clear()
            with subprocess.Popen(self._command) as child:
                while child.poll() is None and not self._told.wait(0.1):
                    pass
                if child.poll() is None:
                    _end(child)
            if self._stopping or not self._told.is_set():
                return child.returncode

    def _again(self, _number: int, _frame: FrameType | None) -> None:
        self._told.set()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._told.set()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        print(f"live: still busy after {STOP_S:.0f} s, killed", file=sys.stderr, flush=True)
        child.kill()


if __name__ == "__main__":
    sys.exit(Live((sys.executable, "-m", "backbone", *sys.argv[1:])).run())

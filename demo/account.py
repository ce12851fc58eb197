"""What a demonstration tells while it runs, and whether all that it claims is so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from backbone.local.platform import RunningPlatform
from backbone.local.processes import Identity

Say = Callable[[str], None]
"""Takes one line for the person in front of the terminal."""


class Account:
    """A live account: every line with the seconds since it began."""

    def __init__(self, say: Say = print) -> None:
        """`say` takes the lines."""
        self._say = say
        self._began = time.monotonic()
        self.claimed = 0
        self.wrong: list[str] = []

    def say(self, text: str) -> None:
        """Something happened."""
        self._say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    def more(self, lines: Iterable[str]) -> None:
        """Lines that belong to what was said before."""
        for line in lines:
            self._say(f"          {line}")

    def heading(self, text: str) -> None:
        """Something new begins."""
        self._say("")
        self._say(f"── {text}")

    def claim(self, text: str, so: bool, otherwise: str = "") -> None:
        """Say what is so, or that it is not.

        Args:
            so: whether it is.
            otherwise: what is so instead.
        """
        self.claimed += 1
        if so:
            self.say(f"so it is: {text}")
            return
        self.wrong.append(text)
        self.say(f"NOT SO: {text}" + (f"; {otherwise}" if otherwise else ""))

    def end(self) -> int:
        """The last line; gives the exit code."""
        if self.wrong:
            self.say(f"{len(self.wrong)} of {self.claimed} claims do not hold: {'; '.join(self.wrong)}")
            return 1
        self.say(f"all {self.claimed} claims hold")
        return 0


Identities = Mapping[str, Identity | None]
"""Who runs in each slot: process id and start time; None where nobody does."""


def identities(here: RunningPlatform) -> Identities:
    """Who runs now."""
    slots = here.stack.supervisor.processes
    return {name: process.identity if process.is_running() else None for name, process in slots.items()}


def changed(before: Identities, after: Identities) -> list[str]:
    """The slots in which something else runs than before, or nobody."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def shown(of: Identities) -> list[str]:
    """Process ids and start times, a few to a line."""
    each = [f"{name} {one.pid} @{one.started:.2f}" if one else f"{name} stopped" for name, one in sorted(of.items())]
    return ["   ".join(each[at : at + 4]) for at in range(0, len(each), 4)]

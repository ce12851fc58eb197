"""How many processes of each context run on this machine, changed while they run."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backbone.errors import BackboneError
from backbone.local.errors import StackError
from backbone.local.processes import Announce, ProcessSpec
from backbone.local.stack import Stack

WISH, ANSWER = "wish.json", "wish.answer.json"
GRANTED_WITHIN_S = 180.0
"""How long a command waits for the launcher to grant its wish, in seconds: every process of a context may start anew, one by one."""
LOOK_EVERY_S = 0.1

Groups = Sequence[Sequence[str]]
"""Services by process; an empty group is all of the context."""
Make = Callable[[str, Sequence[str], int], ProcessSpec]
"""The process of some services of a context in a slot."""


def process_name(context: str, services: Sequence[str], slot: int) -> str:
    """<context>, then the services it is limited to, then its slot unless that is the first."""
    return ".".join([context, *services, *([str(slot)] if slot else [])])


class Slots:
    """The processes of a platform's contexts.

    Args:
        stack: runs them.
        groups: services by process, by context.
        make: what runs in a slot.
    """

    def __init__(self, stack: Stack, groups: Mapping[str, Groups], make: Make) -> None:
        self._stack = stack
        self._groups = groups
        self._make = make
        self._counts = dict.fromkeys(groups, 0)

    def count(self, context: str) -> int:
        """How many slots a context has."""
        return self._counts[context]

    def names(self, context: str) -> list[str]:
        """The processes of a context, slot by slot."""
        return self._names(context, range(self._counts[context]))

    def specs(self, counts: Mapping[str, int]) -> list[ProcessSpec]:
        """What has to be started, so that each context has as many slots as are said.

        Raises:
            StackError: there is no such context, or more workers than partitions would have work.
        """
        for context, count in counts.items():
            self._check(context, count)
        return [
            self._make(context, services, slot)
            for context, count in counts.items()
            for slot in range(self._counts[context], count)
            for services in self._groups[context]
        ]

    def started(self, counts: Mapping[str, int]) -> None:
        """Take note of what runs now."""
        self._counts.update(counts)
        self._stack.expect([name for context in self._counts for name in self.names(context)])

    def scale(self, context: str, count: int) -> None:
        """Give a context more slots or fewer, and wait until those that are new are ready and those that are too many have ended.

        Members of a group keep their place for the session timeout: the partitions of a worker that is gone for good stand still so long.

        Raises:
            StackError: there is no such context, or more workers than partitions would have work.
            StartError: a process was not ready in time; the count stays as it was.
        """
        more = self.specs({context: count})
        if more:
            self._stack.run(more)
        fewer = self._names(context, range(count, self._counts[context]))
        self._stack.supervisor.stop(fewer)
        self.started({context: count})

    def roll(self, context: str) -> None:
        """Stop and start the processes of a context one after the other, each once the one before is ready again.

        Raises:
            StackError: there is no such context.
            StartError: a process was not ready in time; those after it were left alone.
        """
        self._check(context, 1)
        for name in self.names(context):
            self._stack.supervisor.stop([name])
            self._stack.supervisor.resume([name])

    def _names(self, context: str, slots: range) -> list[str]:
        return [process_name(context, services, slot) for slot in slots for services in self._groups[context]]

    def _check(self, context: str, count: int) -> None:
        if context not in self._groups:
            raise StackError(f"there is no context {context}", f"there are {', '.join(self._groups)}")
        most = self._stack.state.partitions
        if not 1 <= count <= most:
            raise StackError(
                f"{context} cannot have {count} workers: a log of {most} partitions has work for 1 to {most}",
                f"say a number from 1 to {most}",
            )


def workers(wanted: Sequence[str], contexts: Sequence[str]) -> dict[str, int]:
    """How many workers each context gets.

    Args:
        wanted: a number for all, or <context>=<number>; later ones count more.

    Raises:
        StackError: one of them is neither.
    """
    counts = dict.fromkeys(contexts, 1)
    for one in wanted:
        name, _, number = one.rpartition("=")
        if not number.isdecimal() or (name and name not in counts):
            raise StackError(f"{one!r} is no number of workers", f"say 3, or {contexts[0]}=3; there are {', '.join(contexts)}")
        counts.update({name: int(number)} if name else dict.fromkeys(contexts, int(number)))
    return counts


def wish(folder: Path, wanted: Mapping[str, object], within_s: float = GRANTED_WITHIN_S) -> None:
    """Ask the launcher of the stack in a folder to scale a context ({"context", "workers"}) or to roll it ({"context"}).

    Raises:
        StackError: it says why not, or does not say anything in time.
    """
    identity = uuid.uuid4().hex
    _write(folder / WISH, {**wanted, "id": identity})
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        answer = _read(folder / ANSWER)
        if answer.get("id") == identity:
            if answer["refused"]:
                raise StackError(str(answer["refused"]), "see `backbone status`")
            return
        time.sleep(LOOK_EVERY_S)
    raise StackError(f"the launcher in {folder} did not do it within {within_s:.0f} s", "see what it says in its terminal")


def grant(folder: Path, slots: Slots, announce: Announce) -> None:
    """Do what a command has asked for, if one has."""
    wanted = _read(folder / WISH)
    if not wanted:
        return
    (folder / WISH).unlink(missing_ok=True)
    context, count = str(wanted.get("context")), wanted.get("workers")
    refused = ""
    try:
        if isinstance(count, int):
            announce(f"{context} gets {count} workers")
            slots.scale(context, count)
        else:
            announce(f"{context} starts anew, worker by worker")
            slots.roll(context)
        announce(f"{context} runs: {', '.join(slots.names(context))}")
    except BackboneError as error:
        refused = str(error)
        announce(refused)
    _write(folder / ANSWER, {"id": wanted.get("id"), "refused": refused})


def _write(path: Path, what: Mapping[str, object]) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(what))
    fresh.replace(path)


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

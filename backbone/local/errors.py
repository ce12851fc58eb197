"""What can be wrong with the stack on this machine."""

from __future__ import annotations

from backbone.errors import BackboneError


class LocalError(BackboneError):
    """The local stack cannot go on; `remedy` says what the person in front of it can do."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Arguments: one sentence each, without a full stop at the end."""
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class JarError(LocalError):
    """A Kafka jar could not be fetched, or is not the one the lock file names."""


class StartError(LocalError):
    """A process ended before it was ready, or was not ready in time."""


class StackError(LocalError):
    """The folder of the stack is in use, or does not fit what is asked of it."""

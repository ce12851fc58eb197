"""The user as whom tests speak to a log of theirs: it may what every service may, on names nobody declared, and nothing to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from backbone.ownership import ANY, Kind, Operation, Right

TESTER = "tests"

RIGHTS = frozenset(
    Right(TESTER, kind, ANY, operation)
    for kind, operations in {
        Kind.TOPIC: (Operation.READ, Operation.WRITE, Operation.DESCRIBE),
        Kind.GROUP: (Operation.READ, Operation.DESCRIBE),
        Kind.TRANSACTIONAL_ID: (Operation.WRITE, Operation.DESCRIBE),
    }.items()
    for operation in operations
)


def admit_tester(admit: Callable[[str, Iterable[Right]], None]) -> None:
    """Let tests in, at a broker that knows how: `admit_tester(kafka.admit)`."""
    admit(TESTER, RIGHTS)

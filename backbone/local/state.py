"""What a stack writes down in its folder, for its next run and for commands beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backbone.local.errors import StackError

FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class StackState:
    """The facts about a stack that outlive its launcher.

    partitions: P, the one number of partitions of the platform, for ever.
    cluster_id: of the log that this folder belongs to; None before its first start.
    kafka: bootstrap address of the last run.
    kafka_access: the variables that say how clients prove there who they are; the passwords themselves lie in the folder they name.
    redis: address per context of the last run.
    ports: every port promised to a name, kept between runs where it stays free.
    processes: those of contexts that should run.
    """

    partitions: int
    cluster_id: str | None = None
    kafka: str = ""
    redis: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    processes: Sequence[str] = ()
    kafka_access: Mapping[str, str] = field(default_factory=dict)

    def log(self) -> dict[str, str]:
        """The variables by which anybody finds the log and gets in."""
        return {
            **self.kafka_access,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "KAFKA_CLUSTER_ID": self.cluster_id or "",
            "BACKBONE_PARTITIONS": str(self.partitions),
        }

    def environment(self, context: str) -> dict[str, str]:
        """The variables by which the processes of a context find their servers.

        Raises:
            KeyError: the stack has no Valkey of that name.
        """
        return {**self.log(), "REDIS_URL": self.redis[context]}


def read_state(folder: Path) -> StackState | None:
    """The state of the stack in this folder, or None if none was ever started there.

    Raises:
        StackError: the file cannot be understood.
    """
    path = folder / FILE
    try:
        return StackState(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StackError(f"{path} cannot be understood ({error})", "`make clean` begins anew") from error


def write_state(folder: Path, state: StackState) -> None:
    """Replaces the state in one step; only its owner may read it, since addresses may hold passwords."""
    fresh = folder / f"{FILE}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(state), file, indent=1)
    fresh.replace(folder / FILE)

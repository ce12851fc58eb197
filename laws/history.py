"""What clients asked and were told: one JSON line when a call begins, one when it ends, written as it happens.

A call ends `ok` (it was answered), `fail` (it was refused, and nothing was done) or `unknown` (nobody knows whether it was done). One
that never ended is unknown, too. Times are of the clock of this machine, in seconds since the epoch.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from retail.gateway.v1.order_service_pb2 import Order, OrderRejectionReason, OrderStatus

from backbone.v1.meta_pb2 import Positions

REFUSED = frozenset(
    {"INVALID_ARGUMENT", "ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
)
"""Codes that say: nothing was done. After any other nobody knows."""

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"

Vector = list[tuple[str, int, int]]
"""Topic, partition and next offset."""


@dataclass(slots=True)
class Call:
    """One call of a client.

    Attributes:
        op: place, await, get, list or cancel.
        key: idempotency key; `payload` says in a text what was asked under it.
        order_id: which order was asked for, or answered.
        wait_s: how long the client asked to wait.
        at_least: what the answer was to know, if that was a position.
        demands: number of the client's own call whose answer this one was to know; 0 if of none.
        outcome: ok, fail or unknown; `code` says why, if it is not ok.
        status, reason: of the order, as the gateway names them.
        orders: id and status of each order of a list.
        position: where a new request lies, if it was told.
        refused, undecided: of a wish to cancel.
    """

    number: int
    op: str
    client: str
    key: str = ""
    payload: str = ""
    order_id: str = ""
    wait_s: float = 0.0
    at_least: Vector = field(default_factory=list)
    demands: int = 0
    invoked_s: float = 0.0
    ended_s: float | None = None
    outcome: str = UNKNOWN
    code: str = ""
    status: str = ""
    reason: str = ""
    orders: list[tuple[str, str]] = field(default_factory=list)
    position: Vector = field(default_factory=list)
    refused: bool = False
    undecided: bool = False

    def told(self, order: Order, position: Positions | None = None) -> None:
        """Note what the gateway says of an order."""
        self.order_id = order.order_id
        self.status = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
        if order.rejection_reason:
            self.reason = OrderRejectionReason.Name(order.rejection_reason).removeprefix("ORDER_REJECTION_REASON_")
        self.position = [] if position is None else [(one.topic, one.partition, one.next_offset) for one in position.positions]

    def listed(self, orders: Sequence[Order]) -> None:
        """Note what the gateway lists."""
        self.orders = [(order.order_id, OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")) for order in orders]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which something was broken, so that an answer may be late; none may be wrong."""

    what: str
    from_s: float
    until_s: float


class Recorder:
    """Writes a history; may be used from many threads.

    Args:
        path: the file, appended to; nothing is written without one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._turn = threading.Lock()
        self._number = 0
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")

    @contextmanager
    def calling(self, op: str, client: str, **asked: Any) -> Iterator[Call]:
        """One call: the block makes it and notes what it is told; what it raises is noted, too, and raised."""
        with self._turn:
            self._number += 1
            call = Call(self._number, op, client, invoked_s=time.time(), **asked)
        self._write({"event": "invoke", **asdict(call)})
        try:
            yield call
        except BaseException as error:
            code = getattr(error, "code", None)  # as errors of gRPC have it
            call.code = str(getattr(code() if callable(code) else None, "name", type(error).__name__))
            call.outcome = FAIL if call.code in REFUSED else UNKNOWN
            raise
        else:
            call.outcome = OK
        finally:
            call.ended_s = time.time()
            self._write({"event": call.outcome, **asdict(call)})

    def disturbed(self, what: str, from_s: float, until_s: float) -> None:
        """Note a time in which something was broken."""
        self._write({"event": "disturbed", "what": what, "from_s": from_s, "until_s": until_s})

    def close(self) -> None:
        """Let go of the file."""
        with self._turn:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        with self._turn:
            if self._file is not None:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()


def read(path: Path) -> tuple[list[Call], list[Disturbance]]:
    """All calls of a history in the order in which they began, and the times of disturbance.

    Raises:
        ValueError: a line other than the last, which may have been torn by a crash, cannot be understood.
    """
    calls: dict[tuple[str, int], Call] = {}
    disturbed: list[Disturbance] = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number} is no line of a history") from None
        if found.pop("event") == "disturbed":
            disturbed.append(Disturbance(**found))
            continue
        for name in ("at_least", "position"):
            found[name] = [(topic, partition, offset) for topic, partition, offset in found[name]]
        found["orders"] = [(order_id, status) for order_id, status in found["orders"]]
        calls[found["client"], found["number"]] = Call(**found)
    return sorted(calls.values(), key=lambda call: call.invoked_s), disturbed

"""What clients were told is written as it happens, and read again as it was."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import pytest
from retail.gateway.v1.order_service_pb2 import Order, OrderRejectionReason, OrderStatus

from backbone.v1.meta_pb2 import Position, Positions
from laws.history import FAIL, OK, UNKNOWN, Recorder, read


class Refused(Exception):
    """A gRPC error, as far as a history looks at it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Its code."""
        return self._code


def test_a_call_is_read_as_it_was_told(tmp_path: Path) -> None:
    """With order, reason and position."""
    history = Recorder(tmp_path / "history.jsonl")
    rejected, out_of_stock = OrderStatus.ORDER_STATUS_REJECTED, OrderRejectionReason.ORDER_REJECTION_REASON_OUT_OF_STOCK
    order = Order(order_id="order-1", status=rejected, rejection_reason=out_of_stock)
    with history.calling("place", "ann", key="k", payload="p", wait_s=2.0) as call:
        call.told(order, Positions(positions=[Position(topic="t", partition=1, next_offset=8)]))
    history.disturbed("Kafka frozen", 1.0, 2.0)
    calls, disturbed = read(tmp_path / "history.jsonl")
    assert calls == [call]
    assert (call.outcome, call.order_id, call.status, call.reason) == (OK, "order-1", "REJECTED", "OUT_OF_STOCK")
    assert call.position == [("t", 1, 8)]
    assert call.ended_s is not None
    assert call.invoked_s <= call.ended_s
    assert [(one.what, one.until_s) for one in disturbed] == [("Kafka frozen", 2.0)]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(grpc.StatusCode.ALREADY_EXISTS, FAIL), (grpc.StatusCode.UNAVAILABLE, UNKNOWN), (grpc.StatusCode.DEADLINE_EXCEEDED, UNKNOWN)],
)
def test_only_some_refusals_say_that_nothing_was_done(tmp_path: Path, code: grpc.StatusCode, outcome: str) -> None:
    """After any other nobody knows; the client gets its error all the same."""
    history = Recorder(tmp_path / "history.jsonl")
    with pytest.raises(Refused), history.calling("place", "ann", key="k"):
        raise Refused(code)
    ((call,), _) = read(tmp_path / "history.jsonl")
    assert (call.outcome, call.code) == (outcome, code.name)


def test_a_call_that_never_ended_is_unknown_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """A client may be killed in the middle of a call, or of a line."""
    path = tmp_path / "history.jsonl"
    history = Recorder(path)
    with history.calling("get", "ann", order_id="o"):
        pass
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][: len(lines[1]) // 2]]))
    ((call,), _) = read(path)
    assert (call.outcome, call.ended_s) == (UNKNOWN, None)
    path.write_text("\n".join([lines[0][:10], lines[1]]))
    with pytest.raises(ValueError, match=r"history.jsonl:1 "):
        read(path)


def test_many_threads_write_one_history(tmp_path: Path) -> None:
    """No line is torn, and every call has a number of its own."""
    history = Recorder(tmp_path / "history.jsonl")

    def customer(name: str) -> None:
        for number in range(50):
            with history.calling("get", name, order_id=f"{name}-{number}"):
                pass

    threads = [threading.Thread(target=customer, args=(f"customer-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    calls, _ = read(tmp_path / "history.jsonl")
    assert len(calls) == 400
    assert len({call.number for call in calls}) == 400

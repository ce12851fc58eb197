"""A call of the client that blocks for ever ends the worker, not its usefulness."""

from __future__ import annotations

import threading
import time

import pytest

from backbone.adapters.kafka_producer import _watched
from backbone.errors import WorkerEnded


def test_a_call_that_hangs_is_left_behind() -> None:
    """Seen of `send_offsets_to_transaction` when a broker died while it was under way: 50 s and more, whatever its timeout."""
    hangs = threading.Event()
    began = time.monotonic()
    with pytest.raises(WorkerEnded, match="sending offsets hangs"):
        _watched(hangs.wait, 0.2, "sending offsets")
    assert time.monotonic() - began < 5.0
    hangs.set()


def test_what_a_call_raises_is_raised() -> None:
    """As if nobody had watched."""

    def refuses() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _watched(refuses, 5.0, "sending offsets")


def test_a_call_that_ends_is_not_waited_for() -> None:
    """It costs a thread, not time."""
    began = time.monotonic()
    _watched(lambda: None, 60.0, "sending offsets")
    assert time.monotonic() - began < 5.0

"""A proxy between clients and a broker that can hold up what Kafka's clients ask, lose answers, and be a bad link."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

END_TRANSACTION = 26
"""Kafka's number of the request that commits or aborts."""

ANSWER_WITHIN_S = 10.0


@dataclass(slots=True)
class Held:
    """A request that was kept back while its sender lost the connection."""

    frame: bytes
    upstream: socket.socket

    def release(self) -> bytes:
        """Let it reach the broker after all.

        Returns:
            The broker's answer without its size.
        """
        self.upstream.settimeout(ANSWER_WITHIN_S)
        self.upstream.sendall(self.frame)
        (size,) = struct.unpack(">i", _exactly(self.upstream, 4))
        answer = _exactly(self.upstream, size)
        self.upstream.close()
        return answer


class Proxy:
    """Passes everything on, but for what it is told to delay or hold.

    Args:
        port: where it listens.
        upstream_port: where the broker listens; called at each connection if that is not known yet.

    Attributes:
        lost: how many answers were lost so far.
        passed: how many requests were passed on so far.
    """

    def __init__(self, port: int, upstream_port: int | Callable[[], int]) -> None:
        self._upstream_port = upstream_port if callable(upstream_port) else lambda: upstream_port
        self._listener = socket.create_server(("127.0.0.1", port))
        self._lock = threading.Lock()
        self._connections: list[tuple[socket.socket, socket.socket]] = []
        self._hold: int | None = None
        self._held: Held | None = None
        self._kept = threading.Event()
        self._delays: dict[int, float] = {}
        self._lose: dict[int, int] = {}
        self._strike: tuple[int, Callable[[int], bool], bool] | None = None
        self._latency_s = 0.0
        self._deaf_until = 0.0
        self.lost = 0
        self.passed = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            connections, self._connections = self._connections, []
        for pair in connections:
            for end in pair:
                _close(end)

    def delay(self, request: int, seconds: float) -> None:
        """Pass on requests of this number so much later."""
        self._delays[request] = seconds

    def when_next(self, request: int, strike: Callable[[int], bool], *, passes: bool) -> None:
        """Call `strike` with the port of the sender of each request of this number, until it says that this was the one.

        Args:
            passes: the one reaches the broker all the same.
        """
        self._strike = (request, strike, passes)

    def lose_answers(self, request: int, times: int) -> None:
        """Let so many requests of this number reach the broker, and lose its answer with the connection."""
        self._lose[request] = times

    def lose_none(self) -> int:
        """Lose no more answers; how many were still to be lost."""
        left = sum(self._lose.values())
        self._lose.clear()
        return left

    def slow(self, seconds: float) -> None:
        """Let each request and each answer take so much longer; 0 ends it."""
        self._latency_s = seconds

    def deafen(self, seconds: float) -> None:
        """Cut one way: requests pass, answers are kept back for so long."""
        self._deaf_until = time.monotonic() + seconds

    def hold_next(self, request: int) -> None:
        """Keep the next request of this number, and close the connection it came by."""
        self._kept.clear()
        self._hold = request

    def held(self) -> Held:
        """What was kept."""
        assert self._kept.wait(ANSWER_WITHIN_S), "no such request came by"
        assert self._held is not None
        return self._held

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    upstream = socket.create_connection(("127.0.0.1", self._upstream_port()), timeout=ANSWER_WITHIN_S)
                except OSError:  # the broker is down: so is the proxy
                    _close(client)
                    continue
                upstream.settimeout(None)
                expected: dict[int, int] = {}
                for end in (client, upstream):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._connections.append((client, upstream))
                threading.Thread(target=self._requests, args=(client, upstream, expected), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, upstream, expected), daemon=True).start()

    def _requests(self, client: socket.socket, upstream: socket.socket, expected: dict[int, int]) -> None:
        with suppress(OSError):
            while True:
                head = _exactly(client, 12)
                size, request, _, correlation = struct.unpack(">ihhi", head)
                frame = head + _exactly(client, size - 8)
                self.passed += 1
                if self._lose.get(request):
                    expected[correlation] = request
                if request == self._hold:
                    self._hold = None
                    with self._lock:
                        self._connections.remove((client, upstream))
                    self._held = Held(frame, upstream)
                    _close(client)
                    self._kept.set()
                    return
                if self._struck(request, client):
                    break
                if delay := self._delays.pop(request, None):
                    time.sleep(delay)
                if self._latency_s:
                    time.sleep(self._latency_s)
                upstream.sendall(frame)
        _close(upstream)

    def _answers(self, client: socket.socket, upstream: socket.socket, expected: dict[int, int]) -> None:
        with suppress(OSError):
            while (client, upstream) in self._connections:
                head = _peek(upstream)
                if (client, upstream) not in self._connections:
                    return  # from now on the answers belong to whoever releases what was held
                if not head:
                    break
                frame = _exactly(upstream, 8)
                size, correlation = struct.unpack(">ii", frame)
                frame += _exactly(upstream, size - 4)
                if (left := self._deaf_until - time.monotonic()) > 0:
                    time.sleep(left)
                if self._latency_s:
                    time.sleep(self._latency_s)
                if self._loses(expected.pop(correlation, None)):
                    break
                client.sendall(frame)
        _close(client)
        _close(upstream)

    def _struck(self, request: int, client: socket.socket) -> bool:
        """Whether this request is not to reach the broker."""
        with self._lock:
            if self._strike is None or self._strike[0] != request or not self._strike[1](client.getpeername()[1]):
                return False
            passes, self._strike = self._strike[2], None
            return not passes

    def _loses(self, request: int | None) -> bool:
        with self._lock:
            if request is None or not self._lose.get(request):
                return False
            self._lose[request] -= 1
            self.lost += 1
            return True


def _peek(end: socket.socket) -> bytes:
    return end.recv(1, socket.MSG_PEEK)


def _exactly(end: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise ConnectionError("the other end is closed")
        found += part
    return bytes(found)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()

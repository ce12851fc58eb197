"""A proxy between clients and a broker that can hold up what Kafka's clients ask."""

from __future__ import annotations

import socket
import struct
import threading
import time
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
        upstream_port: where the broker listens.
    """

    def __init__(self, port: int, upstream_port: int) -> None:
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._lock = threading.Lock()
        self._connections: list[tuple[socket.socket, socket.socket]] = []
        self._hold: int | None = None
        self._held: Held | None = None
        self._kept = threading.Event()
        self._delays: dict[int, float] = {}

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
                upstream = socket.create_connection(self._upstream)
                for end in (client, upstream):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._connections.append((client, upstream))
                threading.Thread(target=self._requests, args=(client, upstream), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, upstream), daemon=True).start()

    def _requests(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while True:
                head = _exactly(client, 6)
                size, request = struct.unpack(">ih", head)
                frame = head + _exactly(client, size - 2)
                if request == self._hold:
                    self._hold = None
                    with self._lock:
                        self._connections.remove((client, upstream))
                    self._held = Held(frame, upstream)
                    _close(client)
                    self._kept.set()
                    return
                if delay := self._delays.pop(request, None):
                    time.sleep(delay)
                upstream.sendall(frame)
        _close(upstream)

    def _answers(self, client: socket.socket, upstream: socket.socket) -> None:
        with suppress(OSError):
            while (client, upstream) in self._connections:
                head = _peek(upstream)
                if (client, upstream) not in self._connections:
                    return  # from now on the answers belong to whoever releases what was held
                if not head:
                    break
                client.sendall(upstream.recv(65_536))
        _close(client)


def _peek(end: socket.socket) -> bytes:
    return end.recv(1, socket.MSG_PEEK)


def _exactly(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise ConnectionError("the other end is closed")
        found += part
    return found


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()

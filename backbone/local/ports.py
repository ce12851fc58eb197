"""Free TCP ports of the loopback address."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 15_000, 32_767
"""Below the range from which Linux takes the ports of outgoing connections: nothing sits on them by accident."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_answered(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port(avoid: frozenset[int] = frozenset()) -> int:
    """A port of 127.0.0.1 that nobody listens on, drawn at random so that two launchers rarely want the same one.

    `avoid` holds ports promised to somebody who does not listen yet.
    """
    for _ in range(1_000):
        port = random.randint(LOWEST, HIGHEST)
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free port between {LOWEST} and {HIGHEST}")

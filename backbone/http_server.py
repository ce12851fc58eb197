"""An HTTP server in the event loop of a process: for its health, and for the gateway's clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from backbone.errors import SettingsError


@contextlib.asynccontextmanager
async def http_server(app: Any, host: str, port: int, at_once: int = 64) -> AsyncIterator[str]:
    """An HTTP server in this event loop.

    Args:
        app: an ASGI application.
        port: 0 takes a free one.
        at_once: how many connections it serves at most; more get 503.

    Yields:
        Its address, http://host:port.

    Raises:
        SettingsError: the port is taken.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise SettingsError(f"port {port} on {host} cannot be used: {error.strerror}; name another one, or 0 for any") from error
    config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=2, limit_concurrency=at_once)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([bound]))
    try:
        yield f"http://{host}:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, 5.0)

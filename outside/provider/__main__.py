"""`python -m outside.provider --port N --ledger FILE`: serves until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import socket
import sqlite3
from pathlib import Path

import uvicorn

from outside.provider.app import Provider
from outside.provider.ledger import Ledger


def main() -> None:
    """Opens the ledger, binds the port, says where, serves."""
    options = _options()
    try:
        ledger = Ledger(options.ledger)
    except sqlite3.Error as error:
        raise SystemExit(f"{options.ledger} cannot be opened as a ledger ({error}): name another --ledger") from error
    try:
        listener = socket.create_server((options.host, options.port), backlog=256)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise SystemExit(f"cannot listen on {where} ({error.strerror}): name another --port; 0 takes a free one") from error
    host, port = listener.getsockname()[:2]
    print(f"provider listens on http://{host}:{port}, its ledger is {options.ledger}", flush=True)
    config = uvicorn.Config(
        Provider(ledger, options.in_flight).app(),
        http="h11",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=options.connections,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        ledger.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m outside.provider", description="A payment provider over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one and says which")
    parser.add_argument("--ledger", type=Path, required=True, help="SQLite file; made if it is missing")
    parser.add_argument("--in-flight", type=int, default=128, help="operations worked on at a time; beyond: 429")
    parser.add_argument("--connections", type=int, default=512, help="open connections; beyond: 503")
    return parser.parse_args()


if __name__ == "__main__":
    main()

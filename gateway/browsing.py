"""What browsers need of an HTTP port besides the API: leave for pages of other origins, and to see what we tell in headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from backbone.positions import AGE_MS, AS_OF, POSITION

TOLD = (
    *("grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"),
    *("connect-content-encoding", "content-encoding"),
    *(AGE_MS, AS_OF, POSITION),
)
"""Headers of answers that a page may read; what comes with streams comes in their last frame."""
PREFLIGHT_S = 7200
"""For so long a browser need not ask again whether a page may call; more than two hours none of them keeps it."""


def for_pages_of(origins: Sequence[str], app: Any) -> Any:
    """The application, for pages of these origins also.

    Args:
        origins: as browsers write them: https://shop.example; none of them lets only pages of the door's own origin in.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=list(origins), allow_methods=["POST"], allow_headers=["*"], expose_headers=TOLD, max_age=PREFLIGHT_S
    )


def without_native_grpc(app: Any) -> Any:
    """The application, which tells clients of native gRPC that it is another port's: over HTTP/1.1 there is nowhere to put their status."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        kind = next((value for name, value in scope.get("headers", ()) if name == b"content-type"), b"")
        if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"accept-post", b"application/json, application/proto, application/grpc-web+proto")]
        await send({"type": "http.response.start", "status": 415, "headers": headers})
        await send({"type": "http.response.body", "body": b"native gRPC has a port of its own; here is Connect and gRPC-Web\n"})

    return guarded

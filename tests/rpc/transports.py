"""The same call over each transport that clients use, with frames made by hand: what a browser or another language sends and sees."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

PATIENCE_S = 10.0
TRAILERS, END = 0x80, 0x02
"""Flags of the last frame in gRPC-Web and in Connect."""


@dataclass(frozen=True)
class Method:
    """A method of a service.

    Attributes:
        path: /package.Service/Method.
        streams: whether it answers with several messages.
    """

    path: str
    request: type[Message]
    response: type[Message]
    streams: bool = False

    @classmethod
    def of(cls, service: Any, name: str) -> Method:
        """The method of a service's descriptor."""
        found = service.methods_by_name[name]
        request, response = found.input_type._concrete_class, found.output_type._concrete_class
        return cls(f"/{service.full_name}/{name}", request, response, found.server_streaming)


@dataclass(frozen=True)
class Answer:
    """What a client got.

    Attributes:
        messages: the responses, one for a unary call that succeeded.
        status: name of the canonical code.
        details: of google.rpc, by the name of their message.
    """

    messages: Sequence[Message]
    status: str = "OK"
    text: str = ""
    details: Mapping[str, Message] = field(default_factory=dict)


Transport = Callable[[Method, Message, Mapping[str, str]], AsyncGenerator[Message]]
"""Yields the responses as they come; raises `Failed`."""


class Failed(Exception):
    """The call ended with a status that is not OK."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


async def answer(
    transport: Transport,
    method: Method,
    request: Message,
    metadata: Mapping[str, str],
    each: Callable[[Message], None] = lambda _: None,
) -> Answer:
    """All that comes of a call.

    Args:
        each: called with each response when it has come.
    """
    messages: list[Message] = []
    try:
        async for message in transport(method, request, metadata):
            messages.append(message)
            each(message)
    except Failed as failed:
        return Answer(messages, code_pb2.Code.Name(failed.status.code), failed.status.message, details_of(failed.status))
    return Answer(messages)


def details_of(status: Status) -> dict[str, Message]:
    """The details of a status that programs look at."""
    found: dict[str, Message] = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            one = kind()
            if packed.Unpack(one):
                found[kind.DESCRIPTOR.name] = one
    return found


def over_grpc(channel: grpc.aio.Channel) -> Transport:
    """Native gRPC over HTTP/2."""

    async def call(method: Method, request: Message, metadata: Mapping[str, str]) -> AsyncGenerator[Message]:
        kinds: Any = {"request_serializer": method.request.SerializeToString, "response_deserializer": method.response.FromString}
        given = tuple(metadata.items())
        try:
            if method.streams:
                async for message in channel.unary_stream(method.path, **kinds)(request, metadata=given, timeout=PATIENCE_S):
                    yield message
            else:
                yield await channel.unary_unary(method.path, **kinds)(request, metadata=given, timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)  # type: ignore[arg-type]
            raise Failed(status or Status(code=error.code().value[0], message=error.details() or "")) from error

    return call


def over_grpc_web(browser: httpx.AsyncClient) -> Transport:
    """gRPC-Web as browsers speak it: frames in a body of HTTP/1.1, the status in the last of them or, where nothing came, in headers."""

    async def call(method: Method, request: Message, metadata: Mapping[str, str]) -> AsyncGenerator[Message]:
        headers = {**metadata, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        body = frame(0, request.SerializeToString())
        async with browser.stream("POST", method.path, content=body, headers=headers, timeout=PATIENCE_S) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("application/grpc-web"), response.headers
            trailers = response.headers if "grpc-status" in response.headers else None
            async with aclosing(frames(response)) as all_frames:
                async for flags, data in all_frames:
                    if flags & TRAILERS:
                        trailers = httpx.Headers(dict(line.split(": ", 1) for line in data.decode().splitlines()))
                    else:
                        yield method.response.FromString(data)
        assert trailers is not None, "the stream ended without a status"
        if trailers["grpc-status"] != "0":
            raise Failed(status_of(trailers))

    return call


def status_of(trailers: httpx.Headers) -> Status:
    """The status that gRPC tells in headers or trailers."""
    raw = trailers.get("grpc-status-details-bin", "")
    if raw:
        return Status.FromString(unpadded(raw))
    return Status(code=int(trailers["grpc-status"]), message=unquote(trailers.get("grpc-message", "")))


def over_connect(browser: httpx.AsyncClient) -> Transport:
    """Connect in JSON: plain posts for one answer, frames of JSON for many."""

    async def call(method: Method, request: Message, metadata: Mapping[str, str]) -> AsyncGenerator[Message]:
        text = json_format.MessageToJson(request).encode()
        if not method.streams:
            response = await browser.post(
                method.path, content=text, headers={**metadata, "content-type": "application/json"}, timeout=PATIENCE_S
            )
            if response.status_code != 200:
                raise Failed(told(response.json()))
            yield json_format.Parse(response.text, method.response())
            return
        headers = {**metadata, "content-type": "application/connect+json", "connect-protocol-version": "1"}
        ended: Mapping[str, Any] | None = None
        async with browser.stream("POST", method.path, content=frame(0, text), headers=headers, timeout=PATIENCE_S) as streamed:
            assert streamed.status_code == 200, await streamed.aread()
            async with aclosing(frames(streamed)) as all_frames:
                async for flags, data in all_frames:
                    if flags & END:
                        ended = json.loads(data)
                    else:
                        yield json_format.Parse(data, method.response())
        assert ended is not None, "the stream ended without its last frame"
        if "error" in ended:
            raise Failed(told(ended["error"]))

    return call


def told(error: Mapping[str, Any]) -> Status:
    """The status that Connect tells as JSON."""
    status = Status(code=code_pb2.Code.Value(error["code"].upper().replace("CANCELED", "CANCELLED")), message=error.get("message", ""))
    for one in error.get("details", ()):
        status.details.add(type_url=f"type.googleapis.com/{one['type']}", value=unpadded(one["value"]))
    return status


def unpadded(text: str) -> bytes:
    """Bytes of base64 without its padding."""
    return base64.b64decode(text + "=" * (-len(text) % 4))


def frame(flags: int, data: bytes) -> bytes:
    """One frame: flags, length, bytes."""
    return struct.pack(">BI", flags, len(data)) + data


async def frames(response: httpx.Response) -> AsyncGenerator[tuple[int, bytes]]:
    """The frames of a response as they come."""
    rest = b""
    async for chunk in response.aiter_raw():
        rest += chunk
        for flags, data in split(rest):
            rest = rest[5 + len(data) :]
            yield flags, data
    assert not rest, f"half a frame: {rest!r}"


def split(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole frames at the beginning of some bytes."""
    while len(raw) >= 5:
        flags, length = struct.unpack_from(">BI", raw)
        if len(raw) < 5 + length:
            return
        yield flags, raw[5 : 5 + length]
        raw = raw[5 + length :]

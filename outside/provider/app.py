"""The provider's HTTP interface: one route per thing it can be asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from outside.provider.behaviour import Behaviour, Call, Decline, DuplicateAnswer, Fail, Hold, Rules, Slow
from outside.provider.ledger import PAGE, Answer, Ledger
from outside.provider.requests import Authorize, Capture, Card, Shape, Void

MOST_BODY = 16 * 1024
"""Bytes of a request body: 32 behaviour rules fit, and nothing else comes near."""

MOST_KEY = 255
"""Characters of an idempotency key."""

BODY_WITHIN_S = 10.0
"""Seconds in which a request body must have arrived."""

Asked = TypeVar("Asked", bound=Shape)


class Refused(Exception):
    """A request that is answered without being carried out; nothing is stored under its key."""

    def __init__(self, status: int, reason: str, **more: object) -> None:
        """`more` goes into the body beside the reason."""
        super().__init__(reason)
        self.status = status
        self.body = {"reason": reason, **more}


class BrokenOff(Response):
    """An answer whose connection closes before its body has been sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starts the response and never completes it: the server then closes the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


class Provider:
    """The endpoints, what they share, and how many operations are under way."""

    def __init__(self, ledger: Ledger, most_in_flight: int) -> None:
        """At most `most_in_flight` operations are worked on at a time; what comes beyond is answered with 429."""
        self._ledger = ledger
        self._behaviour = Behaviour()
        self._most_in_flight = most_in_flight
        self._in_flight = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/livez", self.livez),
                Route("/v1/authorizations", self._while_up(self.authorize), methods=["POST"]),
                Route("/v1/captures", self._while_up(self.capture), methods=["POST"]),
                Route("/v1/voids", self._while_up(self.void), methods=["POST"]),
                Route("/v1/ledger", self._while_up(self.ledger)),
                Route("/v1/customers/{customer}", self._while_up(self.put_card), methods=["PUT"]),
                Route("/v1/customers/{customer}", self._while_up(self.get_card)),
                Route("/v1/behaviour", self.put_behaviour, methods=["PUT"]),
                Route("/v1/behaviour", self.delete_behaviour, methods=["DELETE"]),
                Route("/v1/behaviour", self.get_behaviour),
            ],
            exception_handlers={Refused: _refused, HTTPException: _not_here, ClientDisconnect: _nobody_reads},
        )

    async def livez(self, request: Request) -> Response:
        """Says that the process serves."""
        return JSONResponse({"status": "ok"})

    async def authorize(self, request: Request) -> Response:
        """Holds money: 201, or 402 with the reason."""
        asked, key = await _read(request, Authorize), _key(request)
        call = Call("authorize", asked.reference, asked.customer, asked.amount.minor)

        def declined_by() -> str | None:
            rule = self._behaviour.first(Decline, call)
            return None if rule is None else rule.reason

        return await self._operate(call, lambda: self._ledger.authorize(key, asked, declined_by))

    async def capture(self, request: Request) -> Response:
        """Takes what is held: 201, 404 if nothing is, 409 if it was taken or given back."""
        asked, key = await _read(request, Capture), _key(request)
        return await self._operate(Call("capture", asked.reference), lambda: self._ledger.capture(key, asked))

    async def void(self, request: Request) -> Response:
        """Gives back what is held and blocks the reference: 201, 409 if it was taken."""
        asked, key = await _read(request, Void), _key(request)
        return await self._operate(Call("void", asked.reference), lambda: self._ledger.void(key, asked))

    async def ledger(self, request: Request) -> Response:
        """Streams the entries behind `after` (default 0), of one `reference` or of all, in order."""
        reference = request.query_params.get("reference")
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > 18:
            raise _invalid(("after", "must be a sequence number: a whole number, at least 0"))

        async def entries() -> AsyncIterator[str]:
            seen, separator = int(after), ""
            yield '{"entries": ['
            while page := self._ledger.page(seen, reference):
                yield separator + ",\n".join(json.dumps(entry) for entry in page)
                if len(page) < PAGE:
                    break
                seen, separator = page[-1]["sequence"], ",\n"
            yield "]}\n"

        return StreamingResponse(entries(), media_type="application/json")

    async def put_card(self, request: Request) -> Response:
        """Sets or lifts the limit of a customer's card."""
        customer = _customer(request)
        card = await _read(request, Card)
        self._ledger.set_limit(customer, card.limit_minor)
        return JSONResponse({"customer": customer, "limit_minor": card.limit_minor})

    async def get_card(self, request: Request) -> Response:
        """Tells the limit of a customer's card."""
        customer = _customer(request)
        return JSONResponse({"customer": customer, "limit_minor": self._ledger.limit(customer)})

    async def put_behaviour(self, request: Request) -> Response:
        """Replaces the rules of misbehaviour."""
        self._behaviour = Behaviour((await _read(request, Rules)).rules)
        return await self.get_behaviour(request)

    async def delete_behaviour(self, request: Request) -> Response:
        """Ends all misbehaviour."""
        self._behaviour = Behaviour()
        return await self.get_behaviour(request)

    async def get_behaviour(self, request: Request) -> Response:
        """Tells the rules in force and how often each acted."""
        return JSONResponse({"rules": self._behaviour.described()})

    def _while_up(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if self._behaviour.down:
                raise Refused(503, "down")
            return await endpoint(request)

        return answer

    async def _operate(self, call: Call, work: Callable[[], Answer]) -> Response:
        if self._in_flight >= self._most_in_flight:
            raise Refused(429, "too_many_requests", most_in_flight=self._most_in_flight)
        self._in_flight += 1
        try:
            if failing := self._behaviour.first(Fail, call):
                raise Refused(failing.status, "provider_error")
            if slow := self._behaviour.first(Slow, call):
                await asyncio.sleep(slow.seconds)
            answer = work()
            held_back = self._behaviour.first(Hold, call)
            if held_back:
                await asyncio.sleep(held_back.seconds)
        finally:
            self._in_flight -= 1
        response = JSONResponse(answer.body, status_code=answer.status)
        if answer.replayed and not self._behaviour.first(DuplicateAnswer, call):
            response.headers["Idempotency-Replayed"] = "true"
        if held_back and held_back.then == "close":
            return BrokenOff(response.body, answer.status, response.headers)
        return response


async def _read(request: Request, shape: type[Asked]) -> Asked:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY:
                    raise Refused(413, "body_too_large", most_bytes=MOST_BODY)
    except TimeoutError as error:
        raise Refused(408, "body_too_slow", within_seconds=BODY_WITHIN_S) from error
    try:
        return shape.model_validate_json(bytes(body))
    except ValidationError as error:
        problems = [(".".join(map(str, one["loc"])) or "body", one["msg"]) for one in error.errors()]
        raise _invalid(*problems) from error


def _key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not 1 <= len(key) <= MOST_KEY:
        raise _invalid(("Idempotency-Key", f"the header must hold 1 to {MOST_KEY} characters"))
    return key


def _customer(request: Request) -> str:
    customer = str(request.path_params["customer"])
    if len(customer) > 256:
        raise _invalid(("customer", "must have at most 256 characters"))
    return customer


def _invalid(*problems: tuple[str, str]) -> Refused:
    return Refused(400, "invalid", violations=[{"field": field, "problem": problem} for field, problem in problems])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {}
    if error.status in (429, 503):
        headers["Retry-After"] = "1"
    if error.status in (408, 413):
        headers["Connection"] = "close"
    return JSONResponse(error.body, error.status, headers)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = error.detail.lower().replace(" ", "_")
    return JSONResponse({"reason": reason, "path": request.url.path}, error.status_code, error.headers)


async def _nobody_reads(request: Request, error: Exception) -> Response:
    return Response(status_code=400)

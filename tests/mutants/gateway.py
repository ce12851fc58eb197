"""Mistakes for the gateway of the real stack: each is planted in its process alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from retail.gateway.v1.order_service_pb2 import OrderStatus
from retail.gateway.views.v1.rows_pb2 import OrderStanding, RequestRow

from backbone.adapters import kafka, kafka_clients
from backbone.loops.project import Project
from backbone.loops.take_in import BoundIntake
from backbone.ports import Place
from gateway import following, freshness, ids, orders, view
from gateway.awaiting import Waiter, Waiters
from tests.mutants.planting import Patches


@dataclass(frozen=True)
class Mistake:
    """A mistake, and what finds it.

    Attributes:
        about: what is done wrong, in a sentence.
        reasons: rules of the checker of which one must be broken.
        loaded: it takes many customers to show.
        killing: it only shows when a decider dies in the middle of a transaction.
    """

    about: str
    plant: Callable[[], Patches]
    reasons: tuple[str, ...]
    killing: bool = False
    loaded: bool = False


def _registered_late() -> Patches:
    @contextmanager
    def waiter(self: Waiters[Any], order_id: str, wakes: Any = lambda _: True) -> Iterator[Waiter[Any]]:
        late: Waiter[Any] = Waiter(wakes)
        others = self._waiting.setdefault(order_id, set())
        alarm = asyncio.get_running_loop().call_later(3.0, others.add, late)
        try:
            yield late
        finally:
            alarm.cancel()
            others.discard(late)

    async def look(self: following.Following, within_s: float = 0.5, **of: Any) -> None:
        if self.request is None:
            await right(self, within_s, **of)

    async def more(self: following.Following, until: float) -> bool:
        self._again_at = float("inf")
        self.request = self.request or RequestRow()
        return await on(self, until)

    right, on = following.Following.look, following.Following.more
    return [(Waiters, "waiter", waiter), (following.Following, "look", look), (following.Following, "more", more)]


def _told_early() -> Patches:
    def answered(row: Any) -> bool:
        return bool(row.standing >= OrderStanding.ORDER_STANDING_VALIDATED)

    early = {**orders.STATUS, OrderStanding.ORDER_STANDING_VALIDATED: OrderStatus.ORDER_STATUS_CONFIRMED}
    return [(view, "answered", answered), (orders, "STATUS", early), (orders, "_decides", lambda heard: True)]


def _told_yes() -> Patches:
    yes = dict.fromkeys(orders.STATUS, OrderStatus.ORDER_STATUS_CONFIRMED)
    return [(orders, "STATUS", yes)]


def _random_orders() -> Patches:
    return [(ids, "order_id", lambda *of: uuid.uuid4().hex)]


def _any_payload() -> Patches:
    return [(ids, "fingerprint", lambda request: "f" * 64)]


def _never_appended() -> Patches:
    async def raise_(self: BoundIntake, event: Any, **of: Any) -> Mapping[Place, int]:
        return {("retail.gateway.order-requests.v1", 0): 1}

    return [(BoundIntake, "__call__", raise_)]


def _slow_views() -> Patches:
    """Every view is half a second behind: not a mistake, but what makes one show."""

    def step(self: Project, timeout_s: float) -> bool:
        time.sleep(0.5)
        return right(self, timeout_s)

    right = Project.step
    return [(Project, "step", step)]


def _late_is_absent() -> Patches:
    async def late(self: following.Views, order_id: str) -> None:
        return None

    return [(following.Views, "late", late), *_slow_views()]


def _demands_ignored() -> Patches:
    def read(self: freshness.Tokens, principal: str, given: Any) -> dict[Place, int]:
        return {}

    return [(freshness.Tokens, "read", read), *_slow_views()]


def _hears_uncommitted() -> Patches:
    def options(settings: Any) -> Any:
        return {**right(settings), "isolation.level": "read_uncommitted"}

    right = kafka_clients.reading_options
    return [(kafka, "reading_options", options)]


MISTAKES: Mapping[str, Mistake] = {
    "registered late": Mistake("who waits is registered after the look, and nobody looks again", _registered_late, ("complete",)),
    "told early": Mistake("an order is told to be confirmed when it is validated", _told_early, ("honest",)),
    "told yes": Mistake("whatever the answer is, it is told to be yes", _told_yes, ("honest",)),
    "random orders": Mistake("each call makes an order of its own, whatever its key", _random_orders, ("idempotent",)),
    "any payload": Mistake("another wish under a used key is taken for the same", _any_payload, ("idempotent",)),
    "never appended": Mistake("orders are acknowledged and never written", _never_appended, ("acknowledged",)),
    "late is absent": Mistake("what a view does not have yet is told not to exist", _late_is_absent, ("fresh",)),
    "demands ignored": Mistake("a read takes what the view has, whatever is demanded", _demands_ignored, ("fresh",), loaded=True),
    "hears uncommitted": Mistake("answers are told that were never committed", _hears_uncommitted, ("honest",), killing=True),
}
"""Every mistake, by name."""

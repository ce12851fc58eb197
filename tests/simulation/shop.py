"""The whole shop on the simulator: every decider, view, effect and intake, the gateway's views, customers, sources and a provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any

from google.protobuf.message import Message
from retail.ordering.v1.order_pb2 import OrderEvent
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryResponse

from backbone import positions
from backbone.contract import ResolvedService, resolve_context
from backbone.declare import Effect, Intake
from backbone.envelope import Undecodable, split_entry_key
from backbone.errors import Unavailable, Unconfirmed
from backbone.loops.take_in import BoundIntake
from backbone.partitioner import partition_of
from backbone.ports import Fragment, Place
from backbone.settings import Settings
from backbone.stored import row_bytes
from backbone.testing.simulated.clock import EPOCH_S
from backbone.testing.simulated.faults import Fault, draw
from backbone.testing.simulated.ports import Gate, GatedLog, GatedRows
from backbone.testing.simulation import Loop, Role, Simulation, WithStatus
from backbone.topology import Kept, topology
from shop import shop
from tests import examples
from tests.simulation.provider import Line, Provider

PARTITIONS = 2
PRICES = {"CD-0": 0, "CD-1": 1234, "CD-2": 999, "CD-3": 250, "CD-4": 4999, "CD-5": 75}
ZONES = ("north", "south")
CUSTOMERS = [f"customer-{number}" for number in range(1, 8)]
REFUSED = CUSTOMERS[-1]
LIMITED = CUSTOMERS[-2]
ORDERS_TOPIC = "retail.ordering.orders.v1"
STANDING = {field.number: field.name.removeprefix("order_") for field in OrderEvent.DESCRIPTOR.fields}


@dataclass(frozen=True)
class Plan:
    """What one run consists of. The same plan always runs alike.

    Attributes:
        orders: numbers of the orders that are placed, out of `of_orders`.
        faults: numbers of the faults that happen, out of `of_faults`.
        per_second: how many orders are placed in a virtual second.
        scarce: how much stock there is for each order, about 1 is just enough.
        large: batches are as large as they can be, which is fast; else of every size, which finds more.
    """

    seed: int
    of_orders: int = 30
    of_faults: int = 20
    orders: tuple[int, ...] | None = None
    faults: tuple[int, ...] | None = None
    per_second: float = 10.0
    scarce: float = 0.7
    large: bool = False

    @property
    def lasts_s(self) -> float:
        """Virtual seconds in which orders are placed and faults come."""
        return self.of_orders / self.per_second

    def placed(self) -> Sequence[int]:
        """Numbers of the orders."""
        return range(self.of_orders) if self.orders is None else self.orders

    def command(self) -> str:
        """How to repeat it, in one line."""
        parts = [f"python -m tests.simulation --first {self.seed} --seeds 1 --orders {self.of_orders} --faults {self.of_faults}"]
        parts += [] if self.per_second == Plan.per_second else [f"--per-second {self.per_second:g}"]
        parts += ["--large"] if self.large else []
        parts += [] if self.orders is None else [f"--only-orders {','.join(map(str, self.orders)) or '-'}"]
        parts += [] if self.faults is None else [f"--only-faults {','.join(map(str, self.faults)) or '-'}"]
        return " ".join(parts)


@dataclass(frozen=True)
class Wish:
    """What a customer asks for, and when."""

    at_s: float
    event: Any
    request_id: str


@dataclass
class Source:
    """A foreign source: pairs of the second from which an event can be read, and the event."""

    lines: list[tuple[float, Message]]
    now: Callable[[], float]

    def open(self, settings: Settings) -> AbstractAsyncContextManager[Source]:
        """Itself, as the tool of an intake."""
        return _opened(self)

    async def read(self, _: Source, cursor: str) -> list[tuple[str, Message]]:
        """The next events behind a cursor, as far as they are there."""
        first = int(cursor or 0)
        found: list[tuple[str, Message]] = []
        for number, (at_s, event) in enumerate(self.lines[first : first + 200], first):
            if at_s > self.now():
                break
            found.append((str(number + 1), event))
        return found


@asynccontextmanager
async def _opened(tool: Any) -> AsyncIterator[Any]:
    yield tool


@cache
def services() -> tuple[ResolvedService, ...]:
    """Every service of the shop, resolved."""
    return tuple(service for context in (*shop.contexts, shop.gateway) if context is not None for service in resolve_context(context))


@cache
def topics() -> dict[str, bool]:
    """Every topic, and whether it is compacted."""
    return {topic.name: topic.kept is Kept.COMPACTED for topic in topology(shop).topics}


@dataclass
class Shop:
    """A shop that a plan is carried out in.

    Attributes:
        wishes: what customers still want to ask.
        asked: what they asked, acknowledged.
        told: where each of it lies, as the door was told.
    """

    plan: Plan
    wishes: list[Wish] = field(default_factory=list)
    asked: list[Wish] = field(default_factory=list)
    told: list[tuple[Wish, Mapping[Place, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = self.plan
        self.simulation = Simulation(
            plan.seed,
            partitions=PARTITIONS,
            topics=topics(),
            misbehave=self._misbehave,
            stage_of=self._stage_of,
            batches=(500,) if plan.large else (1, 7, 100, 500),
            bites=(500,) if plan.large else (1, 4, 100, 500),
        )
        simulation = self.simulation
        self.clock = simulation.clock
        simulation.log.watched = frozenset({ORDERS_TOPIC})
        self.provider = Provider(Random(f"{plan.seed}/provider"), self.clock, simulation.at, frozenset({REFUSED}))
        self.provider.ledger.limits[LIMITED] = 20_000
        self.catalogue = Source(
            [(0.0, examples.item_catalogued(sku, list_price=examples.usd(cents))) for sku, cents in PRICES.items()], self._now
        )
        self.receipts = Source(self._opening_stock(), self._now)
        for service in services():
            if service.name == "gateway.door":
                self.door = service
            simulation.add_service(service, self._dressed, self._sibling)
        simulation.add(Role("gateway.door.door", "door", "gateway", self._customers, many=False))
        simulation.faults = self.planned_faults()

    def planned_faults(self) -> list[Fault]:
        """The faults of the plan."""
        workers = {name: role.purpose for name, role in self.simulation.roles.items()}
        contexts = sorted({role.context for role in self.simulation.roles.values()})
        faults = draw(Random(f"{self.plan.seed}/faults"), self.plan.of_faults, self.plan.lasts_s, workers, contexts)
        return [fault for fault in faults if self.plan.faults is None or fault.number in self.plan.faults]

    def open(self) -> bool:
        """List prices and fill the pools, undisturbed; False if that does not come to rest."""
        self.simulation.begin()
        return self.simulation.rest(lambda: self.simulation.log.appended > 0)

    def trade(self) -> bool:
        """Carry out the plan, and then let everything come to rest; False if it does not."""
        simulation = self.simulation
        begin_s = self.clock.now_s
        self._plan_trade(begin_s)
        simulation.let_faults_come()
        simulation.work(lambda: not self.wishes and self.clock.now_s > begin_s + self.plan.lasts_s, self.plan.lasts_s * 3 + 10)
        simulation.heal()
        return simulation.rest(lambda: not self.wishes and self._sources_are_read())

    def _sources_are_read(self) -> bool:
        read = {"ordering.catalogue": self.catalogue, "fulfilment.receiving": self.receipts}
        return all(
            (worker := self.simulation.worker(f"{name}.intake")) is not None and int(worker.status()["cursor"] or 0) == len(source.lines)
            for name, source in read.items()
        )

    def confirmed(self) -> int:
        """How many orders were confirmed."""
        return sum(STANDING[last[ORDERS_TOPIC]] == "confirmed" for last in self.simulation.log.last_said.values())

    def _now(self) -> float:
        return self.clock.now_s

    def _misbehave(self, lot: Random) -> Callable[[], None]:
        return self.provider.misbehave(lot)

    def _stage_of(self, key: bytes | None) -> str:
        if key is None:
            return "-"
        with suppress(Undecodable):
            key = split_entry_key(key)[0].encode()
        last = self.simulation.log.last_said.get(key)
        if last is not None:
            return STANDING[last[ORDERS_TOPIC]]
        return "requested" if key.startswith(b"order-") else "-"

    def _opening_stock(self) -> list[tuple[float, Message]]:
        quantity = max(2, int(len(self.plan.placed()) * self.plan.scarce / len(ZONES) / len(PRICES) * 3))
        return [(0.0, examples.goods_received(f"opening/{zone}/{sku}", zone, sku, quantity)) for zone in ZONES for sku in PRICES]

    def _plan_trade(self, begin_s: float) -> None:
        plan = self.plan
        for number in plan.placed():
            self.wishes += self._wishes_of(number, begin_s + number / plan.per_second)
        self.wishes.sort(key=lambda wish: (wish.at_s, wish.request_id))
        lot = Random(f"{plan.seed}/sources")
        for number in range(plan.of_orders // 4):
            at_s = begin_s + number * 4 / plan.per_second
            receipt = examples.goods_received(f"receipt-{number}", lot.choice(ZONES), lot.choice(list(PRICES)), lot.randint(1, 3))
            self.receipts.lines += [(at_s, receipt)] * lot.choice((1, 1, 2))
            if lot.random() < 0.3:
                sku = lot.choice([sku for sku, cents in PRICES.items() if cents])
                changed = examples.item_catalogued(sku, list_price=examples.usd(PRICES[sku] + lot.choice((0, 100))))
                self.catalogue.lines.append((at_s, changed))

    def _wishes_of(self, number: int, at_s: float) -> list[Wish]:
        lot = Random(f"{self.plan.seed}/order/{number}")
        order_id, customer = f"order-{number}", lot.choice(CUSTOMERS)
        skus = lot.sample(list(PRICES), lot.choice((1, 1, 2, 3)))
        lines = [(sku, lot.choice((1, 1, 1, 2, 5)), PRICES[sku]) for sku in skus]
        if lot.random() < 0.05:
            lines.append(("CD-unheard-of", 1, 1))
        if lot.random() < 0.05:
            lines[0] = (lines[0][0], lines[0][1], lines[0][2] + 1)
        patience_s = lot.choice((0.5, 3.0, 10.0, 30.0, 60.0))
        request = examples.order_requested(
            order_id, customer, lines, lot.choice(ZONES), datetime.fromtimestamp(EPOCH_S + at_s + patience_s, UTC), f"f-{number}"
        )
        wishes = [Wish(at_s, request, order_id)]
        if lot.random() < 0.1:
            wishes.append(Wish(at_s + lot.random(), request, order_id))
        if lot.random() < 0.15:
            whose = customer if lot.random() < 0.8 else "customer-strange"
            cancel = examples.order_cancellation_requested(order_id, whose)
            wishes.append(Wish(at_s + lot.choice((0.0, 0.2, 2.0)), cancel, f"{order_id}/cancel"))
        return wishes

    # The outside, as workers see it.

    def _dressed(self, service: ResolvedService, gate: Gate) -> ResolvedService:
        declared = copy(service.service)
        if service.name == "ordering.catalogue":
            declared.intake = Intake(*service.service.intake.messages, source=(self.catalogue.open, self.catalogue.read))  # type: ignore[union-attr]
        elif service.name == "fulfilment.receiving":
            declared.intake = Intake(*service.service.intake.messages, source=(self.receipts.open, self.receipts.read))  # type: ignore[union-attr]
        effects = tuple(replace(one, effect=self._connected(one.effect, gate)) for one in service.effects)
        return replace(service, service=declared, effects=effects)

    def _connected(self, effect: Effect[Any], gate: Gate) -> Effect[Any]:
        if not callable(effect.connect):
            return effect
        connected = copy(effect)
        connected.connect = lambda _: _opened(Line(gate, self.provider))
        return connected

    def _sibling(self, settings: Settings, stub: Any) -> AbstractAsyncContextManager[Any]:
        return _opened(_Risk(self.simulation))

    def _customers(self, gate: Gate, log: GatedLog, rows: GatedRows, settings: Settings) -> Loop:
        intake = BoundIntake(self.door, log, settings)

        async def ask(wish: Wish) -> None:
            try:
                position = await intake(wish.event, request_id=wish.request_id, correlation_id=wish.event.order_id)
            except (Unconfirmed, Unavailable):
                return
            if wish in self.wishes:  # a predecessor that still goes on may have been first
                self.wishes.remove(wish)
                self.asked.append(wish)
            self.told.append((wish, position))

        async def run(stop: asyncio.Event) -> None:
            while not stop.is_set():
                due = [wish for wish in self.wishes[:100] if wish.at_s <= self.clock.now_s]
                await asyncio.gather(*(ask(wish) for wish in due))
                await asyncio.sleep(0.02)

        return WithStatus(run, self.clock, lambda: gate.moves, intake.status)


class _Risk:
    """The sibling's stub: answers from the rows of its view."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def GetCustomerHistory(self, request: Any) -> _Call:  # noqa: N802 - as generated stubs name it
        """What is known of a customer, and as of when."""
        if "payments" in self._simulation.down:
            raise Unavailable("simulated: the sibling cannot read its rows")
        number = partition_of(request.customer_id.encode(), PARTITIONS)
        held = self._simulation.rows["payments"].lies(Fragment("payments.risk.customer_history", 1, number))
        row = CustomerHistory.FromString(row_bytes(held.rows.get(request.customer_id, b"")))
        as_of = {("retail.payments.payments-by-customer.v1", number): held.watermark or 0}
        return _Call(GetCustomerHistoryResponse(row=row), positions.encode(as_of))


@dataclass(frozen=True)
class _Call:
    """A call that was answered."""

    answer: GetCustomerHistoryResponse
    as_of: str

    def __await__(self) -> Any:
        return asyncio.sleep(0, self.answer).__await__()

    async def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """As of when."""
        return ((positions.AS_OF, self.as_of),)

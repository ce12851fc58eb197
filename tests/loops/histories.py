"""A view to try projections and servers on: how payments went, by customer. It counts, so folding twice shows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from google.protobuf.message import Message
from retail.payments.v1.payment_pb2 import PaymentAuthorized, PaymentDeclined, PaymentVoided
from retail.payments.views.v1.risk_pb2 import CustomerHistory, GetCustomerHistoryRequest, GetCustomerHistoryResponse

from backbone import damage
from backbone.contract import ResolvedService, ResolvedView, Topic, resolve
from backbone.declare import Context, Index, Query, Reader, Service, Table, View, happened_at, on
from backbone.envelope import encode
from backbone.loops.project import Project
from backbone.partitioner import partition_of
from backbone.ports import Fragment, Log, Place, Rows
from backbone.positions import Vector, to_proto
from backbone.settings import Settings
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import Quarantined
from tests.examples import payment_authorized

PARTITIONS = 2
WITHIN_S = 30.0
WRONG = "customer-wrong"


def authorized(rows: Table[CustomerHistory], payment: PaymentAuthorized) -> None:
    """Counts; defective for one customer."""
    if payment.customer_id == WRONG:
        raise ArithmeticError("no sum of these")
    rows[payment.customer_id].authorized += 1


def declined(rows: Table[CustomerHistory], payment: PaymentDeclined, at: datetime) -> None:
    """Counts the time, to see that it is handed over."""
    rows[payment.customer_id].declined = int(at.timestamp())


def voided(rows: Table[CustomerHistory], payment: PaymentVoided) -> None:
    """Forgets the customer."""
    if payment.customer_id in rows:
        del rows[payment.customer_id]


def by_success(row: CustomerHistory) -> tuple[str, float] | None:
    """Customers by how often their payments went through, the frequent ones apart."""
    return ("often" if row.authorized > 2 else "seldom", row.authorized)


async def get_history(histories: Reader[CustomerHistory], request: GetCustomerHistoryRequest) -> GetCustomerHistoryResponse:
    """The row; two customers' questions are defective."""
    if request.customer_id == "raises":
        raise ArithmeticError("no answer to this")
    if request.customer_id == "lies":
        return CustomerHistory()  # type: ignore[return-value]  # what the test is about
    return GetCustomerHistoryResponse(row=await histories.get(request.customer_id))


def histories() -> View[CustomerHistory]:
    """The view; it hears nothing of captures."""
    return View(
        CustomerHistory,
        on(PaymentAuthorized, authorized),
        on(PaymentDeclined, declined, look_up=happened_at),
        on(PaymentVoided, voided),
        indexes=[Index("by_success", by_success)],
    )


@dataclass
class Shown:
    """A service with that view on topics of its own, and what is written to them.

    Attributes:
        log: where the topics are.
        appended: keys written so far.
    """

    log: Log
    service: ResolvedService
    view: ResolvedView
    settings: Settings
    appended: dict[str, None] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def topic(self) -> str:
        """The topic that is folded."""
        return self.view.topic.name

    @property
    def places(self) -> list[Place]:
        """Its partitions."""
        return [(self.topic, partition) for partition in range(PARTITIONS)]

    @property
    def quarantine(self) -> str:
        """Where bad records go."""
        return self.service.private("quarantine")

    def project(self, rows: Rows, **settings: object) -> Project:
        """The projection, as a process runs it."""
        return Project(self.service, self.view, self.log, rows, self.settings.model_copy(update=settings))

    def tell(self, *events: Message) -> None:
        """Append events in one transaction."""
        keys = [str(getattr(event, self.view.key)).encode() for event in events]
        self.append([(key, self.value(event), partition_of(key, PARTITIONS)) for key, event in zip(keys, events, strict=True)])

    def say(self, event: Message, after: Vector | None = None) -> dict[Place, int]:
        """Append one event that comes after some positions; the position after it."""
        key = str(getattr(event, self.view.key))
        appender = self.log.appender()
        partition, offset = appender.append(self.topic, key.encode(), self.value(event, after)).result(WITHIN_S)
        appender.close()
        self.appended[key] = None
        return {(self.topic, partition): offset + 1}

    def value(self, event: Message, after: Vector | None = None) -> bytes:
        """The bytes of an event as its writer writes them."""
        number = self.view.topic.number(type(event))
        assert number is not None
        identity = f"payments.payments:{next(self.numbers)}"
        meta = Meta(id=identity, writer="payments.payments", after=to_proto(after or {}))
        return encode(number, event.SerializeToString(), meta.SerializeToString())

    def append(self, records: Sequence[tuple[bytes | None, bytes | None, int]]) -> None:
        """Append raw records in one transaction: key, value, partition."""
        producer = self.log.producer(f"{self.service.name}.test")
        producer.begin()
        for key, value, partition in records:
            producer.produce(self.topic, key, value, partition)
            if key is not None:
                self.appended[key.decode(errors="replace")] = None
        producer.commit()
        producer.close()

    def fragments(self) -> list[Fragment]:
        """Where the rows lie."""
        return [Fragment(self.view.name, self.view.view.version, partition) for partition in range(PARTITIONS)]

    def watermarks(self, rows: Rows) -> dict[Place, int]:
        """How far the rows are."""
        found = rows.fetch([(fragment, ()) for fragment in self.fragments()])
        return {place: one.watermark or 0 for place, one in zip(self.places, found, strict=True)}

    def stored(self, rows: Rows) -> dict[str, bytes]:
        """What lies in the place of every key that was written."""
        keys = [key for key in self.appended if key]
        found = rows.fetch([(self.fragments()[partition_of(key.encode(), PARTITIONS)], [key]) for key in keys])
        return {key: one.rows[0] for key, one in zip(keys, found, strict=True) if one.rows[0] is not None}

    def rows(self, rows: Rows) -> dict[str, CustomerHistory]:
        """The rows of every key that was written."""
        return {key: damage.row_of(CustomerHistory, self.view.name, key, raw) for key, raw in self.stored(rows).items()}

    def ends(self) -> Mapping[Place, int]:
        """Where the topic ends."""
        return self.log.high_watermarks(self.places)

    def fold(self, project: Project, rows: Rows) -> None:
        """Step until the rows are as far as the log."""
        self.step_until(project, lambda: self.watermarks(rows) == self.ends(), "at the end of the topic")

    def step_until(self, project: Project, condition: Callable[[], bool], what: str) -> None:
        """Step until a condition holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"after {WITHIN_S} s not {what}: {project.status()}"
            project.step(0.05)

    def afresh(self, rows: Rows) -> dict[str, bytes]:
        """What a fold of the whole topic into empty rows gives."""
        other = replace(self, view=replace(self.view, name=f"{self.view.name}-{next(self.numbers)}"), service=self.service)
        project = other.project(rows)
        other.fold(project, rows)
        project.close()
        return other.stored(rows)

    def set_aside(self) -> list[Quarantined]:
        """What lies in quarantine."""
        places = [(self.quarantine, partition) for partition in range(PARTITIONS)]
        ends = self.log.high_watermarks(places)
        return [Quarantined.FromString(r.value or b"") for place in places for r in self.log.read(place, 0, ends[place])]


def shown(log: Log, name: str, make_topics: Callable[[Sequence[str]], None], settings: Settings) -> Shown:
    """The service, on topics of its own.

    Args:
        name: what nobody else is called.
        make_topics: makes topics of `PARTITIONS` partitions.
    """
    view = histories()
    resolved = resolve(Context("payments", *()), Service(name, view, Query(view, on(GetCustomerHistoryRequest, get_history))))
    topic: Topic = replace(resolved.views[0].topic, name=f"retail.payments.{name}.v1")
    service = replace(resolved, views=(replace(resolved.views[0], topic=topic),))
    make_topics([topic.name, service.private("quarantine")])
    return Shown(log, service, service.views[0], settings.model_copy(update={"partitions": PARTITIONS}))


def customers(count: int) -> list[PaymentAuthorized]:
    """A success of each of so many customers."""
    return [payment_authorized(f"order-{number}", f"customer-{number}") for number in range(count)]

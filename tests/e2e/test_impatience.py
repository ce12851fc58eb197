"""A shop whose customers wait six seconds, whose payments are two processes, and on whose log strangers write."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import Producer
from retail.gateway.v1.order_request_pb2 import OrderRequested, OrderRequestEvent, RequestedLine
from retail.gateway.v1.order_service_pb2 import OrderRejectionReason, OrderStatus
from retail.payments.effects.v1.payment_pb2 import PaymentOutcome
from retail.payments.v1.payment_pb2 import PaymentEvent, PaymentVoided

from backbone.envelope import encode, root_meta
from backbone.partitioner import partition_of
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import QUARANTINE_REASON_UNDECODABLE, QUARANTINE_REASON_UNKNOWN_EVENT, Quarantined
from demo.purchases import money
from laws.entries import Place
from tests.conftest import scratch
from tests.e2e.running import Shop, a_shop
from tests.local.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ANSWER_WITHIN_S = 6.0
REQUESTS = "retail.gateway.order-requests.v1"
CONFIRMED, REJECTED = OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_REJECTED
OVERDUE = OrderRejectionReason.ORDER_REJECTION_REASON_OVERDUE


@pytest.fixture(scope="module")
def impatient() -> Iterator[Shop]:
    """That shop."""
    environment = {"ANSWER_WITHIN_S": str(ANSWER_WITHIN_S)}
    with scratch("e2e") as folder, a_shop(folder, environment=environment, split={"payments": [["payments"], ["risk"]]}) as shop:
        yield shop


def test_payments_asks_risk_in_another_process(impatient: Shop) -> None:
    """Over a real socket; the outcome records what was answered and where the view stood."""
    with impatient.customer() as customer:
        first = customer.place([("T-SPLIT", 1, 1000)])
        assert first.status == CONFIRMED
        impatient.rest()
        second = customer.place([("T-SPLIT", 1, 1000)])
        assert second.status == CONFIRMED
    assert impatient.status("payments.risk")["edges"]["payments.serve"]["answered"] >= 2
    assert "payments.serve" not in impatient.status("payments.payments")["edges"]
    outcomes = [
        PaymentOutcome.FromString(entry.value)
        for entry in impatient.entries()
        if entry.place.topic.endswith("payments.outcomes") and entry.value
    ]
    assessed = {one.risk_assessed.order_id: one.risk_assessed for one in outcomes if one.HasField("risk_assessed")}
    assert (assessed[first.order_id].authorized, assessed[second.order_id].authorized) == (0, 1)
    assert {position.topic for position in assessed[second.order_id].read_at} == {"retail.payments.payments-by-customer.v1"}


def test_an_order_whose_payment_does_not_answer_in_time_is_rejected(impatient: Shop) -> None:
    """Payments is stopped past the deadline; when it comes back, it finds nothing to do and nothing stays authorised."""
    with impatient.customer() as customer:
        with impatient.stopped("payments.payments"):
            began = time.monotonic()
            order = customer.place([("T-LATE", 1, 1000)], wait_s=25.0)
            assert (order.status, order.rejection_reason) == (REJECTED, OVERDUE)
            assert time.monotonic() - began >= ANSWER_WITHIN_S
        verdict = impatient.verdict()
        assert verdict.violations == ()
        assert not [kind for kind, _ in impatient.books(order.order_id) if kind in ("authorized", "captured")]
        assert customer.place([("T-LATE", 1, 1000)]).status == CONFIRMED


def test_money_that_is_held_too_late_goes_back(impatient: Shop) -> None:
    """The provider did it and told nobody until the order was rejected."""
    with impatient.customer() as customer:
        with impatient.misbehaving({"kind": "hold", "seconds": 30.0, "customer": customer.name, "operations": ["authorize"]}):
            order = customer.place([("T-SLOW", 1, 1000)], wait_s=25.0)
            assert (order.status, order.rejection_reason) in {
                (REJECTED, OVERDUE),
                (REJECTED, OrderRejectionReason.ORDER_REJECTION_REASON_PAYMENT_DECLINED),
            }
            assert ("authorized", 1000) in impatient.books(order.order_id)
        wait_until(lambda: ("voided", 1000) in impatient.books(order.order_id), 30.0, "the money is given back")
    assert impatient.verdict().violations == ()
    assert impatient.books(order.order_id) == [("authorized", 1000), ("voided", 1000)]


def test_what_strangers_write_is_set_aside_and_what_lies_behind_it_is_done(impatient: Shop) -> None:
    """With its coordinates, its raw bytes and a reason; in every service that reads the topic; and the next record is decided."""
    customer, order_id = "a-stranger", f"stranger-{uuid.uuid4().hex}"
    partition = partition_of(order_id.encode(), impatient.here.stack.state.partitions)
    good = _request(order_id, customer)
    foreign = PaymentEvent(payment_voided=PaymentVoided(order_id="x", customer_id="y"), meta=Meta(id="foreign", writer="payments.payments"))
    strange: list[tuple[bytes | None, bytes | None, int]] = [
        (b"garbage", b"\xff\xfe garbage \x00\x01", QUARANTINE_REASON_UNDECODABLE),
        (order_id.encode(), good[: len(good) // 2], QUARANTINE_REASON_UNDECODABLE),
        (b"x", foreign.SerializeToString(), QUARANTINE_REASON_UNKNOWN_EVENT),
        (None, good, QUARANTINE_REASON_UNDECODABLE),
        (order_id.encode(), None, QUARANTINE_REASON_UNDECODABLE),
        (b"\xff not utf-8", good, QUARANTINE_REASON_UNDECODABLE),
        (b"another-order", good, QUARANTINE_REASON_UNDECODABLE),
    ]
    offsets = _append(impatient, partition, [*((key, value) for key, value, _ in strange), (order_id.encode(), good)])
    with impatient.customer(customer) as waiting:
        wait_until(lambda: order_id in {order.order_id for order in waiting.orders()}, 30.0, "the gateway has read the record behind")
        assert waiting.await_(order_id).status == CONFIRMED
    impatient.rest()
    expected = {(REQUESTS, partition, offset, key, value, reason) for offset, (key, value, reason) in zip(offsets, strange, strict=False)}
    assert _set_aside(impatient, "ordering.orders") == expected
    assert _set_aside(impatient, "gateway.door") == expected
    verdict = impatient.verdict()
    assert {violation.law for violation in verdict.violations} == {"readable"}
    assert {place for violation in verdict.violations for place in violation.witnesses} == {
        Place(REQUESTS, partition, offset) for offset in offsets[:-1]
    }


def test_what_was_set_aside_is_counted_where_operators_look(impatient: Shop) -> None:
    """On /metrics of the process that did it; the process stays ready."""
    figures = httpx.get(f"{impatient.here.health['ordering']}/metrics", timeout=5.0, trust_env=False).text
    assert 'backbone_quarantined_total{worker="ordering.orders.decide"} 7.0' in figures.splitlines()
    assert httpx.get(f"{impatient.here.health['ordering']}/readyz", timeout=5.0, trust_env=False).status_code == 200


def _request(order_id: str, customer: str) -> bytes:
    event = OrderRequested(
        order_id=order_id,
        customer_id=customer,
        lines=[RequestedLine(sku="T-ONE", quantity=1, unit_price=money(1000))],
        delivery_zone="zone-1",
        fingerprint="f" * 32,
    )
    event.expires_at.FromSeconds(int(time.time()) + 60)
    meta = root_meta(
        writer="gateway.door", build="dev", request_id=f"{order_id}:f", correlation_id=order_id, occurred_at_ms=int(time.time() * 1000)
    )
    return encode(OrderRequestEvent.ORDER_REQUESTED_FIELD_NUMBER, event.SerializeToString(), meta.SerializeToString())


def _append(shop: Shop, partition: int, records: list[tuple[bytes | None, bytes | None]]) -> list[int]:
    """Write records as a gateway that keeps no rules, and give their offsets."""
    offsets: list[int] = []
    producer = Producer({**shop.here.kafka("gateway.door"), "enable.idempotence": True})
    for key, value in records:
        producer.produce(
            REQUESTS, key=key, value=value, partition=partition, on_delivery=lambda _, told: offsets.append(told.offset() or 0)
        )
    assert producer.flush(20.0) == 0
    return offsets


def _set_aside(shop: Shop, service: str) -> set[tuple[str, int, int, bytes | None, bytes | None, int]]:
    found = set()
    for entry in shop.entries():
        if entry.place.topic == f"private.{service}.quarantine" and entry.value:
            one = Quarantined.FromString(entry.value)
            key, value = (one.key if one.HasField("key") else None), (one.value if one.HasField("value") else None)
            found.add((one.topic, one.partition, one.offset, key, value, int(one.reason)))
    return found

"""Real bytes of everything that is ever stored, made from the examples by the encoders the runtime uses.

`python -m tests.corpus` adds what is not stored yet to the folder of the next release; what a release kept is never touched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from retail.payments.effects.v1.payment_pb2 import GivenUpCommand

from backbone.contract import ResolvedDecider, ResolvedService, ResolvedView, Topic, check_platform, is_effect
from backbone.envelope import because_of, decode, encode, entry_key, root_id, root_meta, timestamp
from backbone.loops.holding import positions_entry
from backbone.loops.snapshots import PARKED, Held, Snapshots
from backbone.moments import stamp
from backbone.operations.contracts import corpus, releases
from backbone.operations.contracts.corpus import Stored
from backbone.ports import Record
from backbone.testing.rows import rows_of
from backbone.topology import contract_topics
from backbone.v1.meta_pb2 import Meta, Observed
from backbone.v1.private_pb2 import Cursor, Forwarded, Parked, Quarantined, QuarantineReason, Release, StateEntry, Tick
from shop import shop
from tests import examples as say

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "protos" / "corpus"
RELEASED = ROOT / "protos" / "released"
FOLDED = "folded.json"
BUILD = "corpus"
TOPIC_ID = "Zm9yLWV2ZXItYW5kLWEtZGF5"
"""Stands for what Kafka calls the topic of the cause."""
SAID_AT_MS = int(say.NOON.timestamp() * 1000)

HISTORIES: Mapping[str, Sequence[Message]] = {
    "retail.gateway.order-requests.v1": [
        say.order_requested(),
        say.order_requested("order-2", lines=[("CD-3", 1000, 0)]),
        say.order_cancellation_requested("order-3"),
    ],
    "retail.ordering.catalogue.v1": [say.item_catalogued(), say.item_catalogued("CD-2", "", say.usd(0))],
    "retail.ordering.prices.v1": [say.price_listed(), say.price_listed(unit_price=say.usd(999)), say.price_listed("CD-2", say.usd(0))],
    "retail.ordering.orders.v1": [
        say.order_validated(),
        say.order_reserved(),
        say.order_paid(),
        say.order_confirmed(),
        say.order_cancellation_refused(),
        say.order_rejected("order-2", skus=["CD-1"]),
        say.order_validated("order-3"),
        say.order_cancelled("order-3"),
    ],
    "retail.payments.payments.v1": [
        say.payment_started(),
        say.payment_assessed(score=20),
        say.payment_authorized(),
        say.payment_captured(),
        say.payment_started("order-2"),
        say.payment_declined("order-2"),
        say.payment_started("order-3", total=0),
        say.payment_abandoned("order-3"),
        say.payment_voided("order-3"),
    ],
    "retail.fulfilment.receipts.v1": [say.goods_received(), say.goods_received("note-1/2", sku="CD-2", quantity=1_000_000)],
    "retail.fulfilment.stock.v1": [
        say.stock_received(),
        say.stock_level_changed(),
        say.stock_received(sku="CD-2", receipt_id="note-1/2"),
        say.items_reserved(),
        say.stock_level_changed(reserved=2),
        say.reservation_refused(order_id="order-2"),
        say.reservation_released(),
    ],
    "private.payments.payments.commands": [say.assess_risk(), say.authorize_card(), say.capture_card(), say.void_card("order-2")],
    "private.payments.payments.outcomes": [
        say.risk_assessed(authorized=3, declined=1),
        say.card_authorized(),
        say.card_refused("order-2"),
        say.card_captured(),
        say.card_voided("order-2"),
        say.command_gave_up(GivenUpCommand.GIVEN_UP_COMMAND_ASSESS_RISK, "order-3"),
    ],
}
"""What is said in each primary topic, and in those of commands and outcomes, in order."""


@dataclass(frozen=True, slots=True)
class Made:
    """A record as it would be stored now."""

    topic: str
    name: str
    key: bytes
    value: bytes | None


def services() -> list[ResolvedService]:
    """Every service of the shop."""
    return [service for group in check_platform(shop, "retail").values() for service in group]


def make() -> list[Made]:
    """Every record, as it would be stored now: the same bytes whenever it is called."""
    topics = contract_topics(shop)
    made = []
    for service in services():
        made += [Made(topic.name, *one) for topic in topics.values() if topic.writer == service.name for one in _wrapped(topic, topics)]
        if service.decider is not None:
            made += _of_decider(service, service.decider)
        made += [Made(service.private(purpose), *one) for purpose, one in _private(service)]
    return made


def _wrapped(topic: Topic, topics: Mapping[str, Topic]) -> Iterator[tuple[str, bytes, bytes | None]]:
    history = HISTORIES[topic.copy_of or topic.name]
    sequences: dict[str, int] = {}
    number = 0
    for offset, event in enumerate(history):
        primary = topics[topic.copy_of] if topic.copy_of else topic
        aggregate = getattr(event, primary.key)
        sequences[aggregate] = sequences.get(aggregate, 0) + 1
        field_number = topic.number(type(event))
        if field_number is None:
            continue
        number += 1
        meta = _meta(topic, event, offset, 0 if is_effect(type(event)) else sequences[aggregate])
        name = f"{number:02}-{type(event).DESCRIPTOR.name}"
        identity = Meta.FromString(meta).id
        key = entry_key(aggregate, identity) if topic.private else getattr(event, topic.key).encode()
        yield name, key, encode(field_number, event.SerializeToString(), meta)
        if topic.name.endswith(".commands"):
            number += 1
            yield f"{number:02}-Done", key, None


def _meta(topic: Topic, event: Any, offset: int, sequence: int) -> bytes:
    conversation = getattr(event, "order_id", "") or getattr(event, topic.key)
    if topic.writer in ("gateway.door", "ordering.catalogue", "fulfilment.receiving"):
        asked = f"request-{offset}"
        root = root_meta(
            writer=topic.writer, build=BUILD, request_id=asked, correlation_id=conversation, occurred_at_ms=SAID_AT_MS, traceparent=TRACE
        )
        return root.SerializeToString(deterministic=True)
    cause = Meta(id=root_id("gateway.door", "request-0"), correlation_id=conversation, traceparent=TRACE)
    record = Record("retail.gateway.order-requests.v1", 2, offset, b"", b"", SAID_AT_MS + offset)
    observed = [Observed(view="ordering.orders.price", version=1, partition=1, watermark=7, keys=["CD-1"])] if offset == 0 else []
    outside = timestamp(SAID_AT_MS + 500) if topic.name.endswith(".outcomes") else None
    said = because_of(
        writer=topic.writer, build=BUILD, topic_id=TOPIC_ID, record=record, meta=cause, occurred_at=outside, observed=observed
    )
    return said.meta(0, sequence)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _of_decider(service: ResolvedService, of: ResolvedDecider) -> Iterator[Made]:
    """Its state entries, its position record, the mark of a parked aggregate, and a tick if it has deadlines."""
    topic, decider = service.private("state"), of.decider
    snapshots = Snapshots(decider, BUILD)
    number = 0
    for aggregate, held in held_by(of, HISTORIES[of.primary.name]).items():
        for key, value in snapshots.entries(aggregate, held):
            number += 1
            yield Made(topic, f"{number:02}-StateEntry", key, value)
    offsets = {(name, 1): offset for offset, name in enumerate(service.decider_inputs, start=10)}
    yield Made(topic, f"{number + 1:02}-Positions", *positions_entry(decider.version, BUILD, 1, offsets))
    parked = Parked(topic=of.inputs[0].name, partition=1, offset=12, reason="ValueError: no", waiting=2)
    entry = StateEntry(version=decider.version, build=BUILD, parked=parked)
    yield Made(topic, f"{number + 2:02}-Parked", entry_key("order-9", PARKED), entry.SerializeToString())
    if decider.deadline is not None:
        due = say.ANSWER_BY.isoformat()
        meta = Meta(id=f"{service.name}:tick:{say.ORDER}:{due}", correlation_id=say.ORDER, writer=service.name, build=BUILD)
        meta.occurred_at.CopyFrom(stamp(say.ANSWER_BY))
        tick = Tick(key=say.ORDER, due=stamp(say.ANSWER_BY), meta=meta)
        yield Made(service.private("ticks"), "01-Tick", entry_key(say.ORDER, due), tick.SerializeToString())


def _private(service: ResolvedService) -> Iterator[tuple[str, tuple[str, bytes, bytes]]]:
    """What the runtime keeps for every kind of service."""
    aside = Quarantined(
        topic="retail.gateway.order-requests.v1",
        partition=2,
        offset=5,
        appended_at=timestamp(SAID_AT_MS),
        key=b"order-9",
        value=b"\xff\x00garbage",
        reason=QuarantineReason.QUARANTINE_REASON_UNDECODABLE,
        detail="not an OrderRequestEvent",
        service=service.name,
        build=BUILD,
    )
    polls = service.service.intake is not None and service.service.intake.source is not None
    if service.decider is not None or service.views or service.effects or polls:
        yield "quarantine", ("01-Quarantined", b"order-9", aside.SerializeToString())
    if service.decider is not None:
        word = Release(aggregate="order-9", records=[aside], operator="somebody", because="mended")
        yield "releases", ("01-Release", b"order-9", word.SerializeToString())
    if service.decider is not None and service.decider.repartitioned:
        going = Forwarded(topic=aside.topic, partition=2, offset=5, appended_at=timestamp(SAID_AT_MS), value=b"\x0a\x00")
        yield "repartition", ("01-Forwarded", b"order-9", going.SerializeToString())
    if polls:
        yield "cursor", ("01-Cursor", b"cursor", Cursor(cursor="42").SerializeToString())


def held_by(of: ResolvedDecider, history: Iterable[Message]) -> dict[str, Held]:
    """What a decider holds of each aggregate after a history."""
    held: dict[str, Held] = {}
    for event in history:
        aggregate = getattr(event, of.primary.key)
        now = held.get(aggregate) or Held(of.decider.state())
        held[aggregate] = Held(of.decider.evolve(now.state, event), now.sequence + 1, aggregate)
    return held


def folds(topic: str, records: Sequence[Stored | Made]) -> dict[str, Any]:
    """What every decider and view of today makes of stored records of a topic, by name."""
    contract = contract_topics(shop).get(topic)
    if contract is None or contract.private:
        return {}
    events = [decode(contract, Record(topic, 0, 0, one.key, one.value, SAID_AT_MS)).event for one in records]
    found: dict[str, Any] = {}
    for service in services():
        if service.decider is not None and service.decider.primary.name == topic:
            found[service.name] = _folded_state(service.decider, events)
        for view in service.views:
            if view.topic.name == topic:
                found[view.name] = _folded_rows(view, events)
    return found


def _folded_state(of: ResolvedDecider, events: Sequence[Message]) -> dict[str, Any]:
    held = held_by(of, events)
    return {"version": of.decider.version, "gives": {key: repr(one.state) for key, one in sorted(held.items())}}


def _folded_rows(of: ResolvedView, events: Sequence[Message]) -> dict[str, Any]:
    heard = {line.hears for line in of.view.table}
    rows = rows_of(of.view, *(event for event in events if type(event) in heard))
    return {
        "version": of.view.version,
        "gives": {key: row.SerializeToString(deterministic=True).hex() for key, row in sorted(rows.items())},
    }


def unstored(kept: Iterable[Stored]) -> list[Made]:
    """What the encoders make now and no release has stored."""
    known = {(one.topic, one.key, one.value) for one in kept}
    return [one for one in make() if (one.topic, one.key, one.value) not in known]


def write(folder: Path = FOLDER, released: Path = RELEASED) -> list[Path]:
    """Store what is new in the folder of the next release, made anew; returns the folders."""
    coming = len(releases.read_all(released)) + 1
    for old in folder.glob(f"*/{coming}"):
        shutil.rmtree(old)
    written = []
    for topic, group in groupby(sorted(unstored(corpus.stored(folder)), key=lambda one: one.topic), key=lambda one: one.topic):
        records = list(group)
        into = folder / topic / str(coming)
        into.mkdir(parents=True)
        for one in records:
            (into / f"{one.name}.key").write_bytes(one.key)
            if one.value is not None:
                (into / f"{one.name}.value").write_bytes(one.value)
        if folded := folds(topic, records):
            (into / FOLDED).write_text(json.dumps(folded, indent=1, sort_keys=True) + "\n")
        written.append(into)
    return written


if __name__ == "__main__":
    for path in write():
        print(path.relative_to(ROOT))

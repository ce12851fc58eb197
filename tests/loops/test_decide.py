"""The decide loop, over a log in memory: what is said, what is remembered, what is set aside, and what happens when a worker ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from google.protobuf.message import Message
from retail.fulfilment.v1.stock_pb2 import StockByOrderEvent
from retail.ordering.v1.catalogue_pb2 import CatalogueEvent, ItemCatalogued
from retail.ordering.v1.order_pb2 import OrderConfirmed, OrderRejected, OrderValidated, RejectionReason
from retail.ordering.v1.price_pb2 import PriceListed
from retail.ordering.views.v1.rows_pb2 import Availability, Price
from retail.payments.effects.v1.payment_pb2 import AssessRisk

from backbone import damage
from backbone.adapters.memory import MemoryLog, MemoryProducer
from backbone.adapters.memory_rows import MemoryRows
from backbone.contract import topic_of
from backbone.declare import Context, Decider, Service, happened_at, on
from backbone.envelope import encode, split_entry_key
from backbone.errors import Fenced, Unavailable, WorkerEnded
from backbone.loops import decide as decide_loop
from backbone.loops.decide import Decide
from backbone.loops.repartition import Repartition
from backbone.money import minor_units
from backbone.partitioner import partition_of
from backbone.parts import Part
from backbone.ports import Change, Fetched, Fragment, Place, Record
from backbone.settings import Settings
from backbone.v1 import private_pb2
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import Quarantined, Release
from contexts.fulfilment.stock.service import stock
from contexts.ordering.orders import service as orders_table
from contexts.ordering.pricing.service import pricing
from contexts.payments.context import payments as payments_context
from contexts.payments.payments.service import payments
from tests import examples
from tests.loops.deciding import PARTITIONS, World, idle, sequences, steps

CATALOGUE, PRICES = "retail.ordering.catalogue.v1", "retail.ordering.prices.v1"
ORDERS = "retail.ordering.orders.v1"
DAY_S = 86_400


@dataclass(frozen=True)
class Count:
    """A state that counts what was said."""

    said: int = 0


def counted(count: Count, event: PriceListed) -> Count:
    """One more."""
    return replace(count, said=count.said + 1)


def always(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
    """Say a price whatever is held; refuse what is called bad."""
    if item.title == "bad":
        raise ZeroDivisionError("one cannot share among none")
    yield PriceListed(sku=item.sku, unit_price=item.list_price)


def pricing_world(decider: Decider[Count, PriceListed] | None = None) -> World:
    """The pricing service, or another one in its place."""
    service = Service("pricing", decider) if decider else pricing
    return World(Context("ordering", service), service)


def prices(world: World) -> list[PriceListed]:
    """Every price said."""
    return [decoded.event for decoded in world.said(PRICES, PriceListed)]


def test_what_is_said_follows_from_its_cause_in_every_field() -> None:
    """Identity from the coordinate, conversation and cause from the meta, time from the log, and what it comes after."""
    world = pricing_world()
    worker = world.worker(BACKBONE_BUILD="b7")
    came = world.comes(examples.item_catalogued(), correlation_id="order-9")
    steps(worker, lambda: len(prices(world)) == 1)
    said = world.said(PRICES, PriceListed)[0]
    topic_id = world.log.topics()[CATALOGUE][0]
    assert said.meta.id == f"ordering.pricing:{topic_id}:{came.partition}:{came.offset}:0"
    assert said.meta.causation_id == "ordering.catalogue:request-1"
    assert (said.meta.correlation_id, said.meta.writer, said.meta.build) == ("order-9", "ordering.pricing", "b7")
    assert said.meta.occurred_at.ToMilliseconds() == came.timestamp_ms
    after = said.meta.after[0]
    assert (after.topic, after.partition, after.next_offset) == (CATALOGUE, came.partition, came.offset + 1)
    assert said.meta.sequence == 1


def test_sequence_counts_the_events_of_one_aggregate_across_restarts() -> None:
    """A second worker takes the state up where the first left it."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    steps(first, lambda: len(prices(world)) == 2)
    first.close()
    second = world.worker()
    world.comes(examples.item_catalogued())
    steps(second, lambda: len(prices(world)) == 3)
    idle(second)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    held = second.held("CD-1")
    assert held is not None
    assert held.state == Count(3)


def test_a_repetition_is_silence() -> None:
    """The same price again says nothing."""
    world = pricing_world()
    worker = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued(sku="CD-2"))
    steps(worker, lambda: worker.decided == 3)
    assert sorted(price.sku for price in prices(world)) == ["CD-1", "CD-2"]


def test_copies_hold_the_same_bytes_under_their_own_keys() -> None:
    """One transaction writes the primary and its copies."""
    world = World(Context("fulfilment", stock), stock)
    worker = world.worker()
    world.comes(examples.goods_received())
    steps(worker, lambda: bool(world.records("retail.fulfilment.stock-by-sku.v1")))
    primary = {record.value for record in world.records("retail.fulfilment.stock.v1")}
    copies = world.records("retail.fulfilment.stock-by-sku.v1")
    assert {record.value for record in copies} < primary
    assert [record.key for record in copies] == [examples.goods_received().sku.encode()]


def test_a_command_lies_in_the_partition_of_its_aggregate_under_its_id() -> None:
    """The key holds aggregate and command id; the command's id is the idempotency key."""
    world = World(payments_context, payments)
    worker = world.worker()
    came = world.comes(examples.order_validated(), ORDERS)
    steps(worker, lambda: bool(world.records("private.payments.payments.commands")))
    command = world.records("private.payments.payments.commands")[0]
    decoded = world.said("private.payments.payments.commands", AssessRisk)[0]
    assert command.partition == came.partition
    assert split_entry_key(command.key or b"") == (examples.ORDER, decoded.meta.id)


def test_a_record_that_was_decided_is_not_decided_again_when_it_is_delivered_again() -> None:
    """The recorded position counts, also where the group's offsets were lost."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    world.comes(examples.item_catalogued())
    steps(first, lambda: len(prices(world)) == 1)
    first.close()
    world.log.groups.clear()
    second = world.worker()
    idle(second)
    assert len(prices(world)) == 1


def test_positions_that_moved_over_what_nobody_hears_are_committed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a service that hears little would read everything again after each start."""
    monkeypatch.setattr(decide_loop, "IDLE_COMMIT_S", 0.05)
    world = orders_world()
    worker = world.worker()
    came = world.comes(examples.payment_captured(), "retail.payments.payments.v1")
    place = (came.topic, came.partition)
    steps(worker, lambda: world.log.groups["ordering.orders"].committed.get(place) == came.offset + 1)


def test_a_decision_that_raises_parks_its_key_and_nothing_else() -> None:
    """The record and all later ones of its key are set aside, in order; other keys go on; a restart remembers."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    bad = world.comes(examples.item_catalogued(sku="CD-1", title="bad"))
    behind = world.comes(examples.item_catalogued(sku="CD-1"))
    world.comes(examples.item_catalogued(sku="CD-2"))
    steps(worker, lambda: worker.decided == 3)
    worker.close()
    again = world.worker()
    world.comes(examples.item_catalogued(sku="CD-1"))
    steps(again, lambda: again.decided == 1)
    assert [price.sku for price in prices(world)] == ["CD-2"]
    first, second, third = world.quarantined()
    assert (first.reason, first.value, first.offset) == (private_pb2.QUARANTINE_REASON_RAISED, bad.value, bad.offset)
    assert "one cannot share among none" in first.detail
    assert "ZeroDivisionError" in first.traceback
    assert (second.reason, second.value) == (private_pb2.QUARANTINE_REASON_BEHIND_PARKED, behind.value)
    assert third.reason == private_pb2.QUARANTINE_REASON_BEHIND_PARKED
    assert again.status()["partitions"][bad.partition]["parked"] == ["CD-1"]


def released(world: World, aggregate: str, records: Sequence[Quarantined], dropped: Sequence[Quarantined] = ()) -> None:
    """An operator's word, in the log."""
    release = Release(aggregate=aggregate, records=records, dropped=dropped, operator="ann", because="it is mended")
    partition = (*records, *dropped)[0].partition
    world.raw(world.resolved.private("releases"), aggregate.encode() or b"-", release.SerializeToString(), partition)


def repaired(world: World) -> None:
    """Deploy a build whose decision no longer raises."""

    def forgiving(_: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)

    world.service = Service("pricing", Decider(Count, counted, on(ItemCatalogued, forgiving)))
    world.context = Context("ordering", world.service)


def test_what_is_released_is_decided_in_order_as_if_it_had_never_been_parked() -> None:
    """A mended build takes it up: same identities, gapless sequence; later records go on; a restart remembers."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    broken = world.worker()
    bad = world.comes(examples.item_catalogued(title="bad", list_price=examples.usd(1)))
    world.comes(examples.item_catalogued(list_price=examples.usd(2)))
    steps(broken, lambda: len(world.quarantined()) == 2)
    broken.close()
    repaired(world)
    mended = world.worker()
    released(world, "CD-1", world.quarantined())
    steps(mended, lambda: len(prices(world)) == 2)
    world.comes(examples.item_catalogued(list_price=examples.usd(3)))
    steps(mended, lambda: len(prices(world)) == 3)
    mended.close()
    idle(world.worker())
    said = world.said(PRICES, PriceListed)
    assert [minor_units(one.event.unit_price) for one in said] == [1, 2, 3]
    assert sequences(said) == [1, 2, 3]
    assert said[0].meta.id.endswith(f":{bad.partition}:{bad.offset}:0")
    assert len(world.quarantined()) == 2


def test_what_is_dropped_is_never_decided_and_what_was_behind_it_is() -> None:
    """An operator gives a record up; the key goes on."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    world.comes(examples.item_catalogued(title="bad"))
    world.comes(examples.item_catalogued(list_price=examples.usd(2)))
    steps(worker, lambda: len(world.quarantined()) == 2)
    first, behind = world.quarantined()
    released(world, "CD-1", [behind], [first])
    steps(worker, lambda: len(prices(world)) == 1)
    assert minor_units(prices(world)[0].unit_price) == 2
    assert sequences(world.said(PRICES, PriceListed)) == [1]


def test_what_raises_again_is_parked_again_with_all_that_is_behind_it() -> None:
    """A release that comes too early does no harm."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 2)
    released(world, "CD-1", world.quarantined())
    steps(worker, lambda: len(world.quarantined()) == 4)
    assert prices(world) == []
    assert worker.status()["partitions"][partition]["parked"] == ["CD-1"]
    repaired(world)
    worker.close()
    mended = world.worker()
    released(world, "CD-1", world.quarantined()[2:])
    steps(mended, lambda: len(prices(world)) == 2)


def test_a_release_that_does_not_know_of_every_record_behind_is_no_release() -> None:
    """Else a record that came meanwhile would be overtaken, and then forgotten."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    steps(worker, lambda: len(world.quarantined()) == 1)
    known_to_operator = world.quarantined()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 2)
    released(world, "CD-1", (), known_to_operator)
    idle(worker)
    assert worker.status()["partitions"][partition]["parked"] == ["CD-1"]
    assert prices(world) == []


def test_a_record_that_parked_nothing_is_decided_when_it_is_released() -> None:
    """A newer build may understand what an older one could not."""
    world = pricing_world()
    worker = world.worker()
    good = world.comes(examples.item_catalogued(sku="CD-7"))
    steps(worker, lambda: len(prices(world)) == 1)
    world.raw(CATALOGUE, b"CD-8", b"\xff", good.partition)
    steps(worker, lambda: len(world.quarantined()) == 1)
    understood = world.quarantined()
    item = examples.item_catalogued(sku="CD-8")
    understood[0].value = encode(1, item.SerializeToString(), Meta(id="x").SerializeToString())
    released(world, "", understood)
    steps(worker, lambda: len(prices(world)) == 2)
    assert sorted(price.sku for price in prices(world)) == ["CD-7", "CD-8"]


def test_a_record_that_raises_in_the_middle_says_nothing_at_all() -> None:
    """Staging is per record: what it said before it raised is not written."""

    def half(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)
        raise ValueError("and then no more")

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, half)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert prices(world) == []
    assert worker.held("CD-1") is None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        pytest.param(b"CD-1", b"\xff\xff\xff", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="garbage"),
        pytest.param(b"CD-1", None, private_pb2.QUARANTINE_REASON_UNDECODABLE, id="no value"),
        pytest.param(None, b"x", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="no key"),
        pytest.param(b"CD-1", b"", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="nothing in it"),
        pytest.param(b"\xff", b"\x0a\x00", private_pb2.QUARANTINE_REASON_UNDECODABLE, id="key is no text"),
    ],
)
def test_bytes_that_are_no_event_are_set_aside_and_the_record_behind_is_decided(
    key: bytes | None, value: bytes | None, reason: int
) -> None:
    """Coordinates and raw bytes are kept as they were written."""
    world = pricing_world()
    worker = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    bad = world.raw(CATALOGUE, key, value, partition)
    world.comes(examples.item_catalogued(list_price=examples.usd(1)))
    steps(worker, lambda: len(prices(world)) == 2)
    (aside,) = world.quarantined()
    assert (aside.topic, aside.partition, aside.offset) == (CATALOGUE, bad.partition, bad.offset)
    assert (aside.key if aside.HasField("key") else None, aside.value if aside.HasField("value") else None) == (key, value)
    assert aside.reason == reason


def test_a_truncated_event_is_set_aside() -> None:
    """Half a record is none."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    assert whole.value is not None
    world.raw(CATALOGUE, b"CD-1", whole.value[: len(whole.value) // 2], whole.partition)
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert world.quarantined()[0].reason == private_pb2.QUARANTINE_REASON_UNDECODABLE


def test_an_event_of_another_key_than_its_record_is_set_aside() -> None:
    """A record under a foreign key would be decided by the wrong aggregate."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    world.raw(CATALOGUE, b"CD-2", whole.value)
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "its sku is 'CD-1'" in world.quarantined()[0].detail


def test_an_event_that_breaks_its_value_rules_is_set_aside_without_parking_its_key() -> None:
    """Rules are checked where a foreign event enters; nothing of ours was wrong, so the key goes on."""
    world = pricing_world()
    worker = world.worker()
    item = examples.item_catalogued()
    world.comes(ItemCatalogued(sku=item.sku))
    world.comes(item)
    steps(worker, lambda: len(prices(world)) == 1)
    assert [aside.reason for aside in world.quarantined()] == [private_pb2.QUARANTINE_REASON_INVALID]


def test_an_event_this_build_does_not_know_is_set_aside_without_parking_its_key() -> None:
    """A newer writer may say more than we understand."""
    world = pricing_world()
    worker = world.worker()
    whole = world.comes(examples.item_catalogued())
    newer = CatalogueEvent.FromString(whole.value or b"")
    newer.ClearField("item_catalogued")
    world.raw(CATALOGUE, b"CD-1", b"\x4a\x02\x08\x01" + newer.SerializeToString())
    world.comes(examples.item_catalogued(list_price=examples.usd(1)))
    steps(worker, lambda: len(prices(world)) == 2)
    assert [aside.reason for aside in world.quarantined()] == [private_pb2.QUARANTINE_REASON_UNKNOWN_EVENT]


def test_saying_an_event_of_another_aggregate_is_a_defect() -> None:
    """A decider decides the aggregate whose record came, and no other."""

    def elsewhere(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku="another", unit_price=item.list_price)

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, elsewhere)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "another sku" in world.quarantined()[0].detail


def test_saying_an_event_that_breaks_its_rules_is_a_defect() -> None:
    """Rules are checked where a record is born."""

    def wrong(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku)

    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, wrong)))
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert "unit_price" in world.quarantined()[0].detail


def test_a_zombie_cannot_write_after_its_slot_was_started_again() -> None:
    """The transactional id of the slot fences it."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    zombie = world.worker()
    world.comes(examples.item_catalogued())
    steps(zombie, lambda: len(prices(world)) == 1)
    successor = world.worker()
    world.comes(examples.item_catalogued())
    with pytest.raises((Fenced, WorkerEnded)):
        steps(zombie, lambda: False)
    steps(successor, lambda: len(prices(world)) == 2)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2]


class FailsOnce(MemoryLog):
    """A log whose next commit fails, before or after it counted."""

    fails: bool = False
    counts: bool = False

    def producer(self, transactional_id: str) -> MemoryProducer:
        """A producer of this log."""
        return _FailsOnce(self, transactional_id)


class _FailsOnce(MemoryProducer):
    def __init__(self, log: FailsOnce, transactional_id: str) -> None:
        super().__init__(log, transactional_id)
        self._failing = log

    def commit(self) -> None:
        """Commit, or fail as told."""
        if not self._failing.fails:
            super().commit()
            return
        self._failing.fails = False
        if self._failing.counts:
            super().commit()
        raise WorkerEnded("whether it was done is unknown")


@pytest.mark.parametrize("counts", [False, True], ids=["it was not done", "it was done"])
def test_after_a_commit_of_unknown_outcome_everything_is_said_exactly_once(counts: bool) -> None:
    """Memory follows the log: the worker takes over again and neither repeats nor forgets."""
    service = Service("pricing", Decider(Count, counted, on(ItemCatalogued, always)))
    log = FailsOnce()
    log.counts = counts
    world = World(Context("ordering", service), service, log)
    worker = world.worker()
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(prices(world)) == 1)
    world.comes(examples.item_catalogued())
    log.fails = True
    steps(worker, lambda: worker.recovered == 1)
    world.comes(examples.item_catalogued())
    steps(worker, lambda: len(prices(world)) == 3)
    idle(worker)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    assert worker.recovered == 1


def test_what_is_said_comes_after_all_that_its_cause_came_after() -> None:
    """Positions are merged along the conversation, so that a reader of any topic on the way can be compared."""
    world = orders_world()
    known(world)
    worker = world.worker()
    asked = request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    validated = world.said(ORDERS, OrderValidated)[0]
    topic = topic_of(StockByOrderEvent)
    meta = Meta(id="fulfilment.stock:1", correlation_id=examples.ORDER, after=validated.meta.after)
    reserved = examples.items_reserved()
    world.raw(topic.name, examples.ORDER.encode(), encode(2, reserved.SerializeToString(), meta.SerializeToString()))
    steps(worker, lambda: len(world.said(ORDERS, OrderValidated)) == 2)
    after = [(one.topic, one.partition) for one in world.said(ORDERS, OrderValidated)[1].meta.after]
    assert after == [(asked.topic, asked.partition), (topic.name, asked.partition)]


def test_workers_share_the_partitions_and_hand_them_over_without_a_gap() -> None:
    """One worker, then two, then the other one alone: every event is said once, in sequence, whoever decides."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    skus = [f"CD-{number}" for number in range(20)]

    def all_come(times: int, *workers: Decide) -> None:
        for sku in skus:
            world.comes(examples.item_catalogued(sku=sku))
        deadline = time.monotonic() + 20
        while len(prices(world)) < times * len(skus):
            assert time.monotonic() < deadline, [worker.status() for worker in workers]
            for worker in workers:
                worker.step(0.01)

    first = world.worker(BACKBONE_SLOT="0")
    all_come(1, first)
    second = world.worker(BACKBONE_SLOT="1")
    all_come(2, first, second)
    held = [set(worker.status()["partitions"]) for worker in (first, second)]
    assert held[0] | held[1] == set(range(PARTITIONS))
    assert not held[0] & held[1]
    assert all(held)
    first.close()
    world.log.session_timeout_s = 0.0
    all_come(3, second)
    by_sku: dict[str, list[int]] = {}
    for said in world.said(PRICES, PriceListed):
        by_sku.setdefault(said.key, []).append(said.meta.sequence)
    assert by_sku == {sku: [1, 2, 3] for sku in skus}


def test_a_partition_that_stays_through_a_rebalance_reads_only_what_was_written_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """State is kept with its position and topped up; it is not read from the start again."""
    monkeypatch.setattr(decide_loop, "KNOWN_EVERY_S", 0.0)
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    worker = world.worker(BACKBONE_SLOT="0")
    sku = next(f"CD-{n}" for n in range(100) if partition_of(f"CD-{n}".encode(), PARTITIONS) == 0)
    for times in (1, 2):
        world.comes(examples.item_catalogued(sku=sku))
        steps(worker, lambda times=times: len(prices(world)) == times)  # type: ignore[misc]
    starts: list[int] = []
    reading = world.log.read

    def noted(place: Place, start: int, stop: int) -> Iterator[Record]:
        if place == ("private.ordering.pricing.state", 0):
            starts.append(start)
        return reading(place, start, stop)

    world.log.read = noted  # type: ignore[method-assign]
    other = world.worker(BACKBONE_SLOT="1")
    deadline = time.monotonic() + 20
    while set(worker.status()["partitions"]) != {0, 1}:
        assert time.monotonic() < deadline
        worker.step(0.01)
        other.step(0.01)
    assert len(starts) == 1
    assert starts[0] > 0
    world.comes(examples.item_catalogued(sku=sku))
    steps(worker, lambda: len(prices(world)) == 3)
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]


def test_a_newer_version_folds_its_own_events_again() -> None:
    """State of an older fold is not believed."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    older = world.worker()
    world.comes(examples.item_catalogued())
    world.comes(examples.item_catalogued())
    steps(older, lambda: len(prices(world)) == 2)
    older.close()
    world.service = Service("pricing", Decider(Count, counted_by(10), on(ItemCatalogued, always), version=2))
    world.context = Context("ordering", world.service)
    newer = world.worker()
    idle(newer)
    held = newer.held("CD-1")
    assert held is not None
    assert (held.state, held.sequence) == (Count(20), 2)
    newer.close()
    written = len(world.records("private.ordering.pricing.state"))
    idle(world.worker())
    assert len(world.records("private.ordering.pricing.state")) == written


def counted_by(step: int) -> Callable[[Count, PriceListed], Count]:
    """Another fold of the same events: it counts in steps."""

    def evolve(count: Count, event: PriceListed) -> Count:
        return Count(count.said + step)

    return evolve


def test_an_older_build_keeps_off_a_partition_with_newer_state_and_says_so() -> None:
    """What it would decide would be decided on less than there is to know."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always), version=2))
    newer = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    steps(newer, lambda: len(prices(world)) == 1)
    newer.close()
    world.service = Service("pricing", Decider(Count, counted, on(ItemCatalogued, always), version=1))
    world.context = Context("ordering", world.service)
    older = world.worker()
    world.comes(examples.item_catalogued())
    idle(older)
    assert len(prices(world)) == 1
    status = older.status()["partitions"][partition]
    assert "version 2" in status["frozen"]
    assert older._consumer.positions()[CATALOGUE, partition] == status["positions"][CATALOGUE], "it is not even fetched"
    assert not older.ready


class NotNow(MemoryLog):
    """A log that tells no ends while it is told so."""

    silent: bool = False

    def high_watermarks(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The ends, or nothing."""
        if self.silent:
            raise Unavailable("Kafka does not answer")
        return super().high_watermarks(places)


def test_a_deadline_that_passes_while_kafka_is_silent_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a tick once the ends of the inputs are known again."""
    moment_ms = [1_700_000_000_000]
    log = NotNow(now_ms=lambda: moment_ms[0])
    world = World(Context("ordering", orders_table.orders), orders_table.orders, log)
    known(world)
    clock = Clock(moment_ms[0] / 1000)
    worker = world.worker(clock=clock)
    expires_at = datetime.fromtimestamp(clock.now, tz=UTC) + timedelta(minutes=15)
    world.comes(examples.order_requested(expires_at=expires_at))
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    clock.now += DAY_S
    moment_ms[0] += DAY_S * 1000
    log.silent = True
    idle(worker)
    log.silent = False
    steps(worker, lambda: bool(answers(world, OrderRejected)))


def test_a_release_that_needs_a_damaged_row_parks_again_instead_of_ending_the_worker() -> None:
    """Else every start would meet it again."""
    world = orders_world()
    known(world)
    partition = request(world).partition
    worker = world.worker()
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    asked = world.records("retail.gateway.order-requests.v1")[-1]
    row = partition_of(b"CD-1", PARTITIONS)
    fragment = Fragment("ordering.orders.price", orders_table.prices.version, row)
    at = world.rows.fetch([(fragment, ())])[0].watermark or 0
    assert world.rows.apply(fragment, Change(at, at, {"CD-1": damage.mark("it fell")})) is None
    again = Quarantined(
        topic=asked.topic, partition=partition, offset=asked.offset, key=asked.key, value=asked.value, aggregate=examples.ORDER
    )
    released(world, "", [again])
    steps(worker, lambda: bool(world.quarantined()))
    assert "it fell" in world.quarantined()[0].detail


STATE = "private.ordering.pricing.state"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(b"k", b"\xff\xfe garbage", id="no key of ours"),
        pytest.param(b"4:CD-1,9:aggregate,", b"\xff\xfe garbage", id="in the place of an aggregate"),
        pytest.param(b"4:CD-1,9:aggregate,", b"\x08\x01\x1a\x05\x08\x09\x12\x01\xc1", id="an aggregate that cannot be unpacked"),
        pytest.param(b"0:,9:positions,", b"\xff", id="in the place of the positions"),
    ],
)
def test_garbage_in_the_state_topic_stops_nothing_and_is_set_aside_once(key: bytes, value: bytes) -> None:
    """The own topic is the truth and is folded again; the next start meets no garbage."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    partition = world.comes(examples.item_catalogued()).partition
    steps(first, lambda: len(prices(world)) == 1)
    first.close()
    bad = world.raw(STATE, key, value, partition)
    for times in (2, 3):
        worker = world.worker()
        world.comes(examples.item_catalogued())
        steps(worker, lambda times=times: len(prices(world)) == times)  # type: ignore[misc]
        worker.close()
    assert sequences(world.said(PRICES, PriceListed)) == [1, 2, 3]
    (aside,) = world.quarantined()
    assert (aside.topic, aside.partition, aside.offset, aside.value) == (STATE, partition, bad.offset, value)


def test_an_aggregate_whose_mark_cannot_be_read_stays_parked() -> None:
    """Else what waits behind it would be overtaken."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    first = world.worker()
    partition = world.comes(examples.item_catalogued(title="bad")).partition
    steps(first, lambda: len(world.quarantined()) == 1)
    first.close()
    world.raw(STATE, b"4:CD-1,6:parked,", b"\xff", partition)
    for times in (3, 4):
        worker = world.worker()
        world.comes(examples.item_catalogued())
        steps(worker, lambda times=times: len(world.quarantined()) == times)  # type: ignore[misc]
        worker.close()
    assert prices(world) == []


def test_a_fold_takes_each_event_of_its_own_topic_once_and_leaves_out_what_is_no_event() -> None:
    """A forged repetition of a sequence, or garbage, does not change what a newer version folds."""
    world = pricing_world(Decider(Count, counted, on(ItemCatalogued, always)))
    older = world.worker()
    world.comes(examples.item_catalogued())
    steps(older, lambda: len(prices(world)) == 1)
    older.close()
    own = world.records(PRICES)[0]
    world.raw(PRICES, own.key, b"\xff\xff", own.partition)
    world.raw(PRICES, own.key, own.value, own.partition)
    world.service = Service("pricing", Decider(Count, counted_by(10), on(ItemCatalogued, always), version=2))
    world.context = Context("ordering", world.service)
    newer = world.worker()
    idle(newer)
    held = newer.held("CD-1")
    assert held is not None
    assert (held.state, held.sequence) == (Count(10), 1)


@dataclass(frozen=True)
class Sold:
    """How many of a SKU were sold, by order."""

    by_order: Part[str, int] = field(default_factory=Part)


def sold(state: Sold, event: PriceListed) -> Sold:
    """One more order; the price tells how many."""
    return Sold(state.by_order.set(f"order-{len(state.by_order) + 1}", minor_units(event.unit_price)))


def test_parts_are_kept_entry_by_entry_and_taken_up_again() -> None:
    """A large aggregate writes what changed, not all of it."""

    def say(_: Sold, item: ItemCatalogued) -> Iterator[PriceListed]:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)

    service = Service("pricing", Decider(Sold, sold, on(ItemCatalogued, say)))
    world = World(Context("ordering", service), service)
    first = world.worker(BACKBONE_BATCH="1")
    for cents in (100, 200):
        world.comes(examples.item_catalogued(list_price=examples.usd(cents)))
    steps(first, lambda: len(prices(world)) == 2)
    first.close()
    state = world.records("private.ordering.pricing.state")
    assert [split_entry_key(record.key or b"")[1].split("/")[0] for record in state] == [
        "by_order", "aggregate", "positions", "by_order", "aggregate", "positions",
    ]  # fmt: skip
    second = world.worker()
    idle(second)
    held = second.held("CD-1")
    assert held is not None
    expected: Part[str, int] = Part()
    assert held.state == Sold(expected.set("order-1", 100).set("order-2", 200))


def orders_world(log_clock: Callable[[], float] = time.time) -> World:
    """The orders service, and a log with a clock in seconds since the epoch."""
    log = MemoryLog(now_ms=lambda: int(log_clock() * 1000))
    return World(Context("ordering", orders_table.orders), orders_table.orders, log)


def known(world: World, show: bool = True) -> None:
    """Let everything that is ordered in the examples be said, and shown by both views of orders."""
    for sku, _, cents in examples.LINES:
        world.comes(examples.stock_level_changed(sku=sku), "retail.fulfilment.stock-by-sku.v1")
        world.comes(examples.price_listed(sku=sku, unit_price=examples.usd(cents)))
    if show:
        shown(world)


def shown(world: World) -> None:
    """Let both views of orders be read to the end."""
    world.shows_to_the_end(orders_table.availability, {sku: _available(sku) for sku, _, _ in examples.LINES})
    world.shows_to_the_end(orders_table.prices, {sku: Price(sku=sku, unit_price=examples.usd(cents)) for sku, _, cents in examples.LINES})


def _available(sku: str) -> Availability:
    row = Availability(sku=sku)
    row.available[examples.ZONE] = 10
    return row


def answers(world: World, of: type[Message]) -> list[Message]:
    """The events of one class in the orders topic."""
    return [decoded.event for decoded in world.said(ORDERS, OrderValidated) if isinstance(decoded.event, of)]


def request(world: World, order_id: str = examples.ORDER, lines: examples.Lines = examples.LINES) -> Record:
    """A customer asks, and will wait for a day."""
    expires_at = datetime.now(UTC) + timedelta(seconds=DAY_S)
    return world.comes(examples.order_requested(order_id=order_id, lines=lines, expires_at=expires_at), correlation_id=order_id)


def test_a_decision_records_what_it_looked_up() -> None:
    """What did it know? The events say: view, version, partition, watermark and keys."""
    world = orders_world()
    known(world)
    worker = world.worker()
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    observed = world.said(ORDERS, OrderValidated)[0].meta.observed
    assert {one.view for one in observed} == {"ordering.orders.availability", "ordering.orders.price"}
    assert sorted(key for one in observed for key in one.keys) == ["CD-1", "CD-1", "CD-2", "CD-2"]
    assert all(one.watermark > 0 for one in observed)


def test_rows_behind_the_end_seen_at_the_start_make_a_decision_wait_and_say_why() -> None:
    """A view that was flushed does not mislead: nobody is told that a known SKU is unknown."""
    world = orders_world()
    known(world)
    world.rows.flush()
    worker = world.worker()
    request(world)
    idle(worker, 20)
    assert world.records(ORDERS) == []
    waiting = [p for p in worker.status()["partitions"].values() if p["waiting"]]
    assert len(waiting) == 1
    assert "must reach" in waiting[0]["waits_for"]
    shown(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))


def test_rows_flushed_in_the_middle_of_work_are_waited_for() -> None:
    """What a worker has used once it will not do without."""
    world = orders_world()
    worker = world.worker()
    known(world)
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    world.rows.flush()
    request(world, "order-2")
    idle(worker, 20)
    assert len(world.said(ORDERS, OrderValidated)) == 1
    shown(world)
    steps(worker, lambda: len(answers(world, OrderValidated)) == 2)


def test_a_row_that_may_merely_be_late_is_waited_for() -> None:
    """The price was said before the order, and the view has not folded it yet: that is no unknown SKU."""
    world = orders_world()
    worker = world.worker()
    known(world, show=False)
    request(world)
    idle(worker, 20)
    assert world.records(ORDERS) == []
    shown(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))


def test_a_row_that_is_absent_at_the_end_of_its_topic_is_absent() -> None:
    """Waiting ends where the log ends: then the SKU is unknown."""
    world = orders_world()
    worker = world.worker()
    known(world)
    request(world, lines=[("CD-9", 1, 100)])
    steps(worker, lambda: bool(answers(world, OrderRejected)))
    (rejected,) = answers(world, OrderRejected)
    assert isinstance(rejected, OrderRejected)
    assert rejected.reason == RejectionReason.REJECTION_REASON_UNKNOWN_SKU


class Unreachable(MemoryRows):
    """Rows that do not answer."""

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Nothing comes."""
        raise Unavailable("Redis is down")


def test_while_redis_is_down_decisions_wait_and_what_needs_no_rows_goes_on() -> None:
    """Only partitions whose records look something up are paused."""
    world = orders_world()
    known(world)
    worker = world.worker(rows=Unreachable())
    asked = request(world)
    elsewhere = next(f"order-{n}" for n in range(100) if partition_of(f"order-{n}".encode(), PARTITIONS) != asked.partition)
    world.comes(examples.order_cancellation_requested(order_id=elsewhere))
    steps(worker, lambda: len(world.records(ORDERS)) == 1)
    assert worker.status()["partitions"][asked.partition]["waits_for"] == "Redis is down"


def test_records_behind_one_that_waits_keep_their_order() -> None:
    """A cancellation does not overtake the request it cancels."""
    world = orders_world()
    known(world)
    world.rows.flush()
    worker = world.worker()
    request(world)
    world.comes(examples.order_cancellation_requested())
    idle(worker, 10)
    shown(world)
    steps(worker, lambda: len(world.said(ORDERS, OrderValidated)) == 2)
    assert [type(decoded.event).__name__ for decoded in world.said(ORDERS, OrderValidated)] == ["OrderValidated", "OrderCancelled"]


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float

    def __call__(self) -> float:
        return self.now


def test_an_order_that_waits_past_its_deadline_is_rejected_once() -> None:
    """The tick is a record, and the expiry a decision on it."""
    clock = Clock(time.time())
    world = orders_world(clock)
    known(world)
    worker = world.worker(clock=clock)
    request(world)
    steps(worker, lambda: bool(answers(world, OrderValidated)))
    idle(worker)
    assert world.records("private.ordering.orders.ticks") == []
    clock.now += 2 * DAY_S
    steps(worker, lambda: bool(answers(world, OrderRejected)))
    idle(worker)
    assert len(world.records("private.ordering.orders.ticks")) == 1
    (rejected,) = [d for d in world.said(ORDERS, OrderValidated) if isinstance(d.event, OrderRejected)]
    assert rejected.event.reason == RejectionReason.REJECTION_REASON_OVERDUE
    assert rejected.meta.correlation_id == examples.ORDER


def test_an_answer_that_lies_in_the_log_when_the_deadline_passes_is_heard_first() -> None:
    """An outage of ours does not expire orders whose answers are waiting."""
    world = orders_world()
    known(world)
    clock = Clock(time.time())
    first = world.worker(clock=clock)
    request(world)
    steps(first, lambda: bool(answers(world, OrderValidated)))
    first.close()
    world.comes(examples.items_reserved(), "retail.fulfilment.stock-by-order.v1")
    world.comes(examples.payment_authorized(), "retail.payments.payments.v1")
    clock.now += 2 * DAY_S
    second = world.worker(clock=clock)
    steps(second, lambda: bool(answers(world, OrderConfirmed)))
    idle(second, 20)
    assert answers(world, OrderRejected) == []


def test_a_fast_clock_expires_nothing_and_the_tick_is_written_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's clock only says when to look; whether the time has come, the log's clock says."""
    log_clock = Clock(time.time())
    world = orders_world(log_clock)
    known(world)
    worker = world.worker(clock=lambda: log_clock() + 2 * DAY_S)
    request(world)
    steps(worker, lambda: len(world.records("private.ordering.orders.ticks")) == 1)
    idle(worker, 20)
    assert answers(world, OrderRejected) == []
    assert len(world.records("private.ordering.orders.ticks")) == 1
    log_clock.now += 2 * DAY_S
    monkeypatch.setattr("backbone.loops.deadlines.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 2 * DAY_S))
    steps(worker, lambda: bool(answers(world, OrderRejected)))


def test_events_with_a_key_reach_the_aggregates_they_are_about() -> None:
    """One order is about many SKUs: each of them hears it, once, through the repartition topic."""

    def skus(order: OrderConfirmed) -> list[str]:
        return [line.sku for line in order.lines]

    def one_each(count: Count, order: OrderConfirmed, now: datetime) -> Iterator[PriceListed]:
        heard.append(now)
        yield PriceListed(sku=order.lines[len(heard) - 1].sku, unit_price=order.lines[0].unit_price)

    heard: list[datetime] = []
    world = pricing_world(Decider(Count, counted, on(OrderConfirmed, one_each, key=skus, look_up=happened_at)))
    relay = Repartition(world.resolved, world.log, Settings.read({"BACKBONE_PARTITIONS": str(PARTITIONS)}))
    came = world.comes(examples.order_confirmed(lines=[("CD-1", 1, 5), ("CD-1", 2, 5)]))
    while not world.records("private.ordering.pricing.repartition"):
        relay.step(0.01)
    worker = world.worker()
    steps(worker, lambda: len(prices(world)) == 1)
    assert [price.sku for price in prices(world)] == ["CD-1"]
    assert [moment.timestamp() for moment in heard] == [came.timestamp_ms / 1000]

"""A finished aggregate becomes a stub, is forgotten after a declared time, and never begins a second life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.order_pb2 import OrderRejected, OrderValidated
from retail.ordering.v1.price_pb2 import PriceListed

from backbone.adapters.memory import MemoryLog
from backbone.declare import Context, Decider, Service, on
from backbone.envelope import entry_key
from backbone.errors import DeclarationError
from backbone.loops import aggregates, decide
from backbone.loops.aggregates import BUCKETS, Aggregates, Forgotten, fingerprint_of
from backbone.loops.decide import Decide
from backbone.loops.snapshots import AGGREGATE, FORGOTTEN, Held, Snapshots
from backbone.partitioner import partition_of
from backbone.parts import Part
from backbone.v1.private_pb2 import QUARANTINE_REASON_INVALID, Quarantined, Release
from contexts.ordering.orders import state as order_state
from contexts.ordering.orders.service import orders
from tests import examples
from tests.loops.deciding import CATALOGUE, DAY_S, ORDERS, PARTITIONS, Count, World, always, counted, idle, known, prices, steps

STATE, RELEASES = "private.ordering.pricing.state", "private.ordering.pricing.releases"
KEPT = timedelta(days=30)
SKU = "CD-1"
Says = Callable[[Count, ItemCatalogued], Iterator[PriceListed]]


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "FORGET_EVERY_S", 0.0)


@dataclass
class Days:
    """The clock of a log, in days."""

    at: float = 20_000.0

    def seconds(self) -> float:
        """Seconds since the epoch."""
        return self.at * DAY_S

    def milliseconds(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.seconds() * 1000)


def once(count: Count, item: ItemCatalogued) -> Iterator[PriceListed]:
    """Say a price to the first that comes, and nothing to what repeats it; refuse what is called bad."""
    if item.title == "bad":
        raise ZeroDivisionError("one cannot share among none")
    if not count.said:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)


def priced(count: Count) -> Count | None:
    """Finished as soon as something was said; how often does not matter any more."""
    return Count(1) if count.said else None


def a_world(days: Days, says: Says = once) -> World:
    """A log of that service."""
    service = a_service(says)
    return World(Context("ordering", service), service, MemoryLog(now_ms=days.milliseconds))


def a_service(says: Says, version: int = 1) -> Service:
    """Pricing that is finished with a SKU once it has a price, and forgets it 30 days later."""
    return Service("pricing", Decider(Count, counted, on(ItemCatalogued, says), version=version, done=priced, forget_after=KEPT))


def neighbour(sku: str = SKU) -> str:
    """Another SKU of the same partition: only what is heard there moves its clock."""
    number = partition_of(sku.encode(), PARTITIONS)
    return next(name for name in (f"N-{n}" for n in range(100)) if partition_of(name.encode(), PARTITIONS) == number)


def state_of(world: World, sku: str = SKU) -> bytes | None:
    """What lies last in the state topic for a SKU."""
    return [record.value for record in world.records(STATE) if record.key == entry_key(sku, AGGREGATE)][-1]


def forgotten(days: Days, world: World) -> Decide:
    """Let a SKU be priced and forgotten by a worker."""
    world.comes(examples.item_catalogued(sku=SKU))
    worker = world.worker()
    steps(worker, lambda: len(prices(world)) == 1)
    days.at += 31
    world.comes(examples.item_catalogued(sku=neighbour()))
    steps(worker, lambda: state_of(world) is None)
    return worker


def test_a_repetition_for_a_stub_is_silence() -> None:
    days = Days()
    world = a_world(days)
    worker = world.worker()
    for _ in range(3):
        world.comes(examples.item_catalogued(sku=SKU))
        idle(worker)
        days.at += 29
    assert len(prices(world)) == 1
    assert world.quarantined() == []


def test_a_stub_is_dropped_after_its_time_and_leaves_a_fingerprint() -> None:
    days = Days()
    world = a_world(days)
    forgotten(days, world).close()
    worker = world.worker()
    idle(worker)
    assert worker.held(SKU) is None
    assert worker.held(neighbour()) is not None
    status = worker.status()["partitions"][partition_of(SKU.encode(), PARTITIONS)]
    assert (status["aggregates"], status["finished"], status["forgotten"]) == (1, 1, 1)


@pytest.mark.parametrize("restarted", [False, True], ids=["live", "restored"])
def test_what_comes_for_a_forgotten_aggregate_is_set_aside_and_nothing_is_said_twice(*, restarted: bool) -> None:
    """Nobody can tell whether it is a repetition; an operator sees it, and his release does not make it news."""
    days = Days()
    world = a_world(days)
    worker = forgotten(days, world)
    if restarted:
        worker.close()
        worker = world.worker()
    late = world.comes(examples.item_catalogued(sku=SKU))
    steps(worker, lambda: len(world.quarantined()) == 1)
    [aside] = world.quarantined()
    assert (aside.reason, aside.offset, aside.aggregate) == (QUARANTINE_REASON_INVALID, late.offset, SKU)
    assert aside.detail == f"{SKU} was finished, and forgotten 30 days, 0:00:00 later"
    again = Quarantined(topic=CATALOGUE, partition=late.partition, offset=late.offset, key=late.key, value=late.value)
    world.raw(RELEASES, b"operator", Release(records=[again]).SerializeToString(), late.partition)
    steps(worker, lambda: len(world.quarantined()) == 2)
    assert [price.sku for price in prices(world)].count(SKU) == 1


def test_a_newer_version_that_folds_the_whole_log_again_does_not_bring_the_forgotten_back() -> None:
    days = Days()
    world = a_world(days)
    forgotten(days, world).close()
    world.declares(a_service(once, version=2))
    newer = world.worker()
    world.comes(examples.item_catalogued(sku=SKU))
    steps(newer, lambda: len(world.quarantined()) == 1)
    assert newer.held(SKU) is None
    assert newer.held(neighbour()) == Held(Count(1), 1, "conversation", days.milliseconds())


@pytest.mark.parametrize("compacted", [False, True], ids=["the whole log", "compacted"])
def test_fingerprints_that_cannot_be_read_bring_their_aggregates_back(*, compacted: bool) -> None:
    """Else, once the log is compacted, nothing would tell them from newcomers."""
    days = Days()
    world = a_world(days)
    forgotten(days, world).close()
    bucket, number = fingerprint_of(SKU) % BUCKETS, partition_of(SKU.encode(), PARTITIONS)
    world.raw(STATE, entry_key("", f"{FORGOTTEN}/{bucket:x}"), b"\xff", number)
    first = world.worker()
    idle(first)
    first.close()
    if compacted:
        entries = world.log.entries((STATE, number))
        last = {record.key: record.offset for record, _ in entries if record is not None}
        entries[:] = [
            entry._replace(record=None) if entry.record and last[entry.record.key] != entry.record.offset else entry for entry in entries
        ]
    worker = world.worker()
    idle(worker)
    held = worker.held(SKU)
    assert held is not None
    assert held.state == Count(1)
    assert worker.status()["partitions"][number]["forgotten"] == 0


def test_each_word_about_a_finished_aggregate_lets_its_stub_live_longer() -> None:
    days = Days()
    world = a_world(days, always)
    worker = world.worker()
    for said in (1, 2):
        world.comes(examples.item_catalogued(sku=SKU))
        steps(worker, lambda said=said: len(prices(world)) == said)  # type: ignore[misc]
        days.at += 20
    world.comes(examples.item_catalogued(sku=neighbour()))
    steps(worker, lambda: len(prices(world)) == 3)
    assert worker.held(SKU) is not None, "40 days after the first, but 20 after the last word"
    days.at += 11
    world.comes(examples.item_catalogued(sku=neighbour()))
    steps(worker, lambda: worker.held(SKU) is None)


def test_a_worker_with_a_fast_clock_forgets_nothing() -> None:
    """The clock of the log counts, which is that of the broker."""
    days = Days()
    world = a_world(days)
    worker = world.worker(clock=lambda: days.seconds() + 1000 * DAY_S)
    world.comes(examples.item_catalogued(sku=SKU))
    world.comes(examples.item_catalogued(sku=neighbour()))
    steps(worker, lambda: len(prices(world)) == 2)
    idle(worker)
    assert worker.held(SKU) is not None


def test_a_parked_aggregate_is_not_forgotten() -> None:
    """What waits for an operator needs the state that it was to be decided on."""
    days = Days()
    world = a_world(days)
    worker = world.worker()
    world.comes(examples.item_catalogued(sku=SKU))
    world.comes(examples.item_catalogued(sku=SKU, title="bad"))
    steps(worker, lambda: len(world.quarantined()) == 1)
    days.at += 31
    world.comes(examples.item_catalogued(sku=neighbour()))
    steps(worker, lambda: len(prices(world)) == 2)
    idle(worker)
    assert worker.held(SKU) is not None


def test_an_order_is_answered_once_however_late_its_request_is_repeated() -> None:
    """In its first year by silence, and later by quarantine."""
    days = Days(examples.NOON.timestamp() / DAY_S)
    world = World(Context("ordering", orders), orders, MemoryLog(now_ms=days.milliseconds))
    known(world)
    worker = world.worker(clock=days.seconds)
    request = examples.order_requested()
    world.comes(request)
    steps(worker, lambda: len(world.said(ORDERS, OrderValidated)) == 1, "it is validated")
    world.comes(examples.reservation_refused(), "retail.fulfilment.stock-by-order.v1")
    steps(worker, lambda: rejected(world) == [request.order_id], "it is rejected")
    days.at += 300
    world.comes(request)
    idle(worker)
    held = worker.held(request.order_id)
    assert held is not None
    assert held.state == order_state.answer(held.state), "nothing is held of it but its answer"
    days.at += 100
    number = partition_of(request.order_id.encode(), PARTITIONS)
    other = next(name for name in (f"order-n{n}" for n in range(100)) if partition_of(name.encode(), PARTITIONS) == number)
    world.comes(examples.order_requested(order_id=other))
    steps(worker, lambda: worker.held(request.order_id) is None)
    world.comes(request)
    steps(worker, lambda: len(world.quarantined()) == 1)
    assert rejected(world) == [request.order_id, other]


def rejected(world: World) -> list[str]:
    """Every order that was rejected, in order."""
    return [one.key for one in world.said(ORDERS, OrderRejected) if isinstance(one.event, OrderRejected)]


def test_how_long_a_stub_is_kept_says_nothing_without_a_stub() -> None:
    with pytest.raises(DeclarationError, match="say with done= what a stub is"):
        Decider(Count, counted, on(ItemCatalogued, once), forget_after=KEPT)


@dataclass(frozen=True)
class Shelf:
    """A state with parts."""

    levels: Part[str, int] = field(default_factory=Part)


def stacked(shelf: Shelf, event: PriceListed) -> Shelf:
    """One more."""
    return replace(shelf, levels=shelf.levels.set(event.sku, 1))


def test_a_state_with_parts_has_no_stub() -> None:
    decider: Decider[Shelf, PriceListed] = Decider(Shelf, stacked, done=lambda shelf: shelf)
    with pytest.raises(DeclarationError, match="cannot have done= too"):
        Snapshots(decider, "b1")


def written(snapshots: Snapshots, key: str, held: Held) -> bytes | None:
    return list(snapshots.entries(key, held))[-1][1]


def test_what_is_idle_is_held_as_bytes_and_is_the_same_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "AT_HAND", 8)
    snapshots = Snapshots(Decider(Count, counted, done=lambda count: count if count.said > 90 else None), "b1")
    held = Aggregates(snapshots.decoded)
    expected: dict[str, Held] = {}
    for turn in (0, 100):
        for n in range(100):
            key, now = f"key-{n}", Held(Count(n + turn), n + 1, "c", 5 if n > 90 else 0)
            held.keep(key, now, written(snapshots, key, now))
            expected[key] = now
            assert held.at_hand <= 16
            assert held.get(f"key-{n // 2}") == expected[f"key-{n // 2}"]
    assert dict(held.items()) == expected
    assert {key: held.get(key) for key in expected} == expected
    assert (len(held), held.finished) == (100, 9)
    assert [key for key, _ in held.stubs(3)] == ["key-91", "key-92", "key-93"]
    held.drop("key-91")
    held.drop("key-1")
    assert (held.get("key-91"), held.get("key-1"), len(held)) == (None, None, 98)


def test_fingerprints_are_told_from_one_another_and_written_bucket_by_bucket() -> None:
    known_keys = [f"order-{n}" for n in range(10_000)]
    forgotten_ = Forgotten()
    for begin in range(0, len(known_keys), 500):
        for bucket, raw in forgotten_.with_more(known_keys[begin : begin + 500]).items():
            forgotten_.put(bucket, raw)
    assert len(forgotten_) == 10_000
    assert all(key in forgotten_ for key in known_keys)
    assert not any(f"newcomer-{n}" in forgotten_ for n in range(10_000))
    [(bucket, raw)] = forgotten_.with_more(["order-7"]).items()
    assert (bucket, len(raw) % 8) == (fingerprint_of("order-7") % BUCKETS, 0)
    forgotten_.put(bucket, raw)
    assert len(forgotten_) == 10_000, "who is forgotten twice is counted once"

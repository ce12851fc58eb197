"""What goes wrong, each kind a function that does it once and returns what proves that it has bitten, or None if it has not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis
from redis.exceptions import RedisError
from retail.gateway.v1.order_request_pb2 import OrderRequestEvent
from retail.payments.v1.payment_pb2 import PaymentEvent, PaymentVoided

from backbone.local.ports import free_port
from backbone.ownership import BROKER
from backbone.v1.meta_pb2 import Meta
from tests.adapters.proxy import END_TRANSACTION, Proxy
from tests.checker.rules.views import VIEWS
from tests.e2e.running import Shop
from tests.faults.load import Load

PRODUCE, ADD_OFFSETS, TXN_OFFSET_COMMIT = 0, 25, 28
"""Kafka's numbers of requests."""

POINTS = {
    "Produce": PRODUCE,
    "AddPartitions": 24,
    "AddOffsets": ADD_OFFSETS,
    "TxnOffsetCommit": TXN_OFFSET_COMMIT,
    "EndTxn": END_TRANSACTION,
}
"""Points of a transaction at which a process can die, by what it asks then."""

LOOKS_S = 20.0
"""How long a moment is looked for at which a fault bites."""
GLANCE_S = 0.03
SHOWING = sorted({view.partition(".")[0] for view in VIEWS})
"""Contexts with views: the Redis of others is empty."""
SESSION_S = 6.0
TRANSACTION_S = 10.0
READY_S = 60.0
ROLLED_BACK = 15
"""Orders that a Redis forgets when it goes back."""


@dataclass
class Field:
    """Where faults happen.

    Attributes:
        proxy: between every client and Kafka.
        garbage: how many records strangers wrote.
        took_s: how long the recovery took, if the fault has waited for it itself, in seconds.
    """

    shop: Shop
    load: Load
    proxy: Proxy
    lot: Random
    garbage: int = 0
    took_s: float | None = None

    @property
    def contexts(self) -> list[str]:
        """Contexts that decide."""
        return [name for name in self.shop.here.stack.state.redis if name != "gateway"]

    def forget(self) -> None:
        """Before the next fault."""
        self.took_s = None

    def pid(self, name: str) -> int:
        """The process in a slot."""
        return self.shop.here.stack.supervisor.processes[name].pid

    @contextmanager
    def caught(self, name: str) -> Iterator[str]:
        """A process that stands still in the middle of its work; empty if no such moment came."""
        until = time.monotonic() + LOOKS_S
        while time.monotonic() < until:
            with self.shop.frozen(name):
                held = self._held(name)
                if held:
                    yield held
                    return
            time.sleep(GLANCE_S)
        yield ""

    def _held(self, name: str) -> str:
        if name == "gateway":
            return "calls of clients are under way"
        if held := self.shop.open_transactions(name):
            return f"a transaction was open in {held[0]} and {len(held) - 1} more partitions"
        open_ = len(self.shop.open_commands()) if name == "payments" else 0
        return f"{open_} commands were open" if open_ else ""

    def answered(self) -> int:
        """How many orders have their answer."""
        return len(self.load.answered)

    def redis(self, context: str) -> Redis:
        """A context's Redis."""
        return Redis.from_url(self.shop.here.stack.state.redis[context], socket_timeout=5.0)


Strike = Callable[[Field], str | None]


def kill(name: str) -> Strike:
    """SIGKILL in the middle of a transaction, a command or a call; the slot starts again."""

    def strike(at: Field) -> str | None:
        with at.caught(name) as held:
            if held:
                at.shop.here.stack.supervisor.kill([name])
        at.shop.here.stack.supervisor.resume([name])
        return held or None

    return strike


def kill_at(request: int, *, passes: bool) -> Strike:
    """SIGKILL of some context at the moment at which it asks Kafka something, before or after that reaches Kafka."""

    def strike(at: Field) -> str | None:
        name = at.lot.choice(at.contexts)
        process = psutil.Process(at.pid(name))
        killed: list[int] = []

        def one_of_its_own(port: int) -> bool:
            if all(port != connection.laddr.port for connection in process.net_connections("tcp")):
                return False
            at.shop.here.stack.supervisor.kill([name])
            killed.append(port)
            return True

        at.proxy.when_next(request, one_of_its_own, passes=passes)
        wait(lambda: bool(killed), LOOKS_S)
        at.proxy.when_next(request, lambda _: False, passes=True)
        at.shop.here.stack.supervisor.resume([name])
        return f"{name} died when request {request} had {'just' if passes else 'not yet'} reached Kafka" if killed else None

    return strike


def zombie(name: str) -> Strike:
    """A process stands still while another takes its slot, and goes on."""

    def strike(at: Field) -> str | None:
        spec = at.shop.here.stack.supervisor.processes[name].spec
        with at.caught(name) as held:
            if not held:
                return None
            before, taken = at.pid(name), at.answered()
            ports = {key: str(free_port()) for key in ("BACKBONE_HEALTH_PORT", "GRPC_PORT", "HTTP_PORT")}
            with Path(os.devnull).open("wb") as nowhere:
                successor = subprocess.Popen(
                    spec.argv, env={**os.environ, **spec.environment, **ports}, stdout=nowhere, stderr=nowhere, start_new_session=True
                )
            try:
                wait(lambda: at.answered() > taken + 3, LOOKS_S)
                went_on = at.answered() - taken
                os.kill(before, signal.SIGCONT)
                wait(lambda: at.pid(name) not in (before, 0), LOOKS_S)
            finally:
                successor.kill()
                successor.wait(10.0)
        _ready(at, name)
        ended = at.pid(name) != before
        return f"{held}; its successor answered {went_on} orders; the zombie ended" if ended and went_on else None

    return strike


def stall(name: str) -> Strike:
    """A process stands still until its transaction has timed out, and goes on."""

    def strike(at: Field) -> str | None:
        with at.caught(name) as held:
            if held:
                time.sleep(TRANSACTION_S + 1.0)
        return f"{held} for {TRANSACTION_S + 1:.0f} s" if held else None

    return strike


def kafka_frozen(at: Field) -> str | None:
    """Kafka stands still for four seconds."""
    with at.shop.frozen("kafka"):
        time.sleep(0.5)
        before = at.answered()
        time.sleep(3.5)
        return "nothing was answered meanwhile" if at.answered() == before else None


def kafka_down(*, killed: bool) -> Strike:
    """Kafka ends and starts again, while transactions are open."""

    def strike(at: Field) -> str | None:
        held = ""
        until = time.monotonic() + LOOKS_S
        while not held and time.monotonic() < until:
            held = next((one for name in at.contexts for one in at.shop.open_transactions(name)), "")
        supervisor = at.shop.here.stack.supervisor
        (supervisor.kill if killed else supervisor.stop)(["kafka"])
        supervisor.resume(["kafka"])
        return f"a transaction was open in {held}" if held else None

    return strike


def redis_killed(at: Field) -> str | None:
    """A Redis dies and starts again."""
    context = at.lot.choice(SHOWING)
    name = f"valkey.{context}"
    before = at.pid(name)
    at.shop.here.stack.supervisor.kill([name])
    at.shop.here.stack.supervisor.resume([name])
    return f"the Redis of {context} was process {before}, is {at.pid(name)}" if at.pid(name) != before else None


def redis_flushed(at: Field) -> str | None:
    """A Redis forgets everything."""
    context = at.lot.choice(SHOWING)
    with at.redis(context) as redis:
        keys = redis.dbsize()
        redis.flushall()
    return f"the Redis of {context} forgot {keys} keys" if keys else None


def redis_rolled_back(at: Field) -> str | None:
    """A Redis goes back to what it held a while ago."""
    context = at.lot.choice(SHOWING)
    with at.redis(context) as redis:
        older = _dump(redis)
        answered = at.answered()
        wait(lambda: at.answered() > answered + ROLLED_BACK, LOOKS_S)
        now = _dump(redis)
        if older == now:
            return None
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.flushall()
            for key, value in older.items():
                pipeline.restore(key, 0, value)
            pipeline.execute()
    return f"{sum(now.get(key) != value for key, value in older.items())} keys of {context} went back"


def redis_full(at: Field) -> str | None:
    """A Redis has no memory left for a while."""
    context = at.lot.choice(SHOWING)
    refused = 0
    with at.redis(context) as redis:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "1")
        try:
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                try:
                    redis.set("strange", "x")
                except RedisError:
                    refused += 1
                time.sleep(0.2)
        finally:
            redis.config_set("maxmemory", "0")
            redis.delete("strange")
    return f"the Redis of {context} refused {refused} writes" if refused else None


def provider(*rules: Mapping[str, object], seconds: float = 3.0) -> Strike:
    """The payment provider misbehaves for a while."""

    def strike(at: Field) -> str | None:
        with at.shop.misbehaving(*rules):
            time.sleep(seconds)
            applied = sum(at.shop.applied())
        return f"it acted {applied} times" if applied else None

    return strike


def provider_down(at: Field) -> str | None:
    """The payment provider answers nothing for a while."""
    with at.shop.misbehaving({"kind": "down"}):
        wait(lambda: bool(at.shop.open_commands()), LOOKS_S)
        asked = at.shop.open_commands()
        time.sleep(3.0)
        waiting = asked & at.shop.open_commands()
    return f"{len(waiting)} commands waited for it" if waiting else None


def garbage(at: Field) -> str | None:
    """A stranger writes twelve kinds of what is no event, each into a topic that somebody reads."""
    topics = ("retail.gateway.order-requests.v1", "retail.ordering.orders.v1", "retail.fulfilment.stock-by-order.v1")
    partitions = at.shop.here.stack.state.partitions
    written: list[int] = []
    producer = Producer({**at.shop.here.kafka(BROKER), "enable.idempotence": True})
    for key, value in strange(at.lot):
        topic, partition = at.lot.choice(topics), at.lot.randrange(partitions)
        producer.produce(topic, key=key, value=value, partition=partition, on_delivery=lambda error, _: written.append(error is None))
    producer.flush(10.0)
    at.garbage += sum(written)
    return f"{sum(written)} records lie where readers expect events" if sum(written) == len(strange(at.lot)) else None


def strange(lot: Random) -> list[tuple[bytes | None, bytes | None]]:
    """Twelve kinds of garbage: key and value."""
    meta = Meta(id="strange", writer="stranger")
    request = OrderRequestEvent(meta=meta)
    request.order_requested.order_id, request.order_requested.customer_id = "strange-order", "stranger"
    good = request.SerializeToString()
    foreign = PaymentEvent(payment_voided=PaymentVoided(order_id="other", customer_id="y"), meta=meta).SerializeToString()
    return [
        (b"strange", b"\xff\xfe" + lot.randbytes(40)),
        (b"strange", b""),
        (b"strange", None),
        (None, good),
        (b"\xff\xfe no utf-8", good),
        (b"another", good),
        (b"strange-order", good[: len(good) // 2]),
        (b"strange-order", b"\xfa\x06\x02\x0a\x00" + meta.SerializeToString()),
        (b"strange", foreign),
        (b"strange", OrderRequestEvent(meta=meta).SerializeToString()),
        (b"strange", b"\xff" + lot.randbytes(300_000)),
        (b"strange-order", good + b"\x0f\xff\xff"),
    ]


def repeated(at: Field) -> str | None:
    """Requests that lie in the log are written once more, as a producer without idempotence would."""
    topic = "retail.gateway.order-requests.v1"
    found = [entry for entry in at.shop.entries() if entry.place.topic == topic and entry.event is not None]
    again = at.lot.sample(found, min(10, len(found)))
    producer = Producer(at.shop.here.kafka("gateway.door"))
    for entry in again:
        producer.produce(topic, key=entry.key, value=entry.value, partition=entry.place.partition)
    return f"{len(again)} requests lie there twice" if not producer.flush(10.0) and again else None


def lost_answers(request: int, times: int = 3) -> Strike:
    """Kafka does what it is asked, and the answer is lost with the connection."""

    def strike(at: Field) -> str | None:
        before = at.proxy.lost
        at.proxy.lose_answers(request, times)
        wait(lambda: at.proxy.lost >= before + times, LOOKS_S)
        at.proxy.lose_none()
        return f"{at.proxy.lost - before} answers were lost" if at.proxy.lost > before else None

    return strike


def held_end(at: Field) -> str | None:
    """The end of a transaction is held back, its sender loses the connection, and it arrives in the middle of a later one."""
    at.proxy.hold_next(END_TRANSACTION)
    held = at.proxy.held()
    before = at.answered()
    wait(lambda: at.answered() > before + 5, LOOKS_S)
    answer = held.release()
    code = int.from_bytes(answer[8:10], "big", signed=True)
    return f"Kafka answered it with error {code}" if code else None


def slow_link(at: Field) -> str | None:
    """Each request and each answer takes 200 ms longer for a while."""
    before = at.proxy.passed
    at.proxy.slow(0.2)
    time.sleep(4.0)
    at.proxy.slow(0.0)
    return f"{at.proxy.passed - before} requests were slow" if at.proxy.passed > before else None


def cut(at: Field) -> str | None:
    """All connections to Kafka break at once."""
    before = at.proxy.passed
    at.proxy.cut()
    wait(lambda: at.proxy.passed > before, LOOKS_S)
    return "every client had to connect again" if at.proxy.passed > before else None


def one_way(at: Field) -> str | None:
    """Requests reach Kafka, its answers do not reach anybody for a while."""
    before = at.answered()
    at.proxy.deafen(3.0)
    time.sleep(0.5)
    meanwhile = at.answered()
    time.sleep(2.3)
    return f"{at.answered() - meanwhile} orders were answered meanwhile" if at.answered() - before < 50 else None


def offsets_deleted(at: Field) -> str | None:
    """A decider's group offsets are deleted while its process is down."""
    group, process = {"ordering": "ordering.orders", "payments": "payments.payments", "fulfilment": "fulfilment.stock"}, ""
    process = at.lot.choice(list(group))
    admin = AdminClient({**at.shop.here.kafka(BROKER)})
    with at.shop.stopped(process):
        deleted = 0
        until = time.monotonic() + SESSION_S + LOOKS_S
        while not deleted and time.monotonic() < until:  # until the group has noticed that nobody is there
            asked = ConsumerGroupTopicPartitions(group[process])
            stands = admin.list_consumer_group_offsets([asked])[group[process]].result(10.0).topic_partitions or []
            try:
                admin.delete_consumer_groups([group[process]], request_timeout=10.0)[group[process]].result(10.0)
                deleted = len([one for one in stands if isinstance(one, TopicPartition)])
            except Exception:  # noqa: BLE001 - as long as it has members, whatever Kafka says to that
                time.sleep(0.5)
    return f"{deleted} offsets of {group[process]} were deleted" if deleted else None


def takeover(context: str) -> Strike:
    """One of two workers dies in the middle of a transaction and does not come back: the other takes over."""

    def strike(at: Field) -> str | None:
        slots = at.shop.here.slots
        slots.scale(context, 2)
        victim = slots.names(context)[-1]
        held = ""
        until = time.monotonic() + LOOKS_S
        while not held and time.monotonic() < until:
            own = _partitions_of(at, victim)
            with at.shop.frozen(victim):
                numbers = {place.rpartition("/")[2] for place in at.shop.open_transactions(context)}
                held = ", ".join(sorted(numbers & own))
                if held:
                    at.shop.here.stack.supervisor.kill([victim])
        since_s = time.monotonic()
        wait(lambda: at.load.recovered_s(since_s) is not None, SESSION_S + TRANSACTION_S + LOOKS_S)
        at.took_s = took_s = at.load.recovered_s(since_s)
        slots.scale(context, 1)
        if not held or took_s is None:
            return None
        return f"a transaction was open in partitions {held} of the victim; everybody was answered after {took_s:.1f} s"

    return strike


def _partitions_of(at: Field, process: str) -> set[str]:
    """Partitions that a process decides."""
    loops = at.shop.status(process)["loops"].values()
    return {number for loop in loops if isinstance(loop.get("partitions"), dict) for number in loop["partitions"]}


def joins_and_leaves(at: Field) -> str | None:
    """A second worker of a context comes, takes partitions over, and goes."""
    context = at.lot.choice(at.contexts)
    slots = at.shop.here.slots
    slots.scale(context, 2)
    newcomer = slots.names(context)[-1]
    wait(lambda: bool(_partitions_of(at, newcomer)), READY_S)
    taken = _partitions_of(at, newcomer)
    slots.scale(context, 1)
    return f"{newcomer} decided partitions {', '.join(sorted(taken))}" if taken else None


KINDS: Mapping[str, Strike] = {
    "kill ordering": kill("ordering"),
    "kill payments": kill("payments"),
    "kill fulfilment": kill("fulfilment"),
    "kill gateway": kill("gateway"),
    **{f"kill before {name}": kill_at(request, passes=False) for name, request in POINTS.items()},
    **{f"kill after {name}": kill_at(request, passes=True) for name, request in POINTS.items()},
    "zombie ordering": zombie("ordering"),
    "zombie payments": zombie("payments"),
    "zombie fulfilment": zombie("fulfilment"),
    "stalled ordering": stall("ordering"),
    "Kafka frozen": kafka_frozen,
    "Kafka restarted": kafka_down(killed=False),
    "Kafka killed": kafka_down(killed=True),
    "Redis killed": redis_killed,
    "Redis flushed": redis_flushed,
    "Redis rolled back": redis_rolled_back,
    "Redis out of memory": redis_full,
    "provider down": provider_down,
    "provider fails": provider({"kind": "fail", "status": 502}),
    "provider slow": provider({"kind": "slow", "seconds": 1.0}),
    "provider breaks off": provider({"kind": "hold", "seconds": 0.3, "then": "close", "operations": ["authorize"]}),
    "provider answers twice": provider({"kind": "duplicate_answer"}, {"kind": "hold", "seconds": 0.2, "then": "close", "next": 3}),
    "provider declines": provider({"kind": "decline"}),
    "garbage": garbage,
    "repeated input": repeated,
    "answers to Produce lost": lost_answers(PRODUCE),
    "answers to AddOffsets lost": lost_answers(ADD_OFFSETS),
    "answers to TxnOffsetCommit lost": lost_answers(TXN_OFFSET_COMMIT),
    "answers to EndTxn lost": lost_answers(END_TRANSACTION),
    "EndTxn held": held_end,
    "slow link": slow_link,
    "connections cut": cut,
    "one-way cut": one_way,
    "offsets deleted": offsets_deleted,
    "takeover ordering": takeover("ordering"),
    "takeover fulfilment": takeover("fulfilment"),
    "joins and leaves": joins_and_leaves,
}
"""Every kind, by name."""


def _dump(redis: Redis) -> dict[bytes, bytes]:
    keys = sorted(key for key in redis.scan_iter(count=1000) if isinstance(key, bytes))
    with redis.pipeline(transaction=True) as pipeline:
        for key in keys:
            pipeline.dump(key)
        found = pipeline.execute()
    return {key: value for key, value in zip(keys, found, strict=True) if value is not None}


def wait(condition: Callable[[], bool], within_s: float) -> None:
    """Wait until something is so, or until the time is over: whoever asks looks again."""
    until = time.monotonic() + within_s
    while not condition() and time.monotonic() < until:
        time.sleep(GLANCE_S)


def _ready(at: Field, name: str) -> None:
    process = at.shop.here.stack.supervisor.processes
    wait(lambda: process[name].is_running() and process[name].is_ready(), READY_S)

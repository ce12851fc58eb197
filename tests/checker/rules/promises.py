"""What clients were told: taken orders exist and are answered, answers are true, one key is one order, nothing goes back in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from retail.ordering.v1.order_pb2 import RejectionReason

from laws.entries import Place
from laws.history import FAIL, OK, Call
from tests.checker.seen import ANSWERS, ORDERS, REQUESTS, Said, Seen
from tests.checker.world import Finding

STATUS = {"OrderConfirmed": "CONFIRMED", "OrderRejected": "REJECTED", "OrderCancelled": "CANCELLED"}

PATIENCE_S = 3.0
"""How long an answer that lies in the log may take to reach who waits for it, in an undisturbed shop."""

CLOCKS_S = 0.05
"""How far the client's reading of the clock and the broker's may lie apart on one machine."""


def acknowledged(seen: Seen) -> Iterator[Finding]:
    """An order that was taken lies in the log, where it is said to lie, and has its answer once all is at rest."""
    for call in seen.world.calls:
        if call.op not in ("place", "cancel") or call.outcome != OK or not call.order_id:
            continue
        name = "OrderRequested" if call.op == "place" else "OrderCancellationRequested"
        for topic, partition, offset in call.position:
            place = Place(topic, partition, offset - 1)
            lies = seen.at.get(place)
            if lies is None or lies.name != name or lies.event.order_id != call.order_id:
                yield _finding("acknowledged", call, f"order {call.order_id} was acknowledged at {place}, where it does not lie", place)
        taken = call.position or call.status != "PENDING" or call.op == "cancel"
        if taken and not seen.about(call.order_id, "OrderRequested"):
            yield _finding("acknowledged", call, f"order {call.order_id} was acknowledged and is not in the log")
        elif seen.world.at_rest and taken and not seen.about(call.order_id, *ANSWERS):
            yield _finding("acknowledged", call, f"order {call.order_id} was acknowledged and never answered", *_places(seen, call))


def honest(seen: Seen) -> Iterator[Finding]:
    """What a client was told of an order is what the log says, and was in the log when it was told; what was refused was not done."""
    for call in seen.world.calls:
        if call.outcome == OK and call.op in ("place", "await", "get", "cancel"):
            yield from _true(seen, call, call.order_id, call.status)
        for order_id, status in call.orders:
            yield from _true(seen, call, order_id, status)
    yield from _refused(seen)


def _true(seen: Seen, call: Call, order_id: str, status: str) -> Iterator[Finding]:
    if status in ("", "PENDING"):
        return
    answers = seen.about(order_id, *ANSWERS)
    if not answers:
        yield _finding("honest", call, f"order {order_id} was told to be {status}, the log has no answer")
        return
    answer = answers[0]
    if STATUS[answer.name] != status:
        yield _finding("honest", call, f"order {order_id} was told to be {status}, the log says {answer.name}", answer.place)
    elif answer.name == "OrderRejected" and call.reason and call.order_id == order_id:
        reason = RejectionReason.Name(answer.event.reason).removeprefix("REJECTION_REASON_")
        if reason != call.reason:
            yield _finding(
                "honest", call, f"order {order_id} was told to be refused for {call.reason}, the log says {reason}", answer.place
            )
    if call.ended_s is not None and answer.at_ms / 1000 > call.ended_s + CLOCKS_S:
        yield _finding("honest", call, f"order {order_id} was told to be {status} before the log said so", answer.place)


def _refused(seen: Seen) -> Iterator[Finding]:
    """A key under which every call was refused has left no order."""
    calls: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in seen.world.calls:
        if call.op == "place":
            calls[call.client, call.key].append(call)
    refused = {of for of, some in calls.items() if all(call.outcome == FAIL and call.code != "ALREADY_EXISTS" for call in some)}
    known = {client for client, _ in refused}
    told = {call.order_id for some in calls.values() for call in some if call.order_id}
    for one in seen.named("OrderRequested"):
        client = one.event.customer_id
        keys = {key for of, key in calls if of == client}
        if client in known and one.event.order_id not in told and keys == {key for of, key in refused if of == client}:
            yield Finding("honest", f"every order of {client} was refused, and {one.event.order_id} was placed", (one.place,))


def idempotent(seen: Seen) -> Iterator[Finding]:
    """One client and key is one order, whatever becomes of the calls; two are two; another wish under a used key is refused."""
    orders: dict[tuple[str, str], Call] = {}
    of: dict[str, tuple[str, str]] = {}
    for call in seen.world.calls:
        if call.op != "place" or call.outcome != OK:
            continue
        key = (call.client, call.key)
        before = orders.setdefault(key, call)
        if before.order_id != call.order_id:
            yield _finding("idempotent", call, f"key {call.key} of {call.client} is order {before.order_id} and order {call.order_id}")
        if before.payload != call.payload:
            yield _finding("idempotent", call, f"key {call.key} of {call.client} was taken for {before.payload} and for {call.payload}")
        if of.setdefault(call.order_id, key) != key:
            yield _finding("idempotent", call, f"order {call.order_id} belongs to two keys, {of[call.order_id][1]} and {call.key}")
    for order_id, said in seen.of_order.items():
        requests = [one for one in said if one.name == "OrderRequested"]
        if len({(one.event.customer_id, one.event.fingerprint) for one in requests}) > 1 and order_id in of:
            answers = [one for one in said if one.name in ANSWERS]
            if any(one.event.fingerprint != requests[0].event.fingerprint for one in answers):
                yield Finding(
                    "idempotent", f"order {order_id} was asked for with two wishes", tuple(one.place for one in requests), order_id
                )


def complete(seen: Seen) -> Iterator[Finding]:
    """Who waits for an answer that is in the log gets it."""
    for call in seen.world.calls:
        if call.op not in ("place", "await") or call.outcome != OK or call.status != "PENDING" or call.ended_s is None:
            continue
        answers = seen.about(call.order_id, *ANSWERS)
        if not answers or _disturbed(seen, call):
            continue
        since_s = max(answers[0].at_ms / 1000, call.invoked_s)
        if call.ended_s - since_s > PATIENCE_S:
            what = f"who waited for order {call.order_id} was told nothing, its answer lay in the log for {call.ended_s - since_s:.1f} s"
            yield _finding("complete", call, what, answers[0].place)


def fresh(seen: Seen) -> Iterator[Finding]:
    """A client's own orders are found once they were taken, and what it was told is not taken back."""
    for calls in _by_client(seen).values():
        ended: list[Call] = []
        for call in calls:
            before = [one for one in ended if one.ended_s is not None and one.ended_s < call.invoked_s and one.outcome == OK]
            ended.append(call)
            if call.op not in ("await", "get", "cancel"):
                continue
            own = [one for one in before if one.order_id == call.order_id]
            taken = [one for one in own if one.position or one.status != "PENDING"]
            if call.code == "NOT_FOUND" and taken:
                yield _finding("fresh", call, f"{call.client} was told that order {call.order_id}, which it had placed, does not exist")
            told = [one for one in own if one.status in STATUS.values()]
            if (
                call.outcome == OK
                and told
                and call.status != told[-1].status
                and not (call.op == "get" and not call.at_least and not call.demands and call.status == "PENDING")
            ):
                what = f"{call.client} was told that order {call.order_id} is {told[-1].status}, and then that it is {call.status}"
                yield _finding("fresh", call, what, *_places(seen, call))
            yield from _at_least(seen, call)


def _at_least(seen: Seen, call: Call) -> Iterator[Finding]:
    """A read that names positions knows what lies below them."""
    for topic, partition, offset in call.at_least:
        answer = next((one for one in seen.about(call.order_id, *ANSWERS) if _below(one, topic, partition, offset)), None)
        if topic == ORDERS and call.outcome == OK and call.status == "PENDING" and answer is not None:
            yield _finding("fresh", call, f"a read of order {call.order_id} that demands its answer did not know it", answer.place)
        asked = next((one for one in seen.about(call.order_id, "OrderRequested") if _below(one, topic, partition, offset)), None)
        if topic == REQUESTS and call.code == "NOT_FOUND" and asked is not None:
            yield _finding("fresh", call, f"a read that demands order {call.order_id} did not find it", asked.place)


def _below(one: Said, topic: str, partition: int, offset: int) -> bool:
    return (one.place.topic, one.place.partition) == (topic, partition) and one.place.offset < offset


def _by_client(seen: Seen) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(seen.world.calls, key=lambda one: one.invoked_s):
        found[call.client].append(call)
    return found


def _disturbed(seen: Seen, call: Call) -> bool:
    ended_s = call.ended_s or float("inf")
    return any(one.from_s < ended_s and call.invoked_s < one.until_s for one in seen.world.disturbed)


def _places(seen: Seen, call: Call) -> list[Place]:
    return [one.place for one in seen.about(call.order_id, "OrderRequested", *ANSWERS)]


def _finding(rule: str, call: Call, text: str, *places: Place) -> Finding:
    return Finding(rule, f"call {call.number} of {call.client} ({call.op}): {text}", places, call.order_id)

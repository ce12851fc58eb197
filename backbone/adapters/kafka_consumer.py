"""A Kafka consumer of ours: committed records in order, and positions that know of transaction markers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from backbone.adapters.kafka_clients import NOISE, Signs, attempting, error_of, is_passing, meaning
from backbone.errors import Unavailable, WorkerEnded
from backbone.ports import Place, Record

SEEK_WITHIN_S = 5.0
"""How long a seek waits for a fresh assignment to take effect; about 1 ms, measured."""

STALLS_AFTER_S = 30.0
"""A partition that gives nothing for so long, though something committed lies there, is read anew."""

LOOK_EVERY_S = 10.0
END_WITHIN_S = 1.0

FIRST_GUESS_BYTES = 64 * 1024
"""How large records are taken to be before one was seen."""

_new_record: Callable[[type[Record], Sequence[object]], Record] = tuple.__new__
"""Half the time of calling the class, and this is done once per record."""


class KafkaConsumer:
    """A consumer over some partitions.

    Args:
        committed_within_s: how long `committed` waits for transactions that hold offsets back, in seconds.
        batch_bytes: how many bytes of records one `poll` gives out; more only if records suddenly are larger than those before, and then
            no more than the client had fetched ahead.
    """

    def __init__(self, client: Consumer, signs: Signs, committed_within_s: float, batch_bytes: int) -> None:
        self._client = client
        self._signs = signs
        self._committed_within_s = committed_within_s
        self._batch_bytes = batch_bytes
        self._largest = FIRST_GUESS_BYTES
        self._positions: dict[Place, int] = {}
        self._paused: set[Place] = set()
        self._assignments = 0
        self._starts: Mapping[Place, int] = {}
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._stands: dict[Place, tuple[int, float]] = {}
        self._read_anew: dict[Place, int] = {}
        self._closing = False

    def assign(self, start: Mapping[Place, int]) -> None:
        """Read exactly these partitions from these offsets; nothing fetched before is given out any more."""
        self._stands = {}
        self._read_anew = {}
        self._take(start)

    def _take(self, start: Mapping[Place, int]) -> None:
        self._starts = dict(start)
        self._positions = dict(start)
        self._paused &= start.keys()
        self._assignments += 1
        self._client.assign([TopicPartition(*place, offset) for place, offset in start.items()])
        if self._paused:
            self._client.pause(_partitions(self._paused))

    def join(
        self,
        topics: Sequence[str],
        assigned: Callable[[Sequence[Place]], Mapping[Place, int]],
        revoked: Callable[[Sequence[Place]], None],
    ) -> None:
        """Become a member of the group; `range` is an eager assignor, so each rebalance revokes all and then assigns all."""

        def on_assign(_: Consumer, partitions: Sequence[TopicPartition]) -> None:
            places = sorted((partition.topic, partition.partition) for partition in partitions)
            starts = assigned(places)
            self.assign({place: starts[place] for place in places})

        def on_revoke(_: Consumer, partitions: Sequence[TopicPartition]) -> None:
            self._assignments += 1
            self._positions = {}
            self._paused.clear()
            if not self._closing:
                revoked(sorted((partition.topic, partition.partition) for partition in partitions))

        self._client.subscribe(list(topics), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def poll(self, limit: int, timeout_s: float) -> Sequence[Record]:
        """Up to `limit` records; see the port. `consume(n, t)` would wait the whole `t` for n, hence the two steps.

        Raises:
            Fenced: another process took this member's place.
            WorkerEnded: Kafka refuses this consumer, what it asked for does not exist, or the client gives nothing of what there is.
        """
        try:
            first = self._client.poll(timeout_s)
            if first is None:
                self._signs.check()
                if time.monotonic() >= self._look_at:
                    self._look_for_stalls()
                return ()
            messages = [first]
            if limit > 1:
                assignments = self._assignments
                self._more(messages, limit)
                if assignments != self._assignments:
                    # what was fetched before a rebalance must not be given out after it
                    if self._positions:
                        self._take(self._starts)
                    return ()
        except KafkaException as error:
            raise meaning(error_of(error), "polling") from error
        records: list[Record] = []
        positions = self._positions
        for message in messages:
            if message.error() is not None:
                self._heed(message)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            records.append(_new_record(Record, (topic, partition, offset, message.key(), message.value(), message.timestamp()[1])))
            positions[topic, partition] = offset + 1  # type: ignore[index, operator]  # a record has all three
        return records

    def _look_for_stalls(self) -> None:
        """Read partitions anew that give nothing though there is something.

        A client that lost its broker has been seen to fetch the others and never that one again, without an error, for minutes. As long
        as the client has anything in hand, what a partition has may merely stand behind it, so this is asked of an idle client only.
        """
        now = time.monotonic()
        if now - self._look_at > LOOK_EVERY_S:
            self._stands = {}  # it was not idle meanwhile
        self._look_at = now + LOOK_EVERY_S
        try:
            behind = {place: at for place, at in self._positions.items() if place not in self._paused and self._end(place) > at}
        except KafkaException:
            return  # nobody can read where Kafka does not answer
        known = self._stands
        self._stands = {place: known[place] if known.get(place, (-1,))[0] == at else (at, now) for place, at in behind.items()}
        stalled = {place: at for place, (at, since) in self._stands.items() if now - since >= STALLS_AFTER_S}
        if not stalled:
            return
        text = ", ".join(f"{topic}/{partition} after {at}" for (topic, partition), at in sorted(stalled.items()))
        if any(self._read_anew.get(place) == at for place, at in stalled.items()):
            raise WorkerEnded(f"the client of Kafka gives nothing of {text}, though there is something, and not when it reads anew either")
        NOISE.warning("nothing came of %s for %g s, though there is something: reading anew", text, STALLS_AFTER_S)
        self._stands = {}
        self._read_anew = stalled
        self._take(dict(self._positions))

    def _end(self, place: Place) -> int:
        """Where what is committed ends, as this consumer may read it."""
        asked = self._client.get_watermark_offsets(TopicPartition(*place), END_WITHIN_S, cached=False)
        found = cast("tuple[int, int] | None", asked)  # None where nobody answered in time, whatever the stubs say
        return found[1] if found else 0

    def _more(self, messages: list[Message], limit: int) -> None:
        """Take what is there, in portions of which each fits if no record is larger than the largest of late."""
        largest = max(len(messages[0]), self._largest // 2, 1)
        room = self._batch_bytes - len(messages[0])
        while room > 0 and (wanted := min(limit - len(messages), room // largest)) > 0:
            portion = self._client.consume(wanted, 0)
            if portion:
                sizes = [len(message) for message in portion]
                room -= sum(sizes)
                largest = max(largest, *sizes)
                messages += portion
            if len(portion) < wanted:
                break
        self._largest = largest

    def _heed(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            place: Any = (message.topic(), message.partition())
            if place in self._positions:
                self._positions[place] = message.offset() or 0
        elif not is_passing(error) or error.fatal():
            raise meaning(self._signs.fatal or error, f"reading {message.topic() or 'the group'}")

    def positions(self) -> Mapping[Place, int]:
        """Next offsets of what is assigned; see the port."""
        return dict(self._positions)

    def seek(self, place: Place, offset: int) -> None:
        """Go on reading a partition at `offset`.

        Raises:
            Unavailable: the assignment does not take effect.
        """
        deadline = time.monotonic() + SEEK_WITHIN_S
        while True:
            try:
                self._client.seek(TopicPartition(*place, offset))
                break
            except KafkaException as error:
                if error_of(error).code() != KafkaError._STATE:
                    raise meaning(error_of(error), f"seeking {place} to {offset}") from error
                if place not in self._positions or time.monotonic() > deadline:
                    raise Unavailable(f"cannot seek {place}: it is not assigned here") from error
                time.sleep(0.001)
        self._positions[place] = offset

    def pause(self, places: Sequence[Place]) -> None:
        """Stop fetching these; librdkafka drops what it holds of them (measured). Inside `assigned` it counts from the start."""
        self._paused.update(places)
        if live := [place for place in places if place in self._positions]:
            self._client.pause(_partitions(live))

    def resume(self, places: Sequence[Place]) -> None:
        """Fetch these again, from where `poll` stopped."""
        self._paused.difference_update(places)
        if live := [place for place in places if place in self._positions]:
            self._client.resume(_partitions(live))

    def committed(self, places: Sequence[Place]) -> Mapping[Place, int | None]:
        """The group's committed offsets; waits while offsets of a transaction are pending.

        Raises:
            Unavailable: Kafka did not answer, or a transaction is still open.
        """
        with attempting("asking for committed offsets"):
            found = self._client.committed(_partitions(places), timeout=self._committed_within_s)
        for partition in found:
            if partition.error is not None:
                raise meaning(partition.error, f"asking for the committed offset of {partition.topic}/{partition.partition}")
        return {(partition.topic, partition.partition): partition.offset if partition.offset >= 0 else None for partition in found}

    def membership(self) -> Any:
        """What proves to the broker that a transaction's offsets come from a living member.

        Raises:
            WorkerEnded: this consumer belongs to no group now.
        """
        metadata = self._client.consumer_group_metadata()
        if metadata is None:
            raise WorkerEnded("this consumer belongs to no group")
        return metadata

    def close(self) -> None:
        """Leave; a static member keeps its place for the session timeout."""
        self._closing = True
        self._client.close()


def _partitions(places: Sequence[Place] | set[Place]) -> list[TopicPartition]:
    return [TopicPartition(*place) for place in places]

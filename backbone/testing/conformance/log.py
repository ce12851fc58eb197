"""What everything that stands behind `Log` must do.

A test class inherits `LogConformance` and offers, as fixtures:
    log: a `Log` whose transactions time out after 4 seconds and whose members after `SESSION_S`.
    topic: a function that makes a topic of so many partitions (4 if not given), that nobody else uses, and gives its name.
    name: a function that makes a name from a word, that nobody else uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backbone.errors import BackboneError, Fenced, Unavailable, WorkerEnded
from backbone.partitioner import partition_of
from backbone.ports import Consumer, Log, Place, Producer, Record

SESSION_S = 3.0
WITHIN_S = 15.0
"""How long a test waits for what must come; a loaded machine is slow, so this is generous."""

A_MOMENT_S = 0.3
"""How long a test looks whether something that must not happen happens."""

MakeTopic = Callable[..., str]
MakeName = Callable[[str], str]


class LogConformance:
    """The suite."""

    def test_every_topic_has_an_identity_and_its_partitions(self, log: Log, topic: MakeTopic) -> None:
        """Two topics never share an identity, and the cluster has one too."""
        one, other = topic(3), topic(4)
        found = log.topics()
        assert [found[one][1], found[other][1]] == [3, 4]
        assert found[one][0]
        assert found[one][0] != found[other][0]
        assert log.cluster_id == log.cluster_id != ""

    def test_records_of_a_partition_come_in_the_order_they_were_appended(self, log: Log, topic: MakeTopic) -> None:
        """Offsets rise by one where there are no markers."""
        name = topic(2)
        append(log, name, *((partition, b"%d" % number) for number in range(50) for partition in (0, 1)))
        records = take(log.consumer({(name, 0): 0, (name, 1): 0}), 100)
        for partition in (0, 1):
            mine = [(record.offset, record.value) for record in records if record.partition == partition]
            assert mine == [(number, b"%d" % number) for number in range(50)]

    def test_a_record_comes_back_as_it_was_written_with_its_append_time(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Key and value are bytes, and either may be missing."""
        at = (topic(), 2)
        written = [(b"\x00\xff", b"\x01"), (b"", b""), (b"key", None), (None, b"value")]
        before_ms = time.time_ns() // 1_000_000
        with transaction(log, name("writer")) as producer:
            for key, value in written:
                producer.produce(at[0], key, value, at[1])
        records = take(log.consumer({at: 0}), 4)
        assert [(record.key, record.value) for record in records] == written
        assert all((record.topic, record.partition) == at for record in records)
        assert all(before_ms - 1000 <= record.timestamp_ms <= time.time_ns() // 1_000_000 + 1000 for record in records)

    def test_a_poll_gives_at_most_its_limit_and_waits_only_for_the_first(self, log: Log, topic: MakeTopic) -> None:
        """A batch is what is there."""
        at = (topic(), 0)
        append(log, at[0], *((0, b"%d" % number) for number in range(5)))
        consumer = log.consumer({at: 0})
        start = time.monotonic()
        first = consumer.poll(3, WITHIN_S)
        records = [*first, *take(consumer, 5 - len(first))]
        assert len(first) in {1, 2, 3}
        assert [record.offset for record in records] == [0, 1, 2, 3, 4]
        assert time.monotonic() - start < WITHIN_S / 2

    def test_a_poll_without_records_ends_in_time_and_gives_none(self, log: Log, topic: MakeTopic) -> None:
        """An empty topic is no error."""
        consumer = log.consumer({(topic(), 0): 0})
        start = time.monotonic()
        assert list(consumer.poll(10, 0.2)) == []
        assert time.monotonic() - start < 2

    def test_a_consumer_starts_where_it_is_told(self, log: Log, topic: MakeTopic) -> None:
        """Each partition at its own offset."""
        name = topic(2)
        append(log, name, *((partition, b"%d" % number) for number in range(4) for partition in (0, 1)))
        records = take(log.consumer({(name, 0): 3, (name, 1): 1}), 4)
        assert sorted((record.partition, record.offset) for record in records) == [(0, 3), (1, 1), (1, 2), (1, 3)]

    def test_a_position_that_does_not_exist_ends_the_worker(self, log: Log, topic: MakeTopic) -> None:
        """Nobody begins at the start or the end by accident."""
        consumer = log.consumer({(topic(), 0): 7})
        with pytest.raises(WorkerEnded):
            until(lambda: bool(consumer.poll(1, 0.1)))

    def test_a_partition_that_does_not_exist_ends_the_worker(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Waiting for it in silence would hide a typing error."""
        for place in ((name("nowhere"), 0), (topic(2), 2)):
            with pytest.raises(WorkerEnded, match=f"{place[0]}/{place[1]}"):
                log.consumer({place: 0}).poll(1, WITHIN_S)
            with pytest.raises(WorkerEnded):
                log.high_watermarks([place])

    def test_a_transaction_becomes_readable_at_once_in_all_its_topics(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Before the commit the records are there, but nobody reads them."""
        one, other = (topic(), 0), (topic(), 3)
        consumer = log.consumer({one: 0, other: 0})
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(one[0], b"k", b"1", one[1])
        producer.produce(other[0], b"k", b"2", other[1])
        until(lambda: set(log.high_watermarks([one, other]).values()) == {1})
        assert list(consumer.poll(10, A_MOMENT_S)) == []
        assert consumer.positions() == {one: 0, other: 0}
        producer.commit()
        assert {record.value for record in take(consumer, 2)} == {b"1", b"2"}
        producer.close()

    def test_an_aborted_transaction_is_never_readable(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """What comes behind it is."""
        at = (topic(), 0)
        producer = log.producer(name("writer"))
        write_and_abort(log, producer, at)
        producer.begin()
        producer.produce(at[0], b"k", b"kept", 0)
        producer.commit()
        assert [record.value for record in take(log.consumer({at: 0}), 1)] == [b"kept"]
        producer.close()

    def test_closing_a_producer_aborts_what_is_open(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Nobody has to wait for the transaction's timeout."""
        at = (topic(), 0)
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(at[0], b"k", b"dropped", 0)
        producer.close()
        append(log, at[0], (0, b"kept"))
        assert [record.value for record in take(log.consumer({at: 0}), 1)] == [b"kept"]

    def test_markers_take_offsets_and_count_as_read_at_the_end(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """After one record at offset 0 the end is 2, and so is the position of who read it, or had nothing to read."""
        at = (topic(), 0)
        consumer = log.consumer({at: 0})
        with transaction(log, name("writer")) as producer:
            producer.produce(at[0], b"k", b"v", 0)
        assert [record.offset for record in take(consumer, 1)] == [0]
        until(lambda: not consumer.poll(1, 0.05) and consumer.positions()[at] == 2)
        assert log.high_watermarks([at]) == {at: 2}
        producer = log.producer(name("writer"))
        write_and_abort(log, producer, at)
        until(lambda: not consumer.poll(1, 0.05) and consumer.positions()[at] == 4)
        producer.close()

    def test_the_high_watermark_lies_above_an_open_transaction_and_positions_below(
        self, log: Log, topic: MakeTopic, name: MakeName
    ) -> None:
        """A takeover needs the end of what is written; who reads committed gets only so far, and other partitions go on."""
        held, free = (topic(), 0), (topic(), 0)
        consumer = log.consumer({held: 0, free: 0})
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(held[0], b"k", b"1", 0)
        until(lambda: log.high_watermarks([held]) == {held: 1})
        append(log, held[0], (0, b"behind"))
        append(log, free[0], (0, b"free"))
        assert [record.value for record in take(consumer, 1)] == [b"free"]
        assert list(consumer.poll(10, A_MOMENT_S)) == []
        assert consumer.positions()[held] == 0
        assert log.high_watermarks([held, free]) == {held: 2, free: 1}
        assert log.starts([held, free]) == {held: 0, free: 0}
        producer.commit()
        assert [record.value for record in take(consumer, 2)] == [b"1", b"behind"]
        producer.close()

    def test_a_later_producer_fences_the_earlier_one_of_its_id(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """What the earlier one left open is aborted."""
        at, writer = (topic(), 0), name("writer")
        old = log.producer(writer)
        old.begin()
        old.produce(at[0], b"k", b"zombie", 0)
        until(lambda: log.high_watermarks([at]) == {at: 1})
        with transaction(log, writer) as new:
            new.produce(at[0], b"k", b"heir", 0)
        with pytest.raises(Fenced):
            old.commit()
        assert [record.value for record in take(log.consumer({at: 0}), 1)] == [b"heir"]
        old.close()

    def test_a_renewed_producer_goes_on_and_an_open_transaction_is_lost(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Nothing of the connection before counts any more."""
        at = (topic(), 0)
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(at[0], b"k", b"1", 0)
        producer.commit()
        producer.renew()
        producer.begin()
        producer.produce(at[0], b"k", b"lost", 0)
        producer.renew()
        assert producer.suspect is None
        producer.begin()
        producer.produce(at[0], b"k", b"2", 0)
        producer.commit()
        assert [record.value for record in take(log.consumer({at: 0}), 2)] == [b"1", b"2"]
        producer.close()

    def test_records_lie_where_the_key_says_or_where_they_are_put(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """One partitioner for transactions and single records; an explicit partition goes before it."""
        at = topic(4)
        keys = [b"order-%d" % number for number in range(40)]
        with transaction(log, name("writer")) as producer:
            for key in keys:
                producer.produce(at, key, b"transaction")
                producer.produce(at, key, b"put", 3)
        appender = log.appender()
        appended = [appender.append(at, key, b"single") for key in keys]
        assert [future.result(WITHIN_S)[0] for future in appended] == [partition_of(key, 4) for key in keys]
        appender.close()
        for record in take(log.consumer({(at, partition): 0 for partition in range(4)}), 120):
            assert record.key is not None
            assert record.partition == (3 if record.value == b"put" else partition_of(record.key, 4))

    def test_an_appender_tells_where_each_record_lies(self, log: Log, topic: MakeTopic) -> None:
        """Records of one partition come in the order of the calls."""
        at = (topic(), 1)
        appender = log.appender()
        appended = [appender.append(at[0], b"k", b"%d" % number, 1) for number in range(20)]
        assert [future.result(WITHIN_S) for future in appended] == [(1, number) for number in range(20)]
        appender.close()
        assert [record.value for record in take(log.consumer({at: 0}), 20)] == [b"%d" % number for number in range(20)]
        with pytest.raises(Unavailable):
            appender.append(at[0], b"k", b"late")

    def test_an_append_to_a_topic_that_is_not_there_fails(self, log: Log, name: MakeName) -> None:
        """The future ends in any case."""
        appender = log.appender()
        assert isinstance(appender.append(name("nowhere"), b"k", b"v").exception(WITHIN_S), BackboneError)
        appender.close()

    def test_seek_goes_back_and_forth(self, log: Log, topic: MakeTopic) -> None:
        """What was fetched before is not given out after it."""
        at = (topic(), 0)
        append(log, at[0], *((0, b"%d" % number) for number in range(100)))
        consumer = log.consumer({at: 0})
        assert [record.offset for record in take(consumer, 10)] == list(range(10))
        consumer.seek(at, 2)
        assert consumer.positions() == {at: 2}
        assert [record.offset for record in take(consumer, 3)] == [2, 3, 4]
        consumer.seek(at, 90)
        assert [record.offset for record in take(consumer, 10)] == list(range(90, 100))
        consumer.seek(at, 0)
        assert [record.offset for record in take(consumer, 100)] == list(range(100))

    def test_a_seek_right_after_the_assignment_counts(self, log: Log, topic: MakeTopic) -> None:
        """A projector seeks as soon as Redis tells it where it is."""
        at = (topic(), 0)
        append(log, at[0], *((0, b"%d" % number) for number in range(10)))
        consumer = log.consumer({at: 0})
        consumer.seek(at, 8)
        assert [record.offset for record in take(consumer, 2)] == [8, 9]

    def test_a_paused_partition_is_silent_and_goes_on_where_it_was(self, log: Log, topic: MakeTopic) -> None:
        """Nothing fetched before the pause is given out during it, nothing is lost, and others go on."""
        name = topic(2)
        paused, live = (name, 0), (name, 1)
        append(log, name, *((0, b"%d" % number) for number in range(100)))
        consumer = log.consumer({paused: 0, live: 0})
        assert [record.offset for record in take(consumer, 5)] == [0, 1, 2, 3, 4]
        consumer.pause([paused])
        append(log, name, (1, b"live"))
        assert [record.partition for record in take(consumer, 1)] == [1]
        assert list(consumer.poll(100, A_MOMENT_S)) == []
        assert consumer.positions() == {paused: 5, live: 1}
        consumer.resume([paused])
        assert [record.offset for record in take(consumer, 95)] == list(range(5, 100))

    def test_a_seek_during_a_pause_counts_after_it(self, log: Log, topic: MakeTopic) -> None:
        """A projector that was refused while it waited goes back."""
        at = (topic(), 0)
        append(log, at[0], *((0, b"%d" % number) for number in range(20)))
        consumer = log.consumer({at: 0})
        take(consumer, 10)
        consumer.pause([at])
        consumer.seek(at, 4)
        assert list(consumer.poll(100, A_MOMENT_S)) == []
        consumer.resume([at])
        assert [record.offset for record in take(consumer, 16)] == list(range(4, 20))

    def test_read_gives_what_is_committed_between_two_offsets(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Without markers, aborted records and what lies outside."""
        at = (topic(), 0)
        append(log, at[0], (0, b"0"), (0, b"1"))
        producer = log.producer(name("writer"))
        write_and_abort(log, producer, at)
        producer.begin()
        producer.produce(at[0], b"k", b"4", 0)
        producer.commit()
        until(lambda: log.high_watermarks([at]) == {at: 6})
        append(log, at[0], (0, b"6"))
        assert [record.value for record in log.read(at, 0, 7)] == [b"0", b"1", b"4", b"6"]
        assert [record.value for record in log.read(at, 1, 6)] == [b"1", b"4"]
        assert [record.value for record in log.read(at, 2, 4)] == []
        assert [record.value for record in log.read(at, 4, 4)] == []
        producer.close()

    def test_read_waits_for_an_open_transaction(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """A takeover that did not would lose the last update of the worker before."""
        at = (topic(), 0)
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(at[0], b"k", b"v", 0)
        until(lambda: log.high_watermarks([at]) == {at: 1})
        with ThreadPoolExecutor(1) as elsewhere:
            reading = elsewhere.submit(lambda: [record.value for record in log.read(at, 0, 1)])
            with pytest.raises(TimeoutError):
                reading.result(A_MOMENT_S)
            producer.commit()
            assert reading.result(WITHIN_S) == [b"v"]
        producer.close()

    def test_read_ends_when_the_transaction_of_a_dead_worker_has_timed_out(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Nobody commits or aborts it; the log does, after the transaction's timeout."""
        at = (topic(), 0)
        dead = log.producer(name("writer"))
        dead.begin()
        dead.produce(at[0], b"k", b"v", 0)
        until(lambda: log.high_watermarks([at]) == {at: 1})
        assert list(log.read(at, 0, 1)) == []
        with pytest.raises(WorkerEnded):
            dead.commit()
        dead.close()

    def test_offsets_are_committed_with_the_transaction_or_not_at_all(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """A group begins with none."""
        at, out = (topic(1), 0), topic()
        member = Member(log, name("group"), "slot-0", [at[0]])
        poll_until(lambda: at in member.held, member)
        assert member.consumer.committed([at]) == {at: None}
        producer = log.producer(name("writer"))
        for offset, end in ((5, producer.commit), (9, producer.abort)):
            producer.begin()
            producer.produce(out, b"k", b"v", 0)
            producer.send_offsets({at: offset}, member.consumer)
            end()
            assert member.consumer.committed([at]) == {at: 5}
        producer.close()
        member.consumer.close()

    def test_committed_waits_for_an_open_transaction_that_holds_offsets(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Else a takeover would decide again what is about to be committed."""
        at, out = (topic(1), 0), topic()
        member = Member(log, name("group"), "slot-0", [at[0]])
        poll_until(lambda: at in member.held, member)
        producer = log.producer(name("writer"))
        producer.begin()
        producer.produce(out, b"k", b"v", 0)
        producer.send_offsets({at: 5}, member.consumer)
        with ThreadPoolExecutor(1) as elsewhere:
            asking = elsewhere.submit(member.consumer.committed, [at])
            with pytest.raises(TimeoutError):
                asking.result(A_MOMENT_S)
            producer.commit()
            assert asking.result(WITHIN_S) == {at: 5}
        producer.close()
        member.consumer.close()

    def test_offsets_of_a_consumer_whose_place_is_taken_are_refused(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """A zombie's transaction is dropped as a whole, though its transactional id is its own."""
        at, out, group = (topic(1), 0), (topic(), 0), name("group")
        zombie = Member(log, group, "slot-0", [at[0]])
        poll_until(lambda: at in zombie.held, zombie)
        heir = Member(log, group, "slot-0", [at[0]])
        poll_until(lambda: at in heir.held, heir)
        producer = log.producer(name("zombie"))
        producer.begin()
        producer.produce(out[0], b"k", b"zombie", 0)
        with pytest.raises(WorkerEnded):
            producer.send_offsets({at: 9}, zombie.consumer)
        producer.close()
        append(log, out[0], (0, b"after"))
        assert [record.value for record in take(log.consumer({out: 0}), 1)] == [b"after"]
        assert heir.consumer.committed([at]) == {at: None}
        with pytest.raises(Fenced):
            poll_until(lambda: False, zombie)
        zombie.consumer.close()
        heir.consumer.close()

    def test_members_hold_the_same_partition_numbers_of_every_topic(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """With one member, with two, and with one again after the other's session ended."""
        topics, group = [topic(4) for _ in range(3)], name("group")
        all_places = {(each, partition) for each in topics for partition in range(4)}
        one = Member(log, group, "slot-0", topics)
        poll_until(lambda: one.held == all_places, one)
        other = Member(log, group, "slot-1", topics)

        poll_until(lambda: other.held != set() and one.held | other.held == all_places and not one.held & other.held, one, other)
        for member in (one, other):
            numbers = [{partition for at, partition in member.held if at == each} for each in topics]
            assert numbers == [numbers[0]] * 3
            assert len(numbers[0]) == 2
        other.consumer.close()
        poll_until(lambda: one.held == all_places, one)
        one.consumer.close()

    def test_a_slot_that_starts_again_has_its_place_at_once_and_nobody_else_notices(
        self, log: Log, topic: MakeTopic, name: MakeName
    ) -> None:
        """Static membership: no rebalance, no waiting for the session to end."""
        topics, group = [topic(4)], name("group")
        killed, other = Member(log, group, "slot-0", topics), Member(log, group, "slot-1", topics)

        poll_until(lambda: len(killed.held) == len(other.held) == 2, killed, other)
        assigned_before, held_before = other.assignments, killed.held
        killed.consumer.close()
        start = time.monotonic()
        heir = Member(log, group, "slot-0", topics)
        poll_until(lambda: heir.held == held_before, heir)
        assert time.monotonic() - start < SESSION_S / 2
        poll_until(lambda: time.monotonic() - start > 1, heir)
        other.step(100)
        assert other.assignments == assigned_before
        heir.consumer.close()
        other.consumer.close()

    def test_a_member_starts_where_its_callback_says(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """A pause inside the callback counts from the start."""
        at = topic(3)
        append(log, at, *((partition, b"%d" % number) for partition in range(3) for number in range(5)))
        member = Member(log, name("group"), "slot-0", [at], starts={(at, 0): 3, (at, 1): 4}, paused=[(at, 2)])
        poll_until(lambda: len(member.records) == 3, member)
        assert sorted((record.partition, record.offset) for record in member.records) == [(0, 3), (0, 4), (1, 4)]
        member.consumer.resume([(at, 2)])
        poll_until(lambda: len(member.records) == 8, member)
        member.consumer.close()

    def test_what_a_callback_raises_comes_out_of_poll(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """A takeover that fails ends the worker."""

        def assigned(_: Sequence[Place]) -> Mapping[Place, int]:
            raise WorkerEnded("cannot restore")

        consumer = log.group_consumer(name("group"), "slot-0", [topic()], assigned, lambda _: None)
        with pytest.raises(WorkerEnded, match="cannot restore"):
            until(lambda: bool(consumer.poll(1, 0.1)))
        consumer.close()

    def test_a_member_gets_only_what_it_holds_and_each_assignment_from_its_start(self, log: Log, topic: MakeTopic, name: MakeName) -> None:
        """Nothing fetched before a rebalance is given out after it."""
        at, group = topic(4), name("group")
        append(log, at, *((partition, b"%d" % number) for partition in range(4) for number in range(300)))
        members = [Member(log, group, "slot-0", [at])]
        poll_until(lambda: len(members[0].records) > 100, *members, limit=7)
        for slot in ("slot-1", "slot-2"):
            members.append(Member(log, group, slot, [at]))
            poll_until(lambda: all(member.held for member in members), *members, limit=7)
        poll_until(lambda: all(member.has_read(300) for member in members), *members, limit=7)
        for member in members:
            assert member.strays == []
            member.consumer.close()


class Member:
    """A member of a group that remembers what it got.

    Attributes:
        strays: records it got of partitions it did not hold, or not in a row from the start of the assignment.
    """

    def __init__(
        self,
        log: Log,
        group: str,
        instance: str,
        topics: Sequence[str],
        starts: Mapping[Place, int] | None = None,
        paused: Sequence[Place] = (),
    ) -> None:
        self.held: set[Place] = set()
        self.assignments = 0
        self.records: list[Record] = []
        self.strays: list[Record] = []
        self._next: dict[Place, int] = {}
        self._starts = starts or {}
        self._paused = paused
        self.consumer: Consumer = log.group_consumer(group, instance, topics, self._assigned, self._revoked)

    def step(self, limit: int) -> None:
        """Poll once."""
        records = self.consumer.poll(limit, 0.02)
        for record in records:
            place = (record.topic, record.partition)
            if self._next.get(place) != record.offset:
                self.strays.append(record)
            self._next[place] = record.offset + 1
        self.records += records

    def has_read(self, count: int) -> bool:
        """Whether it is at offset `count` in all it holds."""
        return all(self._next[place] == count for place in self.held)

    def _assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        assert not self.held, "assigned without being revoked before"
        self.held = set(places)
        self.assignments += 1
        self.consumer.pause(self._paused)
        self._next = {place: self._starts.get(place, 0) for place in places}
        return dict(self._next)

    def _revoked(self, places: Sequence[Place]) -> None:
        self.held -= set(places)
        self._next = {place: offset for place, offset in self._next.items() if place in self.held}


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Try a condition again and again, until it holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {within_s:g} s"
        time.sleep(0.001)


def poll_until(condition: Callable[[], bool], *members: Member, limit: int = 100, within_s: float = WITHIN_S) -> None:
    """Poll members in turn, until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {within_s:g} s: {[sorted(member.held) for member in members]}"
        for member in members:
            member.step(limit)


def take(consumer: Consumer, count: int) -> list[Record]:
    """The next so many records."""
    records: list[Record] = []
    deadline = time.monotonic() + WITHIN_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came within {WITHIN_S:g} s: {records}"
        records += consumer.poll(count - len(records), 0.1)
    return records


def append(log: Log, topic: str, *records: tuple[int, bytes]) -> None:
    """Append values to partitions, in this order."""
    appender = log.appender()
    for appended in [appender.append(topic, b"k", value, partition) for partition, value in records]:
        appended.result(WITHIN_S)
    appender.close()


def write_and_abort(log: Log, producer: Producer, place: Place) -> None:
    """One record that reaches the log, and its transaction's end; a client that still has it in hand would only forget it."""
    before = log.high_watermarks([place])[place]
    producer.begin()
    producer.produce(place[0], b"k", b"dropped", place[1])
    until(lambda: log.high_watermarks([place]) == {place: before + 1})
    producer.abort()
    until(lambda: log.high_watermarks([place]) == {place: before + 2})


@contextmanager
def transaction(log: Log, transactional_id: str) -> Iterator[Producer]:
    """One transaction of a producer of its own."""
    producer = log.producer(transactional_id)
    producer.begin()
    yield producer
    producer.commit()
    producer.close()

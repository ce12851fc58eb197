"""The projection folds exactly what lies in the log, whatever happens to it and to its rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from retail.payments.views.v1.risk_pb2 import CustomerHistory

from backbone import damage
from backbone.adapters.memory import MemoryLog
from backbone.adapters.memory_rows import AsyncMemoryRows, MemoryRows
from backbone.errors import DataLoss, StrangeCluster, Unavailable, Unconfirmed
from backbone.loops.project import Project
from backbone.partitioner import partition_of
from backbone.ports import Change, Fetched, Fragment
from backbone.settings import Settings
from backbone.stored import row_bytes
from backbone.v1.meta_pb2 import Meta
from backbone.v1.private_pb2 import (
    QUARANTINE_REASON_INVALID,
    QUARANTINE_REASON_RAISED,
    QUARANTINE_REASON_UNDECODABLE,
    QUARANTINE_REASON_UNKNOWN_EVENT,
)
from tests.examples import payment_authorized, payment_captured, payment_declined, payment_voided
from tests.loops.histories import PARTITIONS, WRONG, Shown, customers, shown


class TroubledRows(MemoryRows):
    """Rows that fail on demand.

    Attributes:
        down: why nothing is answered.
        before: called with each change before it is applied.
        after: raised after each change was applied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = ""
        self.before: Any = None
        self.after: Exception | None = None

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Fails if it is down."""
        if self.down:
            raise Unavailable(self.down)
        return super().fetch(wanted)

    def apply(self, fragment: Fragment, change: Change) -> int | None:
        """Fails if it is down."""
        if self.down:
            raise Unconfirmed(self.down)
        if self.before is not None:
            self.before(change)
        found = super().apply(fragment, change)
        if self.after is not None:
            error, self.after = self.after, None
            raise error
        return found


@pytest.fixture
def log() -> MemoryLog:
    """A log for this test."""
    return MemoryLog()


@pytest.fixture
def here(log: MemoryLog) -> Shown:
    """The view on that log."""

    def make(names: Sequence[str]) -> None:
        for name in names:
            log.create_topic(name, PARTITIONS)

    return shown(log, "risk", make, Settings())


@pytest.fixture
def rows() -> TroubledRows:
    """Empty rows."""
    return TroubledRows()


@pytest.fixture
def project(here: Shown, rows: TroubledRows) -> Iterator[Project]:
    """The projection of the view into the rows."""
    running = here.project(rows)
    yield running
    running.close()


def test_events_become_rows_and_the_watermark_is_the_end_of_the_topic(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Several events of one key in one batch are folded one after the other."""
    here.tell(payment_authorized("o-1", "a"), payment_authorized("o-2", "b"), payment_authorized("o-3", "a"))
    here.fold(project, rows)
    assert here.rows(rows) == {"a": CustomerHistory(customer_id="a", authorized=2), "b": CustomerHistory(customer_id="b", authorized=1)}
    assert here.watermarks(rows) == here.ends()
    assert project.ready


def test_an_old_row_is_folded_on(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Batch after batch."""
    for number in range(3):
        here.tell(payment_authorized(f"o-{number}", "a"))
        here.fold(project, rows)
    assert here.rows(rows)["a"].authorized == 3


def test_a_view_that_hears_nothing_is_as_far_as_its_topic(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Events it does not hear and the markers of transactions move the watermark."""
    here.tell(payment_captured("o-1", "a"))
    here.fold(project, rows)
    assert here.watermarks(rows) == here.ends()
    assert here.rows(rows) == {}


def test_deleting_an_entry_deletes_the_row(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Also one that was made in the same batch; deleting what is not there does nothing."""
    here.tell(payment_authorized("o-1", "a"))
    here.fold(project, rows)
    here.tell(payment_voided("o-1", "a"), payment_authorized("o-2", "b"), payment_voided("o-2", "b"), payment_voided("o-3", "c"))
    here.fold(project, rows)
    assert here.rows(rows) == {}


def test_a_deleted_row_starts_anew(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Nothing of the old one remains."""
    here.tell(*customers(1), *customers(1), payment_voided("o", "customer-0"), *customers(1))
    here.fold(project, rows)
    assert here.rows(rows)["customer-0"].authorized == 1


def test_a_function_may_look_up_when_the_record_was_appended(here: Shown, rows: MemoryRows, project: Project) -> None:
    """The only thing a view can look up."""
    here.tell(payment_declined("o-1", "a"))
    here.fold(project, rows)
    assert abs(here.rows(rows)["a"].declined - time.time()) < 60


async def test_an_index_follows_its_rows(here: Shown, rows: MemoryRows, project: Project) -> None:
    """New score, new group, deleted row."""
    fragments, reader = here.fragments(), AsyncMemoryRows(rows)
    here.tell(*(payment_authorized("o", key) for key in "aabccc"))
    here.fold(project, rows)
    assert list(await reader.newest(fragments, "by_success", "seldom", 9)) == ["a", "b"]
    assert list(await reader.newest(fragments, "by_success", "often", 9)) == ["c"]
    here.tell(payment_authorized("o", "a"), payment_authorized("o", "b"), payment_voided("o", "c"))
    here.fold(project, rows)
    assert list(await reader.newest(fragments, "by_success", "seldom", 9)) == ["b"]
    assert list(await reader.newest(fragments, "by_success", "often", 9)) == ["a"]


def test_a_projection_that_starts_again_goes_on_at_the_watermark(here: Shown, rows: MemoryRows, project: Project) -> None:
    """Nothing is counted twice, and the group's offsets have no say."""
    here.tell(*customers(4))
    here.fold(project, rows)
    project.close()
    here.tell(*customers(4))
    again = here.project(rows)
    here.fold(again, rows)
    assert [row.authorized for row in here.rows(rows).values()] == [2] * 4
    assert again.status()["folded"] == 4
    again.close()


def test_a_batch_is_no_larger_than_its_limit(here: Shown, rows: TroubledRows) -> None:
    """And what is left over comes next."""
    sizes: list[int] = []
    rows.before = lambda change: sizes.append(len(change.rows))
    project = here.project(rows, batch=3)
    here.tell(*customers(20))
    here.fold(project, rows)
    assert max(sizes) <= 3
    assert len(here.rows(rows)) == 20
    project.close()


def test_a_fold_that_raises_damages_its_row_and_no_other(here: Shown, rows: MemoryRows, project: Project) -> None:
    """The row says so for ever, in this version; the record lies in quarantine with the traceback."""
    here.tell(payment_authorized("o-1", "a"), payment_authorized("o-2", WRONG), payment_authorized("o-3", "b"))
    here.fold(project, rows)
    here.tell(payment_declined("o-4", WRONG), payment_authorized("o-5", "a"))
    here.fold(project, rows)
    stored = here.stored(rows)
    with pytest.raises(DataLoss, match=r"'customer-wrong'.*ArithmeticError: no sum of these"):
        damage.row_of(CustomerHistory, here.view.name, WRONG, stored[WRONG])
    assert CustomerHistory.FromString(row_bytes(stored["a"])).authorized == 2
    assert CustomerHistory.FromString(row_bytes(stored["b"])).authorized == 1
    (aside,) = here.set_aside()
    assert (aside.reason, aside.aggregate, aside.topic) == (QUARANTINE_REASON_RAISED, WRONG, here.topic)
    assert "no sum of these" in aside.traceback
    assert project.status()["damaged"] == 1


def test_a_damage_in_the_middle_of_a_batch_is_the_same_when_folded_in_another_batch(here: Shown, rows: MemoryRows) -> None:
    """Live and in a rebuild alike."""
    here.tell(payment_declined("o-0", WRONG), payment_authorized("o-1", WRONG), payment_declined("o-2", WRONG), *customers(5))
    small, large = here.project(rows, batch=1), MemoryRows()
    here.fold(small, rows)
    small.close()
    assert here.stored(rows) == here.afresh(large)


def test_a_function_that_reaches_for_another_row_damages_its_own(log: MemoryLog, here: Shown, rows: MemoryRows) -> None:
    """One row is fed by one partition; the error names both keys."""

    def steal(table: Any, _: object) -> None:
        table["somebody-else"].authorized += 1

    def rename(table: Any, _: object) -> None:
        table["a"].customer_id = "somebody-else"

    for function in (steal, rename):
        reaction = here.view.reactions[0]
        line = type(reaction.line)(reaction.line.hears, function)
        view = replace(here.view, name=f"{here.view.name}-{function.__name__}", reactions=(replace(reaction, line=line),))
        other = replace(here, view=view)
        other.tell(payment_authorized("o-1", "a"))
        project = other.project(rows)
        other.fold(project, rows)
        with pytest.raises(DataLoss, match=r"NotItsKey: .*'(a|somebody-else)'.*'(a|somebody-else)'"):
            other.rows(rows)
        project.close()


GOOD = payment_authorized("o-1", "a")
BAD = {
    "garbage": (b"a", b"\xff\xfe not protobuf", QUARANTINE_REASON_UNDECODABLE),
    "nothing": (b"a", b"", QUARANTINE_REASON_UNDECODABLE),
    "a null key": (None, b"x", QUARANTINE_REASON_UNDECODABLE),
    "a null value": (b"a", None, QUARANTINE_REASON_UNDECODABLE),
    "a key that is no text": (b"\xff\xff", b"\x1a\x00\x7a\x03\x0a\x01x", QUARANTINE_REASON_UNDECODABLE),
    "an event of another key": (b"somebody-else", None, QUARANTINE_REASON_UNDECODABLE),
    "an event cut short": (b"a", None, QUARANTINE_REASON_UNDECODABLE),
    "an event without an identity": (b"a", None, QUARANTINE_REASON_UNDECODABLE),
    "an event nobody knows": (b"a", b"\xf2\x01\x00" + b"\x7a\x03\x0a\x01x", QUARANTINE_REASON_UNKNOWN_EVENT),
    "an event that breaks its rules": (b"", None, QUARANTINE_REASON_INVALID),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_record_that_is_no_event_lies_in_quarantine_and_the_next_one_is_folded(
    kind: str, here: Shown, rows: MemoryRows, project: Project
) -> None:
    """With its coordinates and the very bytes that were written."""
    key, value, reason = BAD[kind]
    made = {
        "an event of another key": here.value(GOOD),
        "an event cut short": here.value(GOOD)[:-5],
        "an event without an identity": here.value(GOOD)[: 2 + GOOD.ByteSize()] + b"\x7a" + bytes([len(_NAMELESS)]) + _NAMELESS,
        "an event that breaks its rules": here.value(payment_authorized("o-1", "")),
    }
    value = made.get(kind, value)
    good = here.value(GOOD)
    here.append([(b"a", good, 0), (key, value, 0), (b"a", good, 0)])
    here.fold(project, rows)
    (aside,) = here.set_aside()
    assert (aside.topic, aside.partition, aside.offset, aside.reason) == (here.topic, 0, 1, reason)
    assert (aside.key if aside.HasField("key") else None) == key
    assert (aside.value if aside.HasField("value") else None) == value
    assert aside.detail
    assert aside.service == here.service.name
    stored = rows.fetch([(here.fragments()[0], ["a"])])[0].rows[0]
    assert CustomerHistory.FromString(row_bytes(stored or b"")).authorized == 2
    assert here.watermarks(rows) == here.ends()


_NAMELESS = Meta(writer="x").SerializeToString()


def test_the_watermark_waits_for_the_quarantine(here: Shown, rows: MemoryRows, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not acknowledged is not passed; then it is, once."""
    refused: Future[tuple[int, int]] = Future()
    refused.set_exception(Unconfirmed("no acknowledgement"))
    working = here.log.appender()
    answers = [refused]

    class Appender:
        def append(self, topic: str, key: bytes, value: bytes, partition: int = -1) -> Future[tuple[int, int]]:
            return answers.pop() if answers else working.append(topic, key, value, partition)

        def close(self) -> None:
            working.close()

    monkeypatch.setattr(here.log, "appender", Appender)
    project = here.project(rows)
    here.append([(b"a", b"garbage", 0)])
    here.step_until(project, lambda: project.status()["waiting"] is not None, "waiting")
    assert project.status()["waiting"]["reason"] == "no acknowledgement"
    assert here.watermarks(rows) == dict.fromkeys(here.places, 0)
    here.fold(project, rows)
    assert len(here.set_aside()) == 1
    rows.flush()
    here.fold(project, rows)
    assert len(here.set_aside()) == 1, "this worker knows that it lies there"
    assert project.status()["waiting"] is None
    project.close()


def test_rows_that_vanish_are_folded_again(here: Shown, rows: MemoryRows, project: Project) -> None:
    """In the middle of the traffic, and while nothing comes."""
    for number in range(10):
        here.tell(*customers(10))
        if number in (3, 6):
            rows.flush()
        project.step(0.05)
    here.fold(project, rows)
    assert [row.authorized for row in here.rows(rows).values()] == [10] * 10
    rows.flush()
    here.fold(project, rows)
    assert here.stored(rows) == here.afresh(MemoryRows())


def test_rows_that_went_back_are_folded_on_from_there(here: Shown, rows: MemoryRows, project: Project) -> None:
    """As after a restart of Redis from an older file."""
    here.tell(*customers(10))
    here.fold(project, rows)
    older = here.stored(rows)
    marks = here.watermarks(rows)
    here.tell(*customers(10))
    here.fold(project, rows)
    rows.flush()
    for fragment, mark in zip(here.fragments(), marks.values(), strict=True):
        own: dict[str, bytes | None] = {
            key: raw for key, raw in older.items() if partition_of(key.encode(), PARTITIONS) == fragment.partition
        }
        assert rows.apply(fragment, Change(0, mark, own)) is None
    here.fold(project, rows)
    assert here.stored(rows) == here.afresh(MemoryRows())


def test_a_zombie_changes_nothing(here: Shown, rows: TroubledRows) -> None:
    """Another projector got further between its reading and its writing: its write is refused and it goes where the rows are."""
    zombie = here.project(rows, batch=3)
    here.tell(*customers(10))
    left: list[tuple[Any, Any]] = []

    def overtake(_: Change) -> None:
        rows.before = None
        apart: Any = _Apart(here.log)
        successor = Project(here.service, here.view, apart, rows, here.settings)
        here.fold(successor, rows)
        successor.close()
        left.append((here.stored(rows), here.watermarks(rows)))

    rows.before = overtake
    here.step_until(zombie, lambda: bool(left), "overtaken")
    assert (here.stored(rows), here.watermarks(rows)) == left[0]
    assert any(zombie.status()["positions"].values()), "it goes where its refused write found the rows"
    here.tell(*customers(10))
    here.fold(zombie, rows)
    assert [row.authorized for row in here.rows(rows).values()] == [2] * 10
    assert zombie.status()["folded"] == 10
    zombie.close()


class _Apart:
    """The same log seen by somebody who is not in the group."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def group_consumer(self, group: str, *rest: Any) -> Any:
        return self._log.group_consumer(f"{group}-apart", *rest)


def test_a_write_that_succeeded_without_an_answer_is_not_repeated(here: Shown, rows: TroubledRows, project: Project) -> None:
    """The watermark tells."""
    here.tell(*customers(10))
    rows.after = Unconfirmed("the connection broke")
    here.fold(project, rows)
    assert rows.after is None
    assert [row.authorized for row in here.rows(rows).values()] == [1] * 10


def test_while_redis_is_down_it_polls_on_and_says_why_it_waits(here: Shown, rows: TroubledRows, project: Project) -> None:
    """Then it goes on, and nothing is lost or counted twice."""
    here.tell(*customers(10))
    here.fold(project, rows)
    rows.down = "Redis does not answer"
    here.tell(*customers(10))
    here.step_until(project, lambda: (project.status()["waiting"] or {}).get("age_s", 0) > 0.5, "waiting")
    assert project.status()["waiting"]["reason"] == "Redis does not answer"
    assert not project.ready
    rows.down = ""
    here.fold(project, rows)
    project.step(0)
    assert project.status()["waiting"] is None
    assert project.ready
    assert [row.authorized for row in here.rows(rows).values()] == [2] * 10


def test_it_may_start_while_redis_is_down(here: Shown, rows: TroubledRows, project: Project) -> None:
    """Where it has to start it learns when Redis is back."""
    here.tell(*customers(10))
    rows.down = "Redis does not answer"
    here.step_until(project, lambda: project.status()["waiting"] is not None, "waiting")
    for _ in range(5):
        project.step(0)
    rows.down = ""
    here.fold(project, rows)
    assert [row.authorized for row in here.rows(rows).values()] == [1] * 10


def test_rows_of_another_log_are_refused(here: Shown, rows: MemoryRows, project: Project) -> None:
    """A watermark beyond the end of the topic is no watermark of this log; the error says what to do."""
    rows.apply(here.fragments()[1], Change(0, 1000))
    with pytest.raises(StrangeCluster, match=r"up to 1000.*flush this Redis"):
        here.step_until(project, lambda: False, "refused")


def test_two_workers_share_the_partitions(here: Shown, rows: MemoryRows, project: Project) -> None:
    """And take over from each other."""
    second = here.project(rows, slot=1)
    here.tell(*customers(20))
    here.step_until(_Both(project, second), lambda: here.watermarks(rows) == here.ends(), "folded")
    assert len(project.status()["positions"]) == len(second.status()["positions"]) == 1
    assert [row.authorized for row in here.rows(rows).values()] == [1] * 20
    second.close()


class _Both(Project):
    """Two projections stepped in turn, each on its thread as in two processes."""

    def __init__(self, *projects: Project) -> None:
        self.projects = projects

    def step(self, timeout_s: float) -> bool:
        """Step all."""
        with ThreadPoolExecutor() as pool:
            return any(list(pool.map(lambda project: project.step(timeout_s), self.projects)))

    def status(self) -> dict[str, Any]:
        """Of all."""
        return {"all": [project.status() for project in self.projects]}

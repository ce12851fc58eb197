"""What everything that stands behind `Rows` and `AsyncRows` must do.

A test class inherits `RowsConformance` and offers, as fixtures:
    rows: a `Rows`.
    async_rows: an `AsyncRows` over the same place.
    fragment: a function that gives a `Fragment` of a partition (0 if not given), of a view that nobody else uses.
    lose: a function that lets a fragment vanish, as a flush does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from backbone.ports import AsyncRows, Change, Fetched, Fragment, Rows

FragmentOf = Callable[..., Fragment]
Lose = Callable[[Fragment], None]


class RowsConformance:
    """The suite."""

    def test_an_empty_fragment_has_no_watermark_and_no_rows(self, rows: Rows, fragment: FragmentOf) -> None:
        """Nothing there is not the same as a watermark of 0."""
        assert _one(rows, fragment(), "a", "b") == Fetched(None, [None, None])

    def test_a_change_writes_rows_and_watermark(self, rows: Rows, fragment: FragmentOf) -> None:
        """Rows come back in the order asked for, as the bytes that were written."""
        at = fragment()
        assert rows.apply(at, Change(0, 7, {"a": b"\x00\xff", "b": b""})) is None
        assert _one(rows, at, "b", "missing", "a") == Fetched(7, [b"", None, b"\x00\xff"])

    def test_a_change_from_another_watermark_changes_nothing_and_tells_which_it_found(self, rows: Rows, fragment: FragmentOf) -> None:
        """A zombie neither writes, nor deletes, nor moves the watermark; what lies ahead is refused as well."""
        at = fragment()
        rows.apply(at, Change(0, 7, {"a": b"1"}))
        assert rows.apply(at, Change(0, 9, {"a": None, "b": b"2"})) == 7
        assert rows.apply(at, Change(8, 9, {"a": b"3"})) == 7
        assert _one(rows, at, "a", "b") == Fetched(7, [b"1", None])

    def test_a_change_that_builds_on_lost_rows_finds_0(self, rows: Rows, fragment: FragmentOf, lose: Lose) -> None:
        """After a flush the projection learns that it has to begin again, and can."""
        at = fragment()
        rows.apply(at, Change(0, 7, {"a": b"1"}))
        lose(at)
        assert rows.apply(at, Change(7, 9, {"b": b"2"})) == 0
        assert _one(rows, at, "a", "b") == Fetched(None, [None, None])
        assert rows.apply(at, Change(0, 9, {"a": b"1", "b": b"2"})) is None

    def test_a_change_without_rows_moves_the_watermark(self, rows: Rows, fragment: FragmentOf) -> None:
        """A view that hears nothing of a batch is as far as the batch."""
        at = fragment()
        assert rows.apply(at, Change(0, 3)) is None
        assert rows.apply(at, Change(3, 3)) is None
        assert _one(rows, at) == Fetched(3, [])

    def test_no_row_deletes_a_row_and_deleting_what_is_not_there_is_no_error(self, rows: Rows, fragment: FragmentOf) -> None:
        """Deletions may be repeated."""
        at = fragment()
        rows.apply(at, Change(0, 1, {"a": b"1"}))
        assert rows.apply(at, Change(1, 2, {"a": None, "b": None})) is None
        assert _one(rows, at, "a", "b") == Fetched(2, [None, None])

    def test_fragments_do_not_see_each_other(self, rows: Rows, fragment: FragmentOf) -> None:
        """Partitions, versions and views lie apart; one round trip reads many of them."""
        first, second = fragment(0), fragment(1)
        newer = Fragment(first.view, first.version + 1, 0)
        rows.apply(first, Change(0, 1, {"a": b"1"}))
        rows.apply(second, Change(0, 2, {"a": b"2"}))
        found = rows.fetch([(newer, ["a"]), (second, ["a"]), (first, ["a"]), (second, [])])
        assert list(found) == [Fetched(None, [None]), Fetched(2, [b"2"]), Fetched(1, [b"1"]), Fetched(2, [])]

    def test_nothing_asked_is_nothing_answered(self, rows: Rows) -> None:
        """An empty question is no error."""
        assert list(rows.fetch([])) == []

    def test_keys_may_be_any_text(self, rows: Rows, fragment: FragmentOf) -> None:
        """Keys come from customers."""
        keys = ["", " ", "{a}:rows", "ключ", "a\x00b", "*", "x" * 1000]
        at = fragment()
        rows.apply(at, Change(0, 1, {key: key.encode() for key in keys}))
        assert _one(rows, at, *keys) == Fetched(1, [key.encode() for key in keys])

    def test_a_change_may_be_large(self, rows: Rows, fragment: FragmentOf) -> None:
        """Ten times what one batch holds."""
        at = fragment()
        keys = [f"key-{number}" for number in range(5000)]
        assert rows.apply(at, Change(0, 1, dict.fromkeys(keys, b"row"), {("i", "g", key): 1.0 for key in keys})) is None
        assert _one(rows, at, *keys) == Fetched(1, [b"row"] * 5000)
        assert rows.apply(at, Change(1, 2, dict.fromkeys(keys), {("i", "g", key): None for key in keys})) is None
        assert _one(rows, at, *keys) == Fetched(2, [None] * 5000)

    def test_a_change_that_cannot_be_is_refused_before_anything_is_written(self, rows: Rows, fragment: FragmentOf) -> None:
        """A watermark does not go back, and a score is a number."""
        at = fragment()
        for change in (Change(2, 1), Change(-1, 1), Change(0, 1, {"a": b"1"}, {("i", "g", "a"): float("nan")})):
            try:
                rows.apply(at, change)
            except ValueError:
                continue
            raise AssertionError(f"{change} was taken")
        assert _one(rows, at, "a") == Fetched(None, [None])

    def test_of_two_that_write_at_once_one_wins(self, rows: Rows, fragment: FragmentOf) -> None:
        """However many there are, each step is made once, and its rows are of one writer."""
        at = fragment()
        with ThreadPoolExecutor(4) as pool:
            for step in range(25):
                futures = [pool.submit(rows.apply, at, Change(step, step + 1, {"who": b"%d" % n})) for n in range(4)]
                answers = [future.result(10) for future in futures]
                winner = answers.index(None)
                assert sorted(answers, key=str) == sorted([None, *[step + 1] * 3], key=str)
                assert _one(rows, at, "who") == Fetched(step + 1, [b"%d" % winner])

    async def test_readers_see_what_was_written(self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf) -> None:
        """Both ports look at one place."""
        first, second = fragment(0), fragment(1)
        rows.apply(first, Change(0, 4, {"a": b"1"}))
        found = await async_rows.fetch([(first, ["a", "b"]), (second, ["a"])])
        assert list(found) == [Fetched(4, [b"1", None]), Fetched(None, [None])]
        assert list(await async_rows.fetch([])) == []

    async def test_rows_and_watermark_are_read_as_they_were_written(self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf) -> None:
        """A reader never sees rows of one batch with the watermark of another."""
        at = fragment()
        keys = [f"key-{number}" for number in range(50)]

        def write() -> None:
            for step in range(100):
                assert rows.apply(at, Change(step, step + 1, dict.fromkeys(keys, b"%d" % (step + 1)))) is None

        writing = asyncio.create_task(asyncio.to_thread(write))
        while not writing.done():
            found = (await async_rows.fetch([(at, keys)]))[0]
            expected = None if found.watermark is None else b"%d" % found.watermark
            assert set(found.rows) == {expected}
            await asyncio.sleep(0)  # rows in memory never give way
        await writing

    async def test_an_index_gives_the_highest_scores_first_over_all_fragments(
        self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf
    ) -> None:
        """Fragments are merged; equal scores are ordered by key, highest first."""
        first, second = fragment(0), fragment(1)
        rows.apply(first, Change(0, 1, {}, {("age", "g", "a"): 1.0, ("age", "g", "c"): 3.5, ("age", "g", "d"): 2.0}))
        rows.apply(second, Change(0, 1, {}, {("age", "g", "b"): 2.0, ("age", "h", "x"): 9.0, ("size", "g", "y"): 9.0}))
        assert list(await async_rows.newest([first, second], "age", "g", 10)) == ["c", "d", "b", "a"]
        assert list(await async_rows.newest([first, second], "age", "g", 2)) == ["c", "d"]
        assert list(await async_rows.newest([second], "age", "g", 10)) == ["b"]
        assert list(await async_rows.newest([first, second], "age", "nobody", 10)) == []
        assert list(await async_rows.newest([first, second], "age", "g", 0)) == []
        assert list(await async_rows.newest([], "age", "g", 10)) == []

    async def test_an_index_entry_can_be_moved_and_taken_out(self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf) -> None:
        """A new score replaces the old; taking out what is not there is no error."""
        at = fragment()
        rows.apply(at, Change(0, 1, {}, {("age", "g", "a"): 1.0, ("age", "g", "b"): 2.0}))
        rows.apply(at, Change(1, 2, {}, {("age", "g", "a"): 3.0, ("age", "g", "b"): None, ("age", "g", "z"): None}))
        assert list(await async_rows.newest([at], "age", "g", 10)) == ["a"]

    async def test_no_two_pairs_of_index_and_group_are_one(self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf) -> None:
        """Groups come from customers too, whatever they contain."""
        pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b"), ("a:1", "b"), ("a", "1:b"), ("a", ""), ("a", "é")]
        at = fragment()
        rows.apply(at, Change(0, 1, {}, {(index, group, f"{index}|{group}"): 1.0 for index, group in pairs}))
        for index, group in pairs:
            assert list(await async_rows.newest([at], index, group, 10)) == [f"{index}|{group}"]

    async def test_a_refused_change_leaves_the_index_alone(self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf) -> None:
        """Rows, index entries and watermark are one step."""
        at = fragment()
        rows.apply(at, Change(0, 5, {}, {("age", "g", "a"): 1.0}))
        assert rows.apply(at, Change(0, 6, {}, {("age", "g", "a"): None, ("age", "g", "b"): 1.0})) == 5
        assert list(await async_rows.newest([at], "age", "g", 10)) == ["a"]

    async def test_what_a_fragment_comes_after_is_remembered_with_its_rows(
        self, rows: Rows, async_rows: AsyncRows, fragment: FragmentOf, lose: Lose
    ) -> None:
        """Topics come together over changes and fragments; a refused change adds none; what is lost is lost with the rows."""
        first, second = fragment(0), fragment(1)
        assert await async_rows.upstream([first, second]) == set()
        assert await async_rows.upstream([]) == set()
        rows.apply(first, Change(0, 5, upstream={"a", "b"}))
        assert rows.apply(first, Change(0, 6, upstream={"c"})) == 5
        rows.apply(first, Change(5, 6, {"x": b"1"}, upstream={"b", "d"}))
        rows.apply(second, Change(0, 1, upstream={"e"}))
        assert await async_rows.upstream([first]) == {"a", "b", "d"}
        assert await async_rows.upstream([first, second]) == {"a", "b", "d", "e"}
        lose(first)
        assert await async_rows.upstream([first]) == set()


def _one(rows: Rows, fragment: Fragment, *keys: str) -> Fetched:
    found = rows.fetch([(fragment, list(keys))])[0]
    return Fetched(found.watermark, list(found.rows))

"""Rows in memory and in Redis do the same, and Redis does it when it misbehaves, too."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from backbone.adapters.memory_rows import AsyncMemoryRows, MemoryRows
from backbone.adapters.redis import AsyncRedisRows, RedisRows
from backbone.errors import Unavailable, Unconfirmed
from backbone.local.valkey import Valkey
from backbone.ports import Change, Fetched, Fragment
from backbone.testing.conformance.rows import FragmentOf, Lose, RowsConformance


@pytest.fixture
def fragment(unique: Callable[[str], str]) -> FragmentOf:
    """Fragments of a view of this test."""
    view = unique("context.service.row")
    return lambda partition=0: Fragment(view, 1, partition)


class TestMemory(RowsConformance):
    """Rows in memory."""

    @pytest.fixture
    def rows(self) -> MemoryRows:
        """Empty."""
        return MemoryRows()

    @pytest.fixture
    def async_rows(self, rows: MemoryRows) -> AsyncMemoryRows:
        """The same."""
        return AsyncMemoryRows(rows)

    @pytest.fixture
    def lose(self, rows: MemoryRows) -> Lose:
        """Flush; the test has it for itself."""
        return lambda _: rows.flush()


@pytest.mark.integration
class TestRedis(RowsConformance):
    """Rows in a real server."""

    @pytest.fixture
    def rows(self, redis_url: str) -> Iterator[RedisRows]:
        """As a projection has them."""
        found = RedisRows(redis_url)
        yield found
        found.close()

    @pytest.fixture
    async def async_rows(self, redis_url: str) -> AsyncIterator[AsyncRedisRows]:
        """As a server has them."""
        found = AsyncRedisRows(redis_url)
        yield found
        await found.close()

    @pytest.fixture
    def lose(self, redis_url: str) -> Lose:
        """Delete the fragment's keys: others use the server too."""
        redis = Redis.from_url(redis_url)

        def gone(fragment: Fragment) -> None:
            tag = f"{{{fragment.view}.v{fragment.version}.{fragment.partition}}}"
            redis.delete(*redis.scan_iter(match=f"{tag}:*"))

        return gone


@pytest.mark.integration
def test_redis_and_memory_agree_on_any_sequence_of_changes(redis_url: str, fragment: FragmentOf) -> None:
    """Two implementations are each other's opponents."""
    rng = random.Random(20)
    real, memory, at = RedisRows(redis_url), MemoryRows(), fragment()
    keys, groups = list("abcdef"), list("gh")
    for _ in range(300):
        since = rng.choice([memory.fetch([(at, [])])[0].watermark or 0, rng.randrange(300)])
        change = Change(since, since + rng.randrange(3))
        change.rows.update({rng.choice(keys): rng.choice([None, rng.randbytes(4)]) for _ in range(3)})
        change.indexed.update({("i", rng.choice(groups), rng.choice(keys)): rng.choice([None, rng.random()]) for _ in range(3)})
        assert real.apply(at, change) == memory.apply(at, change)
        expected, found = memory.fetch([(at, keys)])[0], real.fetch([(at, keys)])[0]
        assert (found.watermark, list(found.rows)) == (expected.watermark, list(expected.rows))
    real.close()


@pytest.mark.integration
def test_a_server_that_has_forgotten_its_scripts_is_told_them_again(valkey: Valkey, fragment: FragmentOf) -> None:
    """As after a restart."""
    rows, at = RedisRows(valkey.url), fragment()
    rows.apply(at, Change(0, 1, {"a": b"1"}))
    Redis.from_url(valkey.url).script_flush()
    assert rows.fetch([(at, ["a"])])[0] == Fetched(1, [b"1"])
    Redis.from_url(valkey.url).script_flush()
    assert rows.apply(at, Change(1, 2, {"a": b"2"})) is None
    rows.close()


@pytest.mark.integration
def test_a_key_of_another_kind_stops_a_change_before_its_first_write(valkey: Valkey, fragment: FragmentOf) -> None:
    """A script has no rollback."""
    rows, at = RedisRows(valkey.url), fragment()
    tag = f"{{{at.view}.v1.0}}"
    Redis.from_url(valkey.url).set(f"{tag}:index:i:1:g", "a text")
    with pytest.raises(Unconfirmed, match="not a zset"):
        rows.apply(at, Change(0, 1, {"a": b"1"}, {("i", "g", "a"): 1.0}))
    assert rows.fetch([(at, ["a"])])[0] == Fetched(None, [None])
    rows.close()


@pytest.mark.integration
async def test_a_server_that_ends_and_comes_back_is_unavailable_in_between(tmp_path: Path, fragment: FragmentOf) -> None:
    """All three calls say so within their time, name the server, and work again afterwards, on what was kept."""
    server, at = Valkey(tmp_path), fragment()
    with server:
        rows, async_rows = RedisRows(server.url), AsyncRedisRows(server.url)
        rows.apply(at, Change(0, 1, {"a": b"1"}, {("i", "g", "a"): 1.0}))
        await async_rows.newest([at], "i", "g", 1)
        server.stop()
        began = time.monotonic()
        with pytest.raises(Unavailable, match=str(server.port)):
            rows.fetch([(at, ["a"])])
        with pytest.raises(Unconfirmed, match=str(server.port)):
            rows.apply(at, Change(1, 2))
        with pytest.raises(Unavailable, match=str(server.port)):
            await async_rows.fetch([(at, ["a"])])
        with pytest.raises(Unavailable, match=str(server.port)):
            await async_rows.newest([at], "i", "g", 1)
        assert time.monotonic() - began < 10
        server.start()
        assert rows.fetch([(at, ["a"])])[0] == Fetched(1, [b"1"])
        assert list(await async_rows.newest([at], "i", "g", 1)) == ["a"]
        rows.close()
        await async_rows.close()


def test_errors_do_not_tell_the_password() -> None:
    """An address may hold one."""
    rows = RedisRows("redis://:secret@127.0.0.1:1/0")
    with pytest.raises(Unavailable) as raised:
        rows.fetch([(Fragment("view", 1, 0), ["a"])])
    assert "secret" not in str(raised.value)
    assert "127.0.0.1:1" in str(raised.value)

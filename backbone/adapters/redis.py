"""Rows in Redis: per fragment a hash of rows, beside it the watermark and one sorted set per group of an index.

{<view>.v<version>.<partition>}:watermark                        next offset of the topic the view folds
{<view>.v<version>.<partition>}:rows                             row key -> what it comes after, and the serialised row (backbone/stored.py)
{<view>.v<version>.<partition>}:upstream                         topics that anything folded came after
{<view>.v<version>.<partition>}:index:<index>:<length>:<group>   row key by score

All keys of a fragment share a hash tag, so that one script may touch them all, in a cluster too. Every operation may be repeated: a
read changes nothing, a write is fenced by the watermark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import Any, cast

from redis import Redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from backbone.errors import Unavailable, Unconfirmed
from backbone.ports import Change, Fetched, Fragment

ANSWER_S = 2.0
CONNECT_S = 1.0
CONNECTIONS = 32
"""Connections of one process at most: each is busy for well under a millisecond a read, and a burst of readers queues for them."""
# One more attempt, at once: a connection that Redis closed while it was idle is not an outage.
ATTEMPTS_MORE = 1

# Redis hands a script's whole argument list to a command through Lua's stack, which ends at 8000 values.
_CHUNK = 1000

_FETCH = f"""
local rows = {{}}
for first = 1, #ARGV, {_CHUNK} do
  local found = redis.call('HMGET', KEYS[2], unpack(ARGV, first, math.min(first + {_CHUNK} - 1, #ARGV)))
  for i = 1, #found do rows[first + i - 1] = found[i] end
end
return {{redis.call('GET', KEYS[1]), rows}}
"""

# A script has no rollback: all that could fail is looked at before the first write.
_APPLY = f"""
local found = redis.call('GET', KEYS[1])
if (found or '0') ~= ARGV[1] then return found or '0' end
local function holds(key, kind)
  local held = redis.call('TYPE', key).ok
  if held ~= 'none' and held ~= kind then error(key .. ' is a ' .. held .. ', not a ' .. kind) end
end
holds(KEYS[2], 'hash')
holds(KEYS[3], 'set')
for i = 4, #KEYS do holds(KEYS[i], 'zset') end
local at = 4
local function each(count, write)
  for first = at, at + count - 1, {_CHUNK} do
    write(unpack(ARGV, first, math.min(first + {_CHUNK} - 1, at + count - 1)))
  end
  at = at + count
end
local sets, deletes, topics = string.match(ARGV[3], '(%d+) (%d+) (%d+)')
each(tonumber(sets), function(...) redis.call('HSET', KEYS[2], ...) end)
each(tonumber(deletes), function(...) redis.call('HDEL', KEYS[2], ...) end)
each(tonumber(topics), function(...) redis.call('SADD', KEYS[3], ...) end)
for i = 4, #KEYS do
  local scored, gone = string.match(ARGV[at], '(%d+) (%d+)')
  at = at + 1
  each(tonumber(scored), function(...) redis.call('ZADD', KEYS[i], ...) end)
  each(tonumber(gone), function(...) redis.call('ZREM', KEYS[i], ...) end)
end
redis.call('SET', KEYS[1], ARGV[2])
return false
"""


def _tag(fragment: Fragment) -> str:
    return f"{{{fragment.view}.v{fragment.version}.{fragment.partition}}}"


def _keys(fragment: Fragment) -> list[str]:
    tag = _tag(fragment)
    return [f"{tag}:watermark", f"{tag}:rows"]


def _upstream_key(fragment: Fragment) -> str:
    return f"{_tag(fragment)}:upstream"


def _index_key(fragment: Fragment, index: str, group: str) -> str:
    """The group is written behind its length, so that no two pairs of index and group give one key."""
    return f"{_tag(fragment)}:index:{index}:{len(group.encode())}:{group}"


def _fetched(answer: Any) -> Fetched:
    watermark, rows = answer
    return Fetched(None if watermark is None else int(watermark), rows)


def _apply_arguments(fragment: Fragment, change: Change) -> tuple[list[str], list[str | bytes]]:
    """Keys and arguments of the script.

    Raises:
        ValueError: the change is none.
    """
    if not 0 <= change.since <= change.until:
        raise ValueError(f"a change of {fragment} from {change.since} to {change.until}: a watermark does not go back")
    kept = [part for key, row in change.rows.items() if row is not None for part in (key, row)]
    deleted = [key for key, row in change.rows.items() if row is None]
    topics = sorted(change.upstream)
    counts = f"{len(kept)} {len(deleted)} {len(topics)}"
    arguments: list[str | bytes] = [str(change.since), str(change.until), counts, *kept, *deleted, *topics]
    groups: dict[tuple[str, str], dict[str, float | None]] = {}
    for (index, group, key), score in change.indexed.items():
        if score is not None and math.isnan(score):
            raise ValueError(f"index {index} of {fragment.view}: the score of {key!r} is not a number")
        groups.setdefault((index, group), {})[key] = score
    for entries in groups.values():
        scored = [part for key, score in entries.items() if score is not None for part in (repr(float(score)), key)]
        gone = [key for key, score in entries.items() if score is None]
        arguments += [f"{len(scored)} {len(gone)}", *scored, *gone]
    return [*_keys(fragment), _upstream_key(fragment), *(_index_key(fragment, index, group) for index, group in groups)], arguments


class RedisRows:
    """The rows of a context's views, written and read in one thread.

    Args:
        url: redis:// address.
    """

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), ATTEMPTS_MORE),
        )
        self._where = _without_secret(self._redis.connection_pool.connection_kwargs)
        self._fetch_sha = str(self._redis.register_script(_FETCH).sha)
        self._apply_sha = str(self._redis.register_script(_APPLY).sha)

    def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark, all in one round trip.

        Raises:
            Unavailable: Redis does not answer within its time.
        """
        if not wanted:
            return []
        try:
            try:
                return self._fetch(wanted, known=True)
            except NoScriptError:
                return self._fetch(wanted, known=False)
        except RedisError as error:
            raise Unavailable(f"Redis at {self._where} does not give rows: {error}") from error

    def _fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]], *, known: bool) -> list[Fetched]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for fragment, keys in wanted:
                if known:
                    pipeline.evalsha(self._fetch_sha, 2, *_keys(fragment), *keys)
                else:
                    pipeline.eval(_FETCH, 2, *_keys(fragment), *keys)
            return [_fetched(answer) for answer in pipeline.execute()]

    def apply(self, fragment: Fragment, change: Change) -> int | None:
        """Write a change if the watermark is `change.since`.

        Returns:
            None if written, else the watermark found (0 on an empty fragment), and nothing was written.

        Raises:
            Unconfirmed: Redis does not answer within its time; a repetition is harmless.
        """
        keys, arguments = _apply_arguments(fragment, change)
        try:
            try:
                found = self._redis.evalsha(self._apply_sha, len(keys), *keys, *cast("list[str]", arguments))
            except NoScriptError:
                found = self._redis.eval(_APPLY, len(keys), *keys, *cast("list[str]", arguments))
        except RedisError as error:
            raise Unconfirmed(f"Redis at {self._where} does not confirm rows: {error}") from error
        return None if found is None else int(cast("bytes", found))

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()


class AsyncRedisRows:
    """The same rows for those who answer questions.

    Args:
        url: redis:// address.
    """

    def __init__(self, url: str) -> None:
        self._redis = AsyncRedis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=CONNECT_S,
                retry=AsyncRetry(NoBackoff(), ATTEMPTS_MORE),
            )
        )
        self._where = _without_secret(self._redis.connection_pool.connection_kwargs)
        self._fetch_sha = str(self._redis.register_script(_FETCH).sha)

    async def fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]]) -> Sequence[Fetched]:
        """Rows by key, each fragment read atomically with its watermark, all in one round trip.

        Raises:
            Unavailable: Redis does not answer within its time.
        """
        if not wanted:
            return []
        try:
            try:
                return await self._fetch(wanted, known=True)
            except NoScriptError:
                return await self._fetch(wanted, known=False)
        except RedisError as error:
            raise Unavailable(f"Redis at {self._where} does not give rows: {error}") from error

    async def _fetch(self, wanted: Sequence[tuple[Fragment, Sequence[str]]], *, known: bool) -> list[Fetched]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for fragment, keys in wanted:
                if known:
                    pipeline.evalsha(self._fetch_sha, 2, *_keys(fragment), *keys)
                else:
                    pipeline.eval(_FETCH, 2, *_keys(fragment), *keys)
            return [_fetched(answer) for answer in await pipeline.execute()]

    async def newest(self, fragments: Sequence[Fragment], index: str, group: str, limit: int) -> Sequence[str]:
        """Keys of one group of an index over the given fragments, highest score first, at most `limit`; ties by key, highest first.

        Raises:
            Unavailable: Redis does not answer within its time.
        """
        if limit <= 0 or not fragments:
            return []
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fragment in fragments:
                    pipeline.zrevrange(_index_key(fragment, index, group), 0, limit - 1, withscores=True)
                answers = cast("list[list[tuple[bytes, float]]]", await pipeline.execute())
        except RedisError as error:
            raise Unavailable(f"Redis at {self._where} does not give index {index}: {error}") from error
        entries = sorted(((score, key) for answer in answers for key, score in answer), reverse=True)
        return [key.decode() for _, key in entries[:limit]]

    async def upstream(self, fragments: Sequence[Fragment]) -> Set[str]:
        """Topics that anything folded into the given fragments came after.

        Raises:
            Unavailable: Redis does not answer within its time.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for fragment in fragments:
                    pipeline.smembers(_upstream_key(fragment))
                answers = cast("list[set[bytes]]", await pipeline.execute())
        except RedisError as error:
            raise Unavailable(f"Redis at {self._where} does not give what its rows come after: {error}") from error
        return {topic.decode() for answer in answers for topic in answer}

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()


def _without_secret(connection: dict[str, Any]) -> str:
    """Where a connection goes, without the password that its address may hold."""
    return f"{connection.get('host', connection.get('path', 'localhost'))}:{connection.get('port', '')}/{connection.get('db', 0)}"

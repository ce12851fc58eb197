"""The aggregates of one partition: those that were touched lately as they are, all others as the bytes that lie in the log.

1. What was written of an aggregate is kept byte for byte; it is decoded when it is needed, and its state stays at hand while it is in use.
   A state with parts lies in many entries and stays as it is.
2. A finished aggregate is a stub. Stubs stand in the order in which they were touched last, so those to be forgotten stand first.
3. Of a forgotten aggregate a fingerprint of its key stays, 8 bytes: what comes for it must not be taken for news of somebody new.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice

from backbone.loops.snapshots import Held

AT_HAND = 1024
"""Decoded states a partition keeps besides the bytes: this many at least, once there are so many, and twice as many at most."""
BUCKETS = 4096
"""Fingerprints are written in so many entries per partition: of a million, 2 kB are written anew for each key that is forgotten."""


class Aggregates:
    """What is held of the aggregates of one partition, by key.

    Args:
        decode: what is held, from the bytes of its entry.
    """

    def __init__(self, decode: Callable[[bytes], Held]) -> None:
        self._decode = decode
        self._whole: dict[str, Held] = {}
        self._bytes: dict[str, bytes] = {}
        self._stubs: dict[str, bytes] = {}
        self._lately: dict[str, Held] = {}
        self._before: dict[str, Held] = {}

    def get(self, key: str) -> Held | None:
        """What is held of an aggregate."""
        held = self._lately.get(key)
        if held is not None:
            return held
        if (held := self._whole.get(key)) is not None:
            return held
        raw = self._bytes.get(key) or self._stubs.get(key)
        if raw is None:
            return None
        held = self._before.get(key) or self._decode(raw)
        self._at_hand(key, held)
        return held

    def keep(self, key: str, held: Held, raw: bytes | None) -> None:
        """Hold this of an aggregate from now on.

        Args:
            raw: its entry as it was written; None if it has parts.
        """
        if raw is None:
            self._whole[key] = held
            return
        self.put_by(key, raw, stub=bool(held.done_at_ms))
        self._at_hand(key, held)

    def put_by(self, key: str, raw: bytes, *, stub: bool) -> None:
        """Hold an aggregate's bytes, without its state at hand.

        Args:
            stub: it is finished; it stands last among those that may be forgotten.
        """
        self._lately.pop(key, None)
        self._before.pop(key, None)
        self._stubs.pop(key, None)
        if stub:
            self._bytes.pop(key, None)
            self._stubs[key] = raw
        else:
            self._bytes[key] = raw

    def drop(self, key: str) -> None:
        """Hold nothing of an aggregate any more."""
        for held in (self._whole, self._bytes, self._stubs, self._lately, self._before):
            held.pop(key, None)

    def stubs(self, limit: int) -> list[tuple[str, Held]]:
        """The finished ones that were touched longest ago."""
        return [(key, self._decode(raw)) for key, raw in islice(self._stubs.items(), limit)]

    @property
    def finished(self) -> int:
        """How many are finished."""
        return len(self._stubs)

    @property
    def at_hand(self) -> int:
        """How many are held as they are."""
        return len(self._whole) + len(self._lately) + len(self._before)

    def items(self) -> Iterator[tuple[str, Held]]:
        """All of them; each is decoded for the moment."""
        yield from self._whole.items()
        for key, raw in [*self._bytes.items(), *self._stubs.items()]:
            yield key, self._lately.get(key) or self._before.get(key) or self._decode(raw)

    def __len__(self) -> int:
        return len(self._whole) + len(self._bytes) + len(self._stubs)

    def _at_hand(self, key: str, held: Held) -> None:
        self._lately[key] = held
        if len(self._lately) >= AT_HAND:
            self._before, self._lately = self._lately, {}


class Forgotten:
    """Fingerprints of the keys of one partition whose aggregates were forgotten.

    A newcomer has the fingerprint of one of a billion with a chance of one in eighteen billion; then it is set aside, not lost.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        fingerprint = fingerprint_of(key)
        return fingerprint in self._buckets.get(fingerprint % BUCKETS, ())

    def with_more(self, keys: Iterable[str]) -> dict[int, bytes]:
        """The buckets that change when these keys are forgotten too, as they are written; nothing is changed yet."""
        changed: dict[int, array[int]] = {}
        for key in keys:
            fingerprint = fingerprint_of(key)
            bucket = fingerprint % BUCKETS
            if bucket not in changed:
                changed[bucket] = array("Q", self._buckets.get(bucket, ()))
            if fingerprint not in changed[bucket]:
                changed[bucket].append(fingerprint)
        return {bucket: fingerprints.tobytes() for bucket, fingerprints in changed.items()}

    def put(self, bucket: int, raw: bytes) -> None:
        """Hold a bucket as it was written.

        Raises:
            ValueError: these are no fingerprints.
        """
        fingerprints = array("Q")
        fingerprints.frombytes(raw)
        self.drop(bucket)
        self._count += len(fingerprints)
        self._buckets[bucket] = fingerprints

    def drop(self, bucket: int) -> None:
        """Hold nothing of a bucket any more."""
        self._count -= len(self._buckets.pop(bucket, ()))


def fingerprint_of(key: str) -> int:
    """64 bits of a hash of a key."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")

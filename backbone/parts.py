"""`Part`: a field of a large aggregate that is kept entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from rpds import HashTrieMap

K = TypeVar("K")
V = TypeVar("V")


class Part(Generic[K, V]):
    """A persistent map that remembers which keys changed since it was last kept.

    Setting gives a new Part and leaves the old one as it was (O(log n)), so a staged state can be dropped by forgetting it. The
    runtime snapshots and tombstones changed entries only. Iteration is in sorted order, so that no decision hangs on a hash.
    """

    __slots__ = ("_changed", "_map")

    def __init__(self) -> None:
        self._map: HashTrieMap[K, V] = HashTrieMap()
        self._changed: tuple[K, Any] | None = None

    @classmethod
    def _of(cls, map_: HashTrieMap[K, V], changed: tuple[K, Any] | None) -> Part[K, V]:
        part = cls.__new__(cls)
        part._map, part._changed = map_, changed
        return part

    def set(self, key: K, value: V) -> Part[K, V]:
        """The map with this entry."""
        return Part._of(self._map.insert(key, value), (key, self._changed))

    def without(self, key: K) -> Part[K, V]:
        """The map without this entry; the same if there is none."""
        return Part._of(self._map.discard(key), (key, self._changed)) if key in self._map else self

    def get(self, key: K, default: V | None = None) -> V | None:
        """The value, or `default`."""
        return self._map.get(key, default)

    def __getitem__(self, key: K) -> V:
        return self._map[key]

    def __contains__(self, key: object) -> bool:
        return key in self._map

    def __len__(self) -> int:
        return len(self._map)

    def __iter__(self) -> Iterator[K]:
        return iter(sorted(self._map, key=str))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and dict(self._map.items()) == dict(other._map.items())

    def __hash__(self) -> int:
        return hash(len(self._map))

    def __repr__(self) -> str:
        return f"Part({ {key: self._map[key] for key in self} })"

    def changed(self) -> list[K]:
        """Keys set or removed since the last `kept`, each once."""
        keys: dict[K, None] = {}
        link = self._changed
        while link is not None:
            key, link = link
            keys[key] = None
        return list(keys)

    def kept(self) -> Part[K, V]:
        """The same map, with nothing changed."""
        return Part._of(self._map, None) if self._changed is not None else self

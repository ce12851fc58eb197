"""How fresh an answer is: what a call demands to be known, what its answer turned out to know, and both as tokens on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from google.rpc import code_pb2

from backbone.declare import Asking
from backbone.ports import Place
from backbone.positions import AGE_MS, AS_OF, POSITION, Vector, merge
from backbone.tokens import BadToken, Wrong, sign, verify
from gateway.refusals import Refusal

MOST_TOKENS = 8

CODE = {Wrong.OF_ANOTHER_PRINCIPAL: code_pb2.PERMISSION_DENIED, Wrong.OF_ANOTHER_CLUSTER: code_pb2.FAILED_PRECONDITION}


@dataclass
class Knowing:
    """What one call demands to be known, and what its answer turned out to know.

    Attributes:
        at_least: positions the answer must know.
        as_of: how far the views had read, and what was heard since.
        position: what the answer rests on: what was written for it, and what changed last what it shows.
    """

    at_least: Vector = field(default_factory=dict)
    as_of: dict[Place, int] = field(default_factory=dict)
    position: dict[Place, int] = field(default_factory=dict)
    _age_ms: Callable[[Vector], int] | None = None

    def read(self, asking: Asking) -> None:
        """Views were read."""
        self.as_of = merge(self.as_of, asking.as_of)
        self.position = merge(self.position, asking.position)
        self._age_ms = asking.age_ms

    def heard(self, position: Vector) -> None:
        """Something was said while the call waited."""
        self.as_of = merge(self.as_of, position)
        self.wrote(position)

    def wrote(self, position: Vector) -> None:
        """Something was written for the call."""
        self.position = merge(self.position, position)

    @property
    def age_ms(self) -> int | None:
        """The answer shows all that lay in the log so many milliseconds ago; None if no view was read."""
        return None if self._age_ms is None else self._age_ms(self.as_of)


class Tokens:
    """Position vectors as clients carry them.

    Args:
        key: of the signatures; all doors share it.
        cluster_id: the Kafka cluster of the positions.
    """

    def __init__(self, key: bytes, cluster_id: str) -> None:
        self._key = key
        self._cluster_id = cluster_id

    def read(self, principal: str, given: Iterable[str]) -> dict[Place, int]:
        """What the tokens a principal hands in demand together.

        Args:
            given: values of `backbone-at-least`; each may hold several, comma separated.

        Raises:
            Refusal: one of them is not taken.
        """
        tokens = [token.strip() for value in given for token in value.split(",")]
        if len(tokens) > MOST_TOKENS:
            raise refused(Wrong.TOO_LONG, f"at most {MOST_TOKENS} tokens")
        try:
            return merge(*(verify(self._key, principal, self._cluster_id, token) for token in tokens))
        except BadToken as error:
            raise refused(error.wrong, str(error)) from error

    def told(self, principal: str, knowing: Knowing) -> Sequence[tuple[str, str]]:
        """What an answer tells of itself, as metadata. A vector too long for a token is not told."""
        vectors = ((POSITION, knowing.position), (AS_OF, knowing.as_of))
        told = [(name, sign(self._key, principal, self._cluster_id, vector)) for name, vector in vectors if vector]
        age = knowing.age_ms
        return [*((name, token) for name, token in told if token is not None), *([(AGE_MS, str(age))] if age is not None else [])]


def refused(wrong: Wrong, why: str) -> Refusal:
    """A token is not taken."""
    text = f"a token in backbone-at-least is not taken: {why}"
    return Refusal(CODE.get(wrong, code_pb2.INVALID_ARGUMENT), f"TOKEN_{wrong.name}", text)

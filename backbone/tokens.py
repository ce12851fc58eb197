"""Tokens: position vectors as a door hands them to clients: signed, bound to a principal and to a cluster, opaque to who carries them.

    byte 0    version, 1
    2 bytes   length of the body
    body      8 bytes that name the principal, the cluster id, and for each topic its name, how many partitions, and for each of them its
              number and next offset; texts behind their length, numbers as Protobuf writes them
    16 bytes  HMAC-SHA256 of all that, cut

written in base64url without padding. Every door that shares the key takes the tokens of all.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterator
from enum import Enum

from backbone.envelope import varint
from backbone.ports import Place
from backbone.positions import Vector

VERSION = 1
MOST_CHARACTERS = 4096
"""Of one token. It travels in a header, and all headers of a request together have 8 KiB at most at many a proxy: 1,000 positions."""

NAME_BYTES = 8
MAC_BYTES = 16
_ALPHABET = re.compile("[A-Za-z0-9_-]+")
_HEAD = 3
_LEAST = _HEAD + NAME_BYTES + 1 + MAC_BYTES


class Wrong(Enum):
    """Why a token is not taken."""

    TOO_LONG = f"it has more than {MOST_CHARACTERS} characters"
    MALFORMED = "it is no token"
    TRUNCATED = "something is missing at its end"
    NEWER = "it was written by a newer version"
    FORGED = "it was not written by a door of this platform, or it was changed"
    OF_ANOTHER_CLUSTER = "its positions are of another log"
    OF_ANOTHER_PRINCIPAL = "it was given to somebody else"


class BadToken(Exception):
    """A token is not taken.

    Args:
        wrong: why.
    """

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(wrong.value)
        self.wrong = wrong


def key_of(secret: bytes) -> bytes:
    """The key of the tokens, made from a secret that all doors share; nothing can be learned from it about the secret."""
    return hmac.digest(secret, b"backbone position tokens", "sha256")


def sign(key: bytes, principal: str, cluster_id: str, vector: Vector) -> str | None:
    """The token of a vector; None if the vector is too long for one.

    Args:
        key: shared by all doors.
        principal: who may hand it in again.
        cluster_id: whose positions these are.
    """
    body = _name(key, principal) + _text(cluster_id) + b"".join(_topics(vector))
    if len(body) > MOST_CHARACTERS:
        return None
    head = bytes([VERSION]) + len(body).to_bytes(2, "big") + body
    token = base64.urlsafe_b64encode(head + _mac(key, head)).rstrip(b"=").decode()
    return token if len(token) <= MOST_CHARACTERS else None


def verify(key: bytes, principal: str, cluster_id: str, token: str) -> dict[Place, int]:
    """The vector of a token.

    Raises:
        BadToken: it is not taken.
    """
    if len(token) > MOST_CHARACTERS:
        raise BadToken(Wrong.TOO_LONG)
    if not _ALPHABET.fullmatch(token):
        raise BadToken(Wrong.MALFORMED)
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        # What is cut off anywhere is base64 of something three times in four.
        raise BadToken(Wrong.TRUNCATED) from None
    if raw[0] > VERSION:
        raise BadToken(Wrong.NEWER)
    if raw[0] != VERSION:
        raise BadToken(Wrong.MALFORMED)
    end = _HEAD + int.from_bytes(raw[1:_HEAD], "big")
    if len(raw) < max(_LEAST, end + MAC_BYTES):
        raise BadToken(Wrong.TRUNCATED)
    if len(raw) > end + MAC_BYTES:
        raise BadToken(Wrong.MALFORMED)
    if not hmac.compare_digest(raw[end:], _mac(key, raw[:end])):
        raise BadToken(Wrong.FORGED)
    cluster, at = _read_text(raw, _HEAD + NAME_BYTES)
    if cluster != cluster_id:
        raise BadToken(Wrong.OF_ANOTHER_CLUSTER)
    if not hmac.compare_digest(raw[_HEAD : _HEAD + NAME_BYTES], _name(key, principal)):
        raise BadToken(Wrong.OF_ANOTHER_PRINCIPAL)
    vector: dict[Place, int] = {}
    while at < end:
        topic, at = _read_text(raw, at)
        count, at = _read_number(raw, at)
        for _ in range(count):
            partition, at = _read_number(raw, at)
            vector[topic, partition], at = _read_number(raw, at)
    return vector


def _name(key: bytes, principal: str) -> bytes:
    return hmac.digest(key, b"principal " + principal.encode(), "sha256")[:NAME_BYTES]


def _mac(key: bytes, head: bytes) -> bytes:
    return hmac.digest(key, head, "sha256")[:MAC_BYTES]


def _topics(vector: Vector) -> Iterator[bytes]:
    by_topic: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in sorted(vector.items()):
        by_topic.setdefault(topic, {})[partition] = offset
    for topic, offsets in by_topic.items():
        yield _text(topic)
        yield varint(len(offsets))
        for partition, offset in offsets.items():
            yield varint(partition)
            yield varint(offset)


def _text(text: str) -> bytes:
    raw = text.encode()
    return varint(len(raw)) + raw


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    size, at = _read_number(raw, at)
    return raw[at : at + size].decode(), at + size


def _read_number(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7

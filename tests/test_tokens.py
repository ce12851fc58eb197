"""Tokens are taken from whom they were given to, as they were given, and nothing else is."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.ports import Place
from backbone.tokens import MAC_BYTES, MOST_CHARACTERS, VERSION, BadToken, Wrong, key_of, sign, verify

KEY = key_of(b"k" * 32)
CLUSTER = "sowuHz_QT7SsN1pJzn9EhQ"
VECTOR: dict[Place, int] = {
    ("retail.gateway.order-requests.v1", 3): 41,
    ("retail.ordering.orders.v1", 0): 1 << 40,
    ("retail.ordering.orders.v1", 200): 0,
}
GOLDEN = (
    "AQBoRtPT8_o2QY4Wc293dUh6X1FUN1NzTjFwSnpuOUVoUSByZXRhaWwuZ2F0ZXdheS5vcmRlci1yZXF1ZX"
    "N0cy52MQEDKRlyZXRhaWwub3JkZXJpbmcub3JkZXJzLnYxAgCAgICAgCDIAQAIqwzrMxsQ6jezXur-Q5Vk"
)


def token(principal: str = "ann", cluster: str = CLUSTER, vector: dict[Place, int] | None = None, key: bytes = KEY) -> str:
    """A token of ours."""
    made = sign(key, principal, cluster, VECTOR if vector is None else vector)
    assert made is not None
    return made


def wrong(text: str, principal: str = "ann", cluster: str = CLUSTER) -> Wrong:
    """Why a token is not taken."""
    with pytest.raises(BadToken) as refused:
        verify(KEY, principal, cluster, text)
    return refused.value.wrong


def with_byte(at: int, value: int) -> str:
    """A token of ours, one byte of it changed."""
    raw = bytearray(base64.urlsafe_b64decode(token() + "=" * (-len(token()) % 4)))
    raw[at] = value
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_the_form_is_what_it_was() -> None:
    """Clients keep tokens over an update of the door."""
    assert token() == GOLDEN
    assert verify(KEY, "ann", CLUSTER, GOLDEN) == VECTOR


places = st.tuples(st.text(min_size=1, max_size=40), st.integers(0, 1023))


@given(st.dictionaries(places, st.integers(0, 1 << 62), max_size=20), st.text(max_size=30), st.text(max_size=30))
def test_what_was_signed_is_read_again(vector: dict[Place, int], principal: str, cluster: str) -> None:
    """Whatever topics, principals and clusters are called; a header can carry it."""
    made = token(principal, cluster, vector)
    assert made.isascii()
    assert made.replace("-", "").replace("_", "").isalnum()
    assert verify(KEY, principal, cluster, made) == vector


def test_of_another_principal() -> None:
    """What somebody has seen is nobody else's business."""
    assert wrong(token("bob")) is Wrong.OF_ANOTHER_PRINCIPAL


def test_of_another_cluster() -> None:
    """Offsets of one log mean nothing in another."""
    assert wrong(token(cluster="another")) is Wrong.OF_ANOTHER_CLUSTER


def test_signed_with_another_key_or_changed_anywhere() -> None:
    """Not one bit of what is signed can be changed."""
    assert wrong(token(key=key_of(b"x" * 32))) is Wrong.FORGED
    raw = base64.urlsafe_b64decode(token() + "=" * (-len(token()) % 4))
    for at in range(3, len(raw)):
        assert wrong(with_byte(at, raw[at] ^ 1)) is Wrong.FORGED


def test_truncated_anywhere() -> None:
    """As who copies by hand does it."""
    whole = token()
    assert {wrong(whole[:size]) for size in range(3, len(whole))} == {Wrong.TRUNCATED}


def test_of_a_newer_version() -> None:
    """A door that was rolled back says so; nothing else of it is looked at."""
    assert wrong(with_byte(0, VERSION + 1)) is Wrong.NEWER


@pytest.mark.parametrize("text", ["", "AA", "not a token", "ключ", "*" * 60, "=", "AQ=="])
def test_what_is_no_token(text: str) -> None:
    """Whatever a client sends."""
    assert wrong(text) in (Wrong.MALFORMED, Wrong.TRUNCATED)
    assert wrong(token() + "AAAA") is Wrong.MALFORMED


def test_over_long() -> None:
    """It is not even looked at."""
    assert wrong("A" * (MOST_CHARACTERS + 1)) is Wrong.TOO_LONG


def test_a_vector_that_does_not_fit_gives_no_token() -> None:
    """One of a platform of 128 partitions does."""
    fits: dict[Place, int] = {(topic, number): 1 << 40 for topic in ("a" * 40, "b" * 40) for number in range(128)}
    assert sign(KEY, "ann", CLUSTER, fits) is not None
    too_long: dict[Place, int] = {("a", number): 1 << 40 for number in range(1024)}
    assert sign(KEY, "ann", CLUSTER, too_long) is None


def test_two_tokens_of_one_principal_and_vector_are_equal() -> None:
    """Whatever replica signs them, in whatever order it learned the positions."""
    assert token(vector=dict(reversed(VECTOR.items()))) == token()
    assert len(base64.urlsafe_b64decode(token() + "=" * (-len(token()) % 4))) > MAC_BYTES

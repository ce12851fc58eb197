"""What lies in the place of a row: its form never changes unnoticed, and it never says more than was folded."""

from __future__ import annotations

import pytest

from backbone import damage
from backbone.stored import FORM, LAST_OFFSET, MOST_PLACES, After, Lineage, after_of, mark_of, next_offset_of, row_bytes, wrapped
from backbone.v1.meta_pb2 import Position

ORDERS, PAYMENTS = "retail.ordering.orders.v1", "retail.payments.payments.v1"
GOLDEN = "0102000000000108331d840656e40000000000052e7cd592a7c10000000003e80a0161"


def position(topic: str, partition: int, next_offset: int) -> Position:
    """A position."""
    return Position(topic=topic, partition=partition, next_offset=next_offset)


def folded(*records: tuple[list[Position], int], upstream: set[str] | None = None) -> After:
    """What a row of a view of orders comes after."""
    after, lineage = After(), Lineage(ORDERS)
    for positions, next_offset in records:
        after.fold(lineage, positions, next_offset, set() if upstream is None else upstream)
    return after


def test_the_form_is_what_it_was() -> None:
    """Rows of an earlier build lie there."""
    after = folded(([position(PAYMENTS, 3, 5), position("retail.gateway.order-requests.v1", 0, 1000)], 264))
    assert wrapped(b"\n\1a", after).hex() == GOLDEN
    raw = bytes.fromhex(GOLDEN)
    assert row_bytes(raw) == b"\n\1a"
    assert next_offset_of(raw) == 264
    assert after_of(raw).knows((PAYMENTS, 3)) == 5
    assert after_of(raw).knows(("retail.gateway.order-requests.v1", 0)) == 1000
    assert after_of(raw).knows((PAYMENTS, 0)) == 0


def test_a_row_of_a_build_that_did_not_remember_is_a_row() -> None:
    """And the mark of a damaged one stays a mark; neither says what it comes after."""
    for raw in (b"", b"\n\1a", damage.mark("why")):
        assert row_bytes(raw) == raw
        assert next_offset_of(raw) == 0
        assert after_of(raw).places == b""


def test_positions_are_merged() -> None:
    """The furthest of each place, whatever comes in which order."""
    after = folded(
        ([position(PAYMENTS, 0, 300), position(PAYMENTS, 1, 7)], 1),
        ([position(PAYMENTS, 0, 255)], 5),
        ([position(PAYMENTS, 1, 256)], 6),
    )
    assert [after.knows((PAYMENTS, number)) for number in range(3)] == [300, 256, 0]
    assert next_offset_of(wrapped(b"", after)) == 6


def test_what_the_watermark_says_and_what_is_private_is_left_aside() -> None:
    """Only public topics other than the own one count."""
    upstream: set[str] = set()
    positions = [position(ORDERS, 0, 3), position("private.payments.payments.outcomes", 0, 3), position(PAYMENTS, 0, 3)]
    after = folded((positions, 9), upstream=upstream)
    assert after.places == mark_of((PAYMENTS, 0)) + b"\0\0\0\0\0\3"
    assert upstream == {PAYMENTS}


def test_what_moved_longest_ago_is_forgotten_first() -> None:
    """A row is bounded, and what it forgot it does not claim to know."""
    after = folded(
        ([position(PAYMENTS, number, 1) for number in range(MOST_PLACES)], 1),
        ([position(PAYMENTS, 0, 2)], 2),
        ([position(PAYMENTS, MOST_PLACES, 1)], 3),
    )
    assert len(after.places) == MOST_PLACES * 12
    assert [after.knows((PAYMENTS, number)) for number in (0, 1, 2, MOST_PLACES)] == [2, 0, 1, 1]
    again = after_of(wrapped(b"", after))
    assert again.places == after.places


@pytest.mark.parametrize("offset", [0, -1, LAST_OFFSET + 1])
def test_an_offset_that_cannot_be_is_left_aside(offset: int) -> None:
    """A defect of a writer does not damage our row."""
    assert folded(([position(PAYMENTS, 0, offset)], 1)).places == b""


def test_no_row_begins_as_the_form_does() -> None:
    """Field number 0 does not exist in Protobuf; the mark of damage begins otherwise."""
    assert FORM[0] >> 3 == 0
    assert damage.MARK != FORM


def test_a_mark_that_stands_across_two_entries_is_not_found() -> None:
    """Two entries may have its bytes by chance, whatever stands before and behind."""
    mark = mark_of((PAYMENTS, 0))
    for cut in range(1, 12):
        whole = (b"x" * cut + mark + b"x" * 24)[:24]
        assert After(places=whole).knows((PAYMENTS, 0)) == 0
        assert After(places=whole + mark + b"\0\0\0\0\0\7").knows((PAYMENTS, 0)) == 7

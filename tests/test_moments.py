"""Moments are exact to the microsecond, and have a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.moments import EPOCH, moment, stamp


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_comes_back_as_it_went(at: datetime) -> None:
    assert moment(stamp(at)) == at


def test_another_zone_is_the_same_moment() -> None:
    paris = timezone(timedelta(hours=1))
    assert stamp(datetime(2026, 3, 2, 13, tzinfo=paris)) == stamp(datetime(2026, 3, 2, 12, tzinfo=UTC))


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone"):
        stamp(datetime(2026, 3, 2))  # noqa: DTZ001 - that is what is refused


def test_the_epoch_is_zero() -> None:
    assert stamp(EPOCH).seconds == 0

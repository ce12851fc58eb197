"""Money is exact in both directions."""

from __future__ import annotations

import pytest
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st

from backbone.money import minor_units, money_of


@given(st.integers(-(10**18), 10**18))
def test_minor_units_come_back_as_they_went(minor: int) -> None:
    assert minor_units(money_of(minor, "USD")) == minor


@pytest.mark.parametrize(
    ("minor", "units", "nanos"), [(1234, 12, 340_000_000), (-1234, -12, -340_000_000), (-5, 0, -50_000_000), (0, 0, 0)]
)
def test_units_and_nanos_have_one_sign(minor: int, units: int, nanos: int) -> None:
    assert money_of(minor, "USD") == Money(currency_code="USD", units=units, nanos=nanos)


@pytest.mark.parametrize("nanos", [1, 9_999_999, 340_000_001])
def test_a_fraction_of_a_minor_unit_is_refused(nanos: int) -> None:
    with pytest.raises(ValueError, match="fraction of a minor unit"):
        minor_units(Money(currency_code="USD", units=12, nanos=nanos))


@pytest.mark.parametrize("money", [Money(units=1, nanos=-10_000_000), Money(units=-1, nanos=10_000_000), Money(nanos=1_000_000_000)])
def test_an_amount_whose_parts_contradict_each_other_is_refused(money: Money) -> None:
    money.currency_code = "USD"
    with pytest.raises(ValueError, match="contradict"):
        minor_units(money)


def test_an_amount_without_a_currency_is_no_money() -> None:
    with pytest.raises(ValueError, match="currency"):
        minor_units(Money(units=1))
    with pytest.raises(ValueError, match="currency"):
        money_of(100, "")

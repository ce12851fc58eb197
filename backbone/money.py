"""Money in messages (google.type.Money) and in decisions (whole minor units): exact both ways.

A minor unit is a hundredth of the currency's unit, whatever the currency: what every price of a contract is a whole number of.
"""

from __future__ import annotations

from google.type.money_pb2 import Money

MINOR_PER_UNIT = 100
NANOS_PER_MINOR = 1_000_000_000 // MINOR_PER_UNIT


def minor_units(money: Money) -> int:
    """An amount in whole minor units.

    Raises:
        ValueError: it has no currency, is a fraction of a minor unit, or its two parts contradict each other.
    """
    if not money.currency_code:
        raise ValueError("an amount without a currency is no money")
    if abs(money.nanos) >= 1_000_000_000 or money.units * money.nanos < 0:
        raise ValueError(f"units {money.units} and nanos {money.nanos} {money.currency_code} contradict each other")
    if money.nanos % NANOS_PER_MINOR:
        raise ValueError(f"units {money.units} and nanos {money.nanos} {money.currency_code} hold a fraction of a minor unit")
    return money.units * MINOR_PER_UNIT + money.nanos // NANOS_PER_MINOR


def money_of(minor: int, currency_code: str) -> Money:
    """The amount of so many minor units of a currency.

    Raises:
        ValueError: no currency is given.
    """
    if not currency_code:
        raise ValueError("an amount without a currency is no money")
    sign = -1 if minor < 0 else 1
    units, rest = divmod(abs(minor), MINOR_PER_UNIT)
    return Money(currency_code=currency_code, units=sign * units, nanos=sign * rest * NANOS_PER_MINOR)

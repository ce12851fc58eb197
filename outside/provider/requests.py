"""What the provider can be asked: shapes and limits of every request body."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_MINOR = 10**12
"""Largest amount, in minor units: far above any order, far below what SQLite's integers hold when summed."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Minor = Annotated[int, Field(ge=1, le=MOST_MINOR)]
Operation = Literal["authorize", "capture", "void"]


class Shape(BaseModel):
    """A request body: unknown fields and lenient conversions ("5" for 5) are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Amount(Shape):
    """An amount of money in minor units (cents) of an ISO 4217 currency."""

    currency: Currency
    minor: Minor


class Authorize(Shape):
    """Hold this amount on the customer's card, under the merchant's reference."""

    reference: Name
    customer: Name
    amount: Amount


class Capture(Shape):
    """Take all that is held under the reference."""

    reference: Name


class Void(Shape):
    """Give back all that is held under the reference, and never hold anything under it again."""

    reference: Name


class Card(Shape):
    """A customer's card: `limit_minor` bounds what is held and taken in each currency; None is without limit."""

    limit_minor: Annotated[int, Field(ge=0, le=MOST_MINOR)] | None

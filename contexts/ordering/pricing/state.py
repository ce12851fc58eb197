"""What pricing holds of one SKU: the price it listed last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from retail.ordering.v1.price_pb2 import PriceListed

from backbone.money import minor_units

Event: TypeAlias = PriceListed


@dataclass(frozen=True)
class Listing:
    """The listed price of one SKU.

    Attributes:
        unit_price: minor units.
        currency: empty as long as nothing is listed.
    """

    unit_price: int = 0
    currency: str = ""


def evolve(listing: Listing, event: Event) -> Listing:
    """The listing after an event of its own."""
    return Listing(minor_units(event.unit_price), event.unit_price.currency_code)

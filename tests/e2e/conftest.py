"""One shop for the whole run; tests share it and take articles and customers of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import scratch
from tests.e2e.running import Shop, a_shop

KILLED = 300
"""Purchases placed while processes are killed."""
FLUSHED = 120
"""Purchases placed while Redis loses everything."""
CRASHED = 90
"""Purchases placed while every Redis dies and Kafka stops."""
CUT = 60
"""Purchases placed while Kafka is killed."""


@pytest.fixture(scope="session")
def shop_up() -> Iterator[Shop]:
    """The shop all tests share."""
    with scratch("e2e") as folder, a_shop(folder, purchases=KILLED + FLUSHED + CRASHED + CUT) as shop:
        yield shop

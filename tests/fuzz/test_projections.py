"""Views fold whatever their contracts allow: no row is damaged, and the same events give the same rows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone.contract import ResolvedView, check_platform
from backbone.testing.contracts import valid
from backbone.testing.rows import rows_of
from shop import shop
from tests.fuzz.worlds import POOLS

VIEWS = [view for group in check_platform(shop, "retail").values() for service in group for view in service.views]
KEYS = {name: POOLS[name] for name in ("order_id", "customer_id", "delivery_zone", "pool_id", "sku")}


@pytest.mark.parametrize("view", VIEWS, ids=lambda one: one.name)
@settings(max_examples=25, deadline=None, suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large))
@given(data=st.data())
def test_a_view_folds_any_history(view: ResolvedView, data: st.DataObject) -> None:
    heard = [line.hears for line in view.view.table]
    history = data.draw(st.lists(st.sampled_from(heard).flatmap(lambda event: valid(event, KEYS)), max_size=8))
    found = rows_of(view.view, *history)
    assert found == rows_of(view.view, *history)
    assert all(getattr(row, view.key) == key for key, row in found.items())

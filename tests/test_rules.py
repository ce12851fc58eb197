"""Value rules: every broken one is named, with the path of its field."""

from __future__ import annotations

import pytest
from google.type.money_pb2 import Money
from retail.gateway.v1.order_request_pb2 import OrderRequested, RequestedLine
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone.rules import BreaksRules, check, violations


def test_what_keeps_its_contract_passes() -> None:
    check(ItemCatalogued(sku="CD", list_price=Money(currency_code="USD")))


def test_every_broken_rule_is_named() -> None:
    with pytest.raises(BreaksRules) as raised:
        check(ItemCatalogued(title="x" * 257))
    assert str(raised.value) == (
        "ItemCatalogued breaks its contract: sku: must be at least 1 characters; title: must be at most 256 bytes; "
        "list_price: value is required"
    )
    assert [violation.rule for violation in raised.value.violations] == ["string.min_len", "string.max_bytes", "required"]


def test_a_field_deep_inside_is_named_by_its_path() -> None:
    lines = [RequestedLine(sku="CD", quantity=1, unit_price=Money(currency_code="USD")), RequestedLine(quantity=10**9)]
    fields = [violation.field for violation in violations(OrderRequested(lines=lines))]
    assert "lines[1].quantity" in fields
    assert "lines[1].sku" in fields
    assert not any(field.startswith("lines[0]") for field in fields)

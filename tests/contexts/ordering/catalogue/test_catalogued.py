"""Every line of the catalogue file becomes an item on offer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from google.type.money_pb2 import Money
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone.money import minor_units
from contexts.ordering.catalogue.service import catalogue
from contexts.ordering.catalogue.source import catalogued
from tests.contexts.taking_in import taken_in

HEADER = "sku,title,unit_price_cents,sold\n"
DATA = Path(__file__).parents[4] / "data" / "cdnow-sample-catalogue.csv"


def test_a_line_is_an_item_with_its_price_in_dollars() -> None:
    line = {"sku": "CD-1", "title": "CD at 12.34", "unit_price_cents": "1234", "sold": "8"}
    price = Money(currency_code="USD", units=12, nanos=340_000_000)
    assert catalogued(line) == ItemCatalogued(sku="CD-1", title="CD at 12.34", list_price=price)


def test_an_item_may_be_free() -> None:
    item = catalogued({"sku": "CD-0", "title": "CD at 0.00", "unit_price_cents": "0"})
    assert item.list_price == Money(currency_code="USD")


@pytest.mark.parametrize("cents", ["-1", "12.34", "", "dear"])
def test_a_price_that_is_no_whole_number_of_cents_is_refused(cents: str) -> None:
    with pytest.raises(ValueError):
        catalogued({"sku": "CD-1", "title": "x", "unit_price_cents": cents})


def test_bad_lines_are_set_aside_with_their_bytes_and_the_others_are_offered(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text(f"{HEADER}CD-1,one,100,1\n,nameless,100,1\nCD-3,three,dear,1\nCD-4,{'x' * 257},100,1\nCD-5,five,500,1\n")
    items, aside = taken_in("ordering", catalogue, "catalogue", path)
    assert [item.sku for item in items] == ["CD-1", "CD-5"]  # type: ignore[attr-defined]
    details = sorted(one.detail.partition(": ")[2] for one in aside)
    assert len(details) == 3
    assert details[0].startswith("ItemCatalogued breaks its contract: sku: ")
    assert details[1].startswith("ItemCatalogued breaks its contract: title: ")
    assert details[2].startswith("catalogue.csv line 4: ")
    assert b"CD-3,three,dear,1\n" in [one.value for one in aside]


def test_the_whole_catalogue_is_taken_in_to_the_cent() -> None:
    with DATA.open(newline="") as file:
        lines = list(csv.DictReader(file))
    items, aside = taken_in("ordering", catalogue, "catalogue", DATA)
    assert aside == []
    offered = [(item.sku, item.title, minor_units(item.list_price)) for item in items if isinstance(item, ItemCatalogued)]
    assert offered == [(line["sku"], line["title"], int(line["unit_price_cents"])) for line in lines]
    assert len(offered) == 1456

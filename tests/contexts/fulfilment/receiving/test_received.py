"""Every line of the goods-receipt file becomes goods received."""

from __future__ import annotations

from pathlib import Path

import pytest
from retail.fulfilment.v1.receipt_pb2 import GoodsReceived

from contexts.fulfilment.receiving.service import receiving
from contexts.fulfilment.receiving.source import received
from tests.contexts.taking_in import taken_in

HEADER = "receipt_id,pool_id,sku,quantity\n"


def test_a_line_is_a_receipt() -> None:
    line = {"receipt_id": "r-1", "pool_id": "zone-1", "sku": "CD-1", "quantity": "12"}
    assert received(line) == GoodsReceived(receipt_id="r-1", pool_id="zone-1", sku="CD-1", quantity=12)


@pytest.mark.parametrize("quantity", ["1.5", "", "many", str(2**63)])
def test_a_quantity_that_is_no_whole_number_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError):
        received({"receipt_id": "r-1", "pool_id": "zone-1", "sku": "CD-1", "quantity": quantity})


def test_goods_are_received_in_the_order_of_the_file_and_bad_lines_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "receipts.csv"
    path.write_text(f"{HEADER}r-1,zone-1,CD-1,5\nr-2,zone-2,CD-1,0\nr-3,zone-2,CD-2,1000001\nr-4,zone-2,CD-2\nr-5,zone-2,CD-2,7\n")
    events, aside = taken_in("fulfilment", receiving, "receipts", path)
    assert events == [
        GoodsReceived(receipt_id="r-1", pool_id="zone-1", sku="CD-1", quantity=5),
        GoodsReceived(receipt_id="r-5", pool_id="zone-2", sku="CD-2", quantity=7),
    ]
    details = sorted(one.detail.partition(": ")[2] for one in aside)
    assert [detail.partition(": ")[0] for detail in details] == ["GoodsReceived breaks its contract"] * 2 + ["receipts.csv line 5"]

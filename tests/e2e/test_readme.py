"""The two calls of the README, as they stand there, against the whole platform."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_readme import ROOT, the_block
from tests.e2e.running import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SKU, CENTS = "CD-01466", 1466


@pytest.fixture(scope="module")
def addresses(shop_up: Shop) -> dict[str, str]:
    """The environment in which a reader stands, once the article of the README is in stock."""
    with Path(shop_up.here.outside["receipts"]).open("a", newline="") as file:
        csv.writer(file).writerow(("readme/1", "zone-1", SKU, 100))
    shop_up.list_price(SKU, CENTS)
    return {**os.environ, "GRPC": shop_up.here.grpc, "HTTP": shop_up.here.http, "NO_PROXY": "127.0.0.1"}


def said(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints; it succeeds."""
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_order_with_curl(addresses: dict[str, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no `curl` here")
    order = json.loads(said(["sh", "-c", the_block("sh", "curl").text], addresses))["order"]
    assert (order["status"], order["reserved"], order["paid"]) == ("ORDER_STATUS_CONFIRMED", True, True)
    assert order["total"] == {"currencyCode": "USD", "units": "29", "nanos": 320_000_000}


def test_an_order_with_ten_lines_of_python(addresses: dict[str, str]) -> None:
    order_id, status = said([sys.executable, "-c", the_block("python", "OrderServiceStub").text], addresses).split()
    assert order_id
    assert status == "ORDER_STATUS_CONFIRMED"

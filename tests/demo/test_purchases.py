"""What is placed is what is in the file, to the cent, the same way every time."""

from __future__ import annotations

import csv
from pathlib import Path

from demo import purchases as data
from demo.purchases import Line, Purchase


def test_the_file_holds_6919_purchases_of_24409194_cents() -> None:
    """Nothing is lost in reading; eight are free."""
    purchases = data.read_purchases()
    assert len(purchases) == 6_919
    assert sum(purchase.cents for purchase in purchases) == 24_409_194
    assert sum(purchase.cents == 0 for purchase in purchases) == 8
    assert len({purchase.customer for purchase in purchases}) == 2_357
    assert [purchase.date for purchase in purchases] == sorted(purchase.date for purchase in purchases)


def test_the_catalogue_prices_and_counts_what_was_bought() -> None:
    """Every line has the catalogue's price, and `sold` is the sum of the lines."""
    prices, sold = data.read_prices(), data.read_sold()
    bought: dict[str, int] = {}
    for purchase in data.read_purchases():
        for line in purchase.lines:
            assert prices[line.sku] == line.cents
            bought[line.sku] = bought.get(line.sku, 0) + line.quantity
    assert bought == sold


def test_a_customer_lives_in_one_zone_for_ever() -> None:
    """The hash is stable between runs and machines, and all three zones are lived in."""
    assert [data.zone_of(customer) for customer in ("C0001", "C0002", "C0003")] == ["zone-1", "zone-2", "zone-3"]
    assert {purchase.zone for purchase in data.read_purchases()} == set(data.ZONES)


def test_scarce_stock_lacks_one_of_some_articles_and_nothing_of_the_others() -> None:
    """So that some orders must be refused; twice the same."""
    purchases = data.read_purchases()[:300]
    wanted: dict[tuple[str, str], int] = {}
    for purchase in purchases:
        for line in purchase.lines:
            of = (purchase.zone, line.sku)
            wanted[of] = wanted.get(of, 0) + line.quantity
    spare = data.spare_article(purchases, data.read_sold())
    stock = data.scarce_stock(purchases, spare)
    lacking = {of: wanted[of] - stock[of] for of in wanted if stock[of] != wanted[of]}
    assert set(lacking.values()) == {1}
    assert 0.02 < len(lacking) / len(wanted) < 0.3
    assert data.scarce_stock(purchases, spare) == stock
    assert stock.keys() - wanted.keys() == {(zone, spare) for zone in data.ZONES}


def test_if_everything_is_asked_for_the_spare_article_is_the_best_selling_one() -> None:
    """There is always something to suggest."""
    sold = data.read_sold()
    assert sold[data.spare_article(data.read_purchases(), sold)] == max(sold.values())


def test_ample_stock_serves_every_zone_whatever_it_asks_for() -> None:
    """Each pool alone could serve all."""
    sold = data.read_sold()
    assert data.ample_stock(sold) == {(zone, sku): quantity for zone in data.ZONES for sku, quantity in sold.items()}


def test_opening_stock_is_written_as_receipts_that_have_their_own_ids(tmp_path: Path) -> None:
    """What there is none of did not come in."""
    path = tmp_path / "receipts.csv"
    assert data.write_receipts(path, {("zone-1", "A"): 2, ("zone-1", "B"): 0, ("zone-2", "A"): 1}) == 2
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"receipt_id": "opening/zone-1/A", "pool_id": "zone-1", "sku": "A", "quantity": "2"},
        {"receipt_id": "opening/zone-2/A", "pool_id": "zone-2", "sku": "A", "quantity": "1"},
    ]


def test_some_customers_cannot_pay_all_they_order() -> None:
    """A card with a limit bears half of it."""
    purchases = data.read_purchases()[:300]
    limits = data.card_limits(purchases)
    spent = {customer: sum(one.cents for one in purchases if one.customer == customer) for customer in limits}
    assert limits
    assert limits == {customer: cents // 2 for customer, cents in spent.items()}


def test_money_is_exact() -> None:
    """Cents become units and nanos without a rest."""
    assert (data.money(1_234).units, data.money(1_234).nanos, data.money(5).nanos) == (12, 340_000_000, 50_000_000)
    assert Purchase("r", "c", "1997-01-01", (Line("A", 2, 1466), Line("B", 1, 1))).cents == 2_933

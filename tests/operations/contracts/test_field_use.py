"""Who reads a field is shown by taking it away; the gate is red when somebody reads what goes, whoever's repository he lives in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.price_pb2 import PriceListed

from backbone.cli import main
from backbone.contract import ResolvedService, check_platform, resolve
from backbone.declare import Decider, Service, on
from backbone.errors import DeclarationError
from backbone.operations.contracts import ablation, expectations, field_use, gate
from backbone.operations.contracts.ablation import ANY, Decided, uses
from backbone.operations.contracts.field_use import FieldUse
from backbone.operations.contracts.gate import Law
from contexts.ordering.context import ordering
from shop import shop
from tests import examples as say
from tests.operations.contracts.conftest import RECORDED, ROOT
from tests.operations.contracts.planted import ORDER, PRICE, Edit
from tests.operations.contracts.test_gate import edit, names, promise

ORDERING = "retail.ordering.v1"
VALIDATED = f"{ORDERING}.OrderValidated"


@pytest.fixture(scope="module")
def known() -> FieldUse:
    """Who reads what in this checkout."""
    return field_use.field_use(Law(ROOT, shop, recorded=RECORDED))


@dataclass(frozen=True)
class Seen:
    """What the decider below holds."""

    sku: str = ""


def evolve(seen: Seen, said: PriceListed) -> Seen:
    return replace(seen, sku=said.sku)


def deciding(by: str) -> ResolvedService:
    """A service in the place of pricing that decides by one field of an event."""

    def decide(seen: Seen, item: ItemCatalogued) -> Iterator[PriceListed]:
        if getattr(item, by) != getattr(ItemCatalogued(), by):
            yield say.price_listed("CD-9")

    return resolve(ordering, Service("pricing", Decider(Seen, evolve, on(ItemCatalogued, decide))))


@pytest.mark.parametrize(("by", "other"), [("title", "list_price"), ("list_price", "title")])
def test_a_field_is_read_by_whoever_decides_otherwise_without_it(by: str, other: str, tmp_path: Path) -> None:
    ablation.write_decisions(tmp_path, "ordering.pricing", [Decided((), say.item_catalogued(title="Blue"))])
    found = {(one.path, one.does): one for one in uses([deciding(by)], tmp_path)}
    assert found[by, "decides"].reads
    assert found[by, "decides"].shown == "decisions/ordering.pricing.json[0]"
    assert not found[other, "decides"].reads
    assert found["sku", ablation.KEYED].reads


def test_of_what_is_heard_and_not_recorded_every_field_may_be_read(tmp_path: Path, known: FieldUse) -> None:
    services = [deciding("title")]
    found = uses(services, tmp_path)
    assert [(one.event, one.path, one.reads) for one in found] == [(f"{ORDERING}.ItemCatalogued", ANY, True)]
    written = json.loads(expectations.expected(services, found, known.image).to_json())
    read = written["consumers"]["ordering.pricing"]["retail.ordering.catalogue.v1"]["reads"][f"{ORDERING}.ItemCatalogued"]
    assert read == {"list_price": "google.type.Money = 3", "sku": "string = 1", "title": "string = 2"}


def test_everything_that_is_heard_is_recorded() -> None:
    services = [service for group in check_platform(shop, "retail").values() for service in group]
    unrecorded = [(one.consumer, one.event) for one in uses(services, ROOT / RECORDED) if one.path == ANY]
    assert unrecorded == [], "python -m tests.contexts.golden decisions"


def test_the_shop_reads_what_its_services_need(known: FieldUse) -> None:
    assert known.readers(VALIDATED, "delivery_zone") == ["fulfilment.stock", "ordering.orders"]
    assert known.readers(VALIDATED, "lines.sku") == ["fulfilment.stock", "ordering.orders"]
    assert "payments.payments" in known.readers(VALIDATED, "total")
    assert known.readers(f"{ORDERING}.ItemCatalogued", "title") == []


def test_the_committed_expectations_are_what_the_recordings_show(known: FieldUse) -> None:
    assert (ROOT / "protos" / "expectations" / "shop.json").read_text() == known.own.to_json(), "make catalogue"


def test_what_is_written_is_read_again(known: FieldUse, tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(known.own.to_json())
    again = expectations.read(tmp_path / "shop.json", "shop.json")
    assert again.to_json() == known.own.to_json()


ELSEWHERE = {
    "format": 1,
    "consumers": {
        "analytics.revenue": {
            "retail.ordering.orders.v1": {
                "key": "order_id",
                "reads": {f"{ORDERING}.OrderConfirmed": {"lines.sku": "string = 1", "total": "google.type.Money = 6"}},
            },
            "retail.ordering.prices.v1": {"key": "sku", "reads": {f"{ORDERING}.PriceListed": {"unit_price": "google.type.Money = 2"}}},
        }
    },
}

PRICE_GONE = Edit(PRICE, "  google.type.Money unit_price = 2", '  reserved 2;\n  reserved "unit_price";\n  google.type.Money price = 3')
"""A field that the consumer above reads, taken out as the rules of Protobuf want it."""


@pytest.fixture
def elsewhere(copy: Law, today: bytes) -> Law:
    """The contracts with a consumer in another repository."""
    promise(copy, today)
    folder = copy.root / copy.expectations
    folder.mkdir(parents=True)
    (folder / "analytics.json").write_text(json.dumps(ELSEWHERE))
    return copy


def test_a_consumer_elsewhere_whose_fields_are_there_finds_nothing(elsewhere: Law) -> None:
    assert names(gate.check(elsewhere).findings) == []


@pytest.mark.parametrize(
    ("edits", "finding", "says"),
    [
        (
            [PRICE_GONE],
            f"READ_FIELD_GONE:{ORDERING}.PriceListed.unit_price",
            "analytics.revenue reads unit_price of",
        ),
        (
            [Edit(ORDER, "  string sku = 1", '  reserved 1;\n  reserved "sku";\n  string article = 4')],
            f"READ_FIELD_GONE:{ORDERING}.OrderLine.sku",
            "analytics.revenue reads lines.sku of",
        ),
        (
            [Edit(PRICE, "  google.type.Money unit_price = 2", "  google.type.Money unit_price = 3")],
            f"READ_FIELD_CHANGED:{ORDERING}.PriceListed.unit_price",
            "as google.type.Money = 2, now it is google.type.Money = 3",
        ),
        (
            [Edit(PRICE, 'key: "sku"', 'key: "unit_price"')],
            f"READ_KEY_CHANGED:{ORDERING}.PriceEvent",
            "by sku, now it is keyed by unit_price",
        ),
        (
            [Edit(PRICE, 'name: "retail.ordering.prices.v1"', 'name: "retail.ordering.prices.v2"')],
            "READ_TOPIC_GONE:retail.ordering.prices.v1",
            "no wrapper declares",
        ),
        (
            [Edit(ORDER, "OrderConfirmed order_confirmed = 4;", "OrderCancellationRefused confirmed = 4;")],
            f"READ_EVENT_GONE:{ORDERING}.OrderConfirmed",
            "no longer holds it",
        ),
    ],
    ids=["field gone", "field of a part gone", "field of another number", "another key", "topic gone", "event gone"],
)
def test_the_gate_is_red_when_what_a_consumer_elsewhere_reads_goes(elsewhere: Law, edits: list[Edit], finding: str, says: str) -> None:
    edit(elsewhere, edits)
    found = gate.check(elsewhere)
    one = next((one for one in found.breaches if one.name == finding), None)
    assert one is not None, names(found.findings)
    assert one.breaks == ("analytics.revenue",)
    assert one.against == ("protos/expectations/analytics.json",)
    assert says in one.what


def test_a_field_may_go_once_nobody_says_any_more_that_he_reads_it(elsewhere: Law) -> None:
    edit(elsewhere, [PRICE_GONE])
    assert any(name.startswith("READ_FIELD_GONE") for name in names(gate.check(elsewhere).breaches))
    (elsewhere.root / elsewhere.expectations / "analytics.json").write_text(json.dumps({"format": 1, "consumers": {}}))
    assert not any(name.startswith("READ_") for name in names(gate.check(elsewhere).breaches))


def test_a_deleted_field_is_told_with_whoever_reads_it(elsewhere: Law) -> None:
    edit(elsewhere, [Edit(PRICE, "  google.type.Money unit_price = 2", "  google.type.Money price = 3")])
    found = {one.rule: one for one in gate.check(elsewhere).breaches}
    assert "read by analytics.revenue" in found["FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"].what


def test_a_file_that_cannot_be_understood_is_named(elsewhere: Law) -> None:
    (elsewhere.root / elsewhere.expectations / "analytics.json").write_text('{"format": 2}')
    with pytest.raises(DeclarationError, match=r"protos/expectations/analytics.json cannot be read.*format is 2"):
        gate.check(elsewhere)


def test_whether_a_field_may_go_is_answered_with_evidence() -> None:
    yes = CliRunner().invoke(main, ["contracts", "field-use", "ItemCatalogued.title"])
    assert yes.exit_code == 0, yes.output
    assert "ordering.pricing does without" in yes.output
    no = CliRunner().invoke(main, ["contracts", "field-use", "OrderValidated.delivery_zone"])
    assert no.exit_code == 1
    assert "fulfilment.stock decides by it" in no.output
    assert "payments.payments does without" in no.output
    part = CliRunner().invoke(main, ["contracts", "field-use", "OrderLine.sku"])
    assert f"{VALIDATED}.lines.sku" in part.output
    unknown = CliRunner().invoke(main, ["contracts", "field-use", "OrderValidated.zone"])
    assert unknown.exit_code == 1
    assert "delivery_zone" in unknown.stderr


def test_expectations_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["contracts", "expect", "--into", str(tmp_path / "of" / "shop.json")])
    assert done.exit_code == 0, done.output
    assert "retail.fulfilment.receipts.v1" in (tmp_path / "of" / "shop.json").read_text()


def test_the_own_file_is_kept_up_to_date_with_the_catalogue(known: FieldUse, tmp_path: Path) -> None:
    folder = tmp_path / "protos" / "expectations"
    folder.mkdir(parents=True)
    (folder / "analytics.json").write_text(json.dumps(ELSEWHERE))
    assert field_use.own_file(Law(tmp_path), known) is None
    (folder / "shop.json").write_text(known.own.to_json())
    assert field_use.own_file(Law(tmp_path), known) == folder / "shop.json"
    stale = (ROOT / "protos" / "expectations" / "shop.json").read_text()
    assert CliRunner().invoke(main, ["contracts", "catalogue", "--check"]).exit_code == 0
    assert (ROOT / "protos" / "expectations" / "shop.json").read_text() == stale

"""The catalogue says all that is declared, and is what was generated last."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from backbone.cli import main
from backbone.operations import drawing
from backbone.operations.contracts import catalogue
from backbone.operations.contracts.catalogue import Catalogue
from backbone.operations.contracts.gate import Law
from backbone.topology import topology
from shop import shop

ROOT = Path(__file__).parents[3]
GENERATED = ROOT / "docs" / "generated"
PARSER = ROOT / ".venv" / "asyncapi"
PARSE = """
const { Parser } = require("@asyncapi/parser");
const text = require("fs").readFileSync(process.argv[1], "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  for (const one of diagnostics) console.log(one.severity, one.code, one.message, one.path.join("."));
  process.exit(document ? 0 : 1);
});
"""


@pytest.fixture(scope="module")
def made() -> Catalogue:
    """The catalogue of the checkout."""
    return catalogue.catalogue(Law(ROOT, shop, recorded="tests/contexts/golden"))


@pytest.fixture(scope="module")
def pages(made: Catalogue) -> dict[str, str]:
    """Its pages."""
    return dict(made.pages())


def test_the_committed_pages_are_what_is_declared(pages: dict[str, str]) -> None:
    assert catalogue.stale(pages, GENERATED) == [], "make catalogue"


def test_a_stale_missing_or_left_over_page_is_found(pages: dict[str, str], tmp_path: Path) -> None:
    catalogue.write(pages, tmp_path)
    assert catalogue.stale(pages, tmp_path) == []
    (tmp_path / "README.md").write_text("typed by hand")
    (tmp_path / "asyncapi.json").unlink()
    (tmp_path / "events" / "retail.gone.v1.Gone.md").write_text("# Gone")
    (tmp_path / "of-others.md").write_text("of somebody else")
    assert catalogue.stale(pages, tmp_path) == ["README.md", "asyncapi.json", "events/retail.gone.v1.Gone.md"]
    catalogue.write(pages, tmp_path)
    assert catalogue.stale(pages, tmp_path) == []
    assert (tmp_path / "of-others.md").exists()


def test_every_event_topic_and_service_has_a_page(pages: dict[str, str]) -> None:
    of = topology(shop, "retail")
    assert {f"events/{event.name}.md" for event in of.events} <= pages.keys()
    assert {f"topics/{node.name}.md" for node in of.topics if not node.private} <= pages.keys()
    assert {f"services/{name}.md" for name in of.services} <= pages.keys()


def test_an_event_is_told_with_fields_rules_owner_consumers_topics_example_and_since(pages: dict[str, str]) -> None:
    page = pages["events/retail.ordering.v1.OrderRejected.md"]
    for said in (
        "The answer: no.",
        "| said by | [ordering.orders]",
        "[payments.payments]",
        "[retail.ordering.orders-by-zone.v1](../topics/retail.ordering.orders-by-zone.v1.md) by `delivery_zone`",
        "| 4 | `reason` | `retail.ordering.v1.RejectionReason` | Why. An answer without a reason is none. | defined_only, not_in 0 |",
        "`REJECTION_REASON_OVERDUE`",
        '"reason": "REJECTION_REASON_OUT_OF_STOCK"',
    ):
        assert said in page


def test_every_event_has_an_example_and_every_link_leads_somewhere(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        if name.startswith("events/"):
            assert "## Example" in page, name
        for target in (part.partition(")")[0] for part in page.split("](")[1:] if name.endswith(".md")):
            path = (Path("/") / name).parent / target
            assert str(Path(*path.resolve().parts[1:])) in pages, f"{name} links to {target}"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("OrderConfirmed", "# OrderConfirmed"),
        ("retail.ordering.v1.OrderConfirmed", "# OrderConfirmed"),
        ("retail.fulfilment.stock.v1", "StockLevelChanged"),
        ("private.payments.payments.commands", "AuthorizeCard"),
        ("payments.risk", "GetCustomerHistory"),
        ("AuthorizeCard", "private.payments.payments.commands"),
    ],
)
def test_describe_prints_the_page_of_an_event_command_topic_or_service(what: str, said: str) -> None:
    result = CliRunner().invoke(main, ["describe", what])
    assert result.exit_code == 0
    assert said in result.output


def test_describe_says_what_is_near_and_what_is_meant(made: Catalogue) -> None:
    near = CliRunner().invoke(main, ["describe", "OrderConfirm"])
    assert near.exit_code == 1
    assert "retail.ordering.v1.OrderConfirmed" in near.stderr
    both = CliRunner().invoke(main, ["describe", "OrderLine"])
    assert both.exit_code == 1
    assert "say which" in both.stderr


def test_the_picture_holds_every_service_and_line(made: Catalogue) -> None:
    of = made.topology
    root = ET.fromstring(drawing.svg(of))
    titles = {title.text for title in root.iter("{http://www.w3.org/2000/svg}title")}
    assert set(of.services) <= titles
    assert len([path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("marker-end")]) == len(drawing.drawn(of))
    chart = drawing.mermaid(of)
    assert all(f"[{name.partition('.')[2]}]" in chart for name in of.services)


@pytest.mark.parametrize(("form", "begins"), [("--svg", "<svg"), ("--mermaid", "flowchart"), ("--json", "{")])
def test_the_topology_is_told_in_every_form(form: str, begins: str) -> None:
    assert CliRunner().invoke(main, ["topology", form]).output.startswith(begins)


def test_the_topology_is_told_in_one_form_at_a_time() -> None:
    assert CliRunner().invoke(main, ["topology", "--svg", "--json"]).exit_code == 2


class TestAsyncApi:
    def test_whoever_writes_sends_and_whoever_reads_receives(self, pages: dict[str, str]) -> None:
        document = json.loads(pages["asyncapi.json"])
        assert document["operations"]["payments.payments.says.retail.payments.payments.v1"]["action"] == "send"
        assert document["operations"]["ordering.orders.hears.retail.payments.payments.v1"]["action"] == "receive"
        assert document["channels"]["retail.fulfilment.stock-by-sku.v1"]["x-copy-of"] == "retail.fulfilment.stock.v1"
        line = document["components"]["schemas"]["retail.ordering.v1.OrderLine"]
        assert line["properties"]["quantity"]["maximum"] == 1000
        assert line["required"] == ["sku", "quantity", "unit_price"]

    def test_every_reference_leads_somewhere(self, pages: dict[str, str]) -> None:
        document = json.loads(pages["asyncapi.json"])
        for part in pages["asyncapi.json"].split('"$ref": "#/')[1:]:
            found = document
            for step in part.partition('"')[0].split("/"):
                found = found[step]

    def test_the_official_parser_accepts_it(self) -> None:
        node = shutil.which("node")
        if node is None or not (PARSER / "node_modules" / "@asyncapi" / "parser").is_dir():
            pytest.skip("the official AsyncAPI parser is not here: make asyncapi-parser fetches it where npm is")
        done = subprocess.run(
            [node, "-e", PARSE, str(GENERATED / "asyncapi.json")],
            cwd=PARSER, env={"NODE_PATH": str(PARSER / "node_modules")}, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "")

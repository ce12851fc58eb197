"""The gate finds what breaks, says whom, and lets pass what breaks nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from backbone.operations.contracts import buf, corpus, gate, releases, report
from backbone.operations.contracts.finding import Finding, Level
from backbone.operations.contracts.folds import Fold, compare_folds, folds_of, read_recorded, state_shape
from backbone.operations.contracts.gate import Law
from backbone.operations.contracts.image import Image, Role
from backbone.operations.contracts.release import NotReleased, release
from backbone.operations.contracts.values import Change, compare
from contexts.fulfilment.stock.state import Pool
from shop import shop
from tests.operations.contracts.planted import HARMLESS, NOTICED, PLANTED, Edit, Planted

ROOT = Path(__file__).parents[3]
RECORDED = "tests/contexts/golden"
TODAY = date(2026, 3, 2)


def edit(law: Law, edits: Sequence[Edit]) -> None:
    for one in edits:
        file = law.root / "protos" / one.file
        text = file.read_text()
        assert one.old in text, f"{one.file} no longer says {one.old!r}: plant the breach elsewhere"
        file.write_text(text.replace(one.old, one.new, 1))


def promise(law: Law, image: bytes) -> None:
    """Release 1 of an image, with today's folds."""
    folds = folds_of(shop, read_recorded(ROOT / RECORDED))
    releases.Release(1, image, folds).write(law.root / law.released)


def names(found: Sequence[Finding]) -> list[str]:
    return [one.name for one in found]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda one: one.name)
def test_a_planted_breach_is_found_with_whom_it_breaks(copy: Law, today: bytes, planted: Planted) -> None:
    edit(copy, planted.before)
    promise(copy, buf.build(copy.root, sources=False) if planted.before else today)
    edit(copy, planted.edits)
    found = gate.check(copy)
    assert not found.open
    one = next((one for one in found.breaches if one.name == planted.finding), None)
    assert one is not None, f"found only {names(found.findings)}"
    assert set(planted.breaks) <= set(one.breaks)
    assert all((one.what, one.why, one.instead))
    assert one.against == ("release 1",) or not one.against


def test_there_are_enough_kinds_of_breaches() -> None:
    assert len(PLANTED) >= 25
    assert len({planted.finding.partition(":")[0] for planted in PLANTED}) >= 20


@pytest.mark.parametrize("planted", NOTICED, ids=lambda one: one.name)
def test_what_somebody_should_know_is_a_notice_and_passes(copy: Law, today: bytes, planted: Planted) -> None:
    promise(copy, today)
    edit(copy, planted.edits)
    found = gate.check(copy)
    assert found.open, names(found.breaches)
    one = next(one for one in found.findings if one.name == planted.finding)
    assert one.level is Level.NOTICE
    assert set(planted.breaks) <= set(one.breaks)


@pytest.mark.parametrize("planted", HARMLESS, ids=lambda one: one.name)
def test_what_breaks_nobody_passes(copy: Law, today: bytes, planted: Planted) -> None:
    promise(copy, today)
    edit(copy, planted.edits)
    assert names(gate.check(copy).findings) == []


def test_a_row_may_change_when_its_view_has_a_higher_version(copy: Law, today: bytes) -> None:
    folds = dict(folds_of(shop, {}))
    name = "payments.risk.customer_history"
    folds[name] = replace(folds[name], version=folds[name].version - 1)
    releases.Release(1, today, folds).write(copy.root / copy.released)
    planted = next(one for one in PLANTED if one.name.startswith("a row with another field"))
    edit(copy, planted.edits)
    assert names(gate.check(copy).findings) == []


def test_a_state_or_fold_that_changes_needs_a_higher_version() -> None:
    before = {"a.b": Fold(2, "", "shape", {"history": "gives"})}
    kinds = {
        "STATE_CHANGED": Fold(2, "", "another", {"history": "gives"}),
        "FOLD_CHANGED": Fold(2, "", "shape", {"history": "gives else"}),
        "FOLD_VERSION_FELL": Fold(1, "", "shape", {"history": "gives"}),
    }
    for rule, fold in kinds.items():
        assert [found for found, _, _ in compare_folds(before, {"a.b": fold})] == [rule]
    assert not list(compare_folds(before, {"a.b": Fold(3, "", "another", {"history": "gives else"})}))
    assert not list(compare_folds(before, {"a.b": Fold(2, "", "shape", {"history": "gives", "one more": "x"})}))


def test_the_shape_of_a_state_goes_into_its_parts() -> None:
    assert "on_hand" in json.dumps(state_shape(Pool))


def test_every_fold_is_promised_with_what_it_gave() -> None:
    folds = folds_of(shop, read_recorded(ROOT / RECORDED))
    assert {name for name, fold in folds.items() if not fold.histories} == set()


def test_a_lost_last_consumer_is_a_notice(copy: Law, today: bytes) -> None:
    event = "retail.ordering.v1.OrderReserved"
    folds = folds_of(shop, {})
    heard = {event: ["gateway.door"], "retail.payments.v1.PaymentAssessed": ["payments.gone"]}
    releases.Release(1, today, folds, heard).write(copy.root / copy.released)
    found = gate.check(copy)
    assert found.open
    assert names(found.findings) == ["LAST_CONSUMER_LOST:retail.payments.v1.PaymentAssessed"]


def test_a_git_ref_is_something_to_hold_it_against(copy: Law) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=copy.root, check=True, capture_output=True
        )

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "Promise")
    assert gate.check(copy, "HEAD").open
    edit(copy, next(one for one in PLANTED if one.name == "another key").edits)
    assert "KEY_CHANGED:retail.fulfilment.v1.ReceiptEvent" in names(gate.check(copy, "HEAD").breaches)


def test_without_a_platform_the_gate_still_judges(copy: Law, today: bytes, tmp_path: Path) -> None:
    image = tmp_path / "theirs.binpb"
    image.write_bytes(today)
    edit(copy, next(one for one in PLANTED if one.name == "another key").edits)
    found = gate.check(replace(copy, platform=None), str(image))
    assert names(found.breaches) == ["KEY_CHANGED:retail.fulfilment.v1.ReceiptEvent"]
    assert found.breaches[0].breaks == ()


def test_a_tightened_rule_shows_the_stored_records_it_breaks(copy: Law, today: bytes) -> None:
    shutil.copytree(ROOT / copy.corpus, copy.root / copy.corpus)
    promise(copy, today)
    edit(copy, [Edit("retail/ordering/v1/order.proto", "lte: 1000", "lte: 1")])
    found = next(one for one in gate.check(copy).breaches if one.name == "VALUE_RULE_TIGHTENED:retail.ordering.v1.OrderLine.quantity")
    assert "stored records: retail.ordering.orders" in found.what


class TestRelease:
    def test_the_first_release_promises_everything_and_tells_users(self, copy: Law, today: bytes) -> None:
        made = release(copy, {}, TODAY)
        assert made.image.read_bytes() == today
        assert made.release.number == 1
        changelog = (copy.root / "CHANGELOG.md").read_text()
        assert "## Contracts, release 1 (2026-03-02)" in changelog
        assert gate.check(copy).open

    def test_a_red_gate_refuses_unless_each_finding_has_a_reason(self, copy: Law) -> None:
        release(copy, {}, TODAY)
        edit(copy, next(one for one in PLANTED if one.name == "another key").edits)
        name = "KEY_CHANGED:retail.fulfilment.v1.ReceiptEvent"
        with pytest.raises(NotReleased, match=name):
            release(copy, {}, TODAY)
        with pytest.raises(NotReleased, match="no breach KEY_CHANGED:elsewhere"):
            release(copy, {name: "nobody reads it", "KEY_CHANGED:elsewhere": "x"}, TODAY)
        with pytest.raises(NotReleased, match="say why"):
            release(copy, {name: " "}, TODAY)
        assert not (copy.root / copy.released / "2.binpb").exists()
        made = release(copy, {name: "nobody reads it"}, TODAY)
        assert f"**Breaks** `{name}`: nobody reads it" in made.entry
        assert gate.check(copy).open, "what release 2 accepted is not found against release 1 again"

    def test_every_release_counts_not_only_the_last(self, copy: Law) -> None:
        release(copy, {}, TODAY)
        deleted = next(one for one in HARMLESS if one.name == "a deleted field without a rule, in all form")
        edit(copy, deleted.edits)
        release(copy, {}, TODAY)
        edit(
            copy,
            [Edit("retail/payments/v1/payment.proto", '  reserved 3;\n  reserved "accepted";\n', "  // Why.\n  string accepted = 3;\n")],
        )
        against = {name for one in gate.check(copy).breaches for name in one.against}
        assert {"release 1", "release 2"} <= against

    def test_nothing_new_is_no_release(self, copy: Law) -> None:
        release(copy, {}, TODAY)
        with pytest.raises(NotReleased, match="nothing has changed"):
            release(copy, {}, TODAY)

    def test_what_is_new_is_told(self, copy: Law) -> None:
        release(copy, {}, TODAY)
        edit(copy, NOTICED[0].edits)
        entry = release(copy, {}, TODAY).entry
        assert "- New message `retail.ordering.v1.PriceForgotten`." in entry
        assert "- New field `retail.ordering.v1.PriceEvent.price_forgotten`." in entry

    @pytest.mark.parametrize(
        ("spoil", "finding"),
        [
            (lambda folder: (folder / "1.binpb").write_bytes(b""), "RELEASE_CHANGED:protos/released/1.binpb"),
            (
                lambda folder: (folder / "1.json").write_text((folder / "1.json").read_text() + " "),
                "RELEASE_CHANGED:protos/released/1.json",
            ),
            (lambda folder: (folder / "1.json").unlink(), "RELEASE_CHANGED:protos/released/1.json"),
            (lambda folder: [(folder / f"1.{end}").unlink() for end in ("binpb", "json")], "RELEASE_CHANGED:protos/released/2.binpb"),
        ],
        ids=["another image", "other notes", "no notes", "no release"],
    )
    def test_a_release_that_is_not_what_it_was_is_found(self, copy: Law, spoil: Callable[[Path], object], finding: str) -> None:
        release(copy, {}, TODAY)
        edit(copy, NOTICED[0].edits)
        release(copy, {}, TODAY)
        spoil(copy.root / copy.released)
        assert finding in names(gate.check(copy).breaches)

    def test_stored_bytes_that_a_release_kept_must_stay(self, copy: Law) -> None:
        stored = copy.root / copy.corpus / "retail.ordering.prices.v1" / "1"
        stored.mkdir(parents=True)
        (stored / "01-PriceListed.key").write_bytes(b"CD-1")
        (stored / "02-PriceListed.key").write_bytes(b"CD-2")
        release(copy, {}, TODAY)
        (stored / "01-PriceListed.key").write_bytes(b"CD-9")
        (stored / "02-PriceListed.key").unlink()
        assert [one.rule for one in gate.check(copy).breaches] == ["CORPUS_CHANGED", "CORPUS_CHANGED"]


class TestReport:
    @pytest.fixture
    def found(self, copy: Law, today: bytes) -> gate.Report:
        promise(copy, today)
        edit(copy, next(one for one in PLANTED if one.name == "another key").edits)
        return gate.check(copy)

    def test_people_read_what_why_whom_and_what_instead(self, found: gate.Report) -> None:
        text = "\n".join(report.lines(found))
        for word in (
            "BREACH KEY_CHANGED",
            "what:",
            "why:",
            "breaks:  fulfilment.stock",
            "instead:",
            "receipt.proto:",
            "1 breaches, 0 notices",
        ):
            assert word in text

    def test_programs_read_json(self, found: gate.Report) -> None:
        told = json.loads(json.dumps(report.to_dict(found)))
        assert told["open"] is False
        assert told["findings"][0]["breaks"] == ["fulfilment.stock"]

    def test_a_forge_reads_sarif(self, found: gate.Report) -> None:
        run = report.to_sarif(found, {"retail/fulfilment/v1/receipt.proto": "protos/"})["runs"][0]
        assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["KEY_CHANGED"]
        place = run["results"][0]["locations"][0]["physicalLocation"]
        assert (ROOT / place["artifactLocation"]["uri"]).is_file()
        assert place["region"]["startLine"] > 1


def test_the_checkout_keeps_all_it_promised() -> None:
    found = gate.check(Law(ROOT, shop, recorded=RECORDED))
    assert found.open, "\n".join(report.lines(found))
    assert found.against, "there is no release"
    assert found.seconds < 10


class TestValues:
    @pytest.mark.parametrize(
        ("before", "after", "changes"),
        [
            ({"int32.at_most": (10, 1)}, {"int32.at_most": (9, 1)}, [Change.TIGHTENED]),
            ({"double.at_most": (10.0, 1)}, {"double.at_most": (10.0, 0)}, [Change.TIGHTENED]),
            ({"string.min_len": (1, 0)}, {}, [Change.LOOSENED]),
            ({"string.min_len": (2, 0)}, {"string.min_len": (1, 0)}, [Change.LOOSENED]),
            ({"string.in": frozenset("ab")}, {"string.in": frozenset("abc")}, [Change.LOOSENED]),
            ({"string.not_in": frozenset("ab")}, {"string.not_in": frozenset("abc")}, [Change.TIGHTENED]),
            ({"string.in": frozenset("ab")}, {"string.in": frozenset("bc")}, [Change.TIGHTENED, Change.LOOSENED]),
            ({"string.pattern": "a"}, {"string.pattern": "b"}, [Change.TIGHTENED, Change.LOOSENED]),
            ({}, {"required": True}, [Change.TIGHTENED]),
            ({"ignore": 1}, {}, [Change.TIGHTENED, Change.LOOSENED]),
            ({"required": True}, {"required": True}, []),
        ],
        ids=str,
    )
    def test_a_rule_becomes_tighter_or_looser(self, before: dict[str, object], after: dict[str, object], changes: list[Change]) -> None:
        assert [one.change for one in compare(before, after)] == changes


class TestImage:
    def test_roles_follow_from_what_a_message_is_part_of(self, today: bytes) -> None:
        image = Image.of(today)
        assert image.roles["retail.ordering.v1.OrderLine"] == {Role.EVENT}
        assert Role.REQUEST in image.roles["retail.gateway.v1.OrderLine"]
        assert image.roles["retail.payments.views.v1.CustomerHistory"] == {Role.ROW, Role.QUESTION}
        assert image.roles["retail.payments.effects.v1.AssessRisk"] == {Role.EFFECT}

    def test_the_stored_bytes_are_valid_today(self, today: bytes) -> None:
        assert corpus.invalid(ROOT / "protos/corpus", Image.of(today)) == []

"""A demonstration that claims what is not so must say so, and must see what it says nobody touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbone.local.processes import Identity
from demo import outage, plug_in
from demo.account import Account, changed


def test_what_is_so_is_said_and_nothing_is_wrong() -> None:
    """And the exit code says it too."""
    said: list[str] = []
    account = Account(said.append)
    account.claim("the sky is blue", True)
    assert account.end() == 0
    assert [line.split("s  ", 1)[1] for line in said] == ["so it is: the sky is blue", "all 1 claims hold"]


def test_what_is_not_so_is_said_with_what_is() -> None:
    """One false claim among true ones is enough for the exit code."""
    said: list[str] = []
    account = Account(said.append)
    account.claim("the sky is blue", False, "it rains")
    account.claim("water is wet", True)
    assert account.end() == 1
    assert said[0].endswith("NOT SO: the sky is blue; it rains")
    assert said[-1].endswith("1 of 2 claims do not hold: the sky is blue")


def test_a_process_that_was_started_again_is_another_one() -> None:
    """Even if it got the process id of its predecessor; so is a slot nobody runs in, or a new one."""
    before = {"orders": Identity(1, 10.0), "stock": Identity(2, 10.0), "payments": Identity(3, 10.0)}
    after = {"orders": Identity(1, 10.0), "stock": Identity(2, 20.0), "payments": None, "risk": Identity(4, 20.0)}
    assert changed(before, before) == []
    assert changed(before, after) == ["payments", "risk", "stock"]


def test_a_file_that_changed_came_or_went_is_seen(tmp_path: Path) -> None:
    """What hidden folders and caches hold is nobody's business."""
    (tmp_path / "contexts").mkdir()
    (tmp_path / "contexts" / "orders.py").write_text("one")
    (tmp_path / "shop.py").write_text("one")
    before = plug_in.tree(tmp_path)
    for hidden in (".git", "__pycache__"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "something").write_text("one")
    assert plug_in.tree(tmp_path) == before
    (tmp_path / "contexts" / "orders.py").write_text("two")
    (tmp_path / "contexts" / "stock.py").write_text("one")
    (tmp_path / "shop.py").unlink()
    assert plug_in.differences(before, plug_in.tree(tmp_path)) == ["contexts/orders.py", "contexts/stock.py", "shop.py"]


def test_what_cannot_be_shown_is_refused_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    for main, arguments, why in (
        (outage.main, ["--orders", "0"], "--orders is 0: a number from 1 to 500"),
        (outage.main, ["--patience", "60"], "--patience is 60: a number of seconds from 1 to 10"),
        (plug_in.main, ["--customers", "501"], "--customers is 501: a number from 1 to 500"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert why in capsys.readouterr().err

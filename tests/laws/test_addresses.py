"""Which log and which books the laws are asked of."""

from __future__ import annotations

from pathlib import Path

import pytest

from laws.__main__ import _addresses, _options
from laws.log import READER


def test_a_folder_of_passwords_that_is_named_comes_before_that_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("named", "around"):
        (tmp_path / name).mkdir()
        (tmp_path / name / READER).write_text(f"word of {name}\n")
    monkeypatch.setenv("KAFKA_SECRETS", str(tmp_path / "around"))
    another = ["--kafka", "there:1", "--provider", "http://there:2"]
    kafka, provider = _addresses(_options([*another, "--secrets", str(tmp_path / "named")]))
    assert (kafka["bootstrap.servers"], kafka["sasl.password"], provider) == ("there:1", "word of named", "http://there:2")
    kafka, _ = _addresses(_options(another))
    assert kafka["sasl.password"] == "word of around"


@pytest.mark.parametrize("half", [["--kafka", "there:1"], ["--secrets", "there"], ["--secrets", "there", "--provider", "http://there:2"]])
def test_half_of_another_log_is_refused(half: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The stack's own would be judged in its place."""
    with pytest.raises(SystemExit, match="2"):
        _options(half)
    assert "--kafka needs --provider" in capsys.readouterr().err

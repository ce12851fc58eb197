"""Fast starts: a file that is made once, never trusted blindly, and never needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backbone.local import aot, kafka

OPTIONS = ("-Xmx512m",)


@pytest.fixture
def jars(tmp_path: Path) -> list[Path]:
    """A folder with one jar in it."""
    jar = tmp_path / "one.jar"
    jar.write_bytes(b"jar")
    return [jar]


def made(jars: list[Path], content: bytes = b"classes") -> Path:
    """The file for these jars, as if a JVM had made it."""
    file = aot.file_for(jars, OPTIONS)
    fresh = file.with_suffix(".fresh")
    fresh.write_bytes(content)
    aot.keep(fresh, file)
    return file


def test_a_whole_file_is_used(jars: list[Path]) -> None:
    file = made(jars)
    assert aot.is_settled(file)
    assert f"-XX:AOTCache={file}" in aot.options(file)


def test_a_missing_file_is_done_without(jars: list[Path]) -> None:
    file = aot.file_for(jars, OPTIONS)
    assert not aot.is_settled(file)
    assert aot.options(file) == ()


def test_a_damaged_file_is_done_without_and_made_again(jars: list[Path]) -> None:
    file = made(jars)
    file.write_bytes(b"clas")
    assert aot.options(file) == ()
    assert not aot.is_settled(file)


def test_where_none_can_be_made_it_is_not_tried_again(jars: list[Path]) -> None:
    file = aot.file_for(jars, OPTIONS)
    aot.keep(None, file)
    assert aot.is_settled(file)
    assert aot.options(file) == ()


def test_other_jars_or_options_get_a_file_of_their_own(jars: list[Path]) -> None:
    first = aot.file_for(jars, OPTIONS)
    assert aot.file_for(jars, ("-Xmx1g",)) != first
    os.utime(jars[0], (1, 1))
    assert aot.file_for(jars, OPTIONS) != first


@pytest.mark.parametrize("table", ["SETTINGS", "ALONE"])
def test_a_broker_that_is_told_something_else_gets_a_file_of_its_own(jars: list[Path], monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """It loads other classes: one made before brokers asked for passwords has none of those that check them."""
    first = kafka._made_ahead(jars)
    assert kafka._made_ahead(jars) == first
    monkeypatch.setattr(kafka, table, {**getattr(kafka, table), "authorizer.class.name": "another"})
    assert kafka._made_ahead(jars) != first


def test_only_the_newest_files_stay(jars: list[Path]) -> None:
    files = []
    for number in range(aot.KEPT + 3):
        os.utime(jars[0], (number, number))
        files.append(made(jars))
        os.utime(files[-1], (1_000 + number, 1_000 + number))
    assert sorted(jars[0].parent.glob("*.aot")) == sorted(files[-aot.KEPT - 1 :])

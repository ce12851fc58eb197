"""A CSV file that others append to is read line by line, and says so when it is not what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from backbone.declare import Unreadable
from backbone.sources import AT_ONCE, LONGEST_LINE, CsvTail, Line, SourceError

HEADER = b"sku,title\n"


def event(line: Line) -> Message:
    if line["sku"] == "bad":
        raise ValueError("it is bad")
    return StringValue(value=f"{line['sku']}={line['title']}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.csv"


@pytest.fixture
def tail(path: Path) -> CsvTail:
    return CsvTail(path, ("sku", "title"))


def read(tail: CsvTail, cursor: str = "") -> Sequence[tuple[str, Message | Unreadable]]:
    """One read."""
    return asyncio.run(tail.read(cursor, event))


def all_of(tail: CsvTail, cursor: str = "") -> tuple[list[str], str]:
    """The values of all lines from a cursor on, and the cursor after them."""
    values: list[str] = []
    while pairs := read(tail, cursor):
        values += [found.reason if isinstance(found, Unreadable) else found.value for _, found in pairs]  # type: ignore[attr-defined]
        cursor = pairs[-1][0]
    return values, cursor


def test_every_line_comes_with_the_cursor_behind_it(path: Path, tail: CsvTail) -> None:
    path.write_bytes(HEADER + b'A,one\nB,"two, and a half"\r\n')
    assert read(tail) == [("16", StringValue(value="A=one")), ("37", StringValue(value="B=two, and a half"))]
    assert read(tail, "16") == [("37", StringValue(value="B=two, and a half"))]
    assert read(tail, "37") == []


def test_a_line_is_taken_only_when_it_is_whole(path: Path, tail: CsvTail) -> None:
    path.write_bytes(HEADER[:5])
    assert read(tail) == []
    path.write_bytes(HEADER + b"A,one\nB,tw")
    values, cursor = all_of(tail)
    assert values == ["A=one"]
    with path.open("ab") as file:
        file.write(b"o\nC,three\n")
    assert all_of(tail, cursor) == (["B=two", "C=three"], str(path.stat().st_size))


def test_columns_may_come_in_any_order_with_others_and_a_byte_order_mark(path: Path, tail: CsvTail) -> None:
    path.write_bytes("\ufefftitle,sold,sku\nöne,5,A\n".encode())
    assert all_of(tail) == (["A=öne"], str(path.stat().st_size))


def test_a_line_that_cannot_be_read_comes_with_its_bytes_and_number_and_the_next_is_read(path: Path, tail: CsvTail) -> None:
    path.write_bytes(HEADER + b"A,one\nbad,x\n\xff,x\nB\n" + b'C,"open\n\nD,four\n')
    pairs = read(tail)
    assert [found.raw for _, found in pairs if isinstance(found, Unreadable)] == [b"bad,x\n", b"\xff,x\n", b"B\n", b'C,"open\n']
    values, _ = all_of(tail)
    assert values[0] == "A=one"
    assert values[1] == "items.csv line 3: it is bad"
    assert values[2].startswith("items.csv line 4: 'utf-8' codec can't decode")
    assert values[3] == "items.csv line 5: it has 1 fields, the header 2"
    assert values[4].startswith("items.csv line 6: ")
    assert values[5:] == ["D=four"]


def test_a_line_number_is_right_after_a_restart_too(path: Path) -> None:
    path.write_bytes(HEADER + b"A,one\nbad,x\n")
    [(_, found)] = read(CsvTail(path, ("sku",)), "16")
    assert isinstance(found, Unreadable)
    assert found.reason == "items.csv line 3: it is bad"


def test_a_long_file_comes_in_bounded_portions(path: Path, tail: CsvTail) -> None:
    path.write_bytes(HEADER + b"".join(b"%d,x\n" % number for number in range(AT_ONCE + 10)))
    assert len(read(tail)) == AT_ONCE
    values, _ = all_of(tail)
    assert values == [f"{number}=x" for number in range(AT_ONCE + 10)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER + b"A,on", "was cut or replaced"),
        (b"", "was replaced"),
        (b"title,sku\nfirst,A\nsecond,B\nthird,C\n", "no line ends at byte 22"),
    ],
    ids=["cut", "emptied", "replaced-by-a-longer-one"],
)
def test_a_file_that_was_cut_or_replaced_is_an_error(path: Path, tail: CsvTail, content: bytes, words: str) -> None:
    path.write_bytes(HEADER + b"A,one\nB,two\n")
    _, cursor = all_of(tail)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read(tail, cursor)


def test_a_file_without_a_column_is_an_error_that_names_it(path: Path, tail: CsvTail) -> None:
    path.write_bytes(b"sku,name\nA,one\n")
    with pytest.raises(SourceError, match="lacks the columns title; it has sku, name"):
        read(tail)


def test_a_line_without_end_is_an_error(path: Path, tail: CsvTail) -> None:
    path.write_bytes(HEADER + b"A," + b"x" * LONGEST_LINE)
    with pytest.raises(SourceError, match="longer than"):
        read(tail)


def test_a_file_that_does_not_exist_yet_is_an_error_that_passes(path: Path, tail: CsvTail) -> None:
    with pytest.raises(FileNotFoundError):
        read(tail)
    path.write_bytes(HEADER + b"A,one\n")
    assert all_of(tail) == (["A=one"], "16")

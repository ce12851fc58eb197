"""Foreign sources that intakes of several services read: a CSV file that others write and append to."""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import Message

from backbone.declare import Unreadable
from backbone.errors import BackboneError

AT_ONCE = 500
"""Lines that one read gives at most."""

LONGEST_LINE = 64 * 1024
"""Bytes of one line at most; a longer one means that this is no such file."""

Line = Mapping[str, str]
"""One line of the file, by column."""


class SourceError(BackboneError):
    """A foreign source is not what it should be; mend it, and it is read on."""


class CsvTail:
    """A growing CSV file, read line by line after a cursor.

    The cursor is the offset in bytes of the next line. Only whole lines are read, so that others may append while we read; a line is
    one row (no line breaks inside quotes), the first one names the columns. What lies before the cursor must not change.

    Args:
        path: the file; it need not exist yet.
        columns: columns it must have; others are ignored.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = tuple(columns)
        self._counted = (0, 0)

    async def read(self, cursor: str, event: Callable[[Line], Message]) -> Sequence[tuple[str, Message | Unreadable]]:
        """The events of the next whole lines, each with the cursor after it; none if there is no whole line yet.

        Args:
            cursor: where to go on; "" reads from the start.
            event: makes the event of a line; a line for which it raises ValueError is given as `Unreadable`, with its number.

        Raises:
            SourceError: the file lacks a column, was cut or replaced, or holds a line that has no end.
            OSError: it cannot be read.
        """
        return await asyncio.to_thread(self._read, cursor, event)

    def _read(self, cursor: str, event: Callable[[Line], Message]) -> list[tuple[str, Message | Unreadable]]:
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = self._whole_line(file, 0)
            if header is None:
                if cursor:
                    raise SourceError(f"{self._path} has {size} bytes and no header, {cursor} bytes of it were read: it was replaced")
                return []
            names = self._names(header)
            offset = self._resumed(file, size, int(cursor or len(header)), len(header))
            found: list[tuple[str, Message | Unreadable]] = []
            while len(found) < AT_ONCE and (raw := self._whole_line(file, offset)) is not None:
                offset += len(raw)
                if raw.strip():
                    found.append((str(offset), self._event(raw, names, offset, event)))
            return found

    def _whole_line(self, file: BinaryIO, offset: int) -> bytes | None:
        file.seek(offset)
        raw = file.readline(LONGEST_LINE)
        if raw.endswith(b"\n"):
            return raw
        if len(raw) == LONGEST_LINE:
            raise SourceError(f"{self._path}: the line at byte {offset} is longer than {LONGEST_LINE} bytes")
        return None

    def _names(self, header: bytes) -> list[str]:
        try:
            names = next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{self._path}: its first line is no header: {error}") from error
        if missing := [column for column in self._columns if column not in names]:
            raise SourceError(f"{self._path}: its first line lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
        return names

    def _resumed(self, file: BinaryIO, size: int, offset: int, header: int) -> int:
        if size < offset:
            raise SourceError(
                f"{self._path} has {size} bytes, {offset} were read: it was cut or replaced; put the file back and append to it"
            )
        file.seek(offset - 1)
        if offset < header or file.read(1) != b"\n":
            raise SourceError(f"{self._path}: no line ends at byte {offset}, where reading stopped: it was replaced; put the file back")
        return offset

    def _event(self, raw: bytes, names: Sequence[str], end: int, event: Callable[[Line], Message]) -> Message | Unreadable:
        try:
            values = next(csv.reader([raw.decode().rstrip("\r\n")], strict=True))
            if len(values) != len(names):
                raise ValueError(f"it has {len(values)} fields, the header {len(names)}")
            return event(dict(zip(names, values, strict=True)))
        except (ValueError, csv.Error) as error:
            return Unreadable(raw, f"{self._path.name} line {self._number(end)}: {error}")

    def _number(self, end: int) -> int:
        """Number of the line that ends at a byte, the header being line 1."""
        counted, lines = self._counted if self._counted[0] <= end else (0, 0)
        with self._path.open("rb") as file:
            file.seek(counted)
            lines += file.read(end - counted).count(b"\n")
        self._counted = (end, lines)
        return lines


@asynccontextmanager
async def csv_tail(path: str, columns: Sequence[str]) -> AsyncIterator[CsvTail]:
    """A CSV file as the tool of an intake.

    Args:
        path: the file; it need not exist yet.
        columns: columns it must have.
    """
    yield CsvTail(Path(path), columns)

"""Tables people write: CSV, JSON lines or one concept a line, read into cells of text.

Whatever is wrong is told by row and column, all of it at once. Rows are counted as a
spreadsheet shows them, the header of a CSV file being row 1; in other files a row is a line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from orbweave.errors import UsageError, shown

__all__ = ["Fault", "Row", "TableFaults", "read_table"]

MAX_BYTES = 500_000_000
"""A table of a hundred thousand rows has some ten million."""
DELIMITERS = ",;\t"
"""European spreadsheets write semicolons."""
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Fault(NamedTuple):
    """Something wrong in a table."""

    row: int | None
    """None where it concerns the whole file."""
    column: str
    """Empty where it concerns the whole row."""
    message: str

    def __str__(self) -> str:
        """Return the fault as one line."""
        row = "" if self.row is None else f"row {self.row}"
        column = f"column {self.column}" if self.column else ""
        return f"{', '.join(part for part in (row, column) if part) or 'the file'}: {self.message}"


class TableFaults(UsageError):
    """A table cannot be used; `faults` holds all that is wrong with it."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        n = f"{len(faults)} faults, the first in" if len(faults) > 1 else "a fault in"
        super().__init__(
            f"wanted a table that can be run, {source} has {n} {faults[0]}; mend and try again"
        )


class Row(NamedTuple):
    """One row: what is not empty, by the name of its column."""

    number: int
    cells: dict[str, str]


def read_table(path: Path, columns: Sequence[str]) -> tuple[list[Row], list[Fault]]:
    """Return the rows of a table that hold anything, and everything that is wrong.

    Args:
        path: `.csv` or `.tsv` with a header; `.jsonl` with an object a line; any other name
            means one concept a line.
        columns: The names a column may have; case, blanks and dashes do not matter.

    Raises:
        UsageError: the file cannot be read, or is larger than `MAX_BYTES`.
    """
    text = _read(path)
    faults: list[Fault] = []
    if path.suffix.lower() in {".csv", ".tsv"}:
        rows = _from_csv(text, columns, faults)
    elif path.suffix.lower() in {".jsonl", ".ndjson"}:
        rows = _from_json_lines(text, columns, faults)
    else:
        rows = (
            Row(n, {"concept": line.strip()}) for n, line in enumerate(text.split("\n"), start=1)
        )
    kept = [_decoded(row, faults) for row in rows if any(row.cells.values())]
    if not kept and not faults:
        faults.append(Fault(None, "", "wanted at least one row, found none"))
    return kept, faults


def _read(path: Path) -> str:
    """Return the file as text; bytes that are no UTF-8 become lone surrogates."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"wanted a table of at most {MAX_BYTES // 10**6} MB, got {path}")
        content = path.read_bytes()
    except OSError as err:
        raise UsageError(
            f"wanted a table, could not read {shown(path)}: {err.strerror}; check the path"
        ) from err
    encoding = next((name for bom, name in _BOMS.items() if content.startswith(bom)), "utf-8")
    try:
        return content.decode(encoding, "surrogateescape" if "utf-8" in encoding else "strict")
    except UnicodeDecodeError as err:
        raise UsageError(
            f"wanted a table in UTF-8, {path} begins as UTF-16 but is none; save it as UTF-8"
        ) from err


def _decoded(row: Row, faults: list[Fault]) -> Row:
    """Return the row with whole characters only; name the cells that had others."""
    cells = {}
    for column, text in row.cells.items():
        bad = next((c for c in text if "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            byte = f"the byte 0x{ord(bad) & 0xFF:02X}" if bad >= "\udc80" else "half a character"
            faults.append(
                Fault(row.number, column, f"wanted UTF-8, got {byte}; save the file as UTF-8")
            )
            text = text.encode("utf-8", "replace").decode()
        if text.strip():
            cells[column] = text.strip()
    return Row(row.number, cells)


def _from_csv(text: str, columns: Sequence[str], faults: list[Fault]) -> Iterator[Row]:
    head = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if number == 1:
                names = _header(cells, columns, faults)
            elif any(cell.strip() for cell in cells):
                if len(cells) != len(names):
                    faults.append(Fault(number, "", f"wanted {len(names)} cells, got {len(cells)}"))
                yield Row(number, dict(zip(names, cells, strict=False)))
    except csv.Error as err:
        faults.append(Fault(number + 1, "", f"{err}; is a quote left open? Reading ended here"))


def _header(cells: Sequence[str], columns: Sequence[str], faults: list[Fault]) -> list[str]:
    """Return the columns' names as ours are spelt; unknown ones stay and are told."""
    names = [_column(cell) for cell in cells]
    for place, name in enumerate(names, start=1):
        if names.index(name) != place - 1:
            faults.append(Fault(1, name, "is there twice"))
        elif name not in columns:
            faults.append(Fault(1, name or f"number {place}", _unknown(name, columns)))
    if "concept" not in names:
        faults.append(Fault(1, "concept", "wanted this column, found none"))
    return names


def _column(name: str) -> str:
    """Return a column's name as ours are spelt, without what cannot be printed."""
    plain = "".join(c if c.isprintable() else " " for c in name)
    return "_".join(plain.lower().replace("-", " ").replace("_", " ").split())


def _unknown(name: str, columns: Sequence[str]) -> str:
    if not name:
        return "wanted a name for the column, got none"
    near = get_close_matches(name, columns, n=1)
    return f"is unknown; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(columns)}"


def _from_json_lines(text: str, columns: Sequence[str], faults: list[Fault]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as err:
            faults.append(Fault(number, "", f"wanted a JSON object, got {shown(line, 40)}: {err}"))
            continue
        if not isinstance(value, dict):
            faults.append(Fault(number, "", f"wanted a JSON object, got {shown(line, 40)}"))
            continue
        cells = {}
        for key, item in value.items():
            name = _column(key)
            if name not in columns:
                faults.append(Fault(number, name or shown(key), _unknown(name, columns)))
            elif name in cells:
                faults.append(Fault(number, name, "is there twice"))
            elif isinstance(item, (dict, bool)):
                faults.append(Fault(number, name, f"wanted text or a number, got {shown(item)}"))
            elif isinstance(item, list):
                cells[name] = ",".join(str(part) for part in item)
            else:
                cells[name] = "" if item is None else str(item)
        yield Row(number, cells)

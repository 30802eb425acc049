"""Reading tables that people made: strict about their form, with errors that name the line."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd


def read_table(path: Path, columns: Iterable[str | None] | None = None) -> pd.DataFrame:
    """Columns of a comma-, tab- or semicolon-separated file as stripped text, blanks as "".

    Args: columns: names in the first line, of which None and repetitions are ignored; all if not
        given.
    Raises: FileNotFoundError; ValueError naming a column that is not there or a broken line.
    """
    lines = _lines(path)
    header = [cell.strip() for cell in next(lines, (0, []))[1]]
    wanted = [c for c in dict.fromkeys(header if columns is None else columns) if c is not None]
    places = [_place(path, header, column) for column in wanted]
    rows = [[cells[place].strip() for place in places] for cells in _full(path, lines, header)]
    if not rows:
        raise ValueError(f"{path}: no rows")
    return pd.DataFrame(rows, columns=wanted, dtype=object)


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The same for a file without a first line of names.

    Args: columns: names for all of its columns, in order.
    Raises: FileNotFoundError; ValueError naming a line that has another number of cells.
    """
    rows = [[cell.strip() for cell in cells] for cells in _full(path, _lines(path), columns)]
    if not rows:
        raise ValueError(f"{path}: no rows")
    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbers and cells of the lines that are not blank."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = max(",\t;", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable table: {error}") from None


def _full(
    path: Path, lines: Iterator[tuple[int, list[str]]], columns: Sequence[str]
) -> Iterator[list[str]]:
    """Cells of every line. Raises: ValueError for a line that has too few or too many."""
    for number, cells in lines:
        if len(cells) != len(columns):
            raise ValueError(
                f"{path}: line {number}: got {len(cells)} cells, allowed: {len(columns)} "
                f"({', '.join(columns[:5])}{', ...' if len(columns) > 5 else ''})"
            )
        yield cells


def _place(path: Path, header: list[str], column: str) -> int:
    if header.count(column) != 1:
        problem = "more than one column" if column in header else "no column"
        raise ValueError(f"{path}: {problem} {column!r}, found: {', '.join(header)}")
    return header.index(column)

"""Reading tables that people made: strict about their form, with errors that name the line."""

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def read_table(path: Path, columns: Iterable[str | None]) -> pd.DataFrame:
    """Columns of a comma-, tab- or semicolon-separated file as stripped text, blanks as "".

    Args: columns: names in the first line; None and repetitions are ignored.
    Raises: FileNotFoundError; ValueError naming a column that is not there or a broken line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table")
    wanted = [column for column in dict.fromkeys(columns) if column is not None]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = max(",\t;", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            places = [_place(path, header, column) for column in wanted]
            rows = []
            for cells in filter(None, reader):
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path}: line {reader.line_num}: got {len(cells)} cells, "
                        f"allowed: {len(header)}, as in the first line"
                    )
                rows.append([cells[place].strip() for place in places])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a readable table: {error}") from None
    if not rows:
        raise ValueError(f"{path}: no rows")
    return pd.DataFrame(rows, columns=wanted, dtype=object)


def _place(path: Path, header: list[str], column: str) -> int:
    if header.count(column) != 1:
        problem = "more than one column" if column in header else "no column"
        raise ValueError(f"{path}: {problem} {column!r}, found: {', '.join(header)}")
    return header.index(column)

"""A table as a value, and its Markdown, LaTeX (booktabs) and CSV forms.

What stands in which table is `matpac.reporting.report`'s business; here is how it is set. Blocks of
rows are kept visibly apart by a heading, so that what we measured never runs into what others
reported.
"""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matpac.core import files

SUFFIXES = ("md", "tex", "csv")


class Score(NamedTuple):
    """A number with its interval, in percent.

    ``mean`` None: lost, shown as ``?``. ``ci95`` None: none was given; NaN: it cannot be computed.
    """

    mean: float | None = None
    ci95: float | None = None
    best: bool = False


class Difference(NamedTuple):
    """Measured minus reported, in percent.

    ``limit``: the largest difference that counts as within the intervals. What cannot be told is
    None.
    """

    value: float | None = None
    limit: float | None = None
    within: bool | None = None


Cell = str | Score | Difference


class Column(NamedTuple):
    """``key`` heads the CSV; ``heading`` and, in a second line, ``unit`` head the others."""

    key: str
    heading: str
    unit: str = ""


class Block(NamedTuple):
    """Rows of one origin. ``source`` (profile, corpus, ...) stands in every row of the CSV.

    ``joined``: follows the block before it without a heading; its rows are of another origin.
    """

    heading: str
    source: str
    rows: tuple[tuple[Cell, ...], ...]
    joined: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the paper, ready to be set; a notebook shows it when it ends a cell."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """GitHub-flavoured Markdown: caption, one grid with a heading row per block, notes."""
        heads = [f"{c.heading} {c.unit}".strip() for c in self.columns]
        lines = [f"**{self.title}.** {_escape_markdown(self.caption)}", ""]
        lines += [_markdown_row([_escape_markdown(head) for head in heads])]
        lines += [_markdown_row(["---", *["---:"] * (len(heads) - 1)])]
        for block in self.blocks:
            if block.heading and not block.joined:
                heading = f"***{_escape_markdown(block.heading)}***"
                lines.append(_markdown_row([heading, *[""] * (len(heads) - 1)]))
            lines += [_markdown_row([_cell(value, "markdown") for value in r]) for r in block.rows]
        for note in self.notes:
            lines += ["", _escape_markdown(note)]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A ``table*`` for ``\\input``; needs the packages booktabs and graphicx."""
        width = len(self.columns)
        body = [_latex_row([_escape_latex(c.heading) for c in self.columns])]
        if any(column.unit for column in self.columns):
            body.append(_latex_row([_escape_latex(c.unit) for c in self.columns]))
        for block in self.blocks:
            if not block.joined:
                body.append(r"\midrule")
            if block.heading and not block.joined:
                heading = rf"\emph{{{_escape_latex(block.heading)}}}"
                body += [rf"\multicolumn{{{width}}}{{@{{}}l}}{{{heading}}} \\", r"\addlinespace"]
            body += [_latex_row([_cell(value, "latex") for value in row]) for row in block.rows]
        caption = _escape_latex(" ".join([self.caption, *self.notes]))
        return "\n".join(
            [
                "% Needs \\usepackage{booktabs,graphicx}.",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{caption}}}",
                rf"\label{{tab:{self.name}}}",
                r"\medskip",
                r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
                rf"\begin{{tabular}}{{@{{}}l{'c' * (width - 1)}@{{}}}}",
                r"\toprule",
                *body,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table*}",
                "",
            ]
        )

    def csv(self) -> str:
        """One line per row; lost is empty.

        A score takes two columns, the second ``<key>_ci95``; where a column has differences there
        is a third, ``<key>_within`` (yes or no), and the second is their limit.
        """
        values = [row for block in self.blocks for row in block.rows]
        kinds = [{type(row[i]) for row in values} for i in range(len(self.columns))]
        head = ["block", "source"]
        for column, types in zip(self.columns, kinds, strict=True):
            head += [column.key + ending for ending in _csv_endings(types)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        for block in self.blocks:
            for row in block.rows:
                line = [block.heading, block.source]
                for value, types in zip(row, kinds, strict=True):
                    line += _csv_cells(value, len(_csv_endings(types)))
                writer.writerow(line)
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """Writes ``<name>.md``, ``<name>.tex`` and ``<name>.csv``."""
        texts = (self.markdown(), self.latex(), self.csv())
        for suffix, text in zip(SUFFIXES, texts, strict=True):
            with files.replacing(folder / f"{self.name}.{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")

    def _repr_markdown_(self) -> str:
        return self.markdown()


def _cell(value: Cell, form: str) -> str:
    """Text of a cell, escaped."""
    if isinstance(value, str):
        return _escape_latex(value) if form == "latex" else _escape_markdown(value)
    if isinstance(value, Difference):
        return _difference(value, form)
    mean = "?" if value.mean is None else f"{value.mean:.1f}"
    if value.best:
        mean = rf"\textbf{{{mean}}}" if form == "latex" else f"**{mean}**"
    if value.ci95 is None:
        return mean
    ci95 = "—" if math.isnan(value.ci95) else f"{value.ci95:.1f}"
    if form == "latex":
        return rf"{mean} {{\scriptsize$\pm$\,{_escape_latex(ci95)}}}"
    return f"{mean} ± {ci95}"


def _difference(cell: Difference, form: str) -> str:
    """A signed number and the verdict in words."""
    if cell.value is None:
        return _escape_latex("—") if form == "latex" else "—"
    number = f"{cell.value:+.1f}".replace("-", "−") if round(cell.value, 1) else "0.0"
    if cell.within is None:
        return _escape_latex(number) if form == "latex" else number
    verdict = "within" if cell.within else "outside"
    if form == "latex":
        return rf"{_escape_latex(number)} {{\scriptsize {verdict}}}"
    return f"{number} {verdict}"


def _csv_endings(types: set[type]) -> tuple[str, ...]:
    """What the columns of the CSV that hold cells of these types end in."""
    if Difference in types:
        return "", "_ci95", "_within"
    return ("", "_ci95") if Score in types else ("",)


def _csv_cells(value: Cell, width: int) -> list[str]:
    """A cell in ``width`` columns; a word among numbers says that there is no number."""
    if isinstance(value, str):
        return [value] if width == 1 else [""] * width
    cells = ["" if x is None or math.isnan(x) else str(round(float(x), 4)) for x in value[:2]]
    verdict = value.within if isinstance(value, Difference) else None
    return [*cells, {None: "", True: "yes", False: "no"}[verdict]][:width]


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_<>|])", r"\\\1", text)


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "†": r"$\dagger$",
    "−": r"$-$",
    "—": "---",
    "–": "--",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)

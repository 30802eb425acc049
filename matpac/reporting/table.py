"""A table as a value, and its Markdown, LaTeX (booktabs) and CSV forms.

What stands in which table is `matpac.reporting.tables`'s business; here is how it is set. Blocks of
rows are kept visibly apart by a heading, so that what we measured never runs into what others
reported.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from matpac.core import files

SUFFIXES = ("md", "tex", "csv")


class Score(NamedTuple):
    """A number with what is said of it, in percent.

    Attributes:
        ci95: half width of its interval; None: none was given; NaN: it cannot be computed.
        seeds: the score of each pretraining seed, if there are several; in the CSV only.
        signed: a difference.
        note: stands behind it, such as † or a verdict.
        p: of a test; in the CSV only.
    """

    mean: float
    ci95: float | None = None
    seeds: tuple[float, ...] = ()
    bold: bool = False
    signed: bool = False
    note: str = ""
    p: float | None = None

    @property
    def text(self) -> str:
        """At one decimal, without its interval."""
        text = f"{self.mean:{'+' if self.signed else ''}.1f}".replace("-", "−")
        return "0.0" if text in ("+0.0", "−0.0") else text

    def record(self, key: str) -> dict[str, object]:
        """Columns of the CSV that are not empty."""
        seeds = " ".join(f"{seed:.4f}" for seed in self.seeds)
        ends = {"_ci95": self.ci95, "_note": self.note, "_p": self.p, "_seeds": seeds}
        return {key: self.mean} | {key + end: v for end, v in ends.items() if v not in ("", None)}


class Column(NamedTuple):
    """``key`` heads the CSV; ``heading`` and, in a second line, ``unit`` head the others."""

    key: str
    heading: str
    unit: str = ""


class Block(NamedTuple):
    """Rows of one origin. ``source`` (profile, corpus, ...) stands in every row of the CSV."""

    heading: str
    source: str
    rows: tuple[tuple[str | Score, ...], ...]


@dataclass(frozen=True)
class Table:
    """One table of the paper, ready to be set."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """GitHub-flavoured Markdown: caption, one grid with a heading row per block, notes."""
        rest = len(self.columns) - 1
        heads = [_markdown(f"{c.heading} {c.unit}".strip()) for c in self.columns]
        rows = [heads, ["---"] + ["---:"] * rest]
        for block in self.blocks:
            rows.append([f"***{_markdown(block.heading)}***"] + [""] * rest)
            rows += [[_markdown(cell) for cell in row] for row in block.rows]
        grid = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        caption = f"**{self.title}.** {_markdown(self.caption)}"
        return "\n\n".join([caption, grid, *map(_markdown, self.notes)]) + "\n"

    def latex(self) -> str:
        """A ``table*`` for ``\\input``; needs the packages booktabs and graphicx."""
        rows = [[_latex(c.heading) for c in self.columns], [_latex(c.unit) for c in self.columns]]
        body = [" & ".join(row) for row in rows if any(row)]
        for block in self.blocks:
            wide = rf"\multicolumn{{{len(self.columns)}}}{{@{{}}l}}{{\emph"
            body.append(rf"\midrule {wide}{{{_latex(block.heading)}}}}}")
            body += [" & ".join(map(_latex, row)) for row in block.rows]
        return LATEX % {
            "caption": _latex(" ".join([self.caption, *self.notes])),
            "name": self.name,
            "columns": "l" + "c" * (len(self.columns) - 1),
            "body": " \\\\\n".join(body),
        }

    def frame(self) -> pd.DataFrame:
        """All cells, one line per row; "—" is empty.

        A score is followed by ``<key>_ci95``, ``_note``, ``_p`` and ``_seeds``, as far as there are
        any in its column.
        """
        records = []
        for block in self.blocks:
            for row in block.rows:
                records.append({"block": block.heading, "source": block.source})
                for column, cell in zip(self.columns, row, strict=True):
                    if isinstance(cell, Score):
                        records[-1] |= cell.record(column.key)
                    elif cell != "—":
                        records[-1][column.key] = cell
        frame = pd.DataFrame(records)
        ends = ("", "_ci95", "_note", "_p", "_seeds")
        wanted = ["block", "source", *(c.key + end for c in self.columns for end in ends)]
        return frame[[name for name in wanted if name in frame]]

    def write(self, folder: Path) -> None:
        """Writes ``<name>.md``, ``<name>.tex`` and ``<name>.csv``."""
        csv = self.frame().round(4).to_csv(index=False, lineterminator="\n")
        for suffix, text in zip(SUFFIXES, (self.markdown(), self.latex(), csv), strict=True):
            with files.replacing(folder / f"{self.name}.{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")


LATEX = r"""%% Needs \usepackage{booktabs,graphicx}.
\begin{table*}
\centering
\caption{%(caption)s}
\label{tab:%(name)s}
\medskip
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%%
\begin{tabular}{@{}%(columns)s@{}}
\toprule
%(body)s \\
\bottomrule
\end{tabular}}
\end{table*}
"""
SYMBOLS = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$", "†": r"$\dagger$", "‡": r"$\ddagger$"},
    **{"<": "$<$", ">": "$>$", "−": "$-$", "—": "---", "–": "--"},
}


def _markdown(cell: str | Score) -> str:
    if isinstance(cell, str):
        return re.sub(r"([\\`*_<>|])", r"\\\1", cell)
    mean = f"**{cell.text}**" if cell.bold else cell.text
    return f"{mean}{_half_width(cell)}{_markdown(cell.note)}"


def _latex(cell: str | Score) -> str:
    if isinstance(cell, str):
        return "".join(SYMBOLS.get(character, character) for character in cell)
    mean = _latex(cell.text)
    small = _latex(f"{_half_width(cell)}{cell.note}")
    mean = rf"\textbf{{{mean}}}" if cell.bold else mean
    return rf"{mean}{{\scriptsize {small}}}" if small else mean


def _half_width(cell: Score) -> str:
    if cell.ci95 is None:
        return ""
    return " ± —" if math.isnan(cell.ci95) else f" ± {cell.ci95:.1f}"

"""The book: README, docs, notebooks and the library's reference (Sphinx, MyST-NB), by `make book`.

The source folder is the project. Notebooks are shown as they were executed: the committed ones, and
those of the runs in ``data/`` where there are any.
"""

import re
from typing import Any

project = "matpac"
copyright = "the authors of matpac, MIT licence"
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "docs/**.md",
    "examples/README.md",
    "data/README.md",
    "figures/**.md",
    "notebooks/*.ipynb",
    "data/*/executed/*.ipynb",
]
extensions = ["myst_nb", "sphinx.ext.autodoc"]
suppress_warnings = ["toc.no_title"]  # the files of tables and figures begin with no heading
nb_execution_mode = "off"
nb_merge_streams = True
myst_heading_anchors = 3
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "furo"
html_title = "matpac"
html_static_path = ["book.css"]
html_css_files = ["book.css"]


def rest(app: Any, what: str, name: str, of: object, options: Any, lines: list[str]) -> None:
    """The house's docstrings as reStructuredText: listings, arguments, "Raises: text"."""
    text = re.sub(r"\n\n(?= {4})", "\n\n::\n\n", "\n".join(lines))
    text = re.sub(r"^Args:\n((?: {4}.*\n?)+)", arguments, text, flags=re.MULTILINE)
    one = r"^(Args|Raises|Returns|Yields): (.*(?:\n {4}.*)*)"
    text = re.sub(one, lambda m: f"\n**{m[1]}:** {dedented(m[2])}\n", text, flags=re.MULTILINE)
    lines[:] = text.split("\n")


def arguments(found: re.Match) -> str:
    """A list of them."""
    items = re.sub(r"^ {4}(\S[^:\n]*): ", r"* **\1**: ", found[1], flags=re.MULTILINE)
    return "\n**Args:**\n\n" + re.sub(r"^ {8,}", "  ", items, flags=re.MULTILINE) + "\n"


def dedented(text: str) -> str:
    """Its lines without what hangs."""
    return re.sub(r"\n +", "\n", text)


def of_run(app: Any, name: str, source: list[str]) -> None:
    """The title of an executed notebook says whose it is: "03 · pretrain base"."""
    if found := re.fullmatch(r"data/\w+/executed/(\d+)_(\w+?)-(\w+)", name):
        title = "# {} · {} {}".format(*found.groups())
        source[0] = re.sub(r"# \d+ · [^\"\\]*", title, source[0], count=1)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", rest)
    app.connect("source-read", of_run)

"""The published rows of Table II, as data."""

import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from matpac.encoders.published import ROWS, Row
from matpac.reporting import paper

import command

ROOT = Path(__file__).parents[2]
KINDS = (
    "matpac matpac_plus matpac_plus_music matpac_plus_as matpac_plus_as_head m2d atst_clip "
    "atst_frame beats_iter3 beats_iter3_plus mae_ast passt htsat hubert data2vec dasheng_base "
    "dasheng_06b yamnet"
)
MATPAC_ROWS = (
    "MATPAC, ramp of 10 epochs",
    "MATPAC, ramp of 20 epochs",
    "MATPAC w/o classification",
)
"""Which of the first two was published is not certain; the third was not."""


def test_every_row_of_the_paper_s_table_has_one_published_row() -> None:
    assert sorted(ROWS) == sorted(KINDS.split())
    reported = [row.reported for row in ROWS.values() if row.reported]
    assert sorted([*reported, *MATPAC_ROWS]) == sorted(model.name for model in paper.TABLE2.systems)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_complete(name: str) -> None:
    row = ROWS[name]
    assert find_spec(f"matpac.encoders.{row.module}") is not None
    assert row.page.startswith("https://") and row.page == row.source.page
    assert row.source.licence and row.source.citation and row.file.name in row.source.by_hand
    for url in row.file.urls:
        assert url.startswith("https://") and url.endswith(f"/{row.file.name}")
    assert bool(row.member) == row.file.name.endswith(".zip")
    assert row.source.archives[0].kind == ("zip" if row.member else "file")
    for checksum in (*row.file.checksums, *row.file.doubtful):
        assert re.fullmatch("sha256:[0-9a-f]{64}", checksum)


def made_as(row: Row) -> str:
    """Rows with the same are made once: each takes a second."""
    return f"{row.module} {row.options}"


ALIKE = {made_as(row): row for row in ROWS.values() if row.module in ("vit", "atst")}


@pytest.mark.parametrize("kind", ALIKE)
def test_widths_and_options_are_those_of_the_encoders(kind: str) -> None:
    row = ALIKE[kind]
    made = import_module(f"matpac.encoders.{row.module}").make(None, **row.options)
    rows = {name: each for name, each in ROWS.items() if made_as(each) == kind}
    assert {each.width for each in rows.values()} == {made.width}
    if "matpac_plus_as" in rows:
        assert made.net.config.crop_frames == 992
    if "m2d" in rows:
        assert (made.net.mean, made.net.std, made.reflect) == (-7.1, 4.2, 200)


def test_extras_are_those_that_the_encoders_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for row in ROWS.values():
        source = (ROOT / "matpac" / "encoders" / f"{row.module}.py").read_text()
        asked = re.findall(r'needing\("([^"]+)"', source)
        assert asked == [row.extra] * bool(row.extra)
        assert not row.extra or row.extra in project["optional-dependencies"]


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, matpac.encoders.published; print('torch' in sys.modules)"
    assert command.code(code) == "False\n"

"""Compiling what is meant for a paper."""

import shutil
import subprocess
from pathlib import Path

import pytest

needed = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def assert_compiles(folder: Path, *tables: str) -> None:
    """Tables of a folder stand in a two-column document without being too wide for it."""
    inputs = "".join(rf"\input{{{name}}}" for name in tables)
    (folder / "all.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}"
        rf"\begin{{document}}{inputs}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout

"""The command as a program."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest

from matpac.cli.main import Commands

TELLS = """
import sys

import click

from matpac.cli.main import main

@main.command()
@click.argument("name")
def tell(name):
    print(sys.getfilesystemencoding(), ascii(name))

main()
"""


@pytest.mark.skipif(not shutil.which("localedef"), reason="no localedef")
def test_names_are_utf_8_whatever_the_language(tmp_path: Path) -> None:
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US")]
    if subprocess.run(made, capture_output=True).returncode:
        pytest.skip("no sources of locales")
    without = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"}
    done = subprocess.run(
        [sys.executable, "-c", TELLS, "tell", "café".encode()],
        env=without | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == (r"utf-8 'caf\xe9'" + "\n", 0), done.stderr


def test_what_is_only_to_be_known_is_told_without_the_place_in_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said() -> None:
        print(warnings.formatwarning("left out: 2 .txt", UserWarning, "file.py", 3), end="")

    group = Commands("group", commands=[click.Command("said", callback=said)])
    with pytest.raises(SystemExit):
        group(["said"])
    assert capsys.readouterr().out == "left out: 2 .txt\n"
    said()
    assert "file.py:3" in capsys.readouterr().out  # and elsewhere as ever

"""The command ``matpac`` in this process, and Python in another."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from matpac.cli.main import main


def matpac(*arguments: object) -> int:
    """Its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess:
    """What a new interpreter printed, as text. Args: options: of `subprocess.run`."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def code(text: str, *arguments: object, **options: Any) -> str:
    """What code prints in a new interpreter, where it has to succeed."""
    done = python("-c", textwrap.dedent(text), *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout

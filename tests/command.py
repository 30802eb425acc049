"""The command ``matpac`` in this process."""

import pytest

from matpac.cli.main import main


def matpac(*arguments: object) -> int:
    """Its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)

"""``python -m matpac.cli``: the command ``matpac`` where its script is not on the PATH."""

from matpac.cli.main import main

main()

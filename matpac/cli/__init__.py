"""One command, ``matpac``: read `main`, where every subcommand is; the others do the work."""

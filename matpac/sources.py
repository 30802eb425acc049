"""What lies in the folders of audio, in a few numbers: whether ``fetch`` has to look again.

A user's files lie outside the project, where DVC does not look. ``data/<profile>/sources.json``
stands for them, and ``fetch`` depends on it: it is rewritten only when a table or a file was
edited, added or removed, or the folder is another one. `make repro` asks for that each time, plain
``dvc repro`` only the first time.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matpac import config, files


def sources(params: config.FetchParams) -> dict[str, dict[str, Any]]:
    """What is known of each folder data set of the profile without opening its audio.

    Raises: FileNotFoundError naming every folder and table that does not exist.
    """
    folders = config.used_folders(params)
    if problems := config.missing_files(params, names=folders):
        raise FileNotFoundError("\n".join(problems))
    found = {}
    for name, dataset in folders.items():
        folder = config.expand(dataset.audio).resolve()
        states = sorted(_states(folder))
        found[name] = {
            "audio": str(folder),
            "csv_sha256": files.sha256(config.expand(dataset.csv)),
            "num_files": len(states),
            "files_sha256": hashlib.sha256("\n".join(states).encode()).hexdigest(),
        }
    return found


def _states(folder: Path, place: str = "", above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Name, size and time of change (ns) of every file in a folder and below, but hidden ones.

    Links are followed, except to a folder ``above``, which would lead round and round.
    """
    above |= {folder.resolve()}
    for entry in os.scandir(folder):
        name = place + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if Path(entry.path).resolve() not in above:
                yield from _states(Path(entry.path), f"{name}/", above)
            continue
        try:
            state = entry.stat()
        except OSError:  # a link to nothing
            yield f"{name!r} missing"
        else:
            yield f"{name!r} {state.st_size} {state.st_mtime_ns}"


def write(params: config.FetchParams) -> bool:
    """Writes ``sources.json`` if anything in it is new; returns whether it did."""
    path = config.small(params) / "sources.json"
    found = sources(params)
    if path.exists() and files.read_json(path) == found:
        return False
    files.write_json(path, found)
    return True


def main() -> str | None:
    """Writes ``sources.json`` of the active profile. Returns: what went wrong, for `sys.exit`."""
    try:
        params = config.load()
        if write(params) and (names := ", ".join(config.used_folders(params))):
            print(f"new or changed since the last look: {names}")
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())

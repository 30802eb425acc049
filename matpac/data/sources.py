"""What lies in the folders of audio, in a few numbers: whether ``fetch`` has to look again.

A user's files lie outside the project, where DVC does not look. ``data/<profile>/sources.json``
stands for them, and ``fetch`` depends on it: it is rewritten only when a table or a file was
edited, added or removed, or the folder is another one. ``weights.json`` does the same for the files
of the encoders that are only probed, one entry each. `make repro` asks for that each time, plain
``dvc repro`` only the first time.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matpac.audio import finding
from matpac.core import files, paths
from matpac.data.config import (
    FetchParams,
    FolderDataset,
    LogmelParams,
    OfficialDataset,
    PackedDataset,
    named,
)


def sources(params: FetchParams) -> dict[str, list[dict[str, Any]]]:
    """What is known of each data set's folders and tables without opening its audio.

    Raises: FileNotFoundError naming every folder and table that does not exist.
    """
    used = used_folders(params)
    if problems := missing_files(params, names=used):
        raise FileNotFoundError("\n".join(problems))
    return {
        name: [_seen(key, text) for key, text in dataset.places] for name, dataset in used.items()
    }


def used_folders(
    params: LogmelParams,
) -> dict[str, FolderDataset | OfficialDataset | PackedDataset]:
    """The data sets among corpora and tasks whose files a user put somewhere."""
    used = {name: params.datasets[name] for name in (*params.corpora, *params.tasks)}
    return {name: dataset for name, dataset in used.items() if dataset.places}


def missing_files(params: LogmelParams, *, names: Iterable[str]) -> list[str]:
    """Folders and tables of these data sets that do not exist, one readable line each."""
    problems = []
    for name in names:
        for key, text in params.datasets[name].places:
            path = paths.expand(text)
            if key == "shards":
                kind, there = "folder or file", bool(named(text)[1])
            elif key == "csv":
                kind, there = "file", path.is_file()
            else:
                kind, there = "folder", path.is_dir()
            if not there:
                problems.append(f"  datasets.{name}.{key}: no {kind} {path}")
    return problems


def shards(text: str) -> list[Path]:
    """The containers that an entry of `PackedDataset.shards` names."""
    found: list[Path] = []
    for path in named(text)[1]:
        found += [path / name for name in finding.walk(path)] if path.is_dir() else [path]
    suffixes = (*finding.CONTAINERS, *finding.COMPRESSED)
    return sorted({path for path in found if path.name.lower().endswith(suffixes)})


def _seen(key: str, text: str) -> dict[str, Any]:
    if key == "csv":
        path = paths.expand(text)
        return {"table": str(path.resolve()), "sha256": files.sha256(path)}
    if key == "shards":
        folder, _ = named(text)
        return _folder(folder, [path.relative_to(folder).as_posix() for path in shards(text)])
    folder = paths.expand(text)
    return _folder(folder, finding.walk(folder))


def _folder(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    folder = folder.resolve()
    states = sorted(_state(folder, name) for name in names)
    digest = hashlib.sha256("\n".join(states).encode()).hexdigest()
    return {"folder": str(folder), "num_files": len(states), "files_sha256": digest}


def _state(folder: Path, name: str) -> str:
    """Name, size and time of change (ns) of a file."""
    try:
        state = (folder / name).stat()
    except OSError:  # a link to nothing
        return f"{name!r} missing"
    return f"{name!r} {state.st_size} {state.st_mtime_ns}"


def write(params: FetchParams) -> bool:
    """Writes ``sources.json`` if anything in it is new; returns whether it did."""
    path = paths.small(params) / "sources.json"
    found = sources(params)
    if path.exists() and files.read_json(path) == found:
        return False
    files.write_json(path, found)
    return True

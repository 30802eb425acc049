"""What lies in the folders of audio, in a few numbers: whether ``fetch`` has to look again.

A user's files lie outside the project, where DVC does not look. ``data/<profile>/sources.json``
stands for them, and ``fetch`` depends on it: it is rewritten only when a table or a file was
edited, added or removed, or the folder is another one. ``weights.json`` does the same for the files
of the encoders that are only probed, one entry each. `make repro` asks for that each time, plain
``dvc repro`` only the first time.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from matpac import config, containers, files
from matpac.provenance import source_digest


def sources(params: config.FetchParams) -> dict[str, list[dict[str, Any]]]:
    """What is known of each data set's folders and tables without opening its audio.

    Raises: FileNotFoundError naming every folder and table that does not exist.
    """
    used = config.used_folders(params)
    if problems := config.missing_files(params, names=used):
        raise FileNotFoundError("\n".join(problems))
    return {
        name: [_seen(key, text) for key, text in dataset.places] for name, dataset in used.items()
    }


def weights(params: config.Params) -> dict[str, dict[str, str] | None]:
    """Checksums of the user's files behind each encoder: weights, and a module's source.

    None for an encoder without such files; a file that is not there is the probe stage's to tell.
    """
    return {name: _files_of(encoder) or None for name, encoder in params.encoders.items()}


def _files_of(encoder: config.EncoderConfig) -> dict[str, str]:
    found = {}
    if encoder.weights and (path := config.expand(encoder.weights)).exists():
        found["weights"] = files.sha256_of_all(path)
    if encoder.module:
        found["module"] = source_digest(encoder.module.partition(":")[0], config.root())
    return found


def shards(text: str) -> list[Path]:
    """The containers that an entry of `config.PackedDataset.shards` names."""
    found: list[Path] = []
    for path in config.shards(text)[1]:
        found += [path / name for name in walk(path)] if path.is_dir() else [path]
    suffixes = (*containers.SUFFIXES, *containers.COMPRESSED)
    return sorted({path for path in found if path.name.lower().endswith(suffixes)})


def walk(folder: Path, place: str = "", above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """Names, relative to a folder, of every file in it and below, but hidden ones.

    Links are followed, except to a folder ``above``, which would lead round and round.
    """
    above |= {folder.resolve()}
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield place + entry.name
        elif Path(entry.path).resolve() not in above:
            yield from walk(Path(entry.path), f"{place}{entry.name}/", above)


def _seen(key: str, text: str) -> dict[str, Any]:
    if key == "csv":
        path = config.expand(text)
        return {"table": str(path.resolve()), "sha256": files.sha256(path)}
    if key == "shards":
        folder, _ = config.shards(text)
        return _folder(folder, [path.relative_to(folder).as_posix() for path in shards(text)])
    folder = config.expand(text)
    return _folder(folder, walk(folder))


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


def write_weights(params: config.Params) -> None:
    """Writes ``weights.json`` if anything in it is new."""
    path = config.small(params) / "weights.json"
    found = weights(params)
    if not path.exists() or files.read_json(path) != found:
        files.write_json(path, found)


def write(params: config.FetchParams) -> bool:
    """Writes ``sources.json`` if anything in it is new; returns whether it did."""
    path = config.small(params) / "sources.json"
    found = sources(params)
    if path.exists() and files.read_json(path) == found:
        return False
    files.write_json(path, found)
    return True


def main(arguments: list[str] | None = None) -> str | None:
    """Notes what lies in the folders of audio of the profile in params.yaml.

    Returns: what went wrong, for `sys.exit`.
    """
    parser = argparse.ArgumentParser("python -m matpac.sources")
    parser.description = main.__doc__.partition("\n")[0]
    parser.parse_args(arguments)
    try:
        params = config.load()
        write_weights(params)
        if write(params) and (names := ", ".join(config.used_folders(params))):
            print(f"new or changed since the last look: {names}")
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())

"""What lies in folders of audio: one listing for embedding, corpora, tables and shards."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".opus")
EXTENSIONS += (".wave", ".rf64", ".oga", ".aifc")
"""Of what `matpac.audio.reading` reads."""
CONTAINERS = (".tar", ".parquet")
"""Of audio, which stay packed."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Their members cannot be reached one by one."""
SHOWN = 4
"""Other extensions that are named."""


def audio_files(folder: Path) -> tuple[list[str], str]:
    """Every audio file in a folder and below, as `walk` meets them.

    Returns: names relative to the folder, sorted; and what is not among them (files of other
        extensions, folders that the system does not open) in a line, "" if nothing is.
    """
    names, others, refused = [], Counter[str](), list[str]()
    for name in walk(folder, refused):
        kind = PurePosixPath(name).suffix.lower()
        if kind in EXTENSIONS:
            names.append(name)
        else:
            others[kind] += 1
    kinds = others.most_common()
    counts = [f"{number} {kind or 'without'}" for kind, number in kinds[:SHOWN]]
    if more := sum(number for _, number in kinds[SHOWN:]):
        counts.append(f"{more} more")
    left_out = [f"files of other extensions: {', '.join(counts)}"] if counts else []
    return sorted(names), "; ".join(left_out + refused)


def walk(folder: Path, refused: list[str] | None = None) -> Iterator[str]:
    """Names, relative to a folder, of every file in it and below, but hidden ones.

    Links are followed; a folder that several lead to, or that lies above, is entered once, by its
    own name if it has one here. A link to nothing is a file.

    Args: refused: takes the folders that the system does not open, with the reason.
    """
    inside, linked, seen = [""], [], set()
    while inside or linked:
        place = inside.pop() if inside else linked.pop(0)
        real = os.path.realpath(folder / place)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder / place), key=lambda entry: entry.name)
        except OSError as error:
            if refused is not None:
                refused.append(f"{folder / place}: {error.strerror}")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and Path(entry.path).is_dir():
                linked.append(f"{place}{entry.name}/")
            elif entry.is_dir(follow_symlinks=False):
                inside.append(f"{place}{entry.name}/")
            else:
                yield place + entry.name

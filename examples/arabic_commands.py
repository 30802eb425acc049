"""Tables for `make real` (docs/real.md) from the Arabic Speech Commands of Ghandoura et al., 2021.

    python examples/arabic_commands.py WORDS    # holds audio/<word>/<speaker>_NO_<round>.wav

Writes ``WORDS/clips.csv``, rounds 1 to 3 with the authors' split by speaker, and its training rows
as ``WORDS/train.csv``.
"""

import csv
import re
import sys
from pathlib import Path

VALID, TEST = {2, 7, 8, 12, 21, 25}, {3, 4, 10, 14, 26, 28}
"""Speakers, of 30; the others train."""
NAME = re.compile(r"(\d{8})_NO_0[123]\.(wav|flac)")


def rows(folder: Path) -> list[list[str]]:
    """File below ``audio``, command, split and speaker of every clip of rounds 1 to 3."""
    found = []
    for path in sorted((folder / "audio").glob("*/*")):
        if match := NAME.fullmatch(path.name):
            speaker = int(match[1])
            split = "valid" if speaker in VALID else "test" if speaker in TEST else "train"
            word = path.parent.name
            found.append([f"{word}/{path.name}", word, split, match[1]])
    return found


def main(folder: Path) -> None:
    """Writes both tables. Raises: SystemExit unless there are the 3,600 clips."""
    clips = rows(folder)
    if len(clips) != 3600:
        raise SystemExit(f"{folder / 'audio'}: {len(clips)} clips of rounds 1 to 3, expected 3600")
    for name, part in (("clips", clips), ("train", [c for c in clips if c[2] == "train"])):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([["file", "command", "split", "speaker"], *part])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Runs benchmarks, writes a JSON file per part and renews the table of all.

    python -m benchmarks                       # all that this machine can run
    python -m benchmarks step loader           # some
    python -m benchmarks table                 # only the table of what is in the folder

The part logmel needs the folder ESC-10, with audio/, from --esc10 or the variable ESC10. What
`benchmarks.gpu` measured, ``gpu.jsonl`` in the folder, has its rows in the table, too.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import loader, logmel, measure, step
from benchmarks.tables import PARTS, insert, results, table
from matpac.core import files, paths
from matpac.params import load
from matpac.pretraining import config
from matpac.pretraining.config import ResolvedRun


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    words = {"formatter_class": argparse.RawDescriptionHelpFormatter, "description": __doc__}
    parser = argparse.ArgumentParser("python -m benchmarks", **words)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)} or table")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"), help="folder of results")
    parser.add_argument("--esc10", type=Path, default=os.environ.get("ESC10"))
    parser.add_argument("--docs", type=Path, nargs="*", default=[], help="texts with the table")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - {*PARTS, "table"}:
        parser.error(f"got {', '.join(sorted(unknown))}, allowed: {', '.join(PARTS)}, table")
    wanted = [part for part in given.parts or PARTS if part != "table"]
    for part in wanted:
        if (missing := missing_for(part, given.esc10)) is not None:
            print(f"{part}: skipped, {missing}")
        elif len(wanted) > 1:  # each in a process of its own, whose memory is its own
            command = [sys.executable, "-m", "benchmarks", part, "--out", str(given.out)]
            command += ["--esc10", str(given.esc10)] if given.esc10 else []
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        else:
            files.write_json(given.out / f"{part}.json", run(part, given.esc10))
    text = table(results(given.out))
    print(text)
    for path in given.docs:
        path.write_text(insert(path.read_text("utf-8"), text), "utf-8")
    return 0


def missing_for(part: str, esc10: Path | None) -> str | None:
    """Why a part cannot be run here, if so."""
    if part == "logmel" and not (esc10 and (esc10 / "audio").is_dir()):
        return "ESC-10 is not here: --esc10 or ESC10 names a folder with audio/"
    return None


def run(part: str, esc10: Path | None) -> dict[str, Any]:
    """Measures one part that `missing_for` lets pass. Returns: the content of its file."""
    machine = measure.machine()
    print(f"{part} ...", file=sys.stderr, flush=True)
    if part == "step":
        found = step.report(*paper())
    elif part == "logmel":
        os.environ["MATPAC_PROGRESS"] = "silent"
        found = logmel.report(esc10)
    else:
        found = loader.report()
    return {"part": part, "machine": machine} | found


def paper() -> tuple[ResolvedRun, int]:
    """The run ``base`` of the paper's profile and its number of mel bands."""
    for path in (paths.root() / "params.paper.yaml", paths.root() / "params.yaml"):
        if path.exists() and (params := load(path)).profile == "paper":
            return config.resolve(params, "base"), params.logmel.num_mels
    raise FileNotFoundError(f"{path}: not the profile paper, nor is there a params.paper.yaml")


if __name__ == "__main__":
    sys.exit(main())

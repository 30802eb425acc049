"""How long each stage took when it last ran: from the executed notebooks, after ``make repro``."""

import json
from collections.abc import Iterable
from pathlib import Path

from matpac.core import paths
from matpac.params import load


def minutes(executed: Path, names: Iterable[str]) -> dict[str, float]:
    """Minutes per executed notebook, in the order in which they were started.

    Args:
        executed: folder of notebooks that papermill wrote.
        names: of the notebooks, without suffix; those that have not run are left out.
    """
    timed = []
    for path in (executed / f"{name}.ipynb" for name in names):
        if not path.exists():
            continue
        record = json.loads(path.read_text())["metadata"].get("papermill", {})
        if record.get("duration") is not None:
            timed.append((record["start_time"], path.stem, record["duration"] / 60))
    return {name: duration for _, name, duration in sorted(timed)}


def main() -> None:
    """Prints how long each stage of the profile in params.yaml took when it last ran."""
    params = load()
    names = ["01_fetch", "02_logmel", *(f"03_pretrain-{run}" for run in params.runs)]
    names += [f"04_probe-{name}" for name in (*params.runs, *params.encoders)]
    took = minutes(paths.small(params) / "executed", [*names, "05_figures"])
    print(f"\nMinutes per stage when it last ran (profile {params.profile}):")
    for name, duration in [*took.items(), ("total", sum(took.values()))]:
        print(f"  {name:<32}{duration:6.2f}")
    print(f"Tables and figures: figures/{params.profile}/")

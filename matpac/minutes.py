"""How long each stage took: read from the executed notebooks, printed after ``make repro``."""

import json
from pathlib import Path

from matpac import config


def minutes(executed: Path) -> dict[str, float]:
    """Minutes per executed notebook, in the order in which they were started.

    Args: executed: folder of notebooks that papermill wrote.
    """
    timed = []
    for path in executed.glob("*.ipynb"):
        record = json.loads(path.read_text())["metadata"].get("papermill", {})
        if record.get("duration") is not None:
            timed.append((record["start_time"], path.stem, record["duration"] / 60))
    return {name: duration for _, name, duration in sorted(timed)}


def main() -> None:
    """Prints the table for the profile of ``params.yaml``."""
    params = config.load()
    took = minutes(config.small(params) / "executed")
    print(f"\nMinutes per stage when it last ran (profile {params.profile}):")
    for name, duration in [*took.items(), ("total", sum(took.values()))]:
        print(f"  {name:<32}{duration:6.2f}")
    print(f"Tables and figures: figures/{params.profile}/")


if __name__ == "__main__":
    main()

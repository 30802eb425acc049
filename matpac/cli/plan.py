"""What ``dvc repro`` would do now, how long it would take (``matpac plan``), and took before."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from matpac.cli import cost
from matpac.core import distributed, paths
from matpac.core.paths import NOTEBOOKS
from matpac.params import Params, load


def stale(root: Path) -> list[str]:
    """Names of the stages that are not up to date, as DVC sees it.

    Raises: ChildProcessError with DVC's own words if it cannot tell.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ChildProcessError(f"dvc status failed:\n{done.stderr or done.stdout}")
    return list(json.loads(done.stdout))


def by_kind(stages: Iterable[str], profile: str) -> dict[str, list[str]]:
    """Kind of stage -> what it is for ("" where there is one per profile), of one profile."""
    kinds: dict[str, list[str]] = {}
    for name in stages:
        kind, _, key = name.partition("@")
        of, _, item = key.partition("-")
        if of == profile:
            kinds.setdefault(kind, []).append(item)
    return kinds


def stages_table(params: Params, kinds: dict[str, list[str]], training: float) -> str:
    """What would run and its hours: those of ``training``, else as long as the last time."""
    rows, executed = [], paths.small(params) / "executed"
    for kind, items in kinds.items():
        names = [
            "-".join([NOTEBOOKS[kind], *filter(None, [i])]) for i in items if kind in NOTEBOOKS
        ]
        took = minutes(executed, names)  # a stage without a notebook is done in a second
        known = cost.number(sum(took.values()) / 60) if len(took) == len(names) else "?"
        hours = cost.number(training) if kind == "pretrain" else known
        rows.append([kind, len(items), hours, ", ".join(filter(None, items))])
    return cost.table(["stage", "runs", "hours", "of"], rows)


def minutes(executed: Path, names: Iterable[str]) -> dict[str, float]:
    """Minutes per executed notebook, in the order in which they were started.

    Args:
        executed: folder of notebooks that papermill wrote.
        names: of the notebooks, without suffix; those that have not run are left out.
    """
    timed = []
    for path in (executed / f"{name}.ipynb" for name in names):
        record = json.loads(path.read_text("utf-8"))["metadata"] if path.exists() else {}
        if (record := record.get("papermill", {})).get("duration") is not None:
            timed.append((record["start_time"], path.stem, record["duration"] / 60))
    return {name: duration for _, name, duration in sorted(timed)}


def print_minutes() -> None:
    """Prints how long each stage of the profile in params.yaml took when it last ran."""
    params = load()
    names = ["01_fetch", "02_logmel", *(f"03_pretrain-{run}" for run in params.runs)]
    names += [f"04_probe-{name}" for name in (*params.runs, *params.encoders)]
    took = minutes(paths.small(params) / "executed", [*names, "05_figures"])
    print(f"\nMinutes per stage when it last ran (profile {params.profile}):")
    for name, duration in [*took.items(), ("total", sum(took.values()))]:
        print(f"  {name:<32}{duration:6.2f}")
    print(f"Tables and figures: figures/{params.profile}/")


def main() -> None:
    """Prints what would run, hours, GPU-hours and disk for the profile in params.yaml."""
    params = load()
    kinds = by_kind(stale(paths.root()), params.profile)
    if not kinds:
        print(f"profile {params.profile}: everything is up to date")
        return
    clips_per_s, source = cost.rate(params)
    run, place = cost.base(params), paths.bulk(params)
    devices = distributed.num_processes(run.pretrain.batch_size)
    trainings = cost.trainings(params, clips_per_s=clips_per_s, gpus=devices)
    hours = sum(each.hours for each in trainings if each.run in kinds.get("pretrain", []))
    count, assumed = cost.epoch(params, run.model.crop_frames)
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    print(
        f"profile {params.profile}: these stages would run, and after them what depends on them\n"
        f"{stages_table(params, kinds, hours)}\n"
        f"pretrain: {cost.number(hours)} h from scratch on {devices} x {clips_per_s:,.4g} clips/s "
        f"({source}), {cost.number(hours * devices)} device-hours; "
        f"an epoch of {count:,} clips{assumed}\n"
        f"disk when all is done: {cost.disk(params)}; {cost.amount(free)} are free at {place}"
    )

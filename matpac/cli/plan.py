"""What ``dvc repro`` would do now, and how long it would take (``make plan``)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from matpac.cli import cost, costs
from matpac.cli.minutes import minutes
from matpac.core import distributed, paths
from matpac.params import Params, load

NOTEBOOKS = {
    "fetch": "01_fetch",
    "logmel": "02_logmel",
    "pretrain": "03_pretrain",
    "probe": "04_probe",
    "probe_only": "04_probe",
    "figures": "05_figures",
}
"""Stage -> name of the executed notebook, before the run's."""


def stale(root: Path) -> list[str]:
    """Names of the stages that are not up to date, as DVC sees it.

    Raises: RuntimeError with DVC's own words if it cannot tell.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"dvc status failed:\n{done.stderr or done.stdout}")
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


def stages_table(
    params: Params, kinds: dict[str, list[str]], trainings: list[costs.Training]
) -> str:
    """What would run and its hours: of pretraining calculated, else as long as the last time."""
    rows = []
    for kind, items in kinds.items():
        if kind == "pretrain":
            hours = sum(each.hours for each in trainings if each.run in items)
        elif (known := _last_time(params, kind, items)) is not None:
            hours = known
        else:
            hours = None
        which = ", ".join(items) if items[0] else ""
        rows.append([kind, str(len(items)), "?" if hours is None else cost.number(hours), which])
    return cost.table(["stage", "runs", "hours", "of"], rows)


def _last_time(params: Params, kind: str, items: list[str]) -> float | None:
    """Hours of these stages when they last ran; None if one of them never did."""
    notebook = NOTEBOOKS.get(kind)
    if notebook is None:
        return 0.0  # done in a second, without a notebook
    names = [f"{notebook}-{item}" if item else notebook for item in items]
    took = minutes(paths.small(params) / "executed", names)
    return sum(took.values()) / 60 if len(took) == len(names) else None


def main() -> None:
    """Prints what would run, hours, GPU-hours and disk for the profile in params.yaml."""
    params = load()
    kinds = by_kind(stale(paths.root()), params.profile)
    if not kinds:
        print(f"profile {params.profile}: everything is up to date")
        return
    clips_per_s, source = cost.rate(params, given=None, again=False)
    run = costs.base(params)
    devices = distributed.num_processes(run.pretrain.batch_size)
    trainings = costs.trainings(params, clips_per_s=clips_per_s, gpus=devices)
    hours = sum(t.hours for t in trainings if t.run in kinds.get("pretrain", []))
    disk = costs.disk(params)
    place = paths.bulk(params)
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    lines = [
        f"profile {params.profile}: these stages would run, and after them what depends on them",
        stages_table(params, kinds, trainings),
        f"pretrain: {cost.number(hours)} h from scratch on {devices} x {clips_per_s:,.4g} clips/s "
        f"({source}), {cost.number(hours * devices)} device-hours",
    ]
    if costs.epoch(params, run.model.crop_frames).assumed:
        lines.append("(a corpus is not there yet: its clips are assumed)")
    sizes = ", ".join(f"{name} {cost.amount(size)}" for name, size in disk.items())
    lines.append(f"disk when all is done: {sizes}; {cost.amount(free)} are free at {place}")
    print("\n".join(lines))

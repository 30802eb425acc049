"""How the hyper-parameters of the mini profile were chosen: on validation parts, over seeds.

    python -m benchmarks.mini                      # all settings that the table lacks
    python -m benchmarks.mini "lr 4e-3" --seeds 3  # some
    python -m benchmarks.mini --profile real       # what more training gives on recordings

Needs the log-mels of the profile (`dvc repro logmel@mini`). Each setting changes the profile's base
run by what it names; it is trained once per seed, as the pipeline does, and probed once; only
validation scores are read and kept, a row per setting, seed and task, in
``docs/bench/<profile>.csv``. The tables in docs/mini.md and docs/real.md are their `summary`.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

ROOT = Path(__file__).parents[1]
Changes = dict[str, dict[str, Any]]
SIX_TIMES: Changes = {
    "pretrain": {"epochs": 58.0, "warmup_epochs": 2.0, "encoder_ema_decay": [0.97, 0.9995]},
    "objective": {"teacher_temp_ramp_epochs": 2.0},
}
SMALL_PATCHES: Changes = {"model": {"patch_size": 8}}
HALF: Changes = {"pretrain": {"epochs": 29.0}}
FINE = (SIX_TIMES, HALF, SMALL_PATCHES)
MINI: dict[str, Sequence[Changes]] = {
    "lr 2e-3": ({"pretrain": {"learning_rate": 2e-3}},),
    "lr 4e-3": (),
    "lr 8e-3": ({"pretrain": {"learning_rate": 8e-3}},),
    "10 epochs": ({"pretrain": {"epochs": 10.0}},),
    "10 epochs, lr 2e-3": ({"pretrain": {"epochs": 10.0, "learning_rate": 2e-3}},),
    "warm-up 4 epochs": ({"pretrain": {"warmup_epochs": 4.0}},),
    "batch 64": ({"pretrain": {"batch_size": 64}},),
    "teacher to 0.9999": ({"pretrain": {"encoder_ema_decay": [0.99, 0.9999]}},),
    "head 128": ({"model": {"head_hidden": 128}},),
    "mask 0.5": ({"model": {"mask_ratio": 0.5}},),
    "patch 8 x 8": ({"model": {"patch_size": 8}},),
    "crop 192": ({"model": {"crop_frames": 192}},),
    "depth 2": ({"model": {"encoder_depth": 2}},),
    "no decay of norms": ({"pretrain": {"decay_norms_and_biases": False}},),
}
REAL: dict[str, Sequence[Changes]] = {
    "base": (),
    "6 times": (SIX_TIMES,),
    "3 times, patch 8 x 8": FINE,
    "3 times, patch 8 x 8, lr 2e-3": (*FINE, {"pretrain": {"learning_rate": 2e-3}}),
    "3 times, patch 8 x 8, lr 1e-3": (*FINE, {"pretrain": {"learning_rate": 1e-3}}),
}
STUDIES = {"mini": ("params.yaml", MINI), "real": ("params.real.yaml", REAL)}
REFERENCES = ("random", "logmel")
OF_FOLDS = ("esc50", "us8k", "esc10")
"""Over their folds, validation parts hold every test clip: nothing is chosen by these tasks."""


def evaluate(profile: str, setting: str, seed: int, source: Path) -> pd.DataFrame:
    """Trains and probes one setting once, in a root of its own.

    Args: source: the project's ``data/<profile>``, of which log-mels and manifests are read.
    Returns: columns setting, seed, task, valid_score.
    """
    from matpac.params import load, parse
    from matpac.pretraining.pretrain import pretrain
    from matpac.probing.probe import probe

    file, settings = STUDIES[profile]
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data" / profile
        data.mkdir(parents=True)
        for name in ("manifests", "logmel"):
            (data / name).symlink_to(source / name)
        os.environ |= {"MATPAC_ROOT": root, "MATPAC_PROGRESS": "silent", "MATPAC_DATA": ""}
        found = load(ROOT / file)
        sections = found.model_dump()
        for part in settings.get(setting, ()):
            for name, changes in part.items():
                sections[name] |= changes
        sections["pretrain"]["seed"] = seed
        sections["probe"] |= {"repeats": 1, "seed": seed}
        sections["runs"] = {"base": {}}
        params = parse(type(found), sections)
        if setting not in REFERENCES:
            pretrain("base", params)
        scores = probe(setting if setting in REFERENCES else "base", params)
    means = scores.groupby("task", sort=False)["valid_score"].mean()
    return means.reset_index().assign(setting=setting, seed=seed)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean over tasks in %, then over seeds, with its standard deviation, by falling mean.

    Only tasks of one split count, see `OF_FOLDS`; all are shown.
    """
    counting = rows[~rows["task"].isin(OF_FOLDS)]
    average = 100 * counting.groupby(["setting", "seed"])["valid_score"].mean()
    by_setting = average.groupby("setting").agg(["mean", "std", "count"])
    tasks = 100 * rows.groupby(["setting", "task"])["valid_score"].mean().unstack()
    return by_setting.join(tasks).sort_values("mean", ascending=False)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.mini", description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="setting", help=", ".join([*MINI, *REAL]))
    parser.add_argument("--profile", choices=STUDIES, default="mini")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="default: data/<profile>")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, a thread each")
    given = parser.parse_args()
    out = ROOT / "docs" / "bench" / f"{given.profile}.csv"
    source = (given.data or ROOT / "data" / given.profile).resolve()
    known = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=["setting", "seed"])
    done = set(zip(known["setting"], known["seed"], strict=True))
    wanted = [
        (setting, seed)
        for seed in range(given.seeds)
        for setting in given.settings or [*STUDIES[given.profile][1], *REFERENCES]
        if (setting, seed) not in done
    ]
    with joblib.parallel_config("loky", n_jobs=given.workers, inner_max_num_threads=1):
        results = joblib.Parallel(return_as="generator_unordered")(
            joblib.delayed(evaluate)(given.profile, setting, seed, source)
            for setting, seed in wanted
        )
        for rows in results:
            known = pd.concat([known, rows[["setting", "seed", "task", "valid_score"]]])
            known.sort_values(["setting", "seed", "task"]).to_csv(
                out, index=False, float_format="%.5f"
            )
            print(
                rows["setting"].iloc[0], rows["seed"].iloc[0], f"{rows['valid_score'].mean():.4f}"
            )
    print(summary(known).round(1).to_string())


if __name__ == "__main__":
    main()

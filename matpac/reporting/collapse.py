"""Did the distributions collapse? Training logs of several runs, read, summarised and drawn.

`load` gathers what the ``pretrain`` stage logged, `summary` gives each run's last tenth as one row,
`symptoms` holds that against rules of thumb, and `plot` shows all of training: MATPAC Sec. III says
that centering and sharpening are both needed, Sec. IV-C that classification alone collapses. What
the entropies mean is explained in `matpac.pretraining.diagnostics`; they are in nats throughout.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from matpac.core import files, paths
from matpac.reporting.plots import STYLE, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUNS = {
    "base": "both (MATPAC)",
    "no_sharpening": "no sharpening",
    "no_centering": "no centering",
    "neither": "neither",
    "alpha0": "no prediction",
}
"""Runs of the inspection, in the order shown, and what the figure calls them."""

COLOURS = dict(zip(RUNS, ("#000000", "#0072B2", "#D55E00", "#B3609A", "#009E73"), strict=True))
"""From Okabe and Ito's palette, which readers of every kind of colour vision can tell apart."""

SUMMARY = {
    "num_prototypes": "num_prototypes",
    "entropy_of_mean": "teacher_entropy_of_mean",
    "mean_entropy": "teacher_mean_entropy",
    "mutual_information": "mutual_information",
    "teacher_student_kl": "teacher_student_kl",
    "prototypes_in_use": "prototypes_in_use",
    "prediction_loss": "prediction_loss",
    "classification_loss": "classification_loss",
    "agreement": "agreement",
    "latent_std": "target_std",
    "effective_rank": "target_effective_rank",
    "rankme": "rankme",
}
"""Column of `summary` -> column of the logs that it averages.

mutual_information: of patch and prototype, the difference of the two entropies; teacher_student_kl:
D_KL(teacher || student), mean over patches; rankme: effective rank of the embeddings of the probed
clips, mean over tasks, after training. All but the ranks and shares are in nats.
"""

TITLES = {
    "mutual_information": "mutual information (nats)",
    "prototypes_in_use": "prototypes in use",
    "prediction_loss": "prediction loss",
}
"""Columns of the logs compared across runs, and how the figure calls them."""

FEW_PROTOTYPES = 4.0  # exp(entropy of the mean) below it: one or a few dimensions dominate
LITTLE_INFORMATION = 0.2  # nats of mutual information below it: all patches have the same
UNPREDICTED = 1.0  # prediction loss above it: a cosine below 1/2 to the target
FINAL = 0.1  # share of training that counts as its end


def load(profile: str | None = None, runs: Collection[str] | None = None) -> pd.DataFrame:
    """Training logs of every finished run below ``root()``.

    Args:
        profile: whose; None: the profile of ``root()/params.yaml`` if it has logs, else ``smoke``.
        runs: of those only; what was left of others is not read.
    Returns: one row per (run, seed, step at which diagnostics were measured), sorted, with the
        columns of ``log.csv`` and ``diagnostics.csv`` and ``profile``, ``num_prototypes`` and
        ``rankme``, NaN where none was measured. Losses and gradient norm are means over the steps
        since the row before.
    Raises: FileNotFoundError naming the stage to run.
    """
    profile = profile or _profile_with_logs()
    small = paths.root() / "data" / profile
    found = [
        path
        for path in sorted(small.glob("logs/*/seed_*/diagnostics.csv"))
        if runs is None or path.parts[-3] in runs
    ]
    if not found:
        raise FileNotFoundError(
            f"{small / 'logs'}: no training logs; run {paths.command(profile, 'pretrain', 'base')}"
        )
    logs = pd.concat([_read(path.parent, small) for path in found]).assign(profile=profile)
    return logs.sort_values(["run", "seed", "step"], ignore_index=True)


def summary(logs: pd.DataFrame) -> pd.DataFrame:
    """The end of each run: means over the last tenth of its steps, then over its seeds.

    Args: logs: as `load` returns them, or from ``collapse.csv``.
    Returns: one row per run, those of `RUNS` first; the columns of `SUMMARY`.
    """
    last = logs.groupby(["run", "seed"])["step"].transform("max")
    end = logs[logs["step"] >= (1 - FINAL) * last]
    of_seeds = end.groupby(["run", "seed"])[list(SUMMARY.values())].mean()
    table = of_seeds.groupby("run").mean().set_axis(list(SUMMARY), axis=1)
    known = [run for run in RUNS if run in table.index]
    return table.loc[known + [run for run in table.index if run not in RUNS]]


def symptoms(table: pd.DataFrame) -> pd.DataFrame:
    """Which kinds of collapse a `summary` shows, by the rules of thumb above.

    Returns: one row per run, booleans: ``few dominate`` (a handful of dimensions holds the mean
        distribution), ``says little`` (single distributions hardly depend on the patch) and
        ``prediction fails``.
    """
    return pd.DataFrame(
        {
            "few dominate": np.exp(table["entropy_of_mean"]) < FEW_PROTOTYPES,
            "says little": table["mutual_information"] < LITTLE_INFORMATION,
            "prediction fails": table["prediction_loss"] > UNPREDICTED,
        }
    )


def plot(logs: pd.DataFrame, runs: Sequence[str] = tuple(RUNS), *, note: str = "") -> "Figure":
    """The two entropies of each run side by side; below, what tells the runs apart.

    Args:
        logs: as `load` returns them.
        runs: names of runs, in order; those without logs are left out.
        note: a line below the figure: which profile, corpus and parameters made it.
    Raises: ValueError if none of the runs has logs.
    """
    import matplotlib.pyplot as plt

    present = [run for run in runs if (logs["run"] == run).any()]
    if not present:
        raise ValueError(f"runs: got {', '.join(runs)}, allowed: {', '.join(logs['run'].unique())}")
    logs = logs[logs["run"].isin(present)]
    with plt.style.context(STYLE):
        figure = plt.figure(figsize=(7.16, 4.5), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.12], hspace=0.04)
        panels = top.subplots(1, len(present), sharex=True, sharey=True, squeeze=False)
        _entropies(panels[0], logs, present)
        for axes, column in zip(bottom.subplots(1, len(TITLES)), TITLES, strict=True):
            _compare(axes, logs, present, column)
        if note:
            figure.supxlabel(note, fontsize=6, color="0.4", x=0.99, ha="right")
        plt.close(figure)  # a notebook shows what is returned, and only once
    return figure


def figure(logs: pd.DataFrame, out: Path, provenance: Mapping[str, Any]) -> None:
    """Writes ``collapse.png``, ``.pdf`` and ``.csv`` (the curves), alike for equal logs.

    Args:
        logs: as `load` returns them; runs other than those of `RUNS` are not shown.
        out: folder, made if missing.
        provenance: what made them, e.g. profile, corpus and hash of the parameters: a line below
            the figure and columns of the table.
    Raises: ValueError if no run of the inspection has logs.
    """
    drawn = plot(logs, note=" · ".join(f"{key} {value}" for key, value in provenance.items()))
    save(drawn, out / "collapse", dpi=200)
    shown = ["run", "seed", "step", "epoch", *SUMMARY.values()]
    curves = logs.loc[logs["run"].isin(list(RUNS)), shown].assign(**provenance)
    with files.replacing(out / "collapse.csv") as temporary:
        curves.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")


def _profile_with_logs() -> str:
    root = paths.root()
    profile = paths.active_profile() or "smoke"
    has_logs = any((root / "data" / profile).glob("logs/*/seed_*/diagnostics.csv"))
    return profile if has_logs else "smoke"


def _read(folder: Path, small: Path) -> pd.DataFrame:
    """The logs of one seed of one run: diagnostics joined with the losses up to each of them."""
    run, seed = folder.parent.name, folder.name
    measured = pd.read_csv(folder / "diagnostics.csv")
    log = pd.read_csv(folder / "log.csv")
    # The paper's runs have 300,000 steps: no row per step is kept.
    index = np.searchsorted(measured["step"], log["step"])
    noisy = ["prediction_loss", "classification_loss", "total_loss", "gradient_norm"]
    means = log.groupby(index)[noisy].mean().reindex(range(len(measured)))
    at = log.drop(columns=noisy).merge(measured, on="step", how="inner")
    encoder = files.read_json(small / "pretrain" / run / seed / "config.json")
    number, k = int(seed.removeprefix("seed_")), encoder["model"]["num_prototypes"]
    known = {"run": run, "seed": number, "num_prototypes": k, "rankme": _rankme(small, run, number)}
    return pd.concat([at, means], axis=1).assign(**known)


def _rankme(small: Path, run: str, seed: int) -> float:
    """Of the run's clip embeddings, mean over the tasks; NaN if it was not probed or measured."""
    path = small / "probe" / run / "scores.csv"
    scores = pd.read_csv(path) if path.exists() else pd.DataFrame({"seed": []})
    if "rankme" not in scores:
        return float("nan")
    of_tasks = scores[scores["seed"] == seed].groupby("task")["rankme"].mean()
    return float(of_tasks.mean())


def _entropies(panels: "Sequence[Axes]", logs: pd.DataFrame, runs: Sequence[str]) -> None:
    """One panel per run: entropy of the mean, mean entropy, and the gap between them."""
    for panel, run in zip(panels, runs, strict=True):
        colour = COLOURS.get(run, "0.3")
        seeds = logs[logs["run"] == run].groupby("seed")
        for _, part in seeds:
            of_mean, single = part["teacher_entropy_of_mean"], part["teacher_mean_entropy"]
            gap = {"color": colour, "alpha": 0.36 / (1 + len(seeds)), "lw": 0}
            panel.fill_between(part["epoch"], single, of_mean, **gap)
            panel.plot(part["epoch"], of_mean, color=colour, lw=1.2)
            panel.plot(part["epoch"], single, color=colour, lw=1.2, ls=(0, (2, 1)))
        ceiling = float(np.log(part["num_prototypes"].iloc[0]))
        panel.axhline(ceiling, color="0.5", lw=0.7, ls=":")
        panel.set(title=RUNS.get(run, run), xlabel="epoch", xlim=(0, None))
        panel.title.set_color(colour)
    panels[0].set_ylim(0, 1.12 * np.log(logs["num_prototypes"].max()))  # room above ln K
    panels[0].set_ylabel("entropy of the teacher's\ndistributions (nats)")
    lines = zip(panels[0].lines[-3:], ("of the mean", "of single patches", "ln K"), strict=True)
    for line, name in lines:
        line.set_label(name)
    panels[0].legend(fontsize=5.5)


def _compare(axes: "Axes", logs: pd.DataFrame, runs: Sequence[str], column: str) -> None:
    """All runs over training in one panel, a line per seed in the colour of the run's title."""
    import seaborn

    palette = {run: COLOURS.get(run, "0.3") for run in runs}
    seaborn.lineplot(
        logs, x="epoch", y=column, hue="run", hue_order=runs, palette=palette, legend=False,
        units="seed", estimator=None, linewidth=1.1, ax=axes,
    )  # fmt: skip
    if column == "prototypes_in_use":
        highest = logs["num_prototypes"].max()
        ticks = [2**n for n in range(0, 20, 1 if highest <= 256 else 2) if 2**n <= highest]
        axes.set_yscale("log", base=2)
        axes.set(yticks=ticks, yticklabels=ticks, ylim=(1, 1.1 * highest))
        axes.minorticks_off()
    else:
        axes.set_ylim(0, None)
    axes.set(title=TITLES[column], xlabel="epoch", ylabel="", xlim=(0, None))

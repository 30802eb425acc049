"""Which layer serves best: the linear probe on every layer of an encoder.

matpac layers base [--csv layers.csv]
"""

import pandas as pd

from matpac.core.progress import track
from matpac.encoders.frozen import AudioEncoder
from matpac.probing.config import ProbeParams
from matpac.probing.linear import choose, row_of, train_probes
from matpac.probing.probe import list_features, load_task


def probe_layers(encoder: str, params: ProbeParams) -> pd.DataFrame:
    """The linear probe on every layer and task, for the encoder's first seed.

    Returns: the columns of `matpac.probing.probe.Scores.linear` and ``layer``, from 0, the first.
    Raises: as `matpac.probing.probe.probe`.
    """
    features = list_features(params, encoder)[0]
    layers = range(num_layers(features.encoder))
    runs = [(task, layer) for task in params.tasks for layer in layers]
    rows = []
    for name, layer in track(runs, len(runs), f"layers {encoder}", unit="layer"):
        task, _, info = load_task(params, features, name, layer=layer)
        told = {"encoder": encoder, "seed": features.seed, "task": name, "metric": info["metric"]}
        results = choose(train_probes(task, params.probe))
        rows += [told | {"layer": layer} | row_of(result) for result in results]
    return pd.DataFrame(rows)


def num_layers(encoder: object) -> int:
    """How many there are to choose from; one of log-mel statistics."""
    if isinstance(encoder, AudioEncoder):
        return encoder.config.encoder_depth
    return getattr(encoder, "num_layers", 1)


def table(rows: pd.DataFrame) -> str:
    """A Markdown table: "validation / test" scores in % per task and layer, and their means."""
    means = rows.groupby(["task", "layer"], sort=False)[["valid_score", "score"]].mean()
    averages = means.groupby("layer").mean()
    layers = list(averages.index)
    lines = [["task", *map(str, layers)], ["---"] + ["---:"] * len(layers)]
    for name in [*rows["task"].drop_duplicates(), "mean"]:
        of_task = averages if name == "mean" else means.loc[name]
        pairs = of_task.loc[layers].to_numpy()
        lines.append([name, *(f"{100 * valid:.1f} / {100 * test:.1f}" for valid, test in pairs)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

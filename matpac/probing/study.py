"""What learning rate, standardisation and number of epochs do to the probes of an encoder.

The paper's text lost its learning rate and does not speak of standardisation. This runs the probes
of a profile at every combination and prints a table of validation and test scores; the setting is
to be chosen by the validation columns. ``docs/probing.md`` shows what it gave and what we took.

    matpac study base --epochs 100 --epochs 1000 [--params params.esc10.yaml]
"""

from collections.abc import Sequence

import pandas as pd

from matpac.core.progress import track
from matpac.probing.config import ProbeParams
from matpac.probing.linear import choose, row_of, train_probes
from matpac.probing.probe import list_features, load_task

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SETTING = ["task", "standardize", "epochs", "learning_rate"]


def study(
    encoder: str,
    params: ProbeParams,
    *,
    learning_rates: Sequence[float] = RATES,
    epochs: Sequence[int] = (100,),
) -> pd.DataFrame:
    """Probes every task of the profile at every setting, for the encoder's first seed.

    Returns: a row per task, standardisation, number of epochs and rate (the last: "chosen", one
        rate per fold as `choose` takes it), with means over folds and repeats: ``valid_loss``,
        ``valid_score``, ``test_score``, ``best_epoch``, and ``unfinished``, the fraction of probes
        whose best epoch was the last.
    Raises: as `matpac.probing.probe.probe`.
    """
    features = list_features(params, encoder)[0]
    runs = [
        (task, {"standardize": on, "epochs": most, "learning_rate": list(learning_rates)})
        for task in params.tasks
        for on in (True, False)
        for most in epochs
    ]
    rows = []
    for task, setting in track(runs, len(runs), f"study {encoder}", unit="setting"):
        settings = params.probe.model_copy(update={**setting, "patience": None})
        results = train_probes(load_task(params, features, task)[0], settings)
        for rate, each in [*results.items(), ("chosen", choose(results))]:
            frame = pd.DataFrame([row_of(result) for result in each])
            rows.append(
                {
                    "task": task,
                    **setting,
                    "learning_rate": rate,
                    "valid_loss": frame["valid_loss"].mean(),
                    "valid_score": frame["valid_score"].mean(),
                    "test_score": frame["score"].mean(),
                    "best_epoch": frame["best_epoch"].mean(),
                    "unfinished": (frame["best_epoch"] == settings.epochs).mean(),
                }
            )
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> str:
    """A Markdown table of what `study` returned: "validation / test" scores in % per rate.

    Bold: the rate with the lowest mean validation loss. †: of at least half of the probes the last
    epoch was the best, so they were still learning.
    """
    rates = list(rows["learning_rate"].drop_duplicates())
    names = [rate if isinstance(rate, str) else f"{rate:g}" for rate in rates]
    lines = [["task", "standardised", "epochs", *names], ["---"] * 3 + ["---:"] * len(names)]
    for (task, standardised, epochs), part in rows.groupby(SETTING[:3], sort=False):
        lowest = part.loc[part["learning_rate"] != "chosen", "valid_loss"].min()
        cells = []
        for row in part.to_dict("records"):
            cell = f"{100 * row['valid_score']:.1f} / {100 * row['test_score']:.1f}"
            best = row["valid_loss"] == lowest and row["learning_rate"] != "chosen"
            cells.append((f"**{cell}**" if best else cell) + "†" * (row["unfinished"] >= 0.5))
        lines.append([str(task), "yes" if standardised else "no", str(epochs), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""What README and notebook 06 say of the committed mini runs, from the committed files."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import mini
from matpac.params import load
from matpac.reporting import collapse, hypotheses, measures

ROOT = Path(__file__).parents[2]


def of_seeds(path: Path, run: str) -> pd.Series:
    """Mutual information at the end of each seed of a run, as `collapse.summary` takes it."""
    logs = pd.read_csv(path).query("run == @run")
    logs["run"] = logs["seed"].astype(str)
    return collapse.summary(logs)["mutual_information"]


def test_notebook_06_speaks_of_the_committed_runs() -> None:
    notebook = json.loads((ROOT / "notebooks" / "06_inspect_collapse.ipynb").read_text("utf-8"))
    text = " ".join("".join(cell["source"]) for cell in notebook["cells"])
    sources = [ROOT / name for name in ("params.mini.yaml", "params.yaml")]
    params = load(next(path for path in sources if path.exists()))
    prototypes, epochs = params.model.num_prototypes, params.pretrain.epochs
    assert f"K = {prototypes}, so ln K = {math.log(prototypes):.2f}" in text
    assert f"{ {10.0: 'ten', 20.0: 'twenty'}[epochs] } passes over the embedded corpus" in text
    end = collapse.summary(pd.read_csv(ROOT / "figures" / "mini" / "collapse.csv"))
    # What the prose claims of the picture and the table beside it.
    ceiling, information = math.log(prototypes), end["mutual_information"]
    assert information["base"] > 5 * information[["no_sharpening", "neither"]].max()
    assert end.loc["no_sharpening", "mean_entropy"] > 0.97 * ceiling
    assert end.loc["neither", "mean_entropy"] > 0.85 * ceiling
    assert end.loc["no_centering", "entropy_of_mean"] < 0.5
    *closed, open_one = sorted(of_seeds(ROOT / "figures" / "mini" / "collapse.csv", "alpha0"))
    assert len(closed) == 3 and max(closed) < 0.1
    assert open_one / information["base"] == pytest.approx(0.5, abs=0.1)
    others = end.drop("alpha0")
    assert end.loc["alpha0", "prediction_loss"] > 5 * others["prediction_loss"].max()
    collapsed = end.loc[["no_centering", "no_sharpening", "neither"], "agreement"]
    assert collapsed.min() > 0.8 > end.loc["base", "agreement"]
    assert 0.8 < end.loc["alpha0", "agreement"] / end.loc["base", "agreement"] < 1.25


def test_what_the_embeddings_are_worth() -> None:
    table = pd.read_csv(ROOT / "figures" / "mini" / "table2.csv").set_index("model")
    table = table[table["block"].str.startswith("This run")]
    notebook = (ROOT / "notebooks" / "06_inspect_collapse.ipynb").read_text("utf-8")
    apart = pd.read_csv(ROOT / "figures" / "mini" / "table2_differences.csv").set_index("model")
    row = apart.loc["w/o prediction"]
    said = f"is {-row['average']:.1f} ± {row['average_ci95']:.1f} points below the base run"
    assert f"over four seeds this run {said}" in notebook
    without = [float(seed) for seed in table.loc["w/o prediction", "average_seeds"].split()]
    assert len(without) == 4 and min(without) - table.loc["Random initialisation", "average"] > 4
    # A collapsed head costs little: less than half of what training gains.
    gain = table.loc["MATPAC", "average"] - table.loc["Random initialisation", "average"]
    for name in ("w/o centering", "w/o sharpening", "w/o both"):
        assert table.loc["MATPAC", "average"] - table.loc[name, "average"] < gain / 2


def test_what_the_readme_says_of_the_learning_curve() -> None:
    curve = pd.read_csv(ROOT / "figures" / "mini" / "curve.csv").set_index(["encoder", "fraction"])
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for fraction, when in ((0.25, "after a quarter of it"), (0.5, "after half (five seeds)")):
        at = curve.loc[("base", fraction)]
        assert f"{at['mean']:.1f} ± {at['ci95']:.1f} {when}" in readme
        assert (at["n"], at["unit"]) == (5, "seeds")


def test_what_the_page_says_of_the_rows_beyond_the_paper() -> None:
    page = (ROOT / "docs" / "mini.md").read_text("utf-8")
    table = pd.read_csv(ROOT / "figures" / "mini" / "table2_differences.csv").set_index("model")
    for model in ("centering of logits", "M2D-like"):
        row = table.loc[model]
        assert f"{row['average']:+.1f} ± {row['average_ci95']:.1f}" in page
        assert row["average_p"] > 0.05


def test_what_the_page_says_of_the_choice() -> None:
    rows = mini.summary(pd.read_csv(ROOT / "docs" / "bench" / "mini.csv"))
    assert rows["mean"].idxmax() == "lr 4e-3"
    page = (ROOT / "docs" / "mini.md").read_text("utf-8").replace("**", "").splitlines()
    told = [line for line in page if re.search(r"\| \d \| \d\d\.\d \|", line)]
    assert len(told) == len(rows)
    for line, (_, row) in zip(told, rows.iterrows(), strict=True):
        cells = f"| {row['count']:.0f} | {row['mean']:.1f} | {row['std']:.1f} |"
        assert line.endswith(cells), line


def test_what_the_page_says_of_a_quarter_of_an_hour() -> None:
    page = " ".join((ROOT / "docs" / "mini.md").read_text("utf-8").split())
    above = {}
    for profile in ("quick", "mini"):
        table = pd.read_csv(ROOT / "figures" / profile / "table2_differences.csv")
        row = table.set_index("model").loc["Random initialisation"]
        above[profile] = f"{-row['average']:.1f} ± {row['average_ci95']:.1f}"
    said = f"is {above['quick']} points above the random network, where the mini profile says"
    assert f"{said} {above['mini']}" in page


def test_what_notebook_06_says_of_several_hypotheses() -> None:
    found = hypotheses.summary(pd.read_csv(ROOT / "figures" / "mini" / "hypotheses.csv"))
    assert found["effective_hypotheses"].between(4, 5).all() and len(found) == 4
    gains = found["choice_gain"].to_numpy()
    *together, apart = sorted(gains)
    assert together[0] > 0.1 and together[-1] < 0.25 and apart == pytest.approx(0.9, abs=0.05)
    table = pd.read_csv(ROOT / "figures" / "mini" / "table2.csv").set_index("model")
    averages = np.array([float(each) for each in table.loc["MATPAC++", "average_seeds"].split()])
    # The more choosing gains, the worse the encoder; the one whose hypotheses stay apart by far.
    assert (averages.argsort()[::-1] == gains.argsort()).all()
    assert averages[averages.argsort()[1]] - averages.min() > 4
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    said = f"(the four of MATPAC++ lie between {min(averages):.1f} and {max(averages):.1f})"
    assert said in readme


def test_what_notebook_09_says_of_measures() -> None:
    table = pd.read_csv(ROOT / "figures" / "mini" / "measures.csv")
    networks = table[table["encoder"] != "logmel"]
    trained = networks[networks["encoder"] != "random"]
    of_all, among = measures.correlations(networks), measures.correlations(trained)
    means = networks.groupby("encoder")[["rankme", "alpha_req", "score"]].mean()
    assert means["rankme"].idxmax() == means["alpha_req"].idxmin() == "random"
    assert of_all.loc[["rankme", "alpha_req"], "cost"].round().eq(7).all()
    assert of_all.loc[["uniformity", "alignment", "knn"], "low"].min() > 0
    assert of_all["correlation"].idxmax() == among["correlation"].idxmax() == "knn"
    assert among["low"].drop("rankme").min() > 0 > among.loc["rankme", "low"]
    for measure, said in (("alpha_req", 0.4), ("rankme", 0.2), ("uniformity", 0.2), ("knn", 0.5)):
        assert among.loc[measure, "correlation"] == pytest.approx(said, abs=0.05)
    runs = means.drop("random")
    assert runs["alpha_req"].idxmax() == runs["score"].idxmin() == "plusplus"
    assert np.ptp(runs["score"].drop("plusplus")) == pytest.approx(0.0155, abs=0.0005)
    assert means["alpha_req"].min() > 2
    base = trained[trained["encoder"] == "base"]
    assert np.ptp(base.groupby("seed")["score"].mean()) == pytest.approx(0.017, abs=0.0005)
    seeds = measures.correlations(base.assign(encoder=base["seed"])).loc["alpha_req"]
    assert seeds["low"] > 0 and seeds["cost"] == 0


def test_what_the_page_says_of_layers() -> None:
    rows = pd.read_csv(ROOT / "docs" / "bench" / "layers.csv")
    means = 100 * rows.groupby(["layer", "task"])["score"].mean().groupby("layer").mean()
    page = " ".join((ROOT / "docs" / "probing.md").read_text("utf-8").split())
    assert f"{means[1]:.1f} and {means[3]:.1f} %); the first is one and a half points below" in page
    assert means[3] - means[0] == pytest.approx(1.5, abs=0.25)


CHOSEN = "3 times, patch 8 x 8, lr 1e-3"
"""Of `benchmarks.mini`, for the profile `best`."""


def test_what_the_page_says_of_our_best() -> None:
    page = " ".join((ROOT / "docs" / "real.md").read_text("utf-8").split())
    table = pd.read_csv(ROOT / "figures" / "best" / "table2_differences.csv").set_index("model")
    for name, said in (
        ("Random initialisation", "{} points above the same network at random on the words and {}"),
        ("Log-mel mean and std", "over log-mel statistics {} and {}"),
    ):
        row = table.loc[name]
        pairs = [f"{-row[task]:.1f} ± {row[f'{task}_ci95']:.1f}" for task in ("words", "esc10")]
        assert said.format(*pairs) in page
    rows = pd.read_csv(ROOT / "docs" / "bench" / "real.csv")
    settings = rows.groupby(["setting", "task"])["valid_score"]
    found = 100 * settings.mean().unstack()
    seeds = settings.count().unstack()["words"]
    # What the profile is, by the words alone: ESC-10's folds validate on each other's test clips.
    assert found["words"].idxmax() == CHOSEN and seeds[CHOSEN] > 1
    for setting, values in found.iterrows():
        told = f"| {values['words']:.1f} | {values['esc10']:.1f} | {seeds[setting]} |"
        assert told in page.replace("**", ""), setting
    best = yaml.safe_load((ROOT / "params.best.yaml").read_text("utf-8"))
    real = yaml.safe_load((ROOT / "params.real.yaml").read_text("utf-8"))
    for part in mini.REAL[CHOSEN]:
        for section, changes in part.items():
            real[section] |= changes
    assert all(best[section] == real[section] for section in ("model", "objective", "pretrain"))


def test_what_the_page_says_of_real_recordings() -> None:
    """Every difference in its list is one of the pipeline's; those that it denies are denied."""
    page = " ".join((ROOT / "docs" / "real.md").read_text("utf-8").split())
    rows = (ROOT / "figures" / "real" / "table2_differences.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row[:2] == "| "]
    found = {row[0]: row[2:4] for row in cells if " ± " in row[2]}
    size = {name: [each.strip("−+\\*") for each in row] for name, row in found.items()}
    random, logmel = "Random initialisation", "Log-mel mean and std"
    without = "MATPAC w/o classification"
    for words, esc10, name in (
        ("{} points over the same network at random on the words", "{} on ESC-10", random),
        ("{} points on the words, and nothing that shows", "on ESC-10 ({})", logmel),
        ("and {} worse on the words", "is {} points better on ESC-10", "YAMNet"),
        ("changes −{} and", "and −{} points: nothing that five seeds show", without),
    ):
        assert words.format(size[name][0]) in page and esc10.format(size[name][1]) in page
    shows = {name: ["*" in each for each in row] for name, row in found.items()}
    assert shows == {
        random: [True, True],
        logmel: [True, False],
        "YAMNet": [True, True],
        without: [False, False],
    }


def test_what_the_page_says_of_esc10_alone() -> None:
    page = " ".join((ROOT / "docs" / "real.md").read_text("utf-8").split())
    table = pd.read_csv(ROOT / "figures" / "esc10" / "table2_differences.csv").set_index("model")
    half = table["esc10_ci95"].map(" ± {:.1f}".format)
    worth = (0.0 - table["esc10"].round(1)).map("{:.1f}".format) + half
    change = table["esc10"].map("{:+.1f}".format) + half
    random, logmel = worth["Random initialisation"], worth["Log-mel mean and std"]
    assert f"is worth {random} points over random weights and {logmel} over log-mel" in page
    assert f"leaving the classification out changes {change['MATPAC w/o classification']}." in page
    shown = table["esc10_p"] < 0.05
    assert list(shown[shown].index) == ["Random initialisation"]

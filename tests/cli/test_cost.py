"""What runs cost: clips, updates, hours and disk by hand; the tables; the page on scale."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import test_sizes
import tiny

from matpac.cli import cost
from matpac.core import paths
from matpac.data import manifests
from matpac.params import Params, load, parse
from matpac.pretraining import config, sizes, throughput
from matpac.pretraining.throughput import Rate

import command
import smoke

ROOT = Path(__file__).parents[2]


def make_params(**changes: dict) -> Params:
    """The smoke profile with two runs, and some keys of its sections changed."""
    sections = smoke.sections()
    sections["runs"] = {
        "base": {"label": "MATPAC"},
        "k8": {"model": {"num_prototypes": 8}, "seeds": [1, 2]},
    }
    for section, keys in changes.items():
        sections[section] = sections[section] | keys
    return parse(Params, sections)


def paper() -> Params:
    """The paper's profile, whether or not it is the active one."""
    for path in (ROOT / "params.paper.yaml", ROOT / "params.yaml"):
        if path.exists() and (params := load(path)).profile == "paper":
            return params
    raise FileNotFoundError("params.paper.yaml")


def folder_corpus(root: Path, lengths_s: list[float]) -> Params:
    """The smoke profile with a folder of audio as its only corpus, and that folder."""
    (root / "calls").mkdir()
    for number, length in enumerate(lengths_s):
        soundfile.write(root / "calls" / f"{number}.wav", np.zeros(round(16000 * length)), 16000)
    datasets = smoke.sections()["datasets"] | {"calls": {"source": "folder", "audio": "calls"}}
    sections = make_params().model_dump() | {"corpora": {"calls": 1.0}, "tasks": ["esc50"]}
    return parse(Params, sections | {"datasets": datasets})


@pytest.fixture(autouse=True)
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without any data."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    return tmp_path


def cells(table: str) -> list[list[str]]:
    """Of a Markdown table, without the rule."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return [row for row in rows if not re.fullmatch(":?-+:?", row[0])]


# ---------------------------------------------------------------------------------------- numbers


def test_hours_by_hand() -> None:
    params = make_params(pretrain={"epochs": 3.0, "batch_size": 16})
    base, first, second = cost.trainings(params, clips_per_s=10.0, gpus=2)
    assert (base.run, first.run, first.seed, second.seed) == ("base", "k8", 1, 2)
    assert base.updates == first.updates == 3 * 96 // 16
    assert base.hours == pytest.approx(3 * 96 / (10 * 2) / 3600)
    # Less work per clip takes less time.
    works = [sizes.per_clip(config.resolve(params, run), 80) for run in ("base", "k8")]
    assert first.hours / base.hours == pytest.approx(works[1] / works[0]) and works[1] < works[0]
    assert base.flop == 3 * 96 * works[0]


def test_an_epoch_of_parameters_and_of_stores(empty_root: Path) -> None:
    params = make_params()
    assert cost.epoch(params, tiny.CROP) == (96, " (embedded as params.yaml asks for)")
    tiny.make_store(empty_root / "data" / "smoke" / "logmel" / "embedded", [31, 32, 40, 50])
    assert cost.epoch(params, tiny.CROP) == (3, "")
    twice = parse(Params, params.model_dump() | {"corpora": {"embedded": 1.5}})
    assert cost.epoch(twice, tiny.CROP) == (4, "")


def test_a_corpus_that_is_there_counts_and_not_the_papers(empty_root: Path) -> None:
    """24 short clips were 322 GB and two hours once."""
    params = folder_corpus(empty_root, [1.25] * 23 + [0.3])
    (empty_root / "calls" / "damaged.wav").write_bytes(b"nothing")
    frames = 23 * 123 + 28  # 25 ms, and another each 10
    assert cost.epoch(params, 32) == (23, " (calls by the headers of its files)")
    assert cost.clips(params, "calls").num_frames.sum() == frames
    columns = {"clip": ["a", "b", "c"], "duration_s": [1.0, 2.0, 9.0], "excluded": ["", "", "no"]}
    small = paths.small(params) / "manifests"
    manifests.save(small, pd.DataFrame(columns), {"name": "calls"})
    assert cost.epoch(params, 32) == (2, " (calls by its manifest)")
    assert cost.clips(params, "calls").num_frames.tolist() == [98, 198]


def test_the_released_numbers_are_for_the_papers_corpus_alone(empty_root: Path) -> None:
    released, told = cost.epoch(paper(), 608)
    assert int(300 * released / 2048) == 294_816 and told == " (audioset as released)"
    sections = make_params().model_dump()
    sections["datasets"] |= {"mine": {"source": "packed", "shards": "mine-*.tar"}}
    params = parse(Params, sections | {"corpora": {"mine": 1.0}})
    assert cost.epoch(params, 32) == (0, " (mine not counted until it is fetched)")


def test_disk_by_hand(empty_root: Path) -> None:
    params = make_params(pretrain={"keep_checkpoints": 4})
    params = parse(Params, params.model_dump() | {"tasks": ["esc50", "nsynth"]})
    for name, lengths in (("embedded", [40, 60]), ("esc50", [100])):
        tiny.make_store(empty_root / "data" / "smoke" / "logmel" / name, lengths)
    runs = [config.resolve(params, run) for run in ("base", "k8", "k8")]
    held = [sizes.held(run, 80) for run in runs]
    states = sum(each[name] for each in held for name in ("weights", "teacher", "optimiser"))
    encoder = 4 * sizes.parts(runs[0], 80)["student"].parameters
    rendered = params.datasets["nsynth"].num_clips * 498  # of 5 s
    stores = (100 + 100 + rendered) * 80 * 2
    assert cost.disk(params) == (
        f"log-mel stores {cost.amount(stores)}, training states {cost.amount(5 * states)}, "
        f"encoders {cost.amount(3 * 2 * encoder)}"
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [(97_280, "97.3 kB"), (472e6, "472 MB"), (1.5e9, "1.50 GB"), (2e12, "2.00 TB")],
)
def test_amounts(size: float, text: str) -> None:
    assert cost.amount(size) == text


def test_several_devices_by_hand() -> None:
    params = make_params(pretrain={"batch_size": 16, "epochs": 1.0, "micro_batch_size": 5})
    found = cost.scaling_table(params, clips_per_s=10.0, gpus=(1, 2, 3, 32))  # 16 clips for all
    header, *rows = cells(found)
    one, two = (dict(zip(header, row, strict=True)) for row in rows)
    names = ("clips per GPU", "micro-batches", "computing (ms)", "all-reduce at 50 GB/s (ms)")
    assert [one[name] for name in names] == ["16", "4", "1,600", "0"]
    gradient = sizes.held(cost.base(params), 80)["gradients"]
    assert [two[name] for name in names] == ["8", "2", "800", f"{gradient / 50e9 * 1e3:.3g}"]
    assert (one["hours"], two["hours"]) == (f"{96 / 10 / 3600:.3g}", f"{96 / 20 / 3600:.3g}")


def test_the_page_on_scale_shows_what_is_calculated_here() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    params = paper()
    run, found = cost.base(params), cost.trainings(params, clips_per_s=3000.0)
    assert cost.scaling_table(params, clips_per_s=3000.0) in page
    assert cost.runs_table(found, gpus=1) in page
    assert cost.parts_table(run, 80) in page
    for line in cost.memory_lines(run, 80):
        assert line in page
    # What its sentences add.
    rate = f"{3000 * sizes.per_clip(run, 80) / 1e12:.0f} TFLOP/s"
    longest = f"the {len(found)} runs, each on a\n  machine of 8, are through in "
    longest += f"{max(each.hours for each in found) / 8:.1f} h"
    exchange = 2 * 63 / 64 * sizes.held(run, 80)["gradients"] / cost.LINKS["50 GB/s"]
    least = f"294,816 updates last {294_816 * exchange / 3600:.1f} h at the least"
    stores = cost.clips(params, "audioset").num_frames.sum() * 80 * 2
    audioset = f"the {stores / 1e9:.0f} GB of AudioSet's log-mels"
    for sentence in (rate, longest, least, audioset):
        assert sentence in page, sentence


# ----------------------------------------------------------------------------------- command line


def test_the_command_prints_everything(empty_root: Path, capsys: pytest.CaptureFixture) -> None:
    (empty_root / "params.yaml").write_text(smoke.SMOKE_YAML.read_text())
    assert command.matpac("cost", "--throughput", 100, "--gpus", 2) == 0
    out = capsys.readouterr().out
    params = load()
    found = cost.trainings(params, clips_per_s=100.0, gpus=2)
    assert len(found) == 7 and cost.runs_table(found, gpus=2) in out
    assert cost.parts_table(cost.base(params), 80) in out
    assert "2 x 100 clips/s (given); an epoch of 96 clips (embedded as params.yaml" in out
    assert f"disk: {cost.disk(params)}" in out


def test_what_cannot_be_computed_with_is_refused(capsys: pytest.CaptureFixture) -> None:
    for name, value in (("--gpus", 0), ("--throughput", 0), ("--throughput", -1)):
        assert command.matpac("cost", name, value) == 2
        assert f"Invalid value for '{name}'" in capsys.readouterr().err


def test_a_rate_is_remembered_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    params, trials = make_params(), iter([50.0, 60.0])
    monkeypatch.setattr(throughput, "device_name", lambda run: "card")
    monkeypatch.setattr(throughput, "measure", lambda *_, **__: Rate(next(trials), "trial"))
    assert cost.rate(params) == (50.0, "measured in a trial on card")
    assert cost.rate(params) == (50.0, "measured in a trial on card")  # once
    assert cost.rate(params, again=True) == (60.0, "measured in a trial on card")
    throughput.remember(paths.bulk(params), cost.base(params), Rate(70.0, "run"))
    assert cost.rate(params) == (70.0, "measured by an earlier run on card")


def test_the_papers_profile_in_figures() -> None:
    """What its table says of one card at 3,000 clips a second: two and a half days a run."""
    found = cost.trainings(paper(), clips_per_s=3000.0)
    base = next(each for each in found if each.run == "base")
    assert base.updates == 294_816 and base.hours == pytest.approx(55.9, abs=0.05)
    assert base.flop == pytest.approx(55.4e18, rel=0.002)
    assert test_sizes.profile_run("paper") == cost.base(paper())

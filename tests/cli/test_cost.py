"""What runs cost: updates, hours and disk by hand; the tables; the page on scale."""

from pathlib import Path

import pytest
import test_flops
import tiny

from matpac.cli import cost, costs
from matpac.core import paths
from matpac.params import Params, load, parse
from matpac.pretraining import config, flops, memory, throughput
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


@pytest.fixture(autouse=True)
def empty_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without any data."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    monkeypatch.delenv("MATPAC_DATA", raising=False)
    return tmp_path


# ---------------------------------------------------------------------------------------- numbers


def test_hours_by_hand() -> None:
    params = make_params(pretrain={"epochs": 3.0, "batch_size": 16})
    base, first, second = costs.trainings(params, clips_per_s=10.0, gpus=2)
    assert (base.run, first.run, first.seed, second.seed) == ("base", "k8", 1, 2)
    assert base.updates == first.updates == 3 * 96 // 16
    assert base.hours == pytest.approx(3 * 96 / (10 * 2) / 3600)
    # Less work per clip takes less time.
    works = [flops.per_clip(each.resolved, 80) for each in (base, first)]
    assert first.hours / base.hours == pytest.approx(works[1] / works[0]) and works[1] < works[0]
    assert base.flop == 3 * 96 * works[0]


def test_an_epoch_of_stores_of_parameters_and_of_nothing(empty_root: Path) -> None:
    params = make_params()
    assert costs.epoch(params, tiny.CROP) == (96, True)  # as many as are to be rendered
    tiny.make_store(empty_root / "data" / "smoke" / "logmel" / "embedded", [31, 32, 40, 50])
    assert costs.epoch(params, tiny.CROP) == (3, False)
    twice = parse(Params, params.model_dump() | {"corpora": {"embedded": 1.5}})
    assert costs.epoch(twice, tiny.CROP) == (4, False)
    released = costs.epoch(paper(), 608)
    assert released.assumed and int(300 * released.clips / 2048) == 294_816


def test_disk_by_hand(empty_root: Path) -> None:
    params = make_params(pretrain={"keep_checkpoints": 4})
    state = [memory.state_bytes(config.resolve(params, run), 80) for run in ("base", "k8")]
    encoder = 4 * memory.parameters(config.resolve(params, "base"), 80)["student"].all
    disk = costs.disk(params)
    assert disk["training states"] == 5 * (state[0] + 2 * state[1])
    assert disk["encoders"] == 3 * 2 * encoder
    assert disk["log-mel stores"] == 96 * 1000 * 80 * 2
    for name, lengths in (("embedded", [40, 60]), ("esc50", [100])):
        tiny.make_store(empty_root / "data" / "smoke" / "logmel" / name, lengths)
    assert costs.disk(params)["log-mel stores"] == (100 + 100) * tiny.FRONT_END["num_mels"] * 2


# ----------------------------------------------------------------------------------------- tables


def test_a_table_is_aligned_markdown() -> None:
    assert cost.table(["run", "hours"], [["base", "1.5"], ["k8", "12"]]).splitlines() == [
        "| run  | hours |",
        "| ---- | ----: |",
        "| base |   1.5 |",
        "| k8   |    12 |",
    ]


@pytest.mark.parametrize(
    ("size", "text"), [(97_280, "97.3 kB"), (472e6, "472 MB"), (1.5e9, "1.5 GB"), (2e12, "2 TB")]
)
def test_amounts(size: float, text: str) -> None:
    assert cost.amount(size) == text


def test_several_devices_by_hand() -> None:
    params = make_params(pretrain={"batch_size": 16, "epochs": 1.0, "micro_batch_size": 5})
    found = cost.scaling_table(params, clips_per_s=10.0, gpus=(1, 2, 3, 32))  # 16 clips for all
    header, _, one, two = found.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, one, two)]
    one, two = (dict(zip(cells[0], row, strict=True)) for row in cells[1:])
    assert (one["clips per GPU"], one["micro-batches"], one["computing (ms)"]) == (
        "16",
        "4",
        "1,600",
    )
    assert (two["clips per GPU"], two["micro-batches"], two["computing (ms)"]) == ("8", "2", "800")
    assert one["all-reduce at 50 GB/s (ms)"] == "0"
    gradient = memory.gradient_bytes(costs.base(params), 80)
    assert float(two["all-reduce at 50 GB/s (ms)"]) == pytest.approx(
        gradient / 50e9 * 1e3, rel=5e-3
    )
    assert float(one["hours"]) == pytest.approx(96 / 10 / 3600, rel=5e-3)
    assert float(two["hours"]) == pytest.approx(96 / 20 / 3600, rel=5e-3)


def test_the_page_on_scale_shows_what_is_calculated_here() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    params = paper()
    run, found = costs.base(params), costs.trainings(params, clips_per_s=3000.0)
    assert cost.scaling_table(params, clips_per_s=3000.0) in page
    assert cost.runs_table(found, gpus=1) in page
    assert cost.parts_table(run, 80) in page
    for line in cost.memory_lines(run, 80):
        assert line in page
    # What its sentences add.
    rate = f"{3000 * flops.per_clip(run, 80) / 1e12:.0f} TFLOP/s"
    longest = f"the {len(found)} runs, each on a\n  machine of 8, are through in "
    longest += f"{max(each.hours for each in found) / 8:.1f} h"
    exchange = 2 * 63 / 64 * memory.gradient_bytes(run, 80) / cost.LINKS["50 GB/s"]
    least = f"294,816 updates last {294_816 * exchange / 3600:.1f} h at the least"
    stores = f"the {cost.amount(costs.disk(params)['log-mel stores'])} of AudioSet's log-mels"
    for sentence in (rate, longest, least, stores):
        assert sentence in page, sentence


# ----------------------------------------------------------------------------------- command line


def test_the_command_prints_everything(
    empty_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (empty_root / "params.yaml").write_text(smoke.SMOKE_YAML.read_text())
    monkeypatch.setattr(throughput, "measure", lambda *_, **__: pytest.fail("it is given"))
    assert command.matpac("cost", "--throughput", 100, "--gpus", 2) == 0
    out = capsys.readouterr().out
    params = load()
    found = costs.trainings(params, clips_per_s=100.0, gpus=2)
    assert len(found) == 7 and cost.runs_table(found, gpus=2) in out
    assert cost.parts_table(costs.base(params), 80) in out
    assert "2 x 100 clips/s (given); an epoch of 96 clips (assumed" in out
    assert "disk: log-mel stores 15.4 MB, training states" in out


def test_a_rate_is_given_remembered_or_measured(
    empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, trials = make_params(), iter([50.0, 60.0])
    monkeypatch.setattr(throughput, "device_name", lambda run: "card")
    monkeypatch.setattr(throughput, "measure", lambda *_, **__: Rate(next(trials), 1, "trial"))
    assert cost.rate(params, given=7.0, again=False) == (7.0, "given")
    measured = (50.0, "measured in a trial on card")
    assert cost.rate(params, given=None, again=False) == measured
    assert cost.rate(params, given=None, again=False) == measured  # once
    assert cost.rate(params, given=None, again=True) == (60.0, "measured in a trial on card")
    throughput.remember(paths.bulk(params), costs.base(params), Rate(70.0, 8, "run"))
    by_a_run = (70.0, "measured by an earlier run on card")
    assert cost.rate(params, given=None, again=False) == by_a_run


def test_the_papers_profile_in_figures() -> None:
    """What its table says of one card at 3,000 clips a second: two and a half days a run."""
    found = costs.trainings(paper(), clips_per_s=3000.0)
    base = next(each for each in found if each.run == "base")
    assert base.updates == 294_816 and base.hours == pytest.approx(55.9, abs=0.05)
    assert base.flop == pytest.approx(55.4e18, rel=0.002)
    assert test_flops.profile_run("paper") == base.resolved

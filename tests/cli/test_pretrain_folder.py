"""`matpac pretrain FOLDER`: from a folder of sounds to an encoder, a score and a picture."""

import io
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import matpac
from matpac.cli import folder_plan, folder_results, folder_scan, pretrain_folder
from matpac.core import files
from matpac.core.signals import Interrupted
from matpac.params import load
from matpac.pretraining import loop

import command

ROOT = Path(__file__).parents[2]
TINY = ("--minutes", "0.01", "--size", "mini")
MADE = {"model.safetensors", "config.json", "README.md", "params.yaml", "run.json", "data"}
MADE |= {"embeddings.parquet", "embeddings.png"}
OF_CLASSES = {"scores.csv", "sounds.csv", "others.csv", "heads"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def sine(path: Path, hz: float, *, seconds: float = 6.0, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    times = np.arange(round(16000 * seconds)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * hz * times) + random.normal(0, 0.01, len(times))
    soundfile.write(path, wave, 16000)


def make_sounds(folder: Path, *, classes: int = 2, seconds: float = 6.0) -> Path:
    """Twelve files: low tones and high ones, or all in one folder."""
    for number in range(12):
        kind = ("low", "high")[number % 2] if classes > 1 else ""
        hz = (300, 3000)[number % 2] + 10 * number
        sine(folder / kind / f"{number}.wav", hz, seconds=seconds, seed=number)
    return folder


def run(*arguments: object) -> int:
    return command.matpac("pretrain", *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> tuple[Path, Path]:
    """Sounds with two classes, with a text, a damaged file, a link to none and one in no class; and
    what was made of them."""
    root = tmp_path_factory.mktemp("finished")
    sounds = make_sounds(root / "Two tones")
    (sounds / "notes.txt").write_text("no sound")
    sine(sounds / "loose.wav", 1000)
    (sounds / "low" / "bad.wav").write_text("no sound at all")
    (sounds / "low" / "gone.wav").symlink_to("nowhere.wav")
    pretrain_folder.pretrain_folder(sounds, root / "run", minutes=0.01, size="mini")
    return sounds, root / "run"


def test_all_is_there_and_says_what_it_is(finished: tuple[Path, Path]) -> None:
    sounds, made = finished
    assert {path.name for path in made.iterdir()} == MADE | OF_CLASSES
    encoder = matpac.load(made, device="cpu")
    embedding = encoder.embed(sounds / "low" / "0.wav")
    assert embedding.shape == (encoder.width,) and embedding.isfinite().all()
    card = (made / "README.md").read_text()
    assert "# MATPAC on Two tones, own_two_tones profile" in card
    scores = pd.read_csv(made / "scores.csv").set_index("what")
    assert list(scores.index) == ["this encoder", "before training", "log-mel mean and std"]
    # Six files of each: tones of 300 and of 3000 Hz lie in different mel bands.
    assert scores["knn"]["log-mel mean and std"] == 100 and scores["knn"].between(0, 100).all()
    assert scores["linear"].between(0, 100).all()
    assert re.search(r"largest class each time gives 50\.0 %", card)
    for name, row in scores.iterrows():
        near, linear = (f"{row[p]:.1f} ± {row[p + '_ci95']:.1f}" for p in ("knn", "linear"))
        assert f"| {name} | {near} | {linear} |" in card
    assert "Not probed" not in card and 'label("recording.wav", head="sounds")' in card
    assert (made / "embeddings.png").read_bytes().startswith(b"\x89PNG")
    (log,) = (made / "data").glob("*/logs/base/seed_0/log.csv")
    assert len(pd.read_csv(log)) >= 20


def test_the_file_of_parameters_is_one_of_the_pipelines(finished: tuple[Path, Path]) -> None:
    sounds, made = finished
    assert command.matpac("check", made / "params.yaml") == 0
    params = load(made / "params.yaml")
    assert params.profile == "own_two_tones" and params.tasks == ["sounds"]
    assert params.datasets["sounds"].audio == str(sounds)
    index = files.read_json(made / "data" / params.profile / "logmel" / "pretraining.json")
    clips = {corpus["name"]: corpus["num_clips"] for corpus in index["corpora"]}
    assert clips == {"sounds": 12, "others": 1}, "what cannot be read is left out"


def test_a_finished_run_is_not_trained_again(
    finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sounds, made = finished
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    for options in ((), TINY):
        assert run(sounds, "-o", made, *options) == 0
        told = capsys.readouterr().out
        assert "finished before" in told and "guessing" in told
    after = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert after == before


def test_a_picture_is_drawn_once_there_is_matplotlib(
    finished: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is trained and scored is there without."""
    sounds, made = finished
    copied = tmp_path / "run"
    shutil.copytree(made, copied)
    (copied / "embeddings.png").unlink()
    record = files.read_json(copied / "run.json")
    files.write_json(copied / "run.json", record | {"result": None})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert run(sounds, "-o", copied) == 0
    told = capsys.readouterr().out
    assert "guessing" in told and "no picture: matplotlib is not installed" in told
    assert run(sounds, "-o", copied) == 0
    assert (copied / "embeddings.png").read_bytes().startswith(b"\x89PNG")
    *_, picture, _, following, labels = files.read_json(copied / "run.json")["result"]
    assert "a dot for each of 13 clips" in picture
    assert following.startswith(f"next: matpac similar FILE {copied}  ")
    assert labels.strip().startswith("matpac label") and labels.endswith(str(copied))


def test_its_embeddings_can_be_searched_and_its_classes_are_a_head(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what the program says comes next, and nothing else."""
    sounds, made = finished
    table = pd.read_parquet(made / "embeddings.parquet").set_index("path")
    assert len(table) == 15 and table["problem"].astype(bool).sum() == 2
    encoder = matpac.load(made, device="cpu")
    asked = sounds / "high" / "3.wav"
    np.testing.assert_allclose(table["embedding"]["high/3.wav"], encoder.embed(asked), atol=1e-5)
    assert command.matpac("similar", asked, made, "-n", "5") == 0
    found = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 5 and "high/3.wav" not in found
    asking = ("probe", made / "sounds.csv", "--audio", sounds, "--encoder", made, "--fold", "fold")
    assert command.matpac(*asking) == 0
    hint, *_, score = capsys.readouterr().out.splitlines()
    assert hint.endswith("(--fold or --split, --group): ['group']") and "5 folds), 12" in score
    labels = encoder.label(asked, head="sounds")
    assert set(labels) == {"low", "high"} and sum(labels.values()) == pytest.approx(1)
    out = tmp_path / "labels.parquet"
    assert command.matpac("label", sounds, "-o", out, "--encoder", made) == 0
    best = pd.read_parquet(out).set_index("path")["labels"].map(lambda each: [*each, ""][0])
    right = [best[path] == path.split("/")[0] for path in best.index if "/" in path]
    assert np.mean(right) > 0.7  # tones of 300 and of 3000 Hz, the damaged file among them


def test_another_folder_or_question_is_refused_and_so_are_new_files(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds, made = finished
    other = tmp_path / "other"
    shutil.copytree(sounds, other, symlinks=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "run.json").write_text("[1]")
    cases = [
        ((other, "-o", made), f"folder: got {other}, begun with {sounds}"),
        ((sounds, "-o", made, "--size", "small"), "size: got small, begun with mini"),
        ((sounds, "-o", made, "--minutes", 3), "minutes: got 3.0, begun with 0.01"),
        ((sounds, "-o", tmp_path / "mine"), "no run of this command; give another -o"),
        ((sounds, "-o", tmp_path / "theirs"), "run.json: no record of this command"),
        ((sounds, "-o", sounds / "run"), "lies in"),
        ((sounds, "-o", tmp_path / "new", "--minutes", 0), "minutes: got 0, allowed: above 0"),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 1
        assert message in capsys.readouterr().err
    sine(sounds / "low" / "new.wav", 400)
    try:
        assert run(sounds, "-o", made) == 1
        assert "files: some are new, changed or gone since it began" in capsys.readouterr().err
    finally:
        (sounds / "low" / "new.wav").unlink()
    assert not (tmp_path / "new").exists() and not (sounds / "run").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_after_an_interrupt_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan stays; what is trained is not trained again. Without classes there is no score.

    What was begun on too little sound has no plan yet: more sounds are welcome in the same place.
    """
    sounds = make_sounds(tmp_path / "sounds", classes=1, seconds=0.5)
    assert run(sounds, *TINY) == 1
    needed = f"{sounds}: got 6 s of audio in clips of 0.32 s or longer, needed: 60 s"
    assert needed in capsys.readouterr().err
    make_sounds(sounds, classes=1)
    whole_step = loop.Trainer.step
    seen: list[int] = []

    def step(
        self: loop.Trainer, batch: object, step: int, *args: object, **named: object
    ) -> object:
        seen.append(step)
        if step == 7 and len(seen) < 10:
            os.kill(os.getpid(), signal.SIGINT)
        return whole_step(self, batch, step, *args, **named)

    monkeypatch.setattr(loop.Trainer, "step", step)
    monkeypatch.setattr(folder_plan.throughput, "measure", _rate)
    assert run(sounds, *TINY) == 130
    assert "the same command goes on" in capsys.readouterr().err
    made = tmp_path / "sounds-matpac"
    plan = (made / "params.yaml").read_bytes()
    assert run(sounds) == 0
    told = capsys.readouterr().out
    assert "going on with what is there" in told and "resuming at step 8" in told
    assert seen == list(range(20))
    assert (made / "params.yaml").read_bytes() == plan
    assert {p.name for p in made.iterdir()} == MADE
    assert "Not probed" not in (made / "README.md").read_text()
    assert "guessing" not in told and "a dot for each of 12 clips" in told
    params = load(made / "params.yaml")
    assert list(params.corpora) == ["sounds"] and params.tasks == ["esc50"]
    assert not list((made / "data").glob("*/audio")), "the miniature is the pipeline's alone"


def _rate(*_: object, **__: object) -> folder_plan.throughput.Rate:
    return folder_plan.throughput.Rate(100.0, "trial")


def test_what_cannot_be_trained_on_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.txt", "c.mid"):
        (tmp_path / "texts" / name).write_text("no sound")
    cases = [
        ((tmp_path / "no",), "no: no such folder"),
        ((tmp_path / "empty",), "no audio file, allowed: .wav, .flac"),
        ((tmp_path / "texts",), "found: files of other extensions: 2 .txt, 1 .mid"),
        (("nothing", *TINY), "nothing: no such folder"),
        ((__file__,), ".py: is a file; give its folder"),
        (("nothing",), "nothing: no such folder, and no run: no dvc.yaml"),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "empty-matpac").exists()


def test_a_name_is_a_run_of_the_project_before_it_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "dvc.yaml").touch()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert run("base") == 1
    assert "run `dvc repro logmel@mini`" in capsys.readouterr().err
    assert run("./base") == 1
    assert "no audio file" in capsys.readouterr().err
    assert run("base", "--minutes", 1) == 1
    assert "no audio file" in capsys.readouterr().err
    assert run("nothing") == 1
    assert "run: got 'nothing', allowed: base" in capsys.readouterr().err


# ----------------------------------------------------------------------------------- the scan


def names(folder: Path, *paths: str) -> folder_scan.Sounds:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder_scan.scan(folder)


def test_sub_folders_are_classes_below_what_all_share(tmp_path: Path) -> None:
    files = [f"audio/{part}/{kind}/{n}.wav" for part in ("train", "Test") for kind in ("a", "b")
             for n in range(5)]  # fmt: skip
    found = names(tmp_path, *files)
    assert set(found.table["class"]) == {"a", "b"}
    assert sorted(found.scored["fold"].unique()) == [1, 2, 3, 4, 5]


def test_what_belongs_together_is_not_torn_apart(tmp_path: Path) -> None:
    """By beginning where every class has five of them, by folder where there is one."""
    speakers = [f"{kind}/anna{s}_{take}.wav" for kind in ("yes", "no") for s in range(6)
                for take in range(3)]  # fmt: skip
    table = names(tmp_path / "speakers", *speakers).scored
    assert set(table["group"]) == {f"anna{s}" for s in range(6)}
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    rooms = [f"{kind}/room{s}/{take}.wav" for kind in ("yes", "no") for s in range(5)
             for take in range(2)]  # fmt: skip
    table = names(tmp_path / "rooms", *rooms).scored
    assert set(table["group"]) == {f"room{s}" for s in range(5)}
    numbered = [f"{kind}/{kind}_{take}.wav" for kind in ("yes", "no") for take in range(6)]
    table = names(tmp_path / "numbered", *numbered).scored
    assert table["group"].nunique() == 12, "one beginning per class tells nothing"


def test_classes_of_few_files_and_loose_files_are_heard_and_not_scored(tmp_path: Path) -> None:
    paths = [f"{kind}/{n}.wav" for kind in ("a", "b") for n in range(5)]
    found = names(tmp_path / "in", *paths, "rare/1.wav", "loose.wav", "a/line\nbreak.wav")
    assert len(found.scored) == 10 and len(found.table) == 12
    assert "1 whose names a table cannot hold" in found.left_out
    tables = found.write_tables(tmp_path)
    assert list(tables) == ["sounds", "others"]
    assert pd.read_csv(tables["others"])["filename"].tolist() == ["loose.wav", "rare/1.wav"]
    assert pd.read_csv(tables["sounds"])["label"].value_counts().to_dict() == {"a": 5, "b": 5}
    assert names(tmp_path / "one", *(f"a/{n}.wav" for n in range(9))).scored.empty


# ----------------------------------------------------------------------------------- the plan


def test_the_mini_size_is_the_mini_profile() -> None:
    """But for what the trial and the schedule set, and files that may be bad."""
    mini, own = yaml.safe_load((ROOT / "params.yaml").read_text()), folder_plan.template()
    size, common = own["sizes"]["mini"], own["params"]
    model = {"crop_frames": size["longest_crop"]} | common["model"] | size["model"]
    assert model == mini["model"]
    assert common["logmel"] | {"max_bad_fraction": 0.01} == mini["logmel"]
    assert common["probe"] == mini["probe"]
    for section, ours in (
        ("objective", common["objective"]),
        ("pretrain", common["pretrain"] | size["pretrain"]),
    ):
        assert ours.items() <= mini[section].items()
    best, fine = yaml.safe_load((ROOT / "params.best.yaml").read_text()), own["sizes"]["fine"]
    assert {"crop_frames": 96} | common["model"] | fine["model"] == best["model"]
    assert fine["pretrain"].items() <= best["pretrain"].items()
    assert fine | {"pretrain": {}} == size | {"model": fine["model"], "pretrain": {}}
    base, paper = own["sizes"]["base"], yaml.safe_load((ROOT / "params.paper.yaml").read_text())
    assert base["model"].items() <= paper["model"].items()


@pytest.mark.parametrize(
    ("rate", "size", "updates"), [(100.0, "mini", 1687), (1e6, "base", 2_109_375)]
)
def test_size_and_schedule_follow_from_audio_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, size: str, updates: int
) -> None:
    """0.9 * 600 s * rate / batch; averages and warm-up in parts of that."""
    sounds = names(tmp_path / "in", *(f"{n}.wav" for n in range(100)))
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path / "run"))
    monkeypatch.setattr(folder_plan, "_products_per_s", lambda _: 1e18)
    monkeypatch.setattr(
        folder_plan.throughput,
        "measure",
        lambda *_, **__: folder_plan.throughput.Rate(rate, "trial"),
    )
    clips = np.array([40, 150, *[700] * 98])  # 95 % are as long as the longest crop
    data = folder_plan.data_sections(sounds, tmp_path / "run")
    params, chosen, why = folder_plan.plan(data, clips, minutes=10, size=None, label="mine")
    assert chosen == size
    assert params.model.crop_frames == {"mini": 96, "base": 608}[size]
    usable = int((clips >= params.model.crop_frames).sum())
    pretrain = params.pretrain
    assert int(pretrain.epochs * usable / pretrain.batch_size) == updates
    assert pretrain.warmup_epochs == pytest.approx(0.05 * pretrain.epochs, abs=1e-6)
    assert pretrain.encoder_ema_decay[1] == pytest.approx(1 - 3 / updates, abs=1e-6)
    assert why.startswith(f"size {size}, ")
    assert ("of speech --size fine learns more" in why) == (size == "mini")
    assert json.dumps(params.model_dump())  # plain values, as YAML has them


def test_paths_that_a_parameter_file_would_read_otherwise(tmp_path: Path) -> None:
    sounds = names(tmp_path / "$HOME", "a.wav")
    with pytest.raises(ValueError, match="rename or link it"), pretrain_folder.rooted(tmp_path):
        folder_plan.data_sections(sounds, tmp_path)


def test_a_picture_takes_any_names() -> None:
    """Dollars would be mathematics to matplotlib."""
    random = np.random.default_rng(0)
    classes = np.array(["a$b$\\frac", "", "Ж_{"])[np.arange(30) % 3]
    points, files = random.normal(size=(30, 2)), np.array([f"d/$x_{n}$.wav" for n in range(30)])
    figure = folder_results.draw(points, files, classes, "$\\no$")
    said = {text.get_text() for text in figure.axes[0].texts}
    assert {"a$b$\\frac", "Ж_{"} < said and len(said) == 2 + folder_results.NAMED / 3
    figure.savefig(io.BytesIO(), format="png")
    # Without classes some files say what lies where.
    figure = folder_results.draw(points, files, np.full(30, ""), "all")
    said = [text.get_text() for text in figure.axes[0].texts]
    assert len(set(said)) == folder_results.NAMED and all(each.startswith("$x_") for each in said)
    figure.savefig(io.BytesIO(), format="png")


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_DATA", "/elsewhere")
    with pytest.raises(Interrupted), pretrain_folder.rooted(tmp_path):
        assert os.environ["MATPAC_ROOT"] == str(tmp_path) and not os.environ["MATPAC_DATA"]
        raise Interrupted("stopped", 2)
    assert os.environ["MATPAC_DATA"] == "/elsewhere" and "MATPAC_ROOT" not in os.environ

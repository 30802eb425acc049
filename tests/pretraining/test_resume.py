"""What survives an interruption: a run that was stopped or killed ends as if it had not been."""

import dataclasses
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import stopping
import tiny
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_states import full_disk

from matpac.core import distributed, files
from matpac.core.signals import Interrupted
from matpac.encoders.frozen import load_encoder
from matpac.pretraining import logs, loop, pretrain, states
from matpac.pretraining.checkpoint import identity
from matpac.pretraining.loop import train
from matpac.pretraining.run import Job
from matpac.pretraining.trainer import Trainer

import command
import smoke

GOES_ON = "; the same command goes on from there"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uninterrupted(bulk: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished run of 24 updates."""
    job = tiny.make_job(bulk, tmp_path_factory.mktemp("whole"), tiny.run(pretrain={"epochs": 12.0}))
    train(job)
    return job


@pytest.fixture
def job(uninterrupted: Job, bulk: Path, tmp_path: Path) -> Job:
    """The same run with outputs of its own."""
    return tiny.make_job(bulk, tmp_path, uninterrupted.run)


def do_before(patch: pytest.MonkeyPatch, at: int, act: Callable[[], object]) -> None:
    """Makes training do something before a step; logs are written every third."""
    whole_step = Trainer.step

    def step(self: Trainer, batch: object, step: int, *args: object, **named: object) -> object:
        if step == at:
            act()
        return whole_step(self, batch, step, *args, **named)

    patch.setattr(Trainer, "step", step)
    patch.setattr(logs, "STEPS_BETWEEN_FLUSHES", 3)


def die() -> None:
    """As if the process were killed."""
    raise MemoryError


def send(number: int) -> Callable[[], None]:
    """Of a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


def stop_before(at: int, job: Job) -> None:
    """Trains, and is told to stop during a step."""
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, at, send(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(job)


def state_names(job: Job) -> list[str]:
    return sorted(path.name for path in job.checkpoints.glob("*.pt"))


# ------------------------------------------------------------------------------------- signals


@pytest.mark.slow
def test_interrupted_and_killed_in_a_process_of_its_own(uninterrupted: Job, job: Job) -> None:
    """Ctrl-C after step 7, resumed, killed after step 13, resumed here: nothing can be told."""
    pickled = job.encoder.with_name("job.pickle")
    pickled.write_bytes(pickle.dumps(job))
    process = subprocess.Popen(
        [sys.executable, stopping.__file__, pickled, "7", "13"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "reached 7\n"
        process.send_signal(signal.SIGINT)
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "tiny: stopped after step 7; state saved\n"
        assert process.stdout.readline() == "tiny: resuming at step 8\n"
        assert process.stdout.readline() == "reached 13\n"
    finally:
        process.kill()
        process.communicate()
    # Rows are written every 3 steps there, the last state is that of the interruption.
    log = (job.checkpoints / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log[1:]] == [str(step) for step in range(11)]
    assert state_names(job) == ["state-000000008.pt"]
    assert not job.encoder.exists()
    train(job)
    tiny.assert_equal_results(job, uninterrupted)


def test_killed_before_the_first_state(uninterrupted: Job, job: Job) -> None:
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 10, die)
        with pytest.raises(MemoryError):
            train(job)
    assert len((job.checkpoints / "log.csv").read_text().splitlines()) == 1 + 9
    assert state_names(job) == []
    train(job)
    tiny.assert_equal_results(job, uninterrupted)


def test_encoders_on_the_way_are_those_of_the_steps_and_change_nothing(
    uninterrupted: Job, bulk: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    resolved = tiny.run(pretrain={"epochs": 12.0, "encoders_at": [0.0, 0.5]})
    job = tiny.make_job(bulk, tmp_path, resolved)
    index = files.read_json(uninterrupted.encoder / "config.json")
    started = Trainer(resolved, 16, mean=index["mean"], std=index["std"]).student
    stop_before(11, job)  # the state is that of after it
    halfway = states.read(tiny.newest(job))["student"]
    train(job)
    tiny.assert_equal_results(job, uninterrupted)
    for fraction, expected in (("0", started.state_dict()), ("0.5", halfway)):
        found = load_encoder(job.encoder / "course" / fraction).state_dict()
        assert found and all(torch.equal(value, expected[name]) for name, value in found.items())
    later = tiny.make_job(bulk, tmp_path, tiny.run(pretrain={"epochs": 12.0, "encoders_at": [0.2]}))
    train(later)
    assert "tiny: no encoder at 0.2 of training, which is beyond it" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_a_state(uninterrupted: Job, job: Job, number: int, code: int) -> None:
    """Handlers are put back afterwards, and a notebook sees a KeyboardInterrupt."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 4, send(number))
        with pytest.raises(KeyboardInterrupt) as stopped:
            train(job)
    assert str(stopped.value) == "tiny: stopped after step 4; state saved"
    assert stopped.value.exit_code == code
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert state_names(job) == ["state-000000005.pt"]
    train(job)
    tiny.assert_equal_results(job, uninterrupted)


def test_a_stop_waits_until_the_state_is_on_the_disk(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a signal comes once more meanwhile."""
    write = states.write

    def slow_write(*args: object, **named: object) -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        write(*args, **named)

    monkeypatch.setattr(states, "write", slow_write)
    stop_before(4, job)
    assert state_names(job) == ["state-000000005.pt"]


# -------------------------------------------------------------------------------------- states


def test_the_random_generators_go_on(bulk: Path, tmp_path: Path) -> None:
    """Training draws nothing from them today; here it does."""
    drawn: dict[str, dict[int, float]] = {"whole": {}, "stopped": {}}
    for name, numbers in drawn.items():
        job = tiny.make_job(bulk, tmp_path / name, tiny.run())
        with pytest.MonkeyPatch.context() as patch:
            whole_step = Trainer.step

            def step(*args: object, numbers=numbers, whole_step=whole_step, **named: object):
                numbers[args[2]] = torch.rand(()).item()
                return whole_step(*args, **named)

            patch.setattr(Trainer, "step", step)
            if name == "stopped":
                stop_before(4, job)
                torch.manual_seed(1234)
            train(job)
    assert len(drawn["whole"]) == len(set(drawn["whole"].values())) == 12
    assert drawn["stopped"] == drawn["whole"]


def test_killed_while_a_state_was_written(uninterrupted: Job, job: Job) -> None:
    """Half of a file and a description without its state are not there for the next start."""
    stop_before(4, job)
    (job.checkpoints / ".state-000000009.pt.0a1b2c3d.tmp").write_bytes(b"half of it")
    description = job.checkpoints / "state-000000009.json"
    shutil.copy(job.checkpoints / "state-000000005.json", description)
    job.logs.mkdir()
    (job.logs / ".log.csv.0a1b2c3d.tmp").write_text("half")
    job.encoder.mkdir()
    (job.encoder / ".model.safetensors.0a1b2c3d.tmp").write_text("half")
    train(job)
    tiny.assert_equal_results(job, uninterrupted)
    assert not list(job.encoder.parent.rglob("*.tmp")) and not description.exists()


def test_a_truncated_state_costs_the_updates_since_the_one_before(
    uninterrupted: Job, job: Job, capsys: pytest.CaptureFixture
) -> None:
    stop_before(4, job)
    stop_before(9, job)
    newest = tiny.newest(job)
    newest.write_bytes(newest.read_bytes()[:-100])
    train(job)
    said = capsys.readouterr().out
    assert re.search(rf"^{newest}: \d+ bytes, but \d+ were written$", said, re.MULTILINE)
    assert f"{newest}: after step 5, put aside" in said and "tiny: resuming at step 5\n" in said
    tiny.assert_equal_results(job, uninterrupted)


def test_a_corrupted_state_is_named(job: Job) -> None:
    job.checkpoints.mkdir(parents=True)
    (job.checkpoints / "state-000000004.pt").write_bytes(b"garbage")
    with pytest.raises(RuntimeError, match=r"state-000000004\.pt: .*\nremove these files to start"):
        train(job)


def test_a_changed_log_is_told(
    uninterrupted: Job, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_before(4, job)
    log = job.checkpoints / "log.csv"
    rows = log.read_text()
    log.write_text(rows[:-2] + str((int(rows[-2]) + 1) % 10) + "\n")
    train(job)
    assert f"{log}: changed since the state was saved" in capsys.readouterr().out


def test_another_order_of_clips_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before(4, job)
    monkeypatch.setattr(loop, "place", lambda batches, step: {"seed": 1})
    with pytest.raises(
        ValueError, match=r"order of clips: got {'seed': 0, .*, allowed: {'seed': 1"
    ):
        train(job)


def test_a_full_disk_ends_training_with_the_states_before(
    uninterrupted: Job, bulk: Path, tmp_path: Path
) -> None:
    """When there is room again it goes on from there."""
    often = tiny.run(pretrain={"epochs": 12.0, "checkpoint_every_s": 0.0})
    job = tiny.make_job(bulk, tmp_path, often)
    with pytest.MonkeyPatch.context() as patch, full_disk() as limit:
        do_before(patch, 9, lambda: limit(tiny.newest(job).stat().st_size // 2))
        with pytest.raises(OSError, match=r"state-0000000\d\d\.pt: not written: File too large"):
            train(job)
    # Of step 9, or of step 8 if that of step 9 was not on the disk by then.
    assert state_names(job)[-1] in ("state-000000008.pt", "state-000000009.pt")
    assert not list(job.checkpoints.glob(".*"))
    train(job)
    tiny.assert_equal_results(job, uninterrupted)


# ------------------------------------------------------------------------------ several processes


@pytest.mark.ddp
@pytest.mark.slow
def test_another_number_of_processes_goes_on_alike(bulk: Path, tmp_path: Path) -> None:
    """One process, then two, then one; the two are sent SIGTERM. As one process throughout."""
    # Gradients that are 0 but for rounding are divided by their own size without a larger epsilon.
    resolved = tiny.run(pretrain={"eps": 1e-3, "learning_rate": 0.1, "epochs": 4.0})
    whole, job = (tiny.make_job(bulk, tmp_path / name, resolved) for name in ("whole", "changing"))
    train(whole)
    stop_before(2, job)
    with pytest.raises(Interrupted, match="tiny: stopped after step 5; state saved") as stopped:
        distributed.launch(stopping.terminated, job, 5, num_processes=2)
    assert stopped.value.exit_code == 75
    between = states.read(tiny.newest(job))
    assert (between["step"], len(between["random"])) == (6, 2)
    train(job)
    logged = [np.loadtxt(each.logs / "log.csv", delimiter=",", skiprows=1) for each in (job, whole)]
    assert logged[0].shape == (8, 11)
    np.testing.assert_allclose(*logged, rtol=1e-5, atol=1e-6)
    ours, expected = (states.read(tiny.newest(each)) for each in (job, whole))
    assert ours["order"] == expected["order"]
    for part in ("student", "teacher", "center"):
        for name, tensor in expected[part].items():
            # Relative to the tensor: single entries near 0 have no relative precision.
            error = (ours[part][name] - tensor).abs().max()
            assert error <= 1e-5 * tensor.abs().max(), f"{part}.{name}"


# ------------------------------------------------------------------------------------- the stage


@pytest.fixture
def project(bulk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The sections of the ``pretrain`` stage, in a project with a whole ``params.yaml``."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    sections = tiny.make_project(bulk, tmp_path, base={}, seeds={"seeds": [3, 4]})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(smoke.sections() | sections))
    return sections


def run_states(root: Path, run: str) -> list[Path]:
    return sorted(root.glob(f"data/tiny/checkpoints/{run}/*/state-*.pt"))


def test_a_chosen_state_goes_to_the_seed_it_belongs_to(
    project: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 0, send(signal.SIGTERM))
        with pytest.raises(Interrupted, match="seeds seed 3: stopped after step 0"):
            pretrain.pretrain("seeds", project)
    expected = pretrain.pretrain("seeds", project)
    (state,) = [
        path
        for path in run_states(tmp_path, "seeds")
        if states.describe(path).identity.config["pretrain"]["seed"] == 3 and "02" in path.name
    ]
    capsys.readouterr()
    assert pretrain.pretrain("seeds", project, checkpoint=state) == expected
    said = capsys.readouterr().out
    resumed = [line for line in said.splitlines() if "resuming" in line]
    assert resumed == [f"seeds seed {seed}: resuming at step 2" for seed in (3, 4)]


def test_a_chosen_state_of_another_run_is_refused(project: dict, tmp_path: Path) -> None:
    pretrain.pretrain("base", project)
    (state,) = run_states(tmp_path, "base")
    before = sorted(tmp_path.rglob("*"))
    project["objective"]["alpha"], project["model"]["num_prototypes"] = 0.25, 6
    with pytest.raises(ValueError) as error:
        pretrain.pretrain("base", project, checkpoint=state)
    assert str(error.value) == (
        f"{state}: not a state of base:\n  model.num_prototypes: 12 there, 6 here\n"
        "  objective.alpha: 0.5 there, 0.25 here"
    )
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such training state"):
        pretrain.pretrain("base", project, checkpoint=tmp_path / "none.pt")
    assert sorted(tmp_path.rglob("*")) == before  # nothing was begun


# ----------------------------------------------------------------------------------- the command


def test_the_command_trains_a_run(
    project: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 0, send(signal.SIGINT))
        assert command.matpac("pretrain", "base") == 130
    assert capsys.readouterr().err == f"base: stopped after step 0; state saved{GOES_ON}\n"
    (state,) = run_states(tmp_path, "base")
    assert command.matpac("pretrain", "base", "--checkpoint", state) == 0
    assert "base: resuming at step 1\n" in capsys.readouterr().out
    assert (
        files.read_json(tmp_path / "data/tiny/metrics/pretrain/base.json")["seed_0"]["steps"] == 2
    )
    assert command.matpac("pretrain", "bse") == 1
    assert capsys.readouterr().err == "run: got 'bse', allowed: base, seeds\n"


def test_a_signal_before_training_ends_the_command_at_once(
    project: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loop, "prepare", lambda job: send(signal.SIGTERM)())
    assert command.matpac("pretrain", "base") == 75
    assert capsys.readouterr().err == f"stopped by SIGTERM{GOES_ON}\n"
    assert run_states(tmp_path, "base") == []


# -------------------------------------------------------------------------------- edited code


def edited(
    folder: Path, *changes: tuple[str, str, str]
) -> Callable[..., subprocess.CompletedProcess]:
    """A copy of the library with changed text. Returns: `matpac pretrain base` by that copy."""
    library = Path(pretrain.__file__).parents[1]
    shutil.copytree(library, folder / "matpac", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in changes:
        text = (folder / "matpac" / name).read_text()
        assert old in text
        (folder / "matpac" / name).write_text(text.replace(old, new))
    environment = os.environ | {"PYTHONPATH": str(folder)}
    base = ["-m", "matpac.cli", "pretrain", "base"]
    return lambda *more: command.python(*base, *more, cwd=folder, env=environment)


@pytest.fixture
def half_trained(project: dict, tmp_path: Path) -> Path:
    """The state of the run ``base`` after one of its two updates."""
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 0, send(signal.SIGTERM))
        assert command.matpac("pretrain", "base") == 75
    (state,) = run_states(tmp_path, "base")
    return state


def test_edited_messages_and_bars_leave_a_state_usable(half_trained: Path, tmp_path: Path) -> None:
    done = edited(
        tmp_path / "code",
        ("pretraining/loop.py", "resuming at step", "going on at step"),
        ("pretraining/loop.py", 'unit="step"', 'unit="update"'),
        ("pretraining/logs.py", "the others are lost", "the rest is lost"),
    )()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "base: going on at step 1\n"
    assert [path.parent for path in run_states(tmp_path, "base")] == [half_trained.parent] * 2


def test_an_edited_loss_makes_a_state_another_runs(half_trained: Path, tmp_path: Path) -> None:
    train_edited = edited(tmp_path / "code", ("method/losses.py", "2 - 2 *", "1 + 1 - 2 *"))
    refused = train_edited("--checkpoint", str(half_trained))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"{half_trained}: not a state of base:\n  the library's code differs\n"
    )
    done = train_edited()
    assert "base: starting afresh; 1 training state(s) of other" in done.stdout
    assert half_trained in run_states(tmp_path, "base") and half_trained.exists()


# ----------------------------------------------------------------------------------- live curves


def test_tensorboard_shows_the_logs_once_and_changes_nothing(uninterrupted: Job, job: Job) -> None:
    """Stopped during step 5 and killed before step 9: steps 6 to 8 are drawn twice."""
    shown = job.run.pretrain.model_copy(update={"tensorboard": True})
    run = job.run.model_copy(update={"pretrain": shown})
    assert identity(run, job.index) == job.identity
    board = dataclasses.replace(job, run=run)
    stop_before(5, board)
    with pytest.MonkeyPatch.context() as patch:
        do_before(patch, 9, die)
        with pytest.raises(MemoryError):
            train(board)
    train(board)
    tiny.assert_equal_results(board, uninterrupted)
    events = EventAccumulator(str(job.checkpoints / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    log = pd.read_csv(job.logs / "log.csv").set_index("step")
    for name in set(log) - {"step"}:
        drawn = {event.step: event.value for event in events.Scalars(f"log/{name}")}
        assert list(drawn) == list(log.index) and len(drawn) == len(events.Scalars(f"log/{name}"))
        assert list(drawn.values()) == pytest.approx(list(log[name]), rel=1e-6)
    measured = pd.read_csv(job.logs / "diagnostics.csv")
    assert {f"diagnostics/{name}" for name in measured if name != "step"} < set(
        events.Tags()["scalars"]
    )
    bars = events.Histograms("diagnostics/prototypes")
    assert [bar.step for bar in bars] == list(measured["step"])
    counts = np.array([bar.histogram_value.bucket for bar in bars])
    patches = run.pretrain.batch_size * 5  # masked, of 8
    assert counts.shape[1] == run.model.num_prototypes
    assert counts.sum(axis=1) == pytest.approx(patches)

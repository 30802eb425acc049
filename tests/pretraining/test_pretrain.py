"""The training loop: what a step does, and what a run writes."""

import csv
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tiny import AT, make_batch, make_trainer, tensors

from matpac.core import files
from matpac.encoders.frozen import load_encoder
from matpac.method.heads import student_log_distribution, teacher_distribution
from matpac.method.losses import classification_losses, distances
from matpac.method.masking import random_mask
from matpac.pretraining import logs, pretrain
from matpac.pretraining.loop import train
from matpac.pretraining.run import Job
from matpac.pretraining.schedules import Plan
from matpac.pretraining.trainer import Trainer

import command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of at least one crop, and one that is shorter."""
    folder = tmp_path_factory.mktemp("bulk")
    tiny.make_store(folder / "logmel" / "noise", [32, 33, 35, 38, 40, 44, 50, 64, 31])
    return folder


def changed(before: dict[str, torch.Tensor], trainer: Trainer) -> set[str]:
    return {name for name, t in tensors(trainer).items() if not torch.equal(t, before[name])}


def read_log(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


# -------------------------------------------------------------------------------- schedules


def test_plan_turns_epochs_into_updates() -> None:
    run = tiny.run(pretrain={"epochs": 10.0, "warmup_epochs": 2.0, "learning_rate": 1e-3})
    plan = Plan(run, steps_per_epoch=2.5, total_steps=25)  # warm-up 5 steps, ramp 2.5 steps
    assert plan.at(0) == pytest.approx((0, 0.97, 0.97, 0.04, 0))
    assert plan.at(1) == pytest.approx((2e-4, 0.97 + 0.028 / 25, 0.97 + 0.03 / 25, 0.052, 0))
    assert plan.at(5) == pytest.approx((1e-3, 0.9756, 0.976, 0.07, 0))
    assert plan.at(15) == pytest.approx((5e-4, 0.9868, 0.988, 0.07, 0))
    assert plan.at(25) == pytest.approx((0, 0.998, 1.0, 0.07, 0))


def test_the_choice_between_hypotheses_anneals() -> None:
    """Per update as released, or over a fraction of training however long it is."""
    released = {"choice_temp": [0.1, 1e-4], "choice_temp_decay": 0.99997}
    plan = Plan(tiny.run(objective=released), steps_per_epoch=1000, total_steps=294_816)
    assert [plan.at(step).choice_temp for step in (0, 1000)] == [0.1, 0.1 * 0.99997**1000]
    assert plan.at(230_255).choice_temp > 1e-4 and plan.at(230_256).choice_temp == 0
    short = {"choice_temp": [0.1, 1e-4], "choice_temp_fraction": 0.8}
    plan = Plan(tiny.run(objective=short), steps_per_epoch=100, total_steps=1000)
    assert plan.at(400).choice_temp == pytest.approx(0.1 * 0.001**0.5)
    assert plan.at(799).choice_temp > 1e-4 and plan.at(801).choice_temp == 0


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        ({"hypotheses": 3}, {}, "objective.choice_temp: missing, and model.hypotheses is 3"),
        ({}, {"choice_temp": [0.1, 1e-4]}, "goes with one of choice_temp_decay"),
        ({}, {"choice_temp_decay": 0.9}, "goes with one of choice_temp_decay"),
        ({}, {"choice_temp": [0.1, 0.2], "choice_temp_decay": 0.9}, "allowed: a falling pair"),
    ],
)
def test_how_hypotheses_are_chosen_is_complete(model, objective, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.run(model=model, objective=objective)


def test_several_hypotheses_learn_and_resume() -> None:
    objective = {"choice_temp": [0.1, 1e-4], "choice_temp_fraction": 0.5}
    trainer = make_trainer(model={"hypotheses": 3}, objective=objective)
    soft, hard = AT._replace(choice_temp=0.05), AT
    for step, at in ((1, soft), (2, hard)):
        measured = trainer.step(make_batch(), step, at, measure=False)
        assert measured.losses.isfinite().all()
    assert trainer.forward(make_batch(), hard)[0].distances.shape == (4, 5, 3)


def test_standardised_targets_are_m2ds() -> None:
    """Each target patch to zero mean and unit variance; the head sees the latents as they are."""
    plain, standardised = make_trainer(), make_trainer(objective={"target": "standardised"})
    given = make_batch()
    _, target, _ = plain.forward(given, AT)
    predicted, same, compared = standardised.forward(given, AT)
    assert torch.equal(target.latents, same.latents) and torch.equal(target.logits, same.logits)
    t = target.latents.double()
    t = (t - t.mean(dim=-1, keepdim=True)) / (
        t.var(dim=-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    cosine = torch.nn.functional.cosine_similarity(predicted.latents.double(), t, dim=-1)
    torch.testing.assert_close(compared.prediction.double(), 2 - 2 * cosine, rtol=0, atol=1e-5)


def test_learning_rate_scales_with_the_batch_only_if_asked() -> None:
    for scales, peak in ((False, 1e-3), (True, 1e-3 * 64 / 256)):
        change = {"batch_size": 64, "learning_rate": 1e-3, "scale_learning_rate": scales}
        plan = Plan(tiny.run(pretrain=change), steps_per_epoch=10, total_steps=60)
        assert plan.at(10).learning_rate == pytest.approx(peak)


def test_without_sharpening_the_teacher_has_the_students_temperature() -> None:
    run = tiny.run(objective={"sharpening": False, "student_temp": 0.2})
    plan = Plan(run, steps_per_epoch=10, total_steps=60)
    assert [plan.at(step).teacher_temp for step in (0, 5, 59)] == [0.2] * 3


# -------------------------------------------------------------------------------- one step


def test_a_step_by_its_parts() -> None:
    """Losses from before the update; then student, teacher and centre, in this order."""
    trainer, batch = make_trainer(), make_batch()
    trainer.center.value.copy_(torch.linspace(0, 1, 12))
    before = tensors(trainer)
    mask = random_mask(batch.noise, 0.6)
    logmel = (batch.logmel.float() + 8) / 4
    with torch.no_grad():
        target = trainer.teacher(trainer.student.patches(logmel, mask.masked))
        predicted = trainer.student(logmel, mask, target.latents)
        teacher = teacher_distribution(target.logits, before["center.value"], 0.05)
        student = student_log_distribution(predicted.logits, 0.1)
        prediction = distances(predicted.latents[:, :, None], target.latents).mean().item()
        classification = classification_losses(student, teacher).mean().item()
    measured = trainer.step(batch, 3, AT, measure=True)
    expected = [prediction, classification, (prediction + classification) / 2]
    assert measured.losses.tolist()[:3] == pytest.approx(expected, rel=1e-6)
    after = tensors(trainer)
    moved = [n for n in after if n.startswith("student.") and n.endswith("weight")]
    assert all(not torch.equal(after[name], before[name]) for name in moved)
    for name in (n for n in after if n.startswith("teacher.")):
        decay = 0.5 if ".head." in name else 0.75
        student_now = after[name.replace("teacher.", "student.")]  # after the optimiser's update
        wanted = decay * before[name] + (1 - decay) * student_now
        torch.testing.assert_close(after[name], wanted, rtol=1e-6, atol=1e-7)
    wanted = 0.9 * before["center.value"] + 0.1 * teacher.mean(dim=(0, 1))
    torch.testing.assert_close(after["center.value"], wanted, rtol=1e-6, atol=1e-8)


def test_update_zero_leaves_student_and_teacher_alone_and_update_one_does_not() -> None:
    trainer = make_trainer()
    before = tensors(trainer)
    trainer.step(make_batch(), 0, AT._replace(learning_rate=0.0), measure=False)
    assert changed(before, trainer) == {"center.value"}
    before = tensors(trainer)
    trainer.step(make_batch(), 1, AT, measure=False)
    assert {"student.head.weight_v", "teacher.head.weight_v"} <= changed(before, trainer)


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_gradients_are_clipped_and_their_whole_norm_is_logged(clip_norm: float) -> None:
    trainer = make_trainer(pretrain={"clip_norm": clip_norm})
    logged = trainer.step(make_batch(), 1, AT, measure=False).losses[3].item()
    gradients = [p.grad for p in trainer.student.parameters() if p.grad is not None]
    kept = torch.cat([g.flatten() for g in gradients]).norm().item()
    assert 1e-2 < logged < 1e2
    assert kept == pytest.approx(min(logged, clip_norm), rel=1e-3)


@pytest.mark.parametrize("spoiled", ["logmel", "head", "teacher"])
def test_a_loss_that_is_not_finite_changes_nothing(spoiled: str) -> None:
    trainer, batch = make_trainer(), make_batch()
    trainer.step(batch, 1, AT, measure=False)  # so that the optimiser has a state
    if spoiled == "logmel":
        batch.logmel[2, 3, 4] = math.inf
    elif spoiled == "head":
        # Finite, unlike the logits over the temperature: 3e38 * cos / 0.1, in any arithmetic.
        trainer.student.head.weight_g.data[:] = 3e38
    else:
        trainer.teacher.head.weight_g.data[:] = 3e38
    before = {n: t.nan_to_num(1e9) for n, t in tensors(trainer).items()}
    moments = [{k: v.clone() for k, v in s.items()} for s in trainer.optimizer.state.values()]
    assert trainer.failed_at() is None
    for step, given in ((7, batch), (8, make_batch(seed=1))):  # nothing changes from then on
        trainer.step(given, step, AT, measure=True)
        assert trainer.failed_at() == 7
    after = {n: t.nan_to_num(1e9) for n, t in tensors(trainer).items()}
    assert all(torch.equal(after[name], before[name]) for name in before)
    for old, new in zip(moments, trainer.optimizer.state.values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)


# -------------------------------------------------------------------------------- options


def test_without_classification_the_head_is_not_touched() -> None:
    trainer = make_trainer(objective={"alpha": 1.0})
    before = tensors(trainer)
    for step in (1, 2):
        losses = trainer.step(make_batch(), step, AT, measure=False).losses
    assert losses[2] == losses[0] and losses[1].isfinite()  # still measured
    touched = changed(before, trainer)
    assert not any(name.startswith("student.head.") for name in touched)
    assert {"student.predictor.project.weight", "student.encoder.norm.bias"} <= touched


def test_without_prediction_everything_learns_from_classification() -> None:
    trainer = make_trainer(objective={"alpha": 0.0})
    before = tensors(trainer)
    losses = trainer.step(make_batch(), 1, AT, measure=False).losses
    assert losses[2] == losses[1]
    still = {n for n in before if n.startswith("student.")} - changed(before, trainer)
    assert still == {"student.patches.positions", "student.predictor.positions"}


@pytest.mark.parametrize("centering", ["probabilities", "logits", "none"])
def test_centre_of_a_step(centering: str) -> None:
    trainer = make_trainer(objective={"centering": centering})
    trainer.step(make_batch(), 1, AT, measure=False)
    total = trainer.center.value.sum().item()
    if centering == "probabilities":
        assert total == pytest.approx(0.1, rel=1e-5)  # a tenth of a distribution
    elif centering == "none":
        assert not trainer.center.value.any()
    else:
        assert abs(total) > 1e-3 and total != pytest.approx(0.1, rel=1e-2)


@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_positions(positions: str) -> None:
    trainer = make_trainer(model={"positions": positions})
    before = tensors(trainer)
    trainer.step(make_batch(), 1, AT, measure=False)
    names = {"student.patches.positions", "student.predictor.positions"}
    assert names & changed(before, trainer) == (names if positions == "learned" else set())


def test_frozen_prototype_norms() -> None:
    for trained in (True, False):
        trainer = make_trainer(model={"train_weight_g": trained})
        trainer.step(make_batch(), 1, AT, measure=False)
        trainer.step(make_batch(), 2, AT, measure=False)
        assert (trainer.student.head.weight_g == 1).all() == (not trained)


@pytest.mark.parametrize("everything", [True, False])
def test_weight_decay_on_everything_or_on_matrices(everything: bool) -> None:
    trainer = make_trainer(pretrain={"decay_norms_and_biases": everything, "weight_decay": 0.5})
    names = {id(p): name for name, p in trainer.student.named_parameters()}
    groups = trainer.optimizer.param_groups
    decayed = {names[id(p)] for g in groups if g["weight_decay"] == 0.5 for p in g["params"]}
    spared = {names[id(p)] for g in groups if g["weight_decay"] == 0.0 for p in g["params"]}
    fixed = {"patches.positions", "predictor.positions"}
    assert decayed | spared == set(names.values()) - fixed and not decayed & spared
    if everything:
        assert not spared
        return
    expected = {n for n in spared | decayed if n.endswith("bias") or ".norm" in n}
    assert spared == expected | {"patches.cls_token", "predictor.mask_token", "head.weight_g"}
    assert {"patches.proj.weight", "head.weight_v", "predictor.embed.weight"} <= decayed


def test_weight_decay_is_decoupled() -> None:
    """w <- w (1 - lr * decay) for a weight without gradient: AdamW, not Adam with an L2 term."""
    trainer = make_trainer(objective={"alpha": 1.0}, pretrain={"weight_decay": 0.5})
    optimizer, weight = trainer.optimizer, trainer.student.patches.proj.weight
    before = weight.detach().clone()
    for parameter in trainer.student.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    torch.testing.assert_close(weight.detach(), 0.95 * before, rtol=1e-6, atol=0)


@pytest.mark.parametrize("copies", [True, False])
def test_how_the_teacher_starts(copies: bool) -> None:
    trainer = make_trainer(pretrain={"teacher_copies_student": copies})
    own, other = trainer.teacher.encoder.state_dict(), trainer.student.encoder.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own) == copies


# -------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_handful_of_clips_is_learnt(bulk: Path, tmp_path: Path, alpha: float) -> None:
    change = {"epochs": 60.0, "checkpoint_every_s": 1000.0, "diagnostics_every": 1000}
    job = tiny.make_job(bulk, tmp_path, tiny.run(objective={"alpha": alpha}, pretrain=change))
    train(job)
    log = read_log(job.logs / "log.csv")
    assert len(log) == 120
    parts = (log[:4], log[-8:])
    first, last = ({k: np.mean([row[k] for row in part]) for k in log[0]} for part in parts)
    assert last["prediction_loss"] < 0.3 * first["prediction_loss"]
    if alpha < 1:
        assert last["classification_loss"] < 0.8 * first["classification_loss"]


# -------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def uninterrupted(bulk: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished run of 24 updates."""
    job = tiny.make_job(bulk, tmp_path_factory.mktemp("whole"), tiny.run(pretrain={"epochs": 12.0}))
    train(job)
    return job


def test_what_a_run_writes(uninterrupted: Job, bulk: Path) -> None:
    log = read_log(uninterrupted.logs / "log.csv")
    assert list(log[0]) == logs.LOG
    assert [row["step"] for row in log] == list(range(24))
    assert [row["epoch"] for row in log] == [step / 2 for step in range(24)]  # 8 clips by 4
    assert [row["learning_rate"] for row in log[:3]] == pytest.approx([0, 2e-3, 4e-3])
    assert [row["teacher_temp"] for row in log[:3]] == pytest.approx([0.04, 0.055, 0.07])
    for row in log:
        total = (row["prediction_loss"] + row["classification_loss"]) / 2
        assert row["total_loss"] == pytest.approx(total, rel=1e-6)
    collapse = read_log(uninterrupted.logs / "diagnostics.csv")
    assert {"step", "mutual_information", "agreement"} < set(collapse[0])
    assert [row["step"] for row in collapse] == [0, 5, 10, 15, 20, 23]


def test_the_encoder_is_the_students(uninterrupted: Job) -> None:
    state = torch.load(max(uninterrupted.checkpoints.glob("state-*.pt")), weights_only=True)
    encoder = load_encoder(uninterrupted.encoder)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state["student"][name]), name
    assert (encoder.mean, encoder.std, encoder.front_end) == (-8.0, 4.0, tiny.FRONT_END)
    assert encoder.config == uninterrupted.run.model


def test_a_finished_run_is_not_trained_again(
    uninterrupted: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    weights = uninterrupted.encoder / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a step was made")

    monkeypatch.setattr(Trainer, "step", never)
    metrics = train(uninterrupted)
    assert weights.read_bytes() == before
    assert "tiny: resuming at step 24" in capsys.readouterr().out
    assert (metrics["steps"], metrics["clips"], metrics["clips_shorter_than_a_crop"]) == (24, 8, 1)
    last = read_log(uninterrupted.logs / "log.csv")[-1]
    assert metrics["total_loss"] == last["total_loss"] and metrics["epoch"] == 11.5


def test_loader_processes_change_nothing(uninterrupted: Job, bulk: Path, tmp_path: Path) -> None:
    changes = {"epochs": 12.0, "workers": 2, "checkpoint_every_s": 0.0}
    job = tiny.make_job(bulk, tmp_path, tiny.run(pretrain=changes))
    train(job)
    tiny.assert_equal_results(job, uninterrupted)
    kept = sorted(path.name for path in job.checkpoints.glob("state-*.pt"))
    assert kept == ["state-000000023.pt", "state-000000024.pt"]


FAILING = """
from pathlib import Path
import tiny
from matpac.pretraining.loop import train
from matpac.pretraining.trainer import Trainer

def fails(*args, **named):
    raise OSError("no space left")

Trainer.step = fails
train(tiny.make_job(Path("bulk"), Path("job"), tiny.run(pretrain={"workers": 1})))
"""


def test_a_failure_does_not_wait_for_loader_processes(bulk: Path, tmp_path: Path) -> None:
    """They heed no signal, and Python joins what a traceback keeps: it once never ended."""
    (tmp_path / "bulk").symlink_to(bulk)
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = command.python("-c", FAILING, cwd=tmp_path, env=paths, timeout=120)
    assert done.returncode == 1 and done.stderr.endswith("OSError: no space left\n")


def test_too_few_clips_for_one_update(bulk: Path, tmp_path: Path) -> None:
    few = tiny.run(pretrain={"batch_size": 64, "epochs": 6.0})
    with pytest.raises(ValueError, match=r"pretrain\.batch_size: got 64, .* 6 epoch\(s\), 48"):
        train(tiny.make_job(bulk, tmp_path, few))


# -------------------------------------------------------------------------------- the stage


@pytest.fixture
def project(bulk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The sections of the ``pretrain`` stage, in a project of their own."""
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    k6 = {"seeds": [3, 4], "model": {"num_prototypes": 6}}
    return tiny.make_project(bulk, tmp_path, base={}, k6=k6)


def test_two_seeds_give_two_encoders(
    project: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = pretrain.pretrain("k6", project)
    assert "afresh" not in capsys.readouterr().out, "another seed's states were taken for left over"
    data = tmp_path / "data/tiny"
    assert list(results) == ["seed_3", "seed_4"]
    assert files.read_json(data / "metrics/pretrain/k6.json") == results
    paths = [data / f"pretrain/k6/seed_{seed}/model.safetensors" for seed in (3, 4)]
    assert paths[0].read_bytes() != paths[1].read_bytes()
    for seed in (3, 4):
        assert len(read_log(data / f"logs/k6/seed_{seed}/log.csv")) == 2
        assert results[f"seed_{seed}"]["steps"] == 2
    assert results["seed_3"]["total_loss"] != results["seed_4"]["total_loss"]
    states = list((data / "checkpoints/k6").glob("*/*.pt"))
    assert [len(torch.load(each)["center"]["value"]) for each in states] == [6, 6]


def test_other_parameters_start_afresh_and_say_so(
    project: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pretrain.pretrain("base", project)
    assert "afresh" not in capsys.readouterr().out
    first = (tmp_path / "data/tiny/pretrain/base/seed_0/model.safetensors").read_bytes()
    project["objective"]["alpha"] = 0.25
    pretrain.pretrain("base", project)
    assert "base: starting afresh; 1 training state(s) of other" in capsys.readouterr().out
    second = (tmp_path / "data/tiny/pretrain/base/seed_0/model.safetensors").read_bytes()
    assert first != second
    project["objective"]["alpha"] = 0.5
    pretrain.pretrain("base", project)  # the old state is still there
    assert "base: resuming at step 2" in capsys.readouterr().out
    assert first == (tmp_path / "data/tiny/pretrain/base/seed_0/model.safetensors").read_bytes()


def test_without_log_mels_the_stage_to_run_is_named(project: dict) -> None:
    with pytest.raises(FileNotFoundError, match=r"pretraining\.json: missing; run .* 02_logmel"):
        pretrain.pretrain("base", project | {"profile": "other"})


def test_log_mels_that_were_made_again_are_refused(project: dict, tmp_path: Path) -> None:
    index = files.read_json(tmp_path / "data/tiny/logmel/pretraining.json")
    index["corpora"][0]["index_sha256"] = "0" * 64
    files.write_json(tmp_path / "data/tiny/logmel/pretraining.json", index)
    with pytest.raises(ValueError, match="not the index that"):
        pretrain.pretrain("base", project)


def test_unknown_run(project: dict) -> None:
    with pytest.raises(ValueError, match="run: got 'bse', allowed: base, k6"):
        pretrain.pretrain("bse", project)

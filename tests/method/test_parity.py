"""The method reproduces numbers recorded from the authors' released code.

``tests/data/parity`` holds recordings made on small random weights (data only); the variable
MATPAC_PARITY_DIR points these tests at another folder of the same scheme. Every
``inference_*.npz`` (with its ``_state``) and ``train_*.npz`` found there is tested. Sizes, decays
and lengths come from the recording; the constants below are those of the released code.

Tolerances are twice the recording's own float32 rounding, which was measured against float64 when
it was made (ours rounds as much again, on another processor or a GPU): log-mels 3e-4 in bins near
silence, frame embeddings from the wave 3e-5, losses 1e-6, gradient norms 5e-7 relative, latents
3e-6. Ours differ from the public fixtures by less than 1e-7 in the losses, 2e-7 in the norms and
2e-6 in the latents. The nearest wrong methods change more: tanh GELU 2e-4, LayerNorm epsilon 1e-5
2e-5, a centre of logits 1.7e-2 in the second loss, no EMA 4.6e-4.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from matpac.audio.logmel import LogMel
from matpac.encoders import pooling
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.released import load_released, our_name
from matpac.method import losses
from matpac.method.config import ModelConfig
from matpac.method.heads import Center
from matpac.method.losses import compare
from matpac.method.masking import Mask, num_visible, random_mask
from matpac.method.patches import sincos_positions
from matpac.method.student import Student
from matpac.method.teacher import Teacher
from matpac.pretraining import schedules

FOLDER = Path(os.environ.get("MATPAC_PARITY_DIR", Path(__file__).parents[1] / "data" / "parity"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""A GPU where MATPAC_TEST_GPU lets tests see it; its products are float32's, without TF32."""
torch.backends.cuda.matmul.allow_tf32 = False
LOGMEL = 6e-4
LATENT = 3e-6
FRAMES_FROM_WAVE = 6e-5
LOSS = 2e-6
LOSS_OF_A_PATCH = 5e-6
GRADIENT_RELATIVE = 1e-6
TEACHER_TEMP = (0.04, 0.07)
STUDENT_TEMP, CENTER_MOMENTUM = 0.1, 0.9

KNOWN = (
    "embed_dim depth num_heads mlp_ratio n_freq n_t patch_size seed sr lms_mean lms_std qkv_bias "
    "ln_eps lengths_s pred_dim pred_depth pred_heads K head_hidden bottleneck alpha mask_ratio "
    "use_mcl batch batch2 ema_decay ema_end_decay ema_anneal_end_step head_ema_decay "
    "head_ema_end_decay warmup_n_steps n_head mcl_temperature_start mcl_temperature_end "
    "mcl_decay_rate"
)
"""Keys of ``config_json`` in the scheme that these tests know."""


def fixtures(kind: str) -> list[str]:
    return sorted(p.name for p in FOLDER.glob(f"{kind}_*.npz") if not p.stem.endswith("_state"))


def test_fixtures_are_present() -> None:
    assert fixtures("inference") or fixtures("train"), f"no fixtures in {FOLDER}"


def read(name: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(FOLDER / name) as archive:
        arrays = dict(archive)
    config = json.loads(str(arrays["config_json"]))
    if unknown := sorted(set(config) - set(KNOWN.split())):
        pytest.skip(f"{name}: keys of an unknown scheme: {', '.join(unknown)}")
    return arrays, config


def model_config(config: dict) -> ModelConfig:
    return ModelConfig(
        crop_frames=config["n_t"],
        patch_size=config["patch_size"],
        mask_ratio=config.get("mask_ratio", 0.7),
        positions="sincos",
        encoder_width=config["embed_dim"],
        encoder_depth=config["depth"],
        encoder_heads=config["num_heads"],
        predictor_width=config.get("pred_dim", 64),
        predictor_depth=config.get("pred_depth", 1),
        predictor_heads=config.get("pred_heads", 4),
        mlp_ratio=config["mlp_ratio"],
        hypotheses=config["n_head"] if config.get("use_mcl") else 1,
        head_hidden=config.get("head_hidden", 8),
        head_bottleneck=config.get("bottleneck", 8),
        num_prototypes=config.get("K", 8),
        train_weight_g=True,
    )


def close(
    ours: Tensor | np.ndarray, recorded: np.ndarray, tolerance: float, relative: float = 0
) -> None:
    ours = np.asarray(ours.cpu() if isinstance(ours, Tensor) else ours)
    np.testing.assert_allclose(ours, recorded, rtol=relative, atol=tolerance)


# ---------------------------------------------------------------------------------- inference


@pytest.fixture(params=fixtures("inference"))
def inference(request: pytest.FixtureRequest) -> tuple[dict[str, np.ndarray], AudioEncoder]:
    arrays, config = read(request.param)
    with np.load(FOLDER / request.param.replace(".npz", "_state.npz")) as archive:
        state = {name: torch.from_numpy(archive[name]) for name in archive.files}
    assert config["qkv_bias"] and config["ln_eps"] == 1e-6
    encoder = AudioEncoder(
        model_config(config),
        {"sample_rate": config["sr"], "num_mels": config["n_freq"]},
        mean=config["lms_mean"],
        std=config["lms_std"],
    )
    load_released(encoder, state)
    return arrays, encoder.to(DEVICE)


def lengths(arrays: dict[str, np.ndarray]) -> list[str]:
    names = [name.removeprefix("wave__") for name in arrays if name.startswith("wave__")]
    assert len(names) == len(arrays["lengths_s"]) > 0
    return names


def test_log_mels(inference) -> None:
    arrays, _ = inference
    for length in lengths(arrays):
        ours = LogMel().to(DEVICE)(torch.from_numpy(arrays[f"wave__{length}"]).to(DEVICE))
        close(ours, arrays[f"logmel__{length}"], LOGMEL)


@pytest.mark.parametrize("source", ["wave", "logmel"])
def test_embeddings_of_all_layers(inference, source: str) -> None:
    arrays, encoder = inference
    for length in lengths(arrays):
        stored = torch.from_numpy(arrays[f"{source}__{length}"]).to(DEVICE)
        logmel = LogMel().to(DEVICE)(stored[None]) if source == "wave" else stored[None]
        pieces, depth = encoder.pieces(logmel), encoder.config.encoder_depth
        found = [torch.cat([encoder.columns(p, layer=i) for p in pieces], 1) for i in range(depth)]
        layers = torch.stack(found, dim=1)  # (1, L, n, R*D)
        tolerance = FRAMES_FROM_WAVE if source == "wave" else LATENT
        # Inner layers have no norm and values beyond 5, where float32 rounds at 5e-7 per operation.
        close(layers, arrays[f"precise_frames_layers__{length}"], tolerance, relative=3e-6)
        close(layers[:, -1], arrays[f"precise_frames_emb__{length}"], tolerance, relative=3e-6)
        close(layers.mean(dim=2), arrays[f"precise_pooled_layers__{length}"], LATENT)
        latents = encoder(logmel)  # (1, R, n, D)
        close(latents.mean(dim=2).flatten(1), arrays[f"precise_pooled_emb__{length}"], LATENT)
        recorded = arrays[f"precise_noconcat_pooled_layers__{length}"]
        of_rows = layers.unflatten(3, (encoder.patches.rows, -1))  # (1, L, n, R, D)
        close(of_rows.mean(dim=(2, 3)), recorded, LATENT)


def test_batched_clips_of_different_lengths(inference) -> None:
    arrays, encoder = inference
    names = lengths(arrays)
    logmels = [torch.from_numpy(arrays[f"logmel__{name}"]).to(DEVICE) for name in names]
    clips = [encoder.pieces(logmel) for logmel in logmels]
    found = pooling.encoded(clips, encoder.columns, batch_size=2)
    ours = torch.stack([pooling.mean(pieces) for pieces in found])
    recorded = np.concatenate([arrays[f"precise_pooled_emb__{name}"] for name in names])
    close(ours, recorded, LATENT)


def test_positions_of_the_released_model(inference) -> None:
    _, encoder = inference
    patches = encoder.patches
    table = sincos_positions(patches.rows, patches.columns, encoder.config.encoder_width)
    # Recorded weights were rounded to half precision: 2^-11 relative.
    close(patches.positions, table.numpy(), 5e-4)


# ----------------------------------------------------------------------------------- training


class Recorded:
    """The recorded training run re-enacted with our modules: two forwards, EMAs, one centre."""

    def __init__(self, arrays: dict[str, np.ndarray], config: dict) -> None:
        self.arrays, self.config = arrays, config
        sizes = model_config(config)
        self.student = Student(sizes, config["n_freq"])
        state = {name: self.tensor(name) for name in self.with_prefix("param::")}
        load_released(self.student, {n.removeprefix("param::"): t for n, t in state.items()})
        self.teacher = Teacher(self.student, copy_student=False)
        self.teacher.encoder.load_state_dict(self.teacher_state("enc_before"))
        self.teacher.head.load_state_dict(self.teacher_state("head_before"))
        self.center = Center(config["K"], averages="probabilities", momentum=CENTER_MOMENTUM)
        self.center.value.copy_(self.tensor("center_before").flatten())
        for module in (self.student, self.teacher, self.center):
            module.to(DEVICE)
        self.steps = [self.step("step1"), self.step("step2")]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).to(DEVICE)

    def with_prefix(self, prefix: str) -> list[str]:
        return [key for key in self.arrays if key.startswith(prefix)]

    def teacher_state(self, part: str) -> dict[str, Tensor]:
        prefix = f"teacher_{part}::"
        names = {key: key.removeprefix(prefix) for key in self.with_prefix(prefix)}
        return {n.removeprefix("last_layer."): self.tensor(key) for key, n in names.items()}

    def scalars(self, name: str) -> dict:
        return json.loads(str(self.arrays[f"{name}/scalars_json"]))

    def choice_temp(self, update: int) -> float:
        """Of the choice between hypotheses, from the recording's own schedule."""
        if not self.config.get("use_mcl"):
            return 0.0
        return schedules.choice_temperature(
            update,
            start=self.config["mcl_temperature_start"],
            end=self.config["mcl_temperature_end"],
            decay=self.config["mcl_decay_rate"],
        )

    def gradients(self) -> dict[str, Tensor | None]:
        """By our names, but of hypotheses by the recording's, which has a layer for each."""
        found = {name: p.grad for name, p in self.student.named_parameters()}
        if self.config.get("use_mcl"):
            for kind in ("weight", "bias"):
                parts = found.pop(f"predictor.project.{kind}").chunk(self.config["n_head"])
                found |= {f"mcl_heads.mcl_heads.{h}.{kind}": each for h, each in enumerate(parts)}
        return found

    def step(self, name: str) -> dict:
        scalars = self.scalars(name)
        logmel = self.tensor(f"{name}/input")
        mask = random_mask(self.tensor(f"{name}/noise"), self.config["mask_ratio"])
        self.student.zero_grad(set_to_none=True)
        with torch.no_grad():
            target = self.teacher(self.student.patches(logmel, mask.masked))
        hypotheses: list[Tensor] = []
        hook = self.student.predictor.register_forward_hook(
            lambda _, inputs, output: hypotheses.append(output.detach())
        )
        predicted = self.student(logmel, mask, target.latents)
        hook.remove()
        center_used = self.center.value.clone()
        compared = compare(
            predicted.logits,
            predicted.distances,
            target.logits,
            center_used,
            student_temp=scalars["student_temp"],
            teacher_temp=scalars["teacher_temp"],
            choice_temp=self.choice_temp(scalars["num_updates"]),
        )
        total = losses.total_loss(
            compared.prediction.mean(), compared.classification.mean(), float(self.config["alpha"])
        )
        total.backward()
        before = {n: p.clone() for n, p in self.teacher.named_parameters()}
        if scalars["num_updates"] > 0:  # the released code leaves update 0 out
            self.teacher.update(
                self.student,
                encoder_decay=scalars["enc_ema_decay"],
                head_decay=scalars["head_ema_decay"],
            )
        pending = self.center.batch_mean(target.logits, compared.teacher)
        self.center.update(pending)
        return {
            "mask": mask,
            "z_hat_m": hypotheses[0] if self.config.get("use_mcl") else hypotheses[0].squeeze(2),
            "best_head": predicted.distances.argmin(dim=2),
            "z_m": target.latents,
            "loss_pred_tokens": compared.prediction.detach().flatten(),
            "loss_cls_tokens": compared.classification.detach().flatten(),
            "teacher_logits_mean": target.logits.mean(dim=(0, 1)),
            "center_used": center_used,
            "center_pending": pending,
            "total": total.item(),
            "gradients": self.gradients(),
            "before": before,
            "after": {n: p.clone() for n, p in self.teacher.named_parameters()},
        }


@pytest.fixture(scope="module", params=fixtures("train"))
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(*read(request.param))


@pytest.fixture(params=[0, 1], ids=["step1", "step2"])
def step(recorded: Recorded, request: pytest.FixtureRequest) -> tuple[str, dict]:
    return f"step{request.param + 1}", recorded.steps[request.param]


def test_masks(recorded: Recorded, step) -> None:
    name, ours = step
    mask: Mask = ours["mask"]
    shuffle = torch.cat([mask.visible, mask.masked], dim=1)
    np.testing.assert_array_equal(shuffle.cpu(), recorded.arrays[f"{name}/ids_shuffle"])
    scalars = recorded.scalars(name)
    assert mask.visible.shape[1] == scalars["len_keep"]
    assert mask.masked.shape[1] == scalars["n_masked"]
    assert num_visible(shuffle.shape[1], recorded.config["mask_ratio"]) == scalars["len_keep"]


def test_latents_and_losses_per_patch(recorded: Recorded, step) -> None:
    name, ours = step
    for key in ("z_hat_m", "z_m"):
        close(ours[key], recorded.arrays[f"{name}/{key}"], LATENT)
    if "best_head" in recorded.arrays:
        np.testing.assert_array_equal(ours["best_head"], recorded.arrays[f"{name}/best_head"])
    for key in ("loss_pred_tokens", "loss_cls_tokens"):
        # Single patches, of losses up to 9, where a float32 is 1e-6 apart from the next.
        close(ours[key], recorded.arrays[f"{name}/{key}"], LOSS_OF_A_PATCH)
    scalars = recorded.scalars(name)
    assert ours["loss_pred_tokens"].mean().item() == pytest.approx(scalars["loss_pred"], abs=LOSS)
    assert ours["loss_cls_tokens"].mean().item() == pytest.approx(scalars["loss_cls"], abs=LOSS)
    assert ours["total"] == pytest.approx(scalars["total"], abs=LOSS)


def test_centre(recorded: Recorded, step) -> None:
    name, ours = step
    arrays = recorded.arrays
    close(ours["center_used"], arrays[f"{name}/center_used"].flatten(), 1e-7)
    close(ours["center_pending"], arrays[f"{name}/center_pending"].flatten(), 1e-7)
    close(ours["teacher_logits_mean"], arrays[f"{name}/teacher_logits_mean"], LATENT)
    if name == "step1":
        np.testing.assert_array_equal(
            arrays["step1/center_buffer_after_forward"], arrays["center_before"]
        )


def test_gradient_norms(recorded: Recorded, step) -> None:
    name, ours = step
    gradients = ours["gradients"]
    names = [str(n) for n in recorded.arrays[f"{name}/gradnorm_names"]]
    norms = [gradients[our_name(n)].double().norm().item() for n in names]
    expected = recorded.arrays[f"{name}/gradnorm_values"]
    np.testing.assert_allclose(norms, expected, rtol=GRADIENT_RELATIVE, atol=1e-9)
    without = {our_name(str(n)) for n in recorded.arrays[f"{name}/params_without_grad"]}
    if recorded.config.get("use_mcl"):  # theirs keeps a last layer that hypotheses replace
        without -= {"predictor.project.weight", "predictor.project.bias"}
    assert without == {n for n, gradient in gradients.items() if gradient is None}
    assert {our_name(n) for n in names} | without == set(gradients)


def test_full_gradients(recorded: Recorded) -> None:
    keys = recorded.with_prefix("step1/grad::")
    assert keys
    for key in keys:
        gradient = recorded.steps[0]["gradients"][our_name(key.removeprefix("step1/grad::"))]
        scale = np.abs(recorded.arrays[key]).max()
        close(gradient, recorded.arrays[key], GRADIENT_RELATIVE * scale + 1e-9)


def test_ema_changes_of_every_teacher_tensor(recorded: Recorded) -> None:
    first = recorded.steps[0]
    for part, prefix in (("enc", "encoder."), ("head", "head.")):
        states = {name: recorded.teacher_state(f"{part}_before") for name in ("before",)}
        after = {
            key.removeprefix(f"step1/teacher_{part}_after::").removeprefix("last_layer."): key
            for key in recorded.with_prefix(f"step1/teacher_{part}_after::")
        }
        assert set(after) == set(states["before"])
        for name, key in after.items():
            ours = first["after"][prefix + name] - first["before"][prefix + name]
            theirs = recorded.tensor(key) - states["before"][name]
            # new = d*old + (1-d)*student rounds once per operation: two units in the last place.
            unit = np.spacing(np.abs(states["before"][name].cpu().numpy()).max())
            close(ours, theirs.cpu().numpy(), 2 * float(unit))
            assert theirs.abs().max() == 0 or ours.abs().max() > 0


def test_norms_of_ema_changes(recorded: Recorded, step) -> None:
    name, ours = step
    for part, prefix in (("enc", "encoder."), ("head", "head.")):
        names = [str(n) for n in recorded.arrays[f"teacher_{part}_names"]]
        names = [prefix + n.removeprefix("last_layer.") for n in names]
        norms = [(ours["after"][n] - ours["before"][n]).double().norm().item() for n in names]
        expected = recorded.arrays[f"{name}/teacher_{part}_delta_norms"]
        # An encoder change is 1e-5 of its tensor: float32 leaves it two to three digits.
        np.testing.assert_allclose(norms, expected, rtol=2e-2, atol=1e-7)


def test_teacher_after_the_second_step(recorded: Recorded) -> None:
    after = recorded.steps[1]["after"]
    for key in recorded.with_prefix("step2/teacher_"):
        part, _, name = key.removeprefix("step2/teacher_").partition("_after_")
        if not name:
            continue
        full = {"enc": "encoder.", "head": "head."}[part] + name.removeprefix("last_layer.")
        # Two units in the last place of values up to 2, which the prototypes' norms are.
        close(after[full], recorded.arrays[key], 2.5e-7)


def test_schedules_give_the_recorded_scalars(recorded: Recorded, step) -> None:
    scalars, config = recorded.scalars(step[0]), recorded.config
    update, end = scalars["num_updates"], config["ema_anneal_end_step"]
    temperature = schedules.linear(update, *TEACHER_TEMP, config["warmup_n_steps"])
    assert temperature == pytest.approx(scalars["teacher_temp"], rel=1e-12)
    encoder = schedules.linear(update, config["ema_decay"], config["ema_end_decay"], end)
    assert encoder == pytest.approx(scalars["enc_ema_decay"], rel=1e-12)
    head = schedules.linear(update, config["head_ema_decay"], config["head_ema_end_decay"], end)
    if update >= end:
        head = config["ema_end_decay"]  # a slip of the released code: the encoder's end value
    assert head == pytest.approx(scalars["head_ema_decay"], rel=1e-12)
    if config.get("use_mcl"):
        theirs = scalars["mcl_temperature"]
        soft = theirs > config["mcl_temperature_end"]
        assert recorded.choice_temp(update) == pytest.approx(theirs if soft else 0, rel=1e-9)
    assert scalars["student_temp"] == STUDENT_TEMP
    assert scalars["center_momentum"] == CENTER_MOMENTUM

"""Our own ViT as rows of Table II: MATPAC, MATPAC++, M2D."""

import json
import os
from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from matpac.encoders import vit
from matpac.encoders.vit import ViTEncoder

PARITY = Path(os.environ.get("MATPAC_PARITY_DIR", Path(__file__).parents[1] / "data" / "parity"))
SMALL = {"encoder_width": 48, "encoder_depth": 3, "encoder_heads": 4}
CLOSE = {"rtol": 0, "atol": 1e-5}
"""Sums in another order, of values of order 1."""


def small() -> ViTEncoder:
    return ViTEncoder(encoder_checks.tiny_net())


def waves(num_samples: int, *, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------ published weights


@pytest.fixture(scope="module", params=["matpac", "m2d"])
def encoder(request: pytest.FixtureRequest) -> ViTEncoder:
    torch.manual_seed(0)
    return vit.make(None, release=request.param, **SMALL)


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_contract(encoder: ViTEncoder, check: encoder_checks.Check) -> None:
    check(encoder)


def published(encoder: ViTEncoder, release: str) -> dict[str, Tensor]:
    """An encoder's state under the names of a published file."""
    return encoder_checks.released(encoder.net, {"matpac": "student_encoder.", "m2d": ""}[release])


BESIDE = {
    "matpac": ["decoder.decoder_embed.weight", "cls_student_head.mlp.0.bias", "head.weight"],
    "m2d": ["mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.bias", "target_norm.bias"],
}
"""Of training and fine-tuning checkpoints, not of the encoder."""


@pytest.mark.parametrize("release", ["matpac", "m2d"])
def test_checkpoints_load_strictly(tmp_path: Path, release: str) -> None:
    torch.manual_seed(1)
    encoder = vit.make(None, release=release, **SMALL)
    for beside in ([], BESIDE[release]):
        encoder_checks.loads_strictly(
            lambda path: vit.make(path, release=release, **SMALL),
            encoder,
            published(encoder, release),
            tmp_path,
            wrap=lambda state, beside=beside: {
                "model": {name: torch.ones(2) for name in beside} | state,
                "epoch": 300,
            },
        )


def test_one_project_s_names_are_not_another_s(tmp_path: Path) -> None:
    torch.save({"audio_proj.0.weight": torch.zeros(2)}, tmp_path / "clap.pth")
    with pytest.raises(ValueError, match=r"clap\.pth: does not fit") as error:
        vit.make(tmp_path / "clap.pth", release="m2d", **SMALL)
    assert "unexpected: audio_proj.0.weight" in str(error.value)
    with pytest.raises(ValueError, match="release: got 'mae', allowed: matpac, m2d"):
        vit.make(None, release="mae")


def test_fine_tuned_on_audioset_has_992_frames(tmp_path: Path) -> None:
    tuned = vit.make(None, crop_frames=992, **SMALL)
    assert tuned.piece_hop == 992 * 160 and tuned.net.patches.columns == 62
    path = tmp_path / "matpac_plus_as.pt"
    torch.save(published(tuned, "matpac"), path)
    piece = waves(tuned.piece_samples, batch=1)
    assert torch.equal(
        vit.make(path, crop_frames=992, **SMALL).columns(piece), tuned.columns(piece)
    )
    with pytest.raises(ValueError, match=r"pos_embed: got \(311, 48\), allowed: \(191, 48\)"):
        vit.make(path, **SMALL)


def test_statistics_of_m2d_come_from_its_file_if_it_has_them(tmp_path: Path) -> None:
    encoder = vit.make(None, release="m2d", **SMALL)
    assert (encoder.net.mean, encoder.net.std) == (-7.1, 4.2)
    state = published(encoder, "m2d") | {"norm_stats": torch.tensor([-6.5, 4.75])}
    torch.save(state, tmp_path / "m2d.pth")
    newer = vit.make(tmp_path / "m2d.pth", release="m2d", **SMALL)
    assert (newer.net.mean, newer.net.std) == (-6.5, 4.75)
    with pytest.raises(ValueError, match="unexpected: norm_stats"):
        vit.make(tmp_path / "m2d.pth", release="matpac", **SMALL)
    for wrong in ([-6.5, 0.0], [float("nan"), 4.75], [1.0]):
        torch.save(state | {"norm_stats": torch.tensor(wrong)}, tmp_path / "m2d.pth")
        with pytest.raises(ValueError, match=r"m2d\.pth: norm_stats: got \["):
            vit.make(tmp_path / "m2d.pth", release="m2d", **SMALL)


def test_m2d_s_stft_is_the_centred_one() -> None:
    """Of the mirrored clip, cut into pieces as `matpac.cli.embed` cuts it."""
    torch.manual_seed(2)
    encoder = vit.make(None, release="m2d", **SMALL)
    clip = waves(130_000)  # 813 centred frames: a piece of 608 and one of 205
    mel = torchaudio.transforms.MelSpectrogram(
        16000, 400, hop_length=160, f_min=50, f_max=8000, n_mels=80, power=2.0, center=True,
        pad_mode="reflect", norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    logmel = torch.log(mel(clip) + torch.finfo(torch.float32).eps)
    assert logmel.shape[2] == 813
    mirrored = torch.nn.functional.pad(clip, (encoder.reflect, encoder.reflect), mode="reflect")
    pieces = [
        mirrored[:, start : start + encoder.piece_samples]
        for start in range(0, mirrored.shape[1] - encoder.min_samples + 1, encoder.piece_hop)
    ]
    ours = torch.cat([encoder.columns(piece) for piece in pieces], dim=1)
    latents = encoder.net(logmel)  # (B, R, n, D)
    torch.testing.assert_close(ours, latents.transpose(1, 2).flatten(2), **CLOSE)


def test_the_front_end_stays_in_float32() -> None:
    encoder, piece, inputs = small(), waves(3000), []
    encoder.net.patches.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    encoder.columns(piece)
    with torch.autocast("cpu", torch.bfloat16):
        encoder.columns(piece)
    assert torch.equal(*inputs)


def recordings() -> list[str]:
    names = sorted(path.name for path in PARITY.glob("inference_*.npz"))
    return [name for name in names if not name.endswith("_state.npz")]


@pytest.mark.parametrize("name", recordings() or [pytest.param("", marks=pytest.mark.skip)])
def test_the_released_code_gives_the_same_embeddings(name: str, tmp_path: Path) -> None:
    """Through a file; tolerance as in test_parity, where the nearest wrong methods are named."""
    with np.load(PARITY / name) as archive:
        arrays = dict(archive)
    config = json.loads(str(arrays["config_json"]))
    with np.load(PARITY / name.replace(".npz", "_state.npz")) as archive:
        state = {key: torch.from_numpy(archive[key]) for key in archive.files}
    torch.save({"model": state}, tmp_path / "released.pt")
    if (config["n_freq"], config["lms_mean"], config["lms_std"]) != (80, -7.056, 4.193):
        pytest.skip(f"{name}: another front end or normalisation than the released one")
    encoder = vit.make(
        tmp_path / "released.pt",
        crop_frames=config["n_t"],
        encoder_width=config["embed_dim"],
        encoder_depth=config["depth"],
        encoder_heads=config["num_heads"],
    )
    for key in [key for key in arrays if key.startswith("wave__")]:
        clip = torch.from_numpy(arrays[key])[None]
        starts = range(0, clip.shape[1] - encoder.min_samples + 1, encoder.piece_hop)
        pieces = [clip[:, start : start + encoder.piece_samples] for start in starts]
        length = key.removeprefix("wave__")
        for layer in range(encoder.num_layers):
            columns = torch.cat([encoder.columns(piece, layer=layer) for piece in pieces], dim=1)
            recorded = arrays[f"precise_pooled_layers__{length}"][:, layer]
            np.testing.assert_allclose(columns.mean(dim=1), recorded, rtol=0, atol=3e-6)
        np.testing.assert_allclose(
            columns.mean(dim=1), arrays[f"precise_pooled_emb__{length}"], rtol=0, atol=3e-6
        )
        times = encoder.times(pieces[0].shape[1])
        assert len(times) == min(columns.shape[1], config["n_t"] // 16)


def test_vit_base_in_published_naming(tmp_path: Path) -> None:
    encoder = vit.make(None)
    assert (encoder.width, encoder.num_layers) == (3840, 12)
    assert sum(p.numel() for p in encoder.net.encoder.parameters()) == 12 * 7_087_872 + 1536
    torch.save(published(encoder, "matpac"), tmp_path / "matpac_10_2048.pt")
    loaded = vit.make(tmp_path / "matpac_10_2048.pt")
    last = [each.net.encoder.blocks[11].mlp.fc2.weight for each in (loaded, encoder)]
    assert torch.equal(*last) and loaded.columns(waves(16000, batch=1)).shape == (1, 7, 3840)

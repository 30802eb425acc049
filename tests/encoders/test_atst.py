"""ATST-Clip and ATST-Frame, which are built of our own blocks."""

from pathlib import Path

import encoder_checks
import pytest
import torch
import torchaudio
from torch import Tensor

from matpac.encoders import atst
from matpac.encoders.atst import ATSTEncoder

SMALL = {"width": 48, "depth": 3, "heads": 4}


@pytest.fixture(scope="module", params=[("clip", 1), ("clip", 3), ("frame", 1), ("frame", 3)])
def encoder(request: pytest.FixtureRequest) -> ATSTEncoder:
    torch.manual_seed(0)
    model, blocks = request.param
    return atst.make(None, model=model, blocks=blocks, **SMALL)


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_contract(encoder: ATSTEncoder, check: encoder_checks.Check) -> None:
    check(encoder)


def published(encoder: ATSTEncoder, prefix: str = "") -> dict[str, Tensor]:
    """Its tensors as a checkpoint holds them: no front end, no bias of queries, keys, values."""
    state = {
        f"{prefix}{name}": tensor
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("mel.") and not name.endswith("attn.qkv.bias")
    }
    return state | {f"{prefix}mask_embed": torch.zeros(1, 1, encoder.pos_embed.shape[2])}


@pytest.mark.parametrize(("model", "width", "tensors"), [("clip", 1536, 139), ("frame", 9216, 138)])
def test_sizes_of_the_base_models(model: str, width: int, tensors: int, tmp_path: Path) -> None:
    encoder = atst.make(None, model=model)
    assert encoder.width == width
    state = published(encoder)
    assert len(state) == tensors  # as counted in a published file, and in another package's class
    assert state["pos_embed"].shape == (1, 251, 768)
    assert state["patch_embed.patch_embed.weight"].shape == (768, 256)
    torch.save({"state_dict": state}, tmp_path / "base.ckpt")
    loaded = atst.make(tmp_path / "base.ckpt", model=model)
    piece = encoder_checks.waves(encoder, 1, 16000)
    for block in encoder.blocks:
        block.attn.qkv.bias.zero_()
    assert torch.equal(loaded.columns(piece), encoder.columns(piece))


@pytest.mark.parametrize("model", ["clip", "frame"])
@pytest.mark.parametrize("layout", ["plain", "lightning", "dino"])
def test_checkpoints_load_strictly(tmp_path: Path, model: str, layout: str) -> None:
    torch.manual_seed(1)
    encoder = atst.make(None, model=model, blocks=1, **SMALL)
    for block in encoder.blocks:
        block.attn.qkv.bias.zero_()
    prefix, key, beside = {
        "plain": ("", "model", []),
        "lightning": (
            "model.teacher.encoder.",
            "state_dict",
            ["model.student.encoder.pos_embed", "model.teacher.projector.0.weight"],
        ),
        "dino": ("module.backbone.", "teacher", ["module.head.mlp.0.weight"]),
    }[layout]
    state = {n: t for n, t in published(encoder, prefix).items() if "mask_embed" not in n}
    encoder_checks.loads_strictly(
        lambda path: atst.make(path, model=model, blocks=1, **SMALL),
        encoder,
        state,
        tmp_path,
        wrap=lambda state: {key: {name: torch.ones(2) for name in beside} | state, "epoch": 9},
    )


def test_one_model_s_file_is_not_the_other_s(tmp_path: Path) -> None:
    clip = atst.make(None, model="clip", **SMALL)
    torch.save(published(clip), tmp_path / "clip.ckpt")
    with pytest.raises(ValueError, match="unexpected: cls_token") as error:
        atst.make(tmp_path / "clip.ckpt", model="frame", blocks=1, **SMALL)
    assert "missing: norm_frame.weight" in str(error.value)
    with pytest.raises(ValueError, match="model: got 'c2f', allowed: clip, frame"):
        atst.make(None, model="c2f")
    with pytest.raises(ValueError, match="blocks: got 4, allowed: 1 to 3"):
        atst.make(None, model="frame", blocks=4, **SMALL)


def test_the_front_end_is_torchaudio_s_in_decibels() -> None:
    """Centred STFT, HTK mel scale, and a floor 80 dB below the loudest bin of each row."""
    encoder = atst.make(None, model="frame", blocks=1, **SMALL)
    clip = encoder_checks.waves(encoder, 2, 33_000)
    clip[0, 10_000:20_000] = 0
    clip[1] *= 9
    mel = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, hop_length=160, f_min=60, f_max=7800, n_mels=64
    )
    decibels = torchaudio.transforms.AmplitudeToDB("power", top_db=80)(mel(clip)[:, None])[:, 0]
    expected = 2 * (decibels + 79.6482) / (50.6842 + 79.6482) - 1
    mirrored = torch.nn.functional.pad(clip, (512, 512), mode="reflect")
    ours = encoder._logmel(mirrored)
    assert ours[0].min() == pytest.approx(ours[0].max().item() - 160 / 130.3324, abs=1e-6)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder._logmel(mirrored), ours)


def test_patches_are_mel_major_and_positions_start_at_one() -> None:
    encoder = atst.make(None, model="frame", blocks=1, **SMALL)
    logmel = torch.arange(64 * 11.0).reshape(1, 64, 11)  # bin 11, frame 1
    with torch.no_grad():
        encoder.patch_embed["patch_embed"].weight.zero_()
        encoder.patch_embed["patch_embed"].bias.zero_()
        encoder.patch_embed["patch_embed"].weight[0, 4 * 5 + 2] = 1  # bin 5, third frame
        encoder.pos_embed[0, :, 0] = torch.arange(251.0) / 1000
    tokens = encoder._tokens(logmel)
    assert tokens.shape == (1, 2, 48)  # the last 3 of 11 frames are left out
    expected = [5 * 11 + 2 + 0.001, 5 * 11 + 6 + 0.002]
    assert tokens[0, :, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_class_token_is_in_every_column_and_blocks_are_in_order() -> None:
    encoder = atst.make(None, model="clip", blocks=2, **SMALL)
    assert (encoder.width, encoder.num_layers) == (4 * 48, 2)
    piece = encoder_checks.waves(encoder, 1, 20_000)
    first, last = encoder.columns(piece, layer=0), encoder.columns(piece)
    assert first[0, :, :96].unique(dim=0).shape == (1, 96)
    assert last[0, :, 96:].unique(dim=0).shape == (last.shape[1], 96)
    for part in (0, 96):  # block 1 is the second of the first pair and the first of the second
        assert torch.equal(first[..., part + 48 : part + 96], last[..., part : part + 48])


def test_pieces_are_of_6_and_10_seconds_of_frames() -> None:
    for model, columns in (("clip", 150), ("frame", 250)):
        encoder = atst.make(None, model=model, blocks=1, **SMALL)
        assert len(encoder.times(encoder.piece_samples)) == columns
        assert encoder.piece_hop == columns * 640
        # The first column of the mirrored clip: frames 0 to 3, the first at the clip's start.
        at = encoder.times(encoder.piece_samples)[0].item() - encoder.reflect / 16000
        assert at == pytest.approx(1.5 * 160 / 16000, abs=1e-12)

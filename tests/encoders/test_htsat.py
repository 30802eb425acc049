"""HTS-AT: the contract, the authors' names, and numbers of the authors' own network."""

import zlib
from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from matpac.encoders import htsat

pytest.importorskip("transformers", reason="the extra htsat is not installed")

BLOCKS = (2, 2, 6, 2)


@pytest.fixture(scope="module")
def encoder() -> htsat.HTSAT:
    """Weights of the true sizes that depend on the authors' names alone, loaded by them."""
    encoder = htsat.make(None)
    state = {name: by_name(name, tuple(shape)) for name, shape in authors_shapes().items()}
    state["bn0.num_batches_tracked"] = torch.tensor(1)
    encoder.net.load_state_dict(htsat._derived(encoder.net) | htsat.converted(state))
    return encoder


def by_name(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor drawn with the name as its seed, scaled so that activations stay near 1."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_mean"):
        values = values - 30
    elif name.endswith("running_var"):
        values = values + 100
    elif name.endswith("bias_table"):
        values = 0.5 * values
    elif len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * values + float(name.endswith("weight"))
    return torch.from_numpy(values.astype(np.float32))


def authors_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' encoder, written down from their network, not from ours."""
    shapes = {f"bn0.{name}": (64,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"patch_embed.proj.weight": (96, 1, 4, 4), "patch_embed.proj.bias": (96,)}
    shapes |= {"patch_embed.norm.weight": (96,), "patch_embed.norm.bias": (96,)}
    for stage, num_blocks in enumerate(BLOCKS):
        width = 96 * 2**stage
        for block in range(num_blocks):
            parts = {
                "norm1": (width,),
                "attn.qkv": (3 * width, width),
                "attn.proj": (width, width),
                "norm2": (width,),
                "mlp.fc1": (4 * width, width),
                "mlp.fc2": (width, 4 * width),
            }
            prefix = f"layers.{stage}.blocks.{block}."
            shapes[f"{prefix}attn.relative_position_bias_table"] = (225, 4 * 2**stage)
            shapes |= {f"{prefix}{name}.weight": shape for name, shape in parts.items()}
            shapes |= {f"{prefix}{name}.bias": shape[:1] for name, shape in parts.items()}
        if stage < 3:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes[f"layers.{stage}.downsample.norm.weight"] = (4 * width,)
            shapes[f"layers.{stage}.downsample.norm.bias"] = (4 * width,)
    return shapes | {"norm.weight": (768,), "norm.bias": (768,)}


def checkpoint(encoder: htsat.HTSAT) -> dict[str, Tensor]:
    """All that a file of the authors holds: encoder, front end, classifier and derived buffers."""
    beside = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": mel_filters(32_000),
        "tscam_conv.weight": torch.zeros(527, 768, 2, 3),
        "tscam_conv.bias": torch.zeros(527),
        "head.weight": torch.zeros(527, 527),
        "head.bias": torch.zeros(527),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 64, 64),
        "layers.0.blocks.1.attn.relative_position_index": torch.zeros(64, 64, dtype=torch.long),
    }
    return htsat.published(encoder.net.state_dict()) | beside


def mel_filters(rate: int) -> Tensor:
    return melscale_fbanks(513, 50, 14_000, 64, rate, norm="slaney", mel_scale="slaney")


def weights_only(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The part of a checkpoint in which every tensor counts, under the names in the file."""
    return {f"sed_model.{n}": t for n, t in state.items() if not htsat._beside(n)}


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract(encoder: htsat.HTSAT, check: encoder_checks.Check) -> None:
    check(encoder)


def test_names_and_shapes_are_the_authors(encoder: htsat.HTSAT) -> None:
    state = htsat.published(encoder.net.state_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == authors_shapes() | {"bn0.num_batches_tracked": ()}


def test_numbers_of_the_authors_network(encoder: htsat.HTSAT) -> None:
    """`HTSAT_Swin_Transformer` of laion-clap 1.1.7, the authors' code, set to 32 kHz with these
    weights: its `fine_grained_embedding` (every 32nd step) and its `embedding`.

    Over all 32 x 768 values the two networks differed by 4e-6; the numbers here are rounded.
    """
    seconds = np.arange(320_000) / 32_000
    noise = np.random.default_rng(7).standard_normal(320_000)
    chirp = 0.2 * np.sin(2 * np.pi * 440 * seconds * (1 + seconds / 20))
    wave = 0.05 * (1.1 + np.sin(2 * np.pi * 0.3 * seconds)) * noise + chirp
    columns = encoder.columns(torch.from_numpy(wave.astype(np.float32))[None])[0]
    expected = {
        0: [0.04508, -1.4916, -0.76308, 0.7631],
        13: [-0.23377, -1.38533, -0.94569, 0.88082],
        31: [-0.16997, -1.53686, -0.64801, 0.72207],
    }
    for column, values in expected.items():
        assert columns[column, :4].tolist() == pytest.approx(values, abs=3e-5)
    embedding = columns.mean(dim=0)[[0, 100, 300, 767]].tolist()
    assert embedding == pytest.approx([-0.15092, -0.08636, -0.13478, -0.51063], abs=3e-5)


def test_loads_a_checkpoint_of_the_authors(encoder: htsat.HTSAT, tmp_path: Path) -> None:
    """Lightning's file: the state dict under its name, with a prefix, beside plain values."""
    state = {f"sed_model.{name}": tensor for name, tensor in checkpoint(encoder).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "all.ckpt")
    piece = encoder_checks.waves(encoder, 1, 32_000)
    expected = encoder.columns(piece)
    assert torch.equal(htsat.make(tmp_path / "all.ckpt").columns(piece), expected)
    torch.save(checkpoint(encoder), tmp_path / "bare.pt")
    assert torch.equal(htsat.make(tmp_path / "bare.pt").columns(piece), expected)


def test_refuses_what_does_not_fit(encoder: htsat.HTSAT, tmp_path: Path) -> None:
    encoder_checks.loads_strictly(
        htsat.make,
        encoder,
        weights_only(checkpoint(encoder)),
        tmp_path,
        wrap=lambda state: {"epoch": 3, "state_dict": state},
    )


@pytest.mark.parametrize("prefix", ["", "sed_model."])
def test_refuses_the_front_end_of_clap(encoder: htsat.HTSAT, tmp_path: Path, prefix: str) -> None:
    state = checkpoint(encoder) | {"logmel_extractor.melW": mel_filters(48_000)}
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "clap.pt")
    with pytest.raises(ValueError, match=r"clap\.pt: logmel_extractor\.melW: .* 48000 Hz"):
        htsat.make(tmp_path / "clap.pt")


def test_a_short_piece_is_repeated_and_only_its_first_time_counts(encoder: htsat.HTSAT) -> None:
    short = encoder_checks.waves(encoder, 1, 100_000)
    columns = encoder.columns(short)
    assert columns.shape[1] == len(encoder.times(100_000)) == 10  # 3.125 s
    filled = short.repeat(1, 4)[:, :320_000]
    assert torch.equal(columns, encoder.columns(filled)[:, :10])


def test_times_are_centres_of_32_columns(encoder: htsat.HTSAT) -> None:
    assert encoder.times(320_000)[:2].tolist() == pytest.approx([0.15625, 0.46875])
    assert len(encoder.times(320_000)) == 32
    assert encoder.times(5_001).tolist() == [0.15625]
    assert encoder.times(5_000).tolist() == [0.078125]  # the only column: its centre is not inside

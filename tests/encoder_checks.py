"""What every row of Table II has to keep, whatever package it comes from.

A test module of an adapter makes the encoder once, with random weights of the true sizes, and says

    @pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
    def test_contract(encoder: WaveEncoder, check: encoder_checks.Check) -> None:
        check(encoder)

and, for its checkpoints, calls `loads_strictly`.
"""

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from matpac.encoders import statedicts
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.interface import WaveEncoder

Check = Callable[[WaveEncoder], None]
CLOSE = 1e-4
"""Largest difference that counts as rounding, in standard deviations of the output.

Other batch sizes sum in another order: in float32 a dozen layers turn this into about 1e-6 to 1e-5
standard deviations. A statistic taken over the batch shows as 1e-2 or more.
"""


def tiny_net(**model: Any) -> AudioEncoder:
    """Two layers with random weights, biases and norms, of order 1. Args: changes to the sizes."""
    torch.manual_seed(0)
    net = AudioEncoder(tiny.run(model=model).model, tiny.FRONT_END, mean=-8.0, std=4.0)
    for parameter in net.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def released(net: AudioEncoder, prefix: str = "student_encoder.") -> dict[str, Tensor]:
    """Its tensors as the released code would save them."""
    size = net.config.patch_size
    state = {
        "cls_token": net.patches.cls_token.data,
        "pos_embed": net.patches.positions.data[None],
        "patch_embed.proj.weight": net.patches.proj.weight.data.unflatten(1, (1, size, size)),
        "patch_embed.proj.bias": net.patches.proj.bias.data,
    }
    return state | {f"{prefix}{name}": t for name, t in net.encoder.state_dict().items()}


def with_old_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies under the names that torch gave weight norms when the files were published."""
    old = {new: old for old, new in statedicts.WEIGHT_NORM.items()}
    pattern = re.compile("|".join(f"{re.escape(new)}$" for new in old))
    return {pattern.sub(lambda end: old[end[0]], name): t.clone() for name, t in state.items()}


def waves(encoder: WaveEncoder, num: int, num_samples: int, *, seed: int = 0) -> Tensor:
    """Noise with a slow, different envelope in every row, peaks near 0.1: (num, num_samples)."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(num_samples) / encoder.sample_rate
    rates = rng.uniform(0.5, 4, size=(num, 1))  # Hz
    envelope = 0.03 * (1.1 + np.sin(2 * np.pi * rates * seconds))
    noise = envelope * rng.standard_normal((num, num_samples))
    return torch.from_numpy(noise.astype(np.float32)).to(device_of(encoder))


def lengths(encoder: WaveEncoder) -> list[int]:
    """The shortest, an odd one between and the longest piece, in samples, without repeats."""
    between = (encoder.min_samples + encoder.piece_samples) // 3 | 1
    return sorted({encoder.min_samples, max(between, encoder.min_samples), encoder.piece_samples})


def device_of(encoder: WaveEncoder) -> torch.device:
    """Where its parameters are."""
    return next(encoder.parameters()).device


def difference(first: Tensor, second: Tensor) -> float:
    """Largest difference of two outputs, in standard deviations of the first."""
    return float((first - second).abs().max() / first.std())


def describes_itself(encoder: WaveEncoder) -> None:
    """Sizes are whole, in order, and in the units of the interface."""
    for name in ("sample_rate", "width", "piece_samples", "min_samples", "num_layers"):
        assert isinstance(getattr(encoder, name), int), name
        assert getattr(encoder, name) > 0, name
    assert encoder.min_samples <= encoder.piece_samples
    assert 0 <= encoder.piece_hop <= encoder.piece_samples
    assert 0 <= encoder.reflect <= encoder.piece_samples
    assert 8_000 <= encoder.sample_rate <= 48_000


def is_frozen(encoder: WaveEncoder) -> None:
    """Everything is in eval mode and without gradients, the output too."""
    assert [name for name, module in encoder.named_modules() if module.training] == []
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == []
    assert list(encoder.parameters()), "an encoder without parameters"
    assert not encoder.columns(waves(encoder, 1, encoder.min_samples)).requires_grad


def gives_columns_of_every_length(encoder: WaveEncoder) -> None:
    """Two pieces of each length -> (2, n, D) finite float32, n as many as there are times."""
    for num_samples in lengths(encoder):
        columns = encoder.columns(waves(encoder, 2, num_samples))
        times = encoder.times(num_samples)
        assert columns.dtype == torch.float32
        assert columns.shape == (2, len(times), encoder.width), num_samples
        assert columns.isfinite().all(), num_samples


def times_lie_inside(encoder: WaveEncoder) -> None:
    """Float64 seconds, increasing, inside the piece; a longer piece has at least as many."""
    counts = []
    for num_samples in lengths(encoder):
        times = encoder.times(num_samples)
        assert times.dtype == torch.float64
        assert times.ndim == 1
        assert (times.diff() > 0).all(), num_samples
        assert times[0] >= 0, num_samples
        assert times[-1] <= num_samples / encoder.sample_rate, num_samples
        counts.append(len(times))
    assert counts[0] >= 1
    assert counts == sorted(counts)


def rows_are_independent(encoder: WaveEncoder) -> None:
    """A row alone is the row in a batch, whatever the others are, be they very loud."""
    num_samples = lengths(encoder)[-2:][0]
    batch = waves(encoder, 3, num_samples)
    batch[1] *= 8
    together = encoder.columns(batch)
    for row in range(3):
        assert difference(together[row], encoder.columns(batch[row : row + 1])[0]) < CLOSE
    other = batch.clone()
    other[1:] = waves(encoder, 2, num_samples, seed=1)
    assert difference(together[0], encoder.columns(other)[0]) < CLOSE


def ignores_random_seeds(encoder: WaveEncoder) -> None:
    """Two calls are equal bit for bit: no dropout, no augmentation, no random crop."""
    for num_samples in lengths(encoder):
        piece = waves(encoder, 1, num_samples)
        outputs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            outputs.append(encoder.columns(piece))
        assert torch.equal(*outputs), num_samples


def leaves_its_input_alone(encoder: WaveEncoder) -> None:
    """`columns` does not write into the waveforms."""
    piece = waves(encoder, 1, encoder.min_samples)
    before = piece.clone()
    encoder.columns(piece)
    assert torch.equal(piece, before)


def hears_its_input(encoder: WaveEncoder) -> None:
    """Another signal gives another output, at every length."""
    for num_samples in lengths(encoder):
        first, second = waves(encoder, 2, num_samples)
        columns = encoder.columns(first[None])
        assert difference(columns, encoder.columns(second[None])) > 100 * CLOSE, num_samples


def hears_loudness(encoder: WaveEncoder) -> None:
    """The same signal 12 dB louder gives another output.

    Not for an encoder whose front end takes the level out of every piece.
    """
    piece = waves(encoder, 1, encoder.piece_samples)
    assert difference(encoder.columns(piece), encoder.columns(4 * piece)) > 100 * CLOSE


def columns_follow_time(encoder: WaveEncoder) -> None:
    """A burst changes most the column whose time it is at, near the start and near the end.

    One column to each side, or the burst's own length, is allowed: a column sees some context.
    """
    num_samples = encoder.piece_samples
    times = encoder.times(num_samples)
    if len(times) < 4:
        return
    piece = waves(encoder, 1, num_samples)
    before = encoder.columns(piece)
    for fraction in (0.25, 0.75):
        length = num_samples // 20
        start = int(fraction * num_samples) - length // 2
        with_burst = piece.clone()
        with_burst[:, start : start + length] *= 20
        change = (encoder.columns(with_burst) - before).norm(dim=2)[0]  # (n,)
        allowed = max(float(times.diff().max()), length / encoder.sample_rate)
        centre = (start + length / 2) / encoder.sample_rate
        assert abs(float(times[int(change.argmax())]) - centre) <= 1.5 * allowed, fraction


def gives_the_layer_asked_for(encoder: WaveEncoder) -> None:
    """Layers count from both ends, all are of one shape and differ; others are refused."""
    piece = waves(encoder, 1, encoder.min_samples)
    last, first = encoder.columns(piece), encoder.columns(piece, layer=0)
    assert torch.equal(last, encoder.columns(piece, layer=encoder.num_layers - 1))
    assert torch.equal(first, encoder.columns(piece, layer=-encoder.num_layers))
    assert first.shape == last.shape
    if encoder.num_layers > 1:
        assert difference(last, first) > 100 * CLOSE
    for wrong in (encoder.num_layers, -encoder.num_layers - 1):
        with pytest.raises(ValueError, match=f"layer.*{wrong}"):
            encoder.columns(piece, layer=wrong)


def refuses_other_lengths(encoder: WaveEncoder) -> None:
    """A piece that is a sample too short or too long."""
    for wrong in (encoder.min_samples - 1, encoder.piece_samples + 1):
        allowed = f"{encoder.min_samples} to {encoder.piece_samples}"
        with pytest.raises(ValueError, match=f"a piece: got {wrong}, allowed: {allowed}"):
            encoder.columns(torch.zeros(1, wrong, device=device_of(encoder)))


CHECKS: list[Check] = [
    describes_itself,
    is_frozen,
    gives_columns_of_every_length,
    times_lie_inside,
    rows_are_independent,
    ignores_random_seeds,
    leaves_its_input_alone,
    hears_its_input,
    hears_loudness,
    columns_follow_time,
    gives_the_layer_asked_for,
    refuses_other_lengths,
]


def loads_strictly(
    make: Callable[[Path | None], WaveEncoder],
    encoder: WaveEncoder,
    state: Mapping[str, Tensor],
    folder: Path,
    *,
    wrap: Callable[[dict[str, Tensor]], Any] = dict,
) -> None:
    """A checkpoint in the published naming loads whole, or one error lists all that is wrong.

    Args:
        make: of the adapter, of a path.
        encoder: the one that `state` was taken from.
        state: its tensors under their published names.
        folder: to write checkpoints into.
        wrap: puts a state dict into what the published file holds, such as ``{"model": ...}``.
    """
    path = folder / "weights.pt"
    torch.save(wrap(dict(state)), path)
    loaded = make(path)
    piece = waves(encoder, 1, encoder.min_samples)
    assert torch.equal(loaded.columns(piece), encoder.columns(piece))
    is_frozen(loaded)

    names = [key for key, tensor in state.items() if tensor.ndim > 1]
    lost, bent = names[0], names[-1]
    wrong = {key: tensor for key, tensor in state.items() if key != lost}
    wrong[bent] = torch.cat([state[bent], state[bent]])
    wrong["of_another_model"] = torch.zeros(1)
    torch.save(wrap(wrong), path)
    with pytest.raises(ValueError) as error:
        make(path)
    lost = ".".join(lost.split(".")[-2:])  # a prefix of the file is unknown to the module
    for key in (lost, bent, "of_another_model", str(tuple(wrong[bent].shape))):
        assert key in str(error.value), key
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        make(folder / "absent.pt")

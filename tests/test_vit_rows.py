"""Our own ViT as rows of Table II: MATPAC, MATPAC++, M2D."""

import pytest
import tiny
import torch

from matpac.encoders.vit import ViTEncoder
from matpac.frozen import AudioEncoder, frames
from matpac.logmel import LogMel
from matpac.patches import patchify

CROP_SAMPLES = (tiny.CROP - 1) * 160 + 400
CLOSE = {"rtol": 0, "atol": 1e-5}
"""Sums in another order, of values of order 1."""


def small(*, reflect: int = 0) -> ViTEncoder:
    torch.manual_seed(0)
    net = AudioEncoder(tiny.run().model, tiny.FRONT_END, mean=-8.0, std=4.0)
    for parameter in net.encoder.parameters():  # biases and norms too
        torch.nn.init.normal_(parameter, std=0.3)
    return ViTEncoder(net, reflect=reflect)


def waves(num_samples: int, *, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(seed))


def test_sizes_of_a_piece() -> None:
    encoder = small()
    assert encoder.sample_rate == 16000 and encoder.width == 2 * 16 and encoder.num_layers == 2
    assert encoder.min_samples == 400 and encoder.reflect == 0
    assert encoder.piece_hop == 32 * 160
    assert encoder.piece_samples == CROP_SAMPLES
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("num_samples", [400, 559, 560, 2000, CROP_SAMPLES])
@pytest.mark.parametrize("layer", [0, 1, -1, -2])
def test_columns_are_the_frozen_encoders(num_samples: int, layer: int) -> None:
    encoder, piece = small(), waves(num_samples)
    latents = encoder.net(LogMel(**tiny.FRONT_END)(piece))  # (B, L, R, n, D)
    torch.testing.assert_close(
        encoder.columns(piece, layer=layer), frames(latents)[:, layer], **CLOSE
    )


def test_pieces_of_a_clip_have_the_frames_of_the_whole_clip() -> None:
    encoder, clip = small(), waves(3 * 32 * 160 + 1000)
    pieces = [
        clip[:, start : start + encoder.piece_samples]
        for start in range(0, clip.shape[1] - encoder.min_samples + 1, encoder.piece_hop)
    ]
    assert len(pieces) == 4
    whole = frames(encoder.net(LogMel(**tiny.FRONT_END)(clip)))[:, -1]
    ours = torch.cat([encoder.columns(piece) for piece in pieces], dim=1)
    torch.testing.assert_close(ours, whole, **CLOSE)


def test_times_are_centres_of_columns() -> None:
    encoder = small()
    # Patches of 8 frames: the middle is 3.5 hops of 10 ms after the first window's, at 12.5 ms.
    expected = torch.tensor([0.0475, 0.1275, 0.2075, 0.2875], dtype=torch.float64)
    torch.testing.assert_close(encoder.times(CROP_SAMPLES), expected, rtol=0, atol=1e-12)
    for num_samples in (400, 400 + 7 * 160, 400 + 8 * 160, 3000):
        columns = encoder.columns(waves(num_samples)).shape[1]
        assert len(encoder.times(num_samples)) == columns


def test_a_click_shows_first_in_the_column_of_its_time() -> None:
    encoder = small()
    click = torch.zeros(1, CROP_SAMPLES)
    at = int(encoder.times(CROP_SAMPLES)[2] * 16000)
    click[0, at] = 1
    # Without attention a column sees its own patch only.
    tokens = encoder.net.patches.proj(_patches(encoder, click) - _patches(encoder, 0 * click))
    change = tokens.abs().sum(dim=(0, 1, 3))
    assert change.argmax() == 2


def _patches(encoder: ViTEncoder, wave: torch.Tensor) -> torch.Tensor:
    """(1, R, n, P*P)."""
    return patchify(encoder.front_end(wave), 8).unflatten(1, (2, -1))


@pytest.mark.parametrize("num_samples", [399, CROP_SAMPLES + 1])
def test_lengths_that_are_not_taken(num_samples: int) -> None:
    with pytest.raises(ValueError, match=rf"got {num_samples}, allowed: 400 to {CROP_SAMPLES}"):
        small().columns(waves(num_samples))


@pytest.mark.parametrize("layer", [2, -3])
def test_layers_that_there_are_not(layer: int) -> None:
    with pytest.raises(ValueError, match=rf"layer: got {layer}, allowed: -2 to 1"):
        small().columns(waves(400), layer=layer)


def test_inner_layers_do_not_compute_the_later_ones() -> None:
    encoder = small()
    encoder.net.encoder.blocks[1].register_forward_hook(lambda *_: pytest.fail("block 1 ran"))
    encoder.columns(waves(400), layer=0)

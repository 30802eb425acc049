"""Patches, their positions and the tokens made of both."""

import math

import numpy as np
import pytest
import tiny
import torch

from matpac.method.patches import PatchEmbedding, patch_grid, patchify, sincos_positions


def embedding(*, learned: bool = False) -> PatchEmbedding:
    """A grid of 2 rows and 3 columns of patches of 2, width 8."""
    torch.manual_seed(0)
    positions = "learned" if learned else "sincos"
    model = {"crop_frames": 6, "patch_size": 2, "encoder_width": 8, "positions": positions}
    return PatchEmbedding(tiny.run(model=model).model, 4)


def test_patch_grid() -> None:
    assert patch_grid(80, 608, 16) == (5, 38)
    with pytest.raises(ValueError, match="num_frames: got 600, allowed: positive multiples of 16"):
        patch_grid(80, 600, 16)
    with pytest.raises(ValueError, match="num_mels: got 0"):
        patch_grid(0, 608, 16)


def test_patches_are_frequency_major_and_mel_major_inside() -> None:
    logmel = torch.arange(24.0).reshape(1, 4, 6)  # bin f, frame t holds 6 f + t
    patches = patchify(logmel, 2)
    assert patches[0].tolist() == [
        [0, 1, 6, 7],
        [2, 3, 8, 9],
        [4, 5, 10, 11],
        [12, 13, 18, 19],
        [14, 15, 20, 21],
        [16, 17, 22, 23],
    ]


def test_sincos_table_by_hand() -> None:
    table = sincos_positions(2, 3, 8)  # w = 1, 10000^(-1/2) = 0.01
    assert table.shape == (7, 8)
    assert table[0].tolist() == [0] * 8  # the class token's
    sin, cos = math.sin, math.cos
    row1_column2 = [sin(2), sin(0.02), cos(2), cos(0.02), sin(1), sin(0.01), cos(1), cos(0.01)]
    np.testing.assert_allclose(table[1 + 5], row1_column2, rtol=1e-6)  # float32 of float64
    np.testing.assert_allclose(table[1], [0, 0, 1, 1, 0, 0, 1, 1])


def test_sincos_table_is_computed_in_double_precision() -> None:
    table = sincos_positions(1, 4000, 8)
    # In float32 the angle 3999 * 0.01 alone is off by 1e-6; rounding the result once is 3e-8.
    assert table[4000, 1].item() == pytest.approx(math.sin(39.99), abs=6e-8)


@pytest.mark.parametrize("chosen", [None, [[5, 0, 3], [1, 2, 4]]])
def test_tokens_are_projection_plus_position(chosen: list | None) -> None:
    patches = embedding()
    logmel = torch.randn(2, 4, 6)
    indices = None if chosen is None else torch.tensor(chosen)
    tokens = patches(logmel, indices).detach().numpy()
    weight, bias = patches.proj.weight.detach().numpy(), patches.proj.bias.detach().numpy()
    table = patches.positions.detach().numpy()
    for clip in range(2):
        np.testing.assert_array_equal(tokens[clip, 0], patches.cls_token[0, 0].detach().numpy())
        order = range(6) if chosen is None else chosen[clip]
        for place, patch in enumerate(order):
            row, column = divmod(patch, 3)
            tile = logmel[clip, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].numpy()
            expected = weight @ tile.flatten() + bias + table[1 + patch]
            np.testing.assert_allclose(tokens[clip, 1 + place], expected, rtol=0, atol=1e-6)


def test_short_pieces_use_the_left_part_of_the_grid() -> None:
    patches = embedding()
    for parameter in patches.proj.parameters():
        torch.nn.init.zeros_(parameter)
    tokens = patches(torch.randn(1, 4, 4))  # two of three columns
    # Row 1 of the cut grid starts at patch 3, not at patch 2 as a flat slice would have it.
    torch.testing.assert_close(tokens[0, 1:], patches.positions[[1, 2, 4, 5]], rtol=0, atol=0)


def test_the_class_token_gets_position_zero() -> None:
    patches = embedding(learned=True)
    patches.positions.data[0] = 3.0
    tokens = patches(torch.randn(1, 4, 6))
    torch.testing.assert_close(tokens[0, 0], patches.cls_token[0, 0] + 3.0)


@pytest.mark.parametrize("learned", [True, False])
def test_only_learned_positions_are_trained(learned: bool) -> None:
    patches = embedding(learned=learned)
    patches(torch.randn(1, 4, 6), torch.tensor([[4, 1]])).sum().backward()
    if not learned:
        assert patches.positions.grad is None and not patches.positions.requires_grad
        return
    touched = patches.positions.grad.abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [0, 2, 5]  # the class token's and 1 + chosen

"""Random masks."""

import numpy as np
import pytest
import torch

from matpac.method.masking import num_visible, random_mask


def noise(seed: int, clips: int = 50, patches: int = 190) -> torch.Tensor:
    return torch.rand(clips, patches, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    # 190 * (1 - 0.8) is 37.99... and 190 * (1 - 0.9) is 18.99... in double arithmetic.
    [(190, 0.7, 57), (190, 0.8, 37), (190, 0.9, 18), (190, 0.75, 47), (190, 0.5, 95), (8, 0.6, 3)],
)
def test_number_of_visible_patches(patches: int, ratio: float, visible: int) -> None:
    assert num_visible(patches, ratio) == visible
    mask = random_mask(noise(0, 2, patches), ratio)
    assert mask.visible.shape == (2, visible) and mask.masked.shape == (2, patches - visible)


def test_the_smallest_noise_stays_visible_in_order() -> None:
    mask = random_mask(torch.tensor([[0.3, 0.1, 0.9, 0.5], [0.2, 0.8, 0.0, 0.4]]), 0.5)
    assert mask.visible.tolist() == [[1, 0], [2, 0]]
    assert mask.masked.tolist() == [[3, 2], [3, 1]]


def test_equal_noise_keeps_the_order_of_patches() -> None:
    mask = random_mask(torch.zeros(1, 40), 0.5)  # an unstable sort shuffles ties of this size
    assert mask.visible.tolist() == [list(range(20))]
    assert mask.masked.tolist() == [list(range(20, 40))]


def test_a_mask_is_a_partition() -> None:
    mask = random_mask(noise(1), 0.7)
    both = torch.cat([mask.visible, mask.masked], dim=1)
    assert (both.sort(dim=1).values == torch.arange(190)).all()


def test_every_patch_is_hidden_about_equally_often() -> None:
    mask = random_mask(noise(3, clips=2000, patches=20), 0.7)
    hidden = np.bincount(mask.masked.flatten().numpy(), minlength=20) / 2000
    # Standard deviation sqrt(.7 * .3 / 2000) = 0.010; 5 of them.
    np.testing.assert_allclose(hidden, 0.7, atol=0.051)


@pytest.mark.parametrize(("ratio", "visible"), [(0.9, 0), (0.0, 8)])
def test_nothing_visible_or_nothing_masked_is_refused(ratio: float, visible: int) -> None:
    with pytest.raises(ValueError, match=f"mask_ratio: got {ratio}, .*leaves {visible} of 8"):
        random_mask(noise(0, 1, 8), ratio)

"""The predictor: which patch it predicts follows from the mask, not from the order of tokens."""

import numpy as np
import pytest
import tiny
import torch

from matpac.method.masking import Mask
from matpac.method.predictor import Predictor

MASK = Mask(
    visible=torch.tensor([[1, 4, 5], [0, 2, 3]]), masked=torch.tensor([[3, 0, 2], [5, 4, 1]])
)
CLOSE = {"rtol": 0, "atol": 2e-6}  # float32 sums in another order


def make_predictor(*, hypotheses: int = 1) -> Predictor:
    torch.manual_seed(0)
    sizes = {"encoder_width": 8, "predictor_width": 12, "predictor_depth": 2, "predictor_heads": 2}
    objective = {"choice_temp": [0.1, 1e-4], "choice_temp_decay": 0.9}
    model = sizes | {"encoder_heads": 2, "mlp_ratio": 4.0, "hypotheses": hypotheses}
    return Predictor(tiny.run(model=model, objective=objective).model, 2, 3)


@pytest.fixture
def latents() -> torch.Tensor:
    """Class token and three visible patches of two clips."""
    return torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))


def test_the_order_of_visible_patches_does_not_matter(latents: torch.Tensor) -> None:
    predictor = make_predictor()
    order = torch.tensor([2, 0, 1])
    shuffled = torch.cat([latents[:, :1], latents[:, 1:][:, order]], dim=1)
    mask = Mask(MASK.visible[:, order], MASK.masked)
    torch.testing.assert_close(predictor(shuffled, mask), predictor(latents, MASK), **CLOSE)


def test_predictions_come_in_the_order_of_the_mask(latents: torch.Tensor) -> None:
    predictor = make_predictor()
    expected = predictor(latents, MASK)
    order = torch.tensor([1, 2, 0])
    ours = predictor(latents, Mask(MASK.visible, MASK.masked[:, order]))
    torch.testing.assert_close(ours, expected[:, order], **CLOSE)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3  # so that the order is visible


def test_where_a_visible_patch_lies_matters(latents: torch.Tensor) -> None:
    predictor = make_predictor()
    moved = Mask(MASK.visible.roll(1, dims=1), MASK.masked)
    difference = predictor(latents, moved) - predictor(latents, MASK)
    assert difference.abs().max() > 1e-4


def test_without_its_blocks_it_projects_mask_token_plus_position(latents: torch.Tensor) -> None:
    predictor = make_predictor()
    for block in predictor.encoder.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
    ours = predictor(latents, MASK)[:, :, 0].detach().numpy()
    token = predictor.mask_token.detach().numpy()[0, 0]
    table = predictor.positions.numpy()
    weight, bias = (p.detach().numpy() for p in (predictor.project.weight, predictor.project.bias))
    for clip, patches in enumerate(MASK.masked.tolist()):
        for place, patch in enumerate(patches):
            x = token + table[1 + patch]
            normal = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
            np.testing.assert_allclose(ours[clip, place], weight @ normal + bias, atol=2e-6)


def test_predictions_depend_on_visible_latents_and_class_token(latents: torch.Tensor) -> None:
    predictor = make_predictor()
    latents.requires_grad_()
    predictor(latents, MASK)[0].square().sum().backward()
    sizes = latents.grad.abs().amax(dim=2)
    assert (sizes[0] > 1e-4).all()
    assert not sizes[1].any()  # clips do not see each other
    assert predictor.mask_token.grad.any()


def test_hypotheses_are_layers_of_their_own_on_the_same_output(latents: torch.Tensor) -> None:
    predictor = make_predictor(hypotheses=3)
    weights, biases = (each.chunk(3) for each in (predictor.project.weight, predictor.project.bias))
    # Each drawn from Xavier's range for (12, 8), not for (12, 24).
    assert all(0.5 < weight.abs().max() <= (6 / 20) ** 0.5 for weight in weights)
    predictions = predictor(latents, MASK)
    assert predictions.shape == (2, 3, 3, 8)
    predictor.hypotheses = 1
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        predictor.project.weight.data, predictor.project.bias.data = weight.data, bias.data
        alone = predictor(latents, MASK)[:, :, 0]
        torch.testing.assert_close(alone, predictions[:, :, number], **CLOSE)

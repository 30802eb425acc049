"""The ViT against independent NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from matpac.method.encoder import MLP, Attention, Block, Encoder


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def numpy_attention(attention: Attention, x: np.ndarray) -> np.ndarray:
    """Softmax attention, head by head; q, k, v are the thirds of qkv."""
    width = x.shape[-1]
    query, key, value = np.split(linear(attention.qkv, x), 3, axis=-1)
    size = width // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].swapaxes(-1, -2) / np.sqrt(size)
        weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        heads.append(weights @ value[..., part])
    return linear(attention.proj, np.concatenate(heads, axis=-1))


def numpy_norm(layer: torch.nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return normal * array(layer.weight) + array(layer.bias)


def numpy_mlp(mlp: MLP, x: np.ndarray) -> np.ndarray:
    hidden = linear(mlp.fc1, x)
    return linear(mlp.fc2, hidden * (1 + erf(hidden / np.sqrt(2))) / 2)


def numpy_block(block: Block, x: np.ndarray) -> np.ndarray:
    x = x + numpy_attention(block.attn, numpy_norm(block.norm1, x))
    return x + numpy_mlp(block.mlp, numpy_norm(block.norm2, x))


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """All parameters drawn anew, so that no bias is zero and no norm weight one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


def test_norms_use_an_epsilon_of_1e_6() -> None:
    small = torch.tensor([[[1e-3, -1e-3, 1e-3, -1e-3]]])  # variance 1e-6
    for norm in (Block(4, 1, 2.0).norm1, Block(4, 1, 2.0).norm2, Encoder(4, 1, 1).norm):
        assert norm(small)[0, 0, 0].item() == pytest.approx(2**-0.5, rel=1e-5)


def test_encoder_is_its_blocks_and_a_norm(tokens: torch.Tensor) -> None:
    encoder = randomised(Encoder(12, 3, 3, mlp_ratio=1.5))
    assert encoder.blocks[0].mlp.fc1.out_features == 18
    expected = array(tokens)
    for block in encoder.blocks:
        expected = numpy_block(block, expected)
    expected = numpy_norm(encoder.norm, expected)
    np.testing.assert_allclose(array(encoder(tokens)), expected, rtol=5e-6, atol=5e-6)


def test_initial_weights_are_xavier_uniform() -> None:
    torch.manual_seed(0)
    encoder = Encoder(64, 1, 2, mlp_ratio=4.0)
    linears = [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 4
    for layer in linears:
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        largest = layer.weight.abs().max().item()
        assert 0.98 * bound < largest <= bound  # of 4096 draws or more
        assert not layer.bias.any()

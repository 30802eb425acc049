"""Products in oneDNN are float32 products: values and gradients against float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from matpac.core import products

SHAPES = [
    pytest.param((2, 133, 768), 3072, id="MLP of the teacher"),
    pytest.param((2, 58, 3072), 768, id="MLP of the student"),
    pytest.param((2, 191, 512), 1536, id="attention of the predictor"),
    pytest.param((2, 57, 256), 256, id="patches"),
    pytest.param((266, 256), 2048, id="prototypes"),
    pytest.param((3, 1, 7), 5, id="odd"),
    pytest.param((11,), 3, id="one vector"),
]


def operands(shape: tuple[int, ...], out: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs, weight and bias, with gradient."""
    random = torch.Generator().manual_seed(0)
    sizes = (shape, (out, shape[-1]), (out,))
    made = [torch.randn(size, generator=random, dtype=torch.float32) for size in sizes]
    return [each.to(dtype).requires_grad_() for each in made]


def outcome(function, given: list[Tensor]) -> list[Tensor]:
    """Value and gradients, in double."""
    value = function(*given)
    weights = torch.rand(value.shape, generator=torch.Generator().manual_seed(1)).to(value)
    gradients = torch.autograd.grad((value * weights).sum(), given)
    return [each.detach().double() for each in (value, *gradients)]


@pytest.mark.parametrize(("shape", "out"), SHAPES)
def test_values_and_gradients_have_the_precision_of_float32(shape, out) -> None:
    """bfloat16, which oneDNN could use instead, would be wrong by 1e-3 and more."""
    ours = outcome(products.linear, operands(shape, out))
    exact = outcome(F.linear, operands(shape, out, torch.float64))
    for one, other in zip(ours, exact, strict=True):
        assert (one - other).abs().max() <= 5e-6 * other.abs().max()


def test_the_product_comes_from_onednn_where_it_can() -> None:
    inputs, weight, bias = operands((4, 6), 5)
    value = products.linear(inputs, weight, bias)
    assert ("_Linear" in value.grad_fn.name()) == products._AVAILABLE
    for other in (torch.float64, torch.bfloat16):
        value = products.linear(*operands((4, 6), 5, other))
        assert value.dtype == other and "AddmmBackward" in value.grad_fn.name()
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(inputs, weight, bias).dtype == torch.bfloat16
    assert products.linear(inputs.to("meta"), weight.to("meta")).shape == (4, 5)
    assert products.linear(inputs[:0], weight, bias).shape == (0, 5)
    for inner, large in ((512, True), (511, False)):  # small layers stay as torch has them
        value = products.layer(*operands((2, inner), 512))
        assert ("_Linear" in value.grad_fn.name()) == (large and products._AVAILABLE)


def test_gradients_only_where_they_are_wanted() -> None:
    inputs, weight, bias = operands((4, 6), 5)
    products.linear(inputs.detach(), weight, bias.detach()).sum().backward()
    assert inputs.grad is None and bias.grad is None
    torch.testing.assert_close(weight.grad, inputs.detach().sum(0).expand(5, 6))


def test_without_bias_and_from_views() -> None:
    """Slices and transposes are read where they lie."""
    inputs, weight, _ = operands((4, 9, 6), 5)
    part, flipped = inputs[:, -3:], weight.T.contiguous().T
    torch.testing.assert_close(products.linear(part, flipped), part @ weight.T)
    exact = outcome(lambda x, w: F.linear(x[:, -3:], w), [inputs.double(), weight.double()])
    ours = outcome(lambda x, w: products.linear(x[:, -3:], w), [inputs, weight])
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_layer_is_torchs_with_another_product() -> None:
    torch.manual_seed(0)
    ours = products.Linear(6, 5)
    torch.manual_seed(0)
    theirs = nn.Linear(6, 5)
    assert list(ours.state_dict()) == ["weight", "bias"]
    inputs = torch.randn(3, 6)
    torch.testing.assert_close(ours(inputs), theirs(inputs))
    large, values = products.Linear(512, 512), operands((2, 512), 512)
    large.load_state_dict({"weight": values[1], "bias": values[2]})
    assert torch.equal(large(values[0]), products.layer(*values))
    assert gradcheck(ours.double(), (inputs.double().requires_grad_(),))

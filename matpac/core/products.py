"""Float32 matrix products on a CPU by the faster of the two libraries that torch carries.

torch gives float32 products to MKL, which on AMD's processors leaves half the width of AVX-512
unused and is slower with AVX2, too, and only bfloat16 ones to oneDNN. The numbers are float32's
from either, summed in another order; docs/performance.md has the times. On any other device, in any
other precision, compiled, or on other processors, `linear` is `torch.nn.functional.linear`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

FEWEST_WEIGHTS = 2**18
"""Of a layer that gains much: 512 x 512. Small networks gain little and stay as torch has them."""


class Linear(nn.Linear):
    """`torch.nn.Linear` whose product is that of `layer`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return layer(inputs, self.weight, self.bias)


def layer(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` where it pays, `torch.nn.functional.linear` for small weights."""
    product = linear if weight.numel() >= FEWEST_WEIGHTS else F.linear
    return product(inputs, weight, bias)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs @ weight.T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    plain = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if plain or not all(map(_suited, (inputs, weight))):
        return F.linear(inputs, weight, bias)
    return _Linear.apply(inputs, weight, bias)


def _suited(tensor: Tensor) -> bool:
    on_cpu = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return on_cpu and tensor.numel() > 0 and _AVAILABLE


_CAPABILITY = torch.backends.cpu.get_cpu_capability()
_AMD = "AMD" in torch.cpu.get_capabilities().get("cpu_name", "")
_AVAILABLE = (_CAPABILITY == "AVX512" or (_CAPABILITY == "AVX2" and _AMD)) and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)
"""By vendor and instructions, not by a timing, so that a machine's numbers are always the same."""


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer in oneDNN, without a function after it."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])  # (n, out)
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if of_inputs else None,
            _product(rows.T, inputs.reshape(len(rows), -1).T) if of_weight else None,  # (out, in)
            rows.sum(dim=0) if of_bias else None,
        )

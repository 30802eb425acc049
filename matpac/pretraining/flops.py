"""What an update computes per clip, counted from the sizes of the model.

Work is counted as it is in this field: two floating-point operations per multiplication in a matrix
product, nothing for what is done number by number (norms, GELU, softmax, averages, optimiser), and
nothing for what a kernel or activation checkpointing computes a second time. So it is the same on
every machine, and dividing it by time gives the rate that papers report.

Shapes: per clip, N patches = V visible + M masked, D encoder width, E predictor width, K
prototypes.
"""

from dataclasses import dataclass

from matpac.method.config import ModelConfig
from matpac.method.masking import num_visible
from matpac.method.patches import patch_grid
from matpac.pretraining.config import ResolvedRun


@dataclass(frozen=True)
class Work:
    """Floating-point operations in matrix products."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> "Work":
        return Work(times * self.forward, times * self.backward)

    @property
    def total(self) -> int:
        """Both passes."""
        return self.forward + self.backward

    def frozen(self) -> "Work":
        """The same without a backward pass."""
        return Work(self.forward)


@dataclass(frozen=True)
class Tokens:
    """How many tokens of a clip go where."""

    visible: int
    """V."""
    masked: int
    """M."""

    @classmethod
    def of(cls, model: ModelConfig, num_mels: int) -> "Tokens":
        """Of one training crop."""
        rows, columns = patch_grid(num_mels, model.crop_frames, model.patch_size)
        visible = num_visible(rows * columns, model.mask_ratio)
        return cls(visible, rows * columns - visible)


def linear(tokens: int, inputs: int, outputs: int, *, gradients: int = 2) -> Work:
    """A matrix product; the backward pass has one as large per gradient: of input and weight."""
    flops = 2 * tokens * inputs * outputs
    return Work(flops, gradients * flops)


def block(tokens: int, width: int, hidden: int) -> Work:
    """Attention and MLP of a `matpac.method.encoder.Block`."""
    layers = linear(tokens, width, 3 * width) + linear(tokens, width, width)
    scores = mixing = linear(tokens, width, tokens)  # all heads together
    mlp = linear(tokens, width, hidden) + linear(tokens, hidden, width)
    return layers + scores + mixing + mlp


def encoder(tokens: int, width: int, depth: int, mlp_ratio: float) -> Work:
    """A stack of blocks."""
    return block(tokens, width, int(width * mlp_ratio)) * depth


def head(tokens: int, model: ModelConfig) -> Work:
    """Three linear layers and the product with the prototypes."""
    width, hidden, bottleneck = model.encoder_width, model.head_hidden, model.head_bottleneck
    layers = linear(tokens, width, hidden) + linear(tokens, hidden, hidden)
    return (
        layers
        + linear(tokens, hidden, bottleneck)
        + linear(tokens, bottleneck, model.num_prototypes)
    )


def work(run: ResolvedRun, num_mels: int) -> dict[str, Work]:
    """Part of the networks -> what it computes for one clip in one update."""
    model = run.model
    tokens = Tokens.of(model, num_mels)
    visible, masked = tokens.visible, tokens.masked
    width, depth, inner = model.encoder_width, model.encoder_depth, model.predictor_width
    patch = model.patch_size**2
    # The log-mels need no gradient.
    embedding = linear(visible, patch, width, gradients=1)
    own_head = head(masked, model)
    predictor = encoder(1 + visible + masked, inner, model.predictor_depth, model.mlp_ratio)
    project = linear(masked, inner, model.hypotheses * width)
    teacher = linear(masked, patch, width) + encoder(1 + masked, width, depth, model.mlp_ratio)
    return {
        "student": embedding + encoder(1 + visible, width, depth, model.mlp_ratio),
        "predictor": linear(1 + visible, width, inner) + predictor + project,
        "student's head": own_head.frozen() if run.objective.alpha == 1 else own_head,
        "teacher": teacher.frozen(),
        "teacher's head": head(masked, model).frozen(),
    }


def per_clip(run: ResolvedRun, num_mels: int) -> int:
    """All work for one clip."""
    return sum(part.total for part in work(run, num_mels).values())

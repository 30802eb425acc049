"""The sections ``pretrain`` and ``runs`` of ``params.yaml``; a run is an overlay of them."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from matpac.core.section import (
    Common,
    Fraction,
    Name,
    Natural,
    NaturalFloat,
    OpenFraction,
    Positive,
    PositiveFloat,
    Section,
    parse,
)
from matpac.method.config import ModelConfig, ObjectiveConfig

COURSE = "course"
"""Folder, in that of a run's encoder, of those that were kept on the way."""


class PretrainConfig(Section):
    """Optimisation (MATPAC Sec. IV-A)."""

    idle: ClassVar[frozenset[str]] = frozenset(
        {
            "activation_checkpointing",
            "checkpoint_every_s",
            "compile",
            "encoders_at",
            "keep_checkpoints",
            "micro_batch_size",
            "on_collapse",
            "tensorboard",
            "workers",
        }
    )

    epochs: PositiveFloat
    warmup_epochs: NaturalFloat
    batch_size: Positive
    """Clips per optimiser step over all processes."""
    learning_rate: PositiveFloat
    """Peak of the schedule."""
    scale_learning_rate: bool
    """True: learning_rate is for a batch of 256 and scales with batch_size (M2D, DINO)."""
    betas: Annotated[list[OpenFraction], Field(min_length=2, max_length=2)]
    eps: PositiveFloat
    weight_decay: NaturalFloat
    decay_norms_and_biases: bool
    """True: weight decay on every trainable tensor, as released; False: matrices only."""
    clip_norm: PositiveFloat
    """Largest global norm of the gradient."""
    encoder_ema_decay: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    """First and last value, linear over training."""
    head_ema_decay: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    precision: Literal["float32", "bfloat16", "float16"]
    """Of the forward and backward passes (autocast); the weights stay float32.

    float16, as the released code trains, scales the loss; updates that overflow are skipped.
    """
    micro_batch_size: Positive | None = None
    """Clips per process that go through the networks at once; None: all of the process's part.

    Smaller ones need less memory and give the same update.
    """
    activation_checkpointing: bool = False
    """True: blocks are computed again in the backward pass instead of kept: less memory, slower."""
    compile: bool = False
    """True: the networks are compiled by torch.compile. Does not pay on a CPU."""
    teacher_copies_student: bool
    """False: the teacher starts from a draw of its own, as released and M2D; True: DINO."""
    same_masks_on_all_ranks: bool
    """True: the released code's masks, alike on every process; False: all differ."""
    threads: Positive | None = None
    """Of the processor, for a training without a GPU; None: as many as it has cores. With a number
    the seeds of a run train side by side, as many as there are cores for. Decides last digits."""
    workers: Natural
    """Loader processes per training process; 0 reads in the training process."""
    diagnostics_every: Positive
    """Steps between two measurements of the collapse diagnostics."""
    checkpoint_every_s: NaturalFloat
    """Seconds between two training states on disk."""
    keep_checkpoints: Positive
    on_collapse: Literal["warn", "stop"] = "warn"
    """When the diagnostics cross the thresholds of `matpac.pretraining.alarm`: say so, or stop."""
    tensorboard: bool = False
    """True: live curves, too, beside the training states; needs the extra of that name."""
    seed: Natural
    """Initial weights, data order, crops and masks."""
    encoders_at: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=list)
    """Fractions of training after which the encoder is kept, too, for the learning curve."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs is larger than epochs")
        return self


class Run(Section):
    """One pretraining: only what differs from the base sections."""

    label: str | None = None
    """Its name as a row of Table II; None: not a row there."""
    reported: str | None = None
    """The row of the paper that it is compared with, as `matpac.reporting.paper.TABLE2` has it."""
    seeds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """Trained once per seed; None: the seed of the pretrain section."""
    model: dict[str, Any] = Field(default_factory=dict)
    objective: dict[str, Any] = Field(default_factory=dict)
    pretrain: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}, allowed: each once")
        return self

    def deciding(self) -> dict[str, Any]:
        """As of a section: idle keys of an overlay decide nothing, either."""
        kept = {key: v for key, v in self.pretrain.items() if key not in PretrainConfig.idle}
        return super().deciding() | {"pretrain": kept}


class PretrainParams(Common):
    """Sections of the ``pretrain`` stage."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    """Name -> overlay; ``base`` is the reference of every comparison."""


class ResolvedRun(Section):
    """A run with its overlay applied: everything that decides its weights, but data and code."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model.hypotheses > 1 and self.objective.choice_temp is None:
            raise ValueError(
                f"objective.choice_temp: missing, and model.hypotheses is {self.model.hypotheses}"
            )
        return self


def resolve(params: PretrainParams, run: str, *, seed: int | None = None) -> ResolvedRun:
    """The base sections with the overlay of ``run`` (and ``seed``, if given) applied.

    Raises: ValueError naming an unknown run, or listing what is bad in the overlay.
    """
    if run not in params.runs:
        raise ValueError(f"run: got {run!r}, allowed: {', '.join(params.runs)}")
    merged: dict[str, dict[str, Any]] = {}
    for section in ResolvedRun.model_fields:
        merged[section] = getattr(params, section).model_dump() | getattr(params.runs[run], section)
    if seed is not None:
        merged["pretrain"]["seed"] = seed
    return parse(ResolvedRun, merged, source=f"runs.{run}")


def seeds(params: PretrainParams, run: str) -> list[int]:
    """The pretraining seeds of a run, in order. Raises: as `resolve`."""
    resolved = resolve(params, run)
    return params.runs[run].seeds or [resolved.pretrain.seed]

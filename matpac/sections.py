"""The sections of ``params.yaml`` as typed, frozen, documented objects.

Each stage of ``dvc.yaml`` reads some sections, and there is one class per stage that holds just
these (`FetchParams`, `LogmelParams`, ...); `Params` is the whole file. `matpac.config` reads and
validates them; editing either reruns every stage, so both stay thin.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from matpac.dataset_sections import DatasetConfig, DownloadsConfig
from matpac.probe_sections import EncoderConfig, ProbeConfig
from matpac.values import (
    Fraction,
    Name,
    Natural,
    NaturalFloat,
    OpenFraction,
    Positive,
    PositiveFloat,
    Section,
)


class LogmelConfig(Section):
    """The front end (MATPAC Sec. IV-A) and how its results are stored."""

    sample_rate: Positive
    """Hz; audio of any other rate is resampled."""
    window_ms: PositiveFloat
    hop_ms: PositiveFloat
    num_mels: Positive
    fmin_hz: NaturalFloat
    fmax_hz: PositiveFloat
    mean: float | None
    """Of the log-mel, natural log; None: measured on the pretraining corpora."""
    std: PositiveFloat | None
    """Of the log-mel; None: measured on the pretraining corpora."""
    max_bad_fraction: Fraction
    """The stage fails when more than this fraction of a data set's clips cannot be used."""
    workers: Natural
    """Processes; 0: one per core."""
    shard_mb: Positive
    """Megabytes per file of the store."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers prepare the data; None: this machine's cores."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if (self.mean is None) != (self.std is None):
            problems.append("mean and std are both numbers or both null")
        if not self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            problems.append("fmin_hz < fmax_hz <= sample_rate / 2 does not hold")
        for name in ("window_ms", "hop_ms"):
            samples = getattr(self, name) * self.sample_rate / 1000
            if samples < 1 or abs(samples - round(samples)) > 1e-6:
                problems.append(
                    f"{name} {getattr(self, name):g} is {samples:g} samples at {self.sample_rate} "
                    "Hz, allowed: a positive whole number of samples"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self


class ModelConfig(Section):
    """Sizes of student, predictor and head (MATPAC Sec. III and IV-A)."""

    crop_frames: Positive
    """Frames of one training crop and of one piece of a long clip."""
    patch_size: Positive
    """Frames, and mel bins, of a patch."""
    mask_ratio: OpenFraction
    """Fraction of patches hidden from the student."""
    positions: Literal["sincos", "learned"]
    """sincos: fixed 2-D table, as released; learned: what the paper's text says."""
    encoder_width: Positive
    encoder_depth: Positive
    encoder_heads: Positive
    predictor_width: Positive
    predictor_depth: Positive
    predictor_heads: Positive
    mlp_ratio: PositiveFloat
    head_hidden: Positive
    head_bottleneck: Positive
    num_prototypes: Positive
    """K, outputs of the classification head."""
    train_weight_g: bool
    """True: the norms of the prototypes are trained, as released; False: stay 1 (DINO)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.crop_frames % self.patch_size:
            problems.append("crop_frames is not a multiple of patch_size")
        for part in ("encoder", "predictor"):
            width, heads = getattr(self, f"{part}_width"), getattr(self, f"{part}_heads")
            if width % heads:
                problems.append(f"{part}_width {width} is not a multiple of {part}_heads {heads}")
            if width % 4:
                problems.append(f"{part}_width {width} is not a multiple of 4 (2-D positions)")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ObjectiveConfig(Section):
    """The two pretext tasks and how their collapse is avoided (MATPAC Sec. III)."""

    alpha: Fraction
    """Weight of the prediction loss; 1 - alpha weighs the classification loss (Eq. (5))."""
    student_temp: PositiveFloat
    teacher_temp_start: PositiveFloat
    teacher_temp: PositiveFloat
    """Reached, linearly, after the ramp."""
    teacher_temp_ramp_epochs: NaturalFloat
    sharpening: bool
    """False: the teacher's temperature is the student's."""
    centering: Literal["probabilities", "logits", "none"]
    """What the centre averages: teacher probabilities as released, logits as DINO, or off."""
    center_momentum: Fraction


class PretrainConfig(Section):
    """Optimisation (MATPAC Sec. IV-A)."""

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
    workers: Natural
    """Loader processes per training process; 0 reads in the training process."""
    diagnostics_every: Positive
    """Steps between two measurements of the collapse diagnostics."""
    checkpoint_every_s: NaturalFloat
    """Seconds between two training states on disk."""
    keep_checkpoints: Positive
    on_collapse: Literal["warn", "stop"] = "warn"
    """When the diagnostics cross the thresholds of `matpac.alarm`: say so, or stop the run."""
    seed: Natural
    """Initial weights, data order, crops and masks."""

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
    """The row that the paper reports which it is compared with, as `matpac.paper.TABLE2` has it."""
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


class Common(Section):
    """Read by every stage."""

    profile: Name
    """First part of every path and stage name."""
    storage: str | None
    """Folder for bulk data; None: ``data/``; the variable MATPAC_DATA overrides it."""


class LogmelParams(Common):
    """Sections of the ``logmel`` stage."""

    datasets: dict[Name, DatasetConfig]
    corpora: Annotated[dict[Name, PositiveFloat], Field(min_length=1)]
    """Pretraining data sets and how often each of their clips is seen per epoch."""
    tasks: Annotated[list[Name], Field(min_length=1)]
    """Data sets that are probed."""
    logmel: LogmelConfig


class FetchParams(LogmelParams):
    """Sections of the ``fetch`` stage."""

    downloads: DownloadsConfig = DownloadsConfig()


class PretrainParams(Common):
    """Sections of the ``pretrain`` stage."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    """Name -> overlay; ``base`` is the reference of every comparison."""


class ProbeParams(PretrainParams):
    """Sections of the ``probe`` stage."""

    datasets: dict[Name, DatasetConfig]
    """Where their audio lies, for encoders with a front end of their own."""
    tasks: Annotated[list[Name], Field(min_length=1)]
    encoders: dict[Name, EncoderConfig]
    probe: ProbeConfig
    downloads: DownloadsConfig = DownloadsConfig()
    """For the weights of published encoders."""


class Params(ProbeParams, FetchParams):
    """The whole of ``params.yaml``, and the sections of the ``figures`` stage."""


class ResolvedRun(Section):
    """A run with its overlay applied: everything that decides its weights, but data and code."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig

"""``params.yaml`` as typed, frozen, documented objects; the only reader of that file.

Each stage of ``dvc.yaml`` reads some sections, and there is one class per stage that holds just
these (`FetchParams`, `LogmelParams`, ...); `Params` is the whole file. A run is an overlay of only
what differs from the base (`Run`), resolved by `resolve`. Every problem found is listed in one
ValueError. ``python -m matpac.config`` validates the whole file; each stage's command does that
first, so nothing starts on a misspelt key.

This module is in the import closure of every stage (editing it reruns all): it stays thin.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NaturalFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
"""Names become folder names and DVC stage names: lower case, digits and underscores."""


class Section(BaseModel):
    """A mapping of ``params.yaml``: no unknown keys, no silent type conversion, no mutation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class EmbeddedDataset(Section):
    """A data set rendered by `matpac.corpus` on this machine."""

    source: Literal["embedded"]
    recipe: Name
    """Which of `matpac.corpus.RECIPES`."""
    num_clips: Positive
    """Clips in all, over all splits or folds."""
    seed: Natural
    """Decides every sample of every clip."""


class FolderDataset(Section):
    """A folder of audio files and a CSV that names them."""

    source: Literal["folder"]
    audio: str
    """Folder of wav/flac/ogg/mp3; ``~`` and ``$VARIABLES`` expand; relative to the root."""
    csv: str
    """The table, same rules."""
    filename: str = "filename"
    """Column with the file name, relative to ``audio``."""
    labels: str | list[str] | None = None
    """Column with the class name; or several 0/1 columns (blank: not observed); or none."""
    separator: str | None = None
    """Splits a single label column into several labels, e.g. ``","``."""
    kind: Literal["multiclass", "multilabel"] | None = None
    """What the labels are; None: the data set is only a pretraining corpus."""
    fold: str | None = None
    """Column with the fold, 1 to the number of folds."""
    split: str | None = None
    """Column with train, valid or test."""
    group: str | None = None
    """Column with the source recording: a validation part never shares one with training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind and self.labels is None:
            raise ValueError("kind is given, so labels (a column name) is needed")
        if self.kind and (self.fold is None) == (self.split is None):
            raise ValueError("a labelled data set needs either fold or split (a column name)")
        return self


DatasetConfig = Annotated[EmbeddedDataset | FolderDataset, Field(discriminator="source")]


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

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are both numbers or both null")
        if not self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise ValueError("fmin_hz < fmax_hz <= sample_rate / 2 does not hold")
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

    epochs: NaturalFloat
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
    precision: Literal["float32", "bfloat16"]
    """Of the forward and backward passes (autocast); the weights stay float32."""
    same_masks_on_all_ranks: bool
    """True: the released code's masks, alike on every process; False: all differ."""
    workers: Natural
    """Loader processes per training process; 0 reads in the training process."""
    diagnostics_every: Positive
    """Steps between two measurements of the collapse diagnostics."""
    checkpoint_every_s: NaturalFloat
    """Seconds between two training states on disk."""
    keep_checkpoints: Positive
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
    """How tables call it."""
    seeds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """Trained once per seed; None: the seed of the pretrain section."""
    model: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    pretrain: dict[str, Any] = {}


class EncoderConfig(Section):
    """An encoder that is probed but not trained here."""

    kind: Literal["random", "logmel_statistics"]
    """random: the base model at initialisation; logmel_statistics: mean and std per mel band."""
    label: str


class ProbeConfig(Section):
    """Linear evaluation (MATPAC Sec. IV-A)."""

    batch_size: Positive
    learning_rate: PositiveFloat
    epochs: Positive
    weight_decay: NaturalFloat
    standardize: bool
    """Features to zero mean and unit variance of the training part."""
    repeats: Positive
    valid_fraction: OpenFraction
    """Of the training folds' source recordings, where a k-fold task gives no validation part."""
    seed: Natural


class Common(Section):
    """Read by every stage."""

    profile: Name
    """First part of every path and stage name."""
    storage: str | None
    """Folder for bulk data; None: ``data/``; the variable MATPAC_DATA overrides it."""


class FetchParams(Common):
    """Sections of the ``fetch`` stage."""

    datasets: dict[Name, DatasetConfig]
    corpora: Annotated[dict[Name, PositiveFloat], Field(min_length=1)]
    """Pretraining data sets and how often each of their clips is seen per epoch."""
    tasks: Annotated[list[Name], Field(min_length=1)]
    """Data sets that are probed."""
    logmel: LogmelConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            f"{section} names {name!r}, which is not in datasets ({', '.join(self.datasets)})"
            for section in ("corpora", "tasks")
            for name in getattr(self, section)
            if name not in self.datasets
        ]
        for name in self.tasks:
            dataset = self.datasets.get(name)
            if isinstance(dataset, FolderDataset) and dataset.kind is None:
                problems.append(f"task {name!r} has no kind (multiclass or multilabel)")
        problems += [f"tasks names {n!r} twice" for n in set(self.tasks) if self.tasks.count(n) > 1]
        if problems:
            raise ValueError("; ".join(sorted(problems)))
        return self


class LogmelParams(FetchParams):
    """Sections of the ``logmel`` stage: those of ``fetch``."""


class PretrainParams(Common):
    """Sections of the ``pretrain`` stage."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig
    runs: Annotated[dict[Name, Run], Field(min_length=1)]
    """Name -> overlay; ``base`` is the reference of every comparison."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [] if "base" in self.runs else ["runs has no 'base'"]
        for name in self.runs:
            try:
                resolve(self, name)
            except ValueError as error:
                problems.append(f"runs.{name}: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class ProbeParams(PretrainParams):
    """Sections of the ``probe`` stage."""

    tasks: Annotated[list[Name], Field(min_length=1)]
    encoders: dict[Name, EncoderConfig]
    probe: ProbeConfig

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if both := sorted(set(self.runs) & set(self.encoders)):
            raise ValueError(f"named both in runs and in encoders: {', '.join(both)}")
        return self


class FiguresParams(ProbeParams):
    """Sections of the ``figures`` stage: those of ``probe``."""


class Params(FiguresParams, LogmelParams):
    """The whole of ``params.yaml``."""


Stage = TypeVar("Stage", bound=Common)


class ResolvedRun(Section):
    """A run with its overlay applied: everything that decides its weights, but data and code."""

    model: ModelConfig
    objective: ObjectiveConfig
    pretrain: PretrainConfig


def parse(stage: type[Stage], sections: dict[str, Any], *, source: str = "parameters") -> Stage:
    """Validates ``sections`` for one stage.

    Args:
        stage: the class that holds the stage's sections.
        sections: section name -> mapping, as in ``params.yaml``.
        source: what to call their origin in an error.
    Raises: ValueError listing every unknown, missing, mistyped or impossible entry.
    """
    try:
        return stage.model_validate(sections)
    except ValidationError as error:
        raise ValueError(f"{source}:\n" + "\n".join(_problems(error))) from None


def resolve(params: PretrainParams, run: str, *, seed: int | None = None) -> ResolvedRun:
    """The base sections with the overlay of ``run`` (and ``seed``, if given) applied.

    Raises: ValueError listing every bad entry of the overlay, or naming an unknown run.
    """
    if run not in params.runs:
        raise ValueError(f"runs: got {run!r}, allowed: {', '.join(params.runs)}")
    merged: dict[str, dict[str, Any]] = {}
    for section in ResolvedRun.model_fields:
        merged[section] = getattr(params, section).model_dump() | getattr(params.runs[run], section)
    if seed is not None:
        merged["pretrain"]["seed"] = seed
    try:
        return ResolvedRun.model_validate(merged)
    except ValidationError as error:
        raise ValueError("; ".join(line.strip() for line in _problems(error))) from None


def seeds(params: PretrainParams, run: str) -> list[int]:
    """The pretraining seeds of a run, in order."""
    return params.runs[run].seeds or [resolve(params, run).pretrain.seed]


def load(path: Path | None = None) -> Params:
    """Reads and validates a whole parameter file.

    Args: path: default ``root()/params.yaml``.
    Raises: FileNotFoundError; ValueError listing every problem.
    """
    path = path or root() / "params.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such parameter file")
    try:
        sections = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: got {type(sections).__name__}, allowed: a mapping of sections")
    return parse(Params, sections, source=str(path))


def root() -> Path:
    """The project: ``MATPAC_ROOT``, else the nearest folder upwards that holds ``dvc.yaml``.

    Raises: FileNotFoundError when there is none.
    """
    if given := os.environ.get("MATPAC_ROOT"):
        return Path(given).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {here} or above; set MATPAC_ROOT to the project")


def small(params: Common) -> Path:
    """Folder of what DVC tracks: manifests, indices, metrics, logs, encoders."""
    return root() / "data" / params.profile


def bulk(params: Common) -> Path:
    """Folder of audio, log-mel stores, training states and embeddings."""
    base = os.environ.get("MATPAC_DATA") or params.storage or "data"
    return root() / Path(os.path.expandvars(base)).expanduser() / params.profile


def digest(value: object) -> str:
    """A short SHA-256 of any JSON-able value or Section, independent of key order."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _problems(error: ValidationError) -> list[str]:
    """One readable line per problem: where, what is wrong, what was found."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key"
        elif problem["type"] == "missing":
            message = "missing"
        elif problem["type"] != "value_error":
            message += f", got {problem['input']!r}"
            if isinstance(problem["input"], str) and _is_number(problem["input"]):
                message += " (YAML reads a number like 1e-3 as text; write 1.0e-3)"
        lines += [f"  {where}: {part}" if where else f"  {part}" for part in message.split("\n")]
    return lines


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main() -> int:
    """Validates the parameter file named on the command line, or the project's own."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        load(path)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

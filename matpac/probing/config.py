"""What is probed, and how: the sections ``encoders`` and ``probe`` of ``params.yaml``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from matpac.core.section import (
    Name,
    Natural,
    NaturalFloat,
    OpenFraction,
    Positive,
    PositiveFloat,
    Section,
)
from matpac.data.config import DatasetConfig, DownloadsConfig
from matpac.encoders.published import ROWS
from matpac.pretraining.config import PretrainParams


class EncoderConfig(Section):
    """An encoder that is probed but not trained here."""

    kind: Literal["random", "logmel_statistics", "pretrained", "module", "hear", *ROWS]
    """random: the base model at initialisation; logmel_statistics: mean and std per mel band;
    pretrained: an encoder of ours; module: a function of the user's; hear: a module of the HEAR
    2021 API; the others: published rows (docs/encoders.md)."""
    label: str
    """Its name as a row of Table II."""
    weights: str | None = None
    """Of a published row or HEAR module, or for the user's function: a file; None: fetched, or the
    module's own. For pretrained a folder, or ``owner/name@revision`` on the Hugging Face Hub."""
    module: str | None = None
    """For module ``package.module:function``, for hear ``package.module``."""
    reported: str | None = None
    """The row of the paper that it is compared with, as `matpac.reporting.paper.TABLE2` has it."""
    seeds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """Of random, drawn once per seed; None: the seed of the pretrain section."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        untrained = self.kind in ("random", "logmel_statistics")
        if (self.module is None) == (self.kind in ("module", "hear")):
            problems.append(f"module: got {self.module!r}, needed for the kinds module and hear")
        if self.kind == "hear" and self.module and ":" in self.module:
            problems.append(f"module: got {self.module!r}, allowed: package.module")
        if self.kind == "module" and self.module and self.module.count(":") != 1:
            problems.append(f"module: got {self.module!r}, allowed: package.module:function")
        if self.weights is not None and untrained:
            problems.append(f"weights: got {self.weights!r}, and the kind {self.kind} has none")
        if self.seeds and (self.kind != "random" or len(set(self.seeds)) < len(self.seeds)):
            problems.append(f"seeds: got {self.seeds}, allowed: of the kind random, each once")
        if self.weights is None and self.kind == "pretrained":
            problems.append("weights: missing, a folder or a name on the Hugging Face Hub")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class ProbeConfig(Section):
    """Linear evaluation (MATPAC Sec. IV-A)."""

    batch_size: Positive
    learning_rate: PositiveFloat | Annotated[list[PositiveFloat], Field(min_length=1)]
    """Of Adam; of several, that of the lowest mean validation loss over repeats, per fold."""
    epochs: Positive
    patience: Positive | None = None
    """Epochs without a better validation loss after which a probe stops; None: never."""
    weight_decay: NaturalFloat
    standardize: bool
    """Features to zero mean and unit variance of the training part."""
    repeats: Positive
    valid_fraction: OpenFraction
    """Of the training folds' or the training part's source recordings, where a task gives no
    validation part."""
    seed: Natural

    @property
    def learning_rates(self) -> list[float]:
        """As a list, however many there are."""
        return self.learning_rate if isinstance(self.learning_rate, list) else [self.learning_rate]


class ProbeParams(PretrainParams):
    """Sections of the ``probe`` stage."""

    datasets: dict[Name, DatasetConfig]
    """Where their audio lies, for encoders with a front end of their own."""
    tasks: Annotated[list[Name], Field(min_length=1)]
    encoders: dict[Name, EncoderConfig]
    probe: ProbeConfig
    downloads: DownloadsConfig = DownloadsConfig()
    """For the weights of published encoders."""

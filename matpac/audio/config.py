"""The section ``logmel`` of ``params.yaml``: the front end and how its results are stored."""

from typing import ClassVar, Self

from pydantic import model_validator

from matpac.core.section import Fraction, Natural, NaturalFloat, Positive, PositiveFloat, Section


class LogmelConfig(Section):
    """The front end (MATPAC Sec. IV-A) and how its results are stored."""

    idle: ClassVar[frozenset[str]] = frozenset(
        {"workers", "shard_mb", "max_bad_fraction", "scheduler"}
    )

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

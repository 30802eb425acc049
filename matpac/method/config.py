"""The sections ``model`` and ``objective`` of ``params.yaml`` (MATPAC Sec. III)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from matpac.core.section import (
    Fraction,
    NaturalFloat,
    OpenFraction,
    Positive,
    PositiveFloat,
    Section,
)


class ModelConfig(Section):
    """Sizes of student, predictor and head (MATPAC Sec. III and IV-A)."""

    crop_frames: Positive
    """Frames of one training crop and of one piece of a long clip."""
    patch_size: Positive
    """Frames, and mel bins, of a patch."""
    mask_ratio: OpenFraction
    """Fraction of patches hidden from the student."""
    positions: Literal["sincos", "learned"]
    """sincos: fixed 2-D table, as released; learned: the paper's text, starting from that table."""
    encoder_width: Positive
    encoder_depth: Positive
    encoder_heads: Positive
    predictor_width: Positive
    predictor_depth: Positive
    predictor_heads: Positive
    mlp_ratio: PositiveFloat
    hypotheses: Positive = 1
    """Predictions of each masked patch, of which the best counts; 1: MATPAC, 5: MATPAC++."""
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
    target: Literal["latents", "standardised"] = "latents"
    """What is predicted: the teacher's latents, or each standardised over its width (M2D)."""
    # MATPAC++ only: the three below.
    choice_temp: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] | None = None
    """Of several hypotheses: first value, and the one from which on the winner takes all."""
    choice_temp_decay: OpenFraction | None = None
    """Factor of that temperature per update, as released; or ..."""
    choice_temp_fraction: OpenFraction | None = None
    """... the fraction of training after which its last value is reached, however long it is."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [self.choice_temp_decay, self.choice_temp_fraction]
        if sum(each is not None for each in given) != (self.choice_temp is not None):
            raise ValueError(
                "choice_temp, of several hypotheses, goes with one of choice_temp_decay and "
                f"choice_temp_fraction; got {self.choice_temp}, {given[0]} and {given[1]}"
            )
        if self.choice_temp is not None and not self.choice_temp[1] < self.choice_temp[0]:
            raise ValueError(f"choice_temp: got {self.choice_temp}, allowed: a falling pair")
        return self

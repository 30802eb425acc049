"""What every section of ``params.yaml`` is made of: a base class and the types of its values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NaturalFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""Names become folder names and DVC stage names: lower case, digits and underscores.

They start with a letter: papermill would pass a run called 2048 to its notebook as a number.
"""


class Section(BaseModel):
    """A mapping of ``params.yaml``: no unknown keys, no silent type conversion, no mutation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

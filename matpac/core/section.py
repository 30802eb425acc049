"""What every section of ``params.yaml`` is made of, and how one is checked."""

from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NaturalFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""Names become folder names and DVC stage names: lower case, digits and underscores.

They start with a letter: YAML reads a run called 2048 as a number.
"""
LONGEST_SHOWN = 200
"""Characters of a value in an error."""


class Section(BaseModel):
    """A mapping of ``params.yaml``: no unknown keys, no silent type conversion, no mutation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    idle: ClassVar[frozenset[str]] = frozenset()
    """Keys that decide how fast or how safely a result is reached, but not the result."""

    def deciding(self) -> dict[str, Any]:
        """The section and those in it without their idle keys."""
        kept = {
            name: getattr(self, name) for name in type(self).model_fields if name not in self.idle
        }
        return {name: _deciding(value) for name, value in kept.items()}


class Common(Section):
    """Read by every stage."""

    profile: Name
    """First part of every path and stage name."""
    storage: str | None
    """Folder for bulk data; None: ``data/``; the variable MATPAC_DATA overrides it."""


Parsed = TypeVar("Parsed", bound=Section)


def parse(
    kind: type[Parsed], sections: Parsed | dict[str, Any], *, source: str = "parameters"
) -> Parsed:
    """Sections as an object, e.g. those that a stage reads.

    Args:
        kind: its class.
        sections: section name -> mapping, as in ``params.yaml``; or validated before.
        source: what to call their origin in an error.
    Raises: ValueError listing every unknown, missing, mistyped or impossible entry.
    """
    if isinstance(sections, kind):
        return sections
    try:
        return kind.model_validate(sections)
    except ValidationError as error:
        raise ValueError("\n".join([f"{source}:", *describe(error)])) from None


def describe(error: ValidationError) -> list[str]:
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
            message += f", got {_shown(problem['input'])}"
            if isinstance(problem["input"], str) and problem["type"] in ("int_type", "float_type"):
                message += ", which is text (numbers: 40, 0.5, 1e-5)"
        lines += [f"  {where}: {part}" if where else f"  {part}" for part in message.split("\n")]
    return lines


def _deciding(value: Any) -> Any:
    if isinstance(value, Section):
        return value.deciding()
    if isinstance(value, dict):
        return {key: _deciding(each) for key, each in value.items()}
    return value


def _shown(value: object) -> str:
    """A value as Python writes it, the beginning of a long one."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."

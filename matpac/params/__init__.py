"""``params.yaml`` as a whole: every package's sections put together, read and checked.

In: a YAML file. Out: `Params`, which every stage takes; or one error that lists all that is wrong.
Read `load` here, then `matpac.params.problems`, then `matpac.params.profiles`.
"""

from pathlib import Path
from typing import Any, TypeVar

from matpac.core import paths, section, yaml_file
from matpac.core.section import Common
from matpac.params import problems
from matpac.reporting.config import FiguresParams

Stage = TypeVar("Stage", bound=Common)


class Params(FiguresParams):
    """The whole of ``params.yaml``."""


def parse(
    stage: type[Stage], sections: Stage | dict[str, Any], *, source: str = "parameters"
) -> Stage:
    """Sections as the object of a stage, or of all, with what they refer to in each other checked.

    Args: as `matpac.core.section.parse`.
    Raises: ValueError listing every unknown, missing, mistyped or impossible entry.
    """
    if isinstance(sections, stage):
        return sections
    found = []
    try:
        value = section.parse(stage, sections, source=source)
    except ValueError as error:
        found = str(error).split("\n")[1:]
    # Looked for even where a section is bad, so that one message names everything.
    known = {name: sections[name] for name in stage.model_fields if name in sections}
    found += [f"  {problem}" for problem in problems.find(known)]
    if found:
        raise ValueError("\n".join([f"{source}:", *found]))
    return value


def load(path: Path | str | None = None) -> Params:
    """Reads and validates a whole parameter file.

    Args: path: default ``root()/params.yaml``.
    Raises: OSError; ValueError listing every problem.
    """
    path = Path(path) if path else paths.root() / "params.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such parameter file")
    sections = yaml_file.read(path)
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: got {type(sections).__name__}, allowed: a mapping of sections")
    return parse(Params, sections, source=str(path))

"""``params.yaml`` as a whole: every package's sections put together, read and checked.

In: a YAML file. Out: `Params`, which every stage takes; or one error that lists all that is wrong.
Read `load` here, then `matpac.params.problems`, then `matpac.params.profiles`.
"""

from pathlib import Path
from typing import Any, TypeVar

import yaml

from matpac.core import paths, section
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
    for find in problems.FINDERS:
        found += [f"  {problem}" for problem in find(known)]
    if found:
        raise ValueError("\n".join([f"{source}:", *found]))
    return value


def load(path: Path | str | None = None) -> Params:
    """Reads and validates a whole parameter file.

    Args: path: default ``root()/params.yaml``.
    Raises: FileNotFoundError; ValueError listing every problem.
    """
    path = Path(path) if path else paths.root() / "params.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such parameter file")
    try:
        sections = yaml.load(path.read_text("utf-8"), _UniqueKeys)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(sections, dict):
        raise ValueError(f"{path}: got {type(sections).__name__}, allowed: a mapping of sections")
    return parse(Params, sections, source=str(path))


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which alone would let the second of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = [key.value for key, _ in node.value]
        for name in set(seen):
            if seen.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)

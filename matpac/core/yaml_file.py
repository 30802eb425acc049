"""YAML as this project reads it everywhere: the plain part of YAML 1.2, in files that people write.

PyYAML alone reads YAML 1.1, where ``1e-5`` is text, ``1:30`` is 90, ``040`` is 32 and ``no`` is
False; DVC reads and writes 1.2. Here a number is a decimal one as DVC writes it. What else looks
like a number is text, which no numeric key of ``params.yaml`` takes. Anchors, aliases and merges
(``<<``) work, tags do not.
"""

import math
import re
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml

LARGEST_FILE = 2**16
"""Bytes; the paper's profile has 8,000, and 2^16 are read in a second."""
MOST_NODES = 10_000
"""Keys and values, each alias counted as what it stands for: few bytes can stand for 10^9."""
DEEPEST = 20
"""Lists and mappings in each other."""
LONGEST_INTEGER = 18
"""Digits: fewer than 2^63."""


def read(path: Path) -> Any:
    """The content of a file.

    Raises: OSError; ValueError naming the file, the line, and what is not allowed.
    """
    content = path.read_bytes()
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path}: {len(content):,} bytes, allowed: {LARGEST_FILE:,}")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(text: str) -> Any:
    """The value of a text; None if there is nothing in it.

    Raises: ValueError naming the line and what is not allowed.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from None
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} lists or mappings in each other") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, refusing what would surprise while nothing is built yet."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        """A node with ``size`` and ``height`` of what it stands for."""
        event = self.peek_event()
        if getattr(event, "tag", None):
            _refuse(event, f"the tag {event.tag!r}")
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if not hasattr(node, "size"):
                _refuse(event, f"the alias {event.anchor!r} of what it stands in")
            return node
        below = _below(node)
        node.size = 1 + sum(each.size for each in below)
        node.height = 1 + max((each.height for each in below), default=0)
        if node.size > MOST_NODES:
            _refuse(node, f"more than {MOST_NODES:,} keys and values, aliases written out")
        if node.height > DEEPEST:
            _refuse(node, f"more than {DEEPEST} lists or mappings in each other")
        if node.tag.endswith(":int") and len(node.value) > LONGEST_INTEGER:
            _refuse(node, f"a number of {len(node.value)} digits, allowed: {LONGEST_INTEGER}")
        if node.tag.endswith(":float") and math.isinf(float(node.value)):
            _refuse(node, f"the number {node.value}, which is too large")
        return node


def _below(node: yaml.Node) -> list[yaml.Node]:
    """Keys and values, or the entries of a list."""
    if isinstance(node, yaml.ScalarNode):
        return []
    if isinstance(node, yaml.SequenceNode):
        return node.value
    names: set[str] = set()
    for key, _ in node.value:
        if not key.tag.endswith((":str", ":merge")):
            what = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            _refuse(key, f"a key that is no text: {what or 'nothing'}")
        if key.value in names:
            _refuse(key, f"the key {key.value!r} a second time")
        names.add(key.value)
    return [each for pair in node.value for each in pair]


def _refuse(where: yaml.Node | yaml.Event, what: str) -> NoReturn:
    raise ValueError(f"line {where.start_mark.line + 1}: {what}")


_INTEGER = "0|[1-9][0-9]*"
for _kind, _pattern, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", rf"[-+]?({_INTEGER})", list("-+0123456789")),
    ("float", rf"[-+]?(\.[0-9]+|({_INTEGER})(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)

"""What decides a result, as digests: values, and source files of this library."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from matpac.core import version

PACKAGE = Path(__file__).parents[1]


def code_digest(*parts: str) -> str:
    """A short SHA-256 of source files of this library, and of `matpac.core.version.RESULTS`.

    Args: parts: packages or files, relative to the library: ``"method"``, ``"features/store.py"``.
    """
    digest = hashlib.sha256(str(version.RESULTS).encode())
    for part in parts:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(PACKAGE).as_posix()
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def source_digest(module: str, folder: Path) -> str:
    """SHA-256 of the file of a user's module, which is not imported; "" if there is none.

    Args: module: dotted name. folder: where it is looked for besides Python's own path.
    """
    try:
        with on_path(folder):
            found = _find(module)
    except (ImportError, ValueError):
        return ""
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return ""
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()


def _find(module: str) -> ModuleSpec | None:
    """Where a module is; `find_spec` alone would run the packages that it lies in."""
    first, *parts = module.split(".")
    found, name = find_spec(first), first
    for part in parts:
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, found.submodule_search_locations) if found else None
    return found


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Python finds modules in a folder, too, after those that it finds anyway."""
    invalidate_caches()  # files may be new
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def digest(value: object) -> str:
    """A short SHA-256 of any JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

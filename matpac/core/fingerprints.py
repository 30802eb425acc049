"""What decides a result, as digests: values, and source files of this library."""

import ast
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


def import_closure(module: str) -> list[str]:
    """The module and everything of this library that it imports, wherever in the file it does.

    Args: module: dotted name below the package, e.g. ``"pretrain"``.
    Returns: sorted paths relative to the package, e.g. ``["config.py", "pretrain.py"]``.
    Raises: FileNotFoundError for a module that does not exist.
    """
    found: set[Path] = set()
    waiting = [_file(module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imports(path)
    return sorted(path.relative_to(PACKAGE).as_posix() for path in found)


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


def imports(path: Path) -> list[Path]:
    """Files of this library that a file imports."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    own = [name.removeprefix("matpac.") for name in modules if name.startswith("matpac.")]
    return [_file(name) for name in own if _exists(name)]


def _file(module: str) -> Path:
    path = PACKAGE / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.exists():
        raise FileNotFoundError(f"no module matpac.{module}")
    return file


def _exists(module: str) -> bool:
    path = PACKAGE / Path(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def digest(value: object) -> str:
    """A short SHA-256 of any JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

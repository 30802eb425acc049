"""Which files of this library a module imports, however late."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "matpac"


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

"""Which source files decide a result."""

from pathlib import Path

import pytest

from matpac.core import fingerprints
from matpac.core.fingerprints import code_digest

import closure
from closure import import_closure

SOURCES = {
    "entry.py": "import os\nfrom matpac import near\nfrom matpac.pack import inner\n",
    "near.py": "from matpac.deep import something\n",
    "deep.py": "def f():\n    import matpac.late\n",
    "late.py": "from matpac import entry  # a circle\n",
    "unused.py": "",
    "other.py": "import numpy\nimport matpacked\nfrom matpacked import near\n",
    "pack/__init__.py": "from matpac.pack.inner import x\n",
    "pack/inner.py": "x = 1\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in place of this library."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    monkeypatch.setattr(closure, "PACKAGE", tmp_path)
    return tmp_path


def test_closure_of_all_kinds_of_imports(package: Path) -> None:
    expected = ["deep.py", "entry.py", "late.py", "near.py", "pack/__init__.py", "pack/inner.py"]
    assert import_closure("entry") == expected
    assert import_closure("pack.inner") == ["pack/inner.py"]
    assert import_closure("other") == ["other.py"]
    with pytest.raises(FileNotFoundError, match=r"no module matpac\.nothing"):
        import_closure("nothing")


def test_digest_follows_the_named_packages_and_files_alone(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ("pack", "near.py")
    before = code_digest(*parts)
    (package / "unused.py").write_text("edited = True\n")
    (package / "pack" / "notes.txt").write_text("no code")
    assert code_digest(*parts) == before
    (package / "pack" / "inner.py").write_text("x = 2\n")
    edited = code_digest(*parts)
    assert edited != before
    (package / "pack" / "inner.py").rename(package / "pack" / "other.py")
    assert code_digest(*parts) not in (before, edited)
    monkeypatch.setattr(fingerprints.version, "RESULTS", 2)
    assert code_digest("near.py") != before

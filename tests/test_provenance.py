"""Which source files decide a result."""

from pathlib import Path

import pytest

from matpac import provenance
from matpac.provenance import code_digest, import_closure

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
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    return tmp_path


def test_closure_of_all_kinds_of_imports(package: Path) -> None:
    expected = ["deep.py", "entry.py", "late.py", "near.py", "pack/__init__.py", "pack/inner.py"]
    assert import_closure("entry") == expected
    assert import_closure("pack.inner") == ["pack/inner.py"]
    assert import_closure("other") == ["other.py"]


def test_a_module_that_does_not_exist(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no module matpac\.nothing"):
        import_closure("nothing")


def test_digest_follows_the_closure_alone(package: Path) -> None:
    before = code_digest("entry")
    (package / "unused.py").write_text("edited = True\n")
    (package / "other.py").write_text("")
    assert code_digest("entry") == before
    (package / "late.py").write_text("edited = True\n")
    edited = code_digest("entry")
    assert edited != before
    (package / "late.py").write_text(SOURCES["late.py"])
    assert code_digest("entry") == before
    (package / "near.py").rename(package / "nearby.py")
    (package / "entry.py").write_text(SOURCES["entry.py"].replace("import near", "import nearby"))
    assert code_digest("entry") not in (before, edited)


def test_closures_of_this_library() -> None:
    training, embedding = import_closure("pretrain"), import_closure("embeddings")
    assert {"pretrain.py", "checkpoint.py", "masking.py", "sections.py"} <= set(training)
    assert {"frozen.py", "patches.py", "logmel.py"} <= set(embedding)
    # An edit of the probe or of a plot must neither retrain nor embed again.
    assert not {"probe.py", "linear.py", "metrics.py", "fetch.py"} & set(training)
    assert not {"pretrain.py", "probe.py", "batches.py"} & set(embedding)

"""Before torch is imported: no GPU, since tests compare bits, and threads that do not spin. No
bars. Ctrl-C works, which a shell leaves ignored in what it starts in the background.

Tests marked ``gpu`` run when MATPAC_TEST_GPU is set.
"""

import os
import shutil
import signal

if not os.environ.get("MATPAC_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ["MATPAC_PROGRESS"] = "silent"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import smoke

for name in ("DASK_SCHEDULER_ADDRESS", "MATPAC_DATA", "MATPAC_ENCODER", "MATPAC_ROOT"):
    os.environ.pop(name, None)  # nobody's cluster, data, encoder or project

LONGEST = (
    "test_pipeline",
    "test_distributed",
    "test_figures",
    "test_probe",
    "test_paper_profile",
    "test_trainer",
    "test_resume",
    "test_slurm",
    "test_extract",
    "test_bench",
    "test_layouts",
)
"""Half a minute or more each, on two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest first, so that two processes end together; each stays whole."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root on which every stage has run at smoke size, for `smoke.TRAINED`: made once, of which
    every one of pytest-xdist's processes has a copy."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return prepare(tmp_path_factory.mktemp("smoke"))
    made = tmp_path_factory.getbasetemp().parent / "smoke"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            shutil.move(prepare(tmp_path_factory.mktemp("smoke")), made)
    return shutil.copytree(made, tmp_path_factory.mktemp("smoke") / "copy")


def prepare(root: Path) -> Path:
    """Runs all stages there and leaves the environment as it was."""
    before = dict(os.environ)
    smoke.prepare(root, *smoke.TRAINED)
    os.environ.clear()
    os.environ.update(before)
    return root


@pytest.fixture
def smoke_root(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The prepared root as the project of one test."""
    monkeypatch.setenv("MATPAC_ROOT", str(prepared))
    yield prepared


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch, here and in new processes: small sums only lose time with more, and the last digits
    depend on it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)

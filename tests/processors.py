"""Runs the tests as on other x86-64 processors: ``make test-processors``.

Without arguments the whole suite and the notebooks, for each of `SETTINGS`: with torch's kernels
for AVX2 and for none of its instruction sets, MKL's and oneDNN's for AVX2, one and two threads, and
once beside four busy processes. With ``--numerical`` what touches networks, log-mels, embeddings
and probes, but for tests marked ``slow``, once, with torch's kernels for no instruction set: a part
of ``make test``.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = [("avx2", 2, 0), ("avx2", 1, 0), ("default", 2, 0), ("default", 1, 0), ("avx2", 2, 4)]
"""Torch's kernels, threads, busy processes beside it."""
NUMERICAL = [
    "tests/audio/test_logmel.py",
    "tests/method",
    "tests/encoders/test_frozen.py",
    "tests/encoders/test_interface.py",
    "tests/pretraining/test_diagnostics.py",
    "tests/pretraining/test_pretrain.py",
    "tests/pretraining/test_trainer.py",
    "tests/probing",
]
# torch's own compiler writes C++ with vectors that its headers then lack.
UNCOMPILED = "--deselect=tests/pretraining/test_trainer.py::test_compiled_networks_compute_the_same"
TWO = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
ALL = [[*TWO, "tests"], ["--nbval", "notebooks"]]


def environment(kernels: str, threads: int) -> dict[str, str]:
    """Variables for a process that computes as another processor would.

    Raises: SystemExit if torch does not take them.
    """
    made = os.environ | {
        "ATEN_CPU_CAPABILITY": kernels,
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": str(threads),
    }
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    asked = [sys.executable, "-c", code]
    said = subprocess.run(asked, env=made, capture_output=True, text=True, check=True).stdout
    if said.split() != [kernels.upper(), str(threads)]:
        sys.exit(f"torch: got {said.strip()}, asked for {kernels.upper()} {threads}")
    return made


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Within it so many processes do nothing, as fast as they can."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run(kernels: str, threads: int, others: int, suites: list[list[str]]) -> bool:
    """Runs pytest; says how each run ended. Returns: whether all passed."""
    passed = True
    made = environment(kernels, threads)
    for suite in suites:
        with busy(others):
            left_out = [UNCOMPILED] if kernels == "default" else []
            command = [sys.executable, "-m", "pytest", "-q", *left_out, *suite]
            done = subprocess.run(command, cwd=ROOT, env=made, stdout=subprocess.PIPE, text=True)
        *before, last = done.stdout.strip().splitlines()
        if done.returncode:
            print("\n".join(before))
        beside = f", beside {others} busy processes" if others else ""
        print(f"{kernels}, {threads} threads{beside}: {suite[-1]}: {last}", flush=True)
        passed &= done.returncode == 0
    return passed


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numerical", action="store_true")
    if parser.parse_args().numerical:
        quick = ["-m", "not slow"]
        passed = run("default", 2, 0, [[*TWO, *quick, *NUMERICAL]])
    else:
        results = [run(*setting, ALL) for setting in SETTINGS]
        passed = all(results)
    sys.exit(not passed)


if __name__ == "__main__":
    main()

"""What every benchmark shares: the machine it ran on, works timed in turns, matrix products."""

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from matpac.core import products

Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: dict[str, Product] = {"torch": F.linear, "oneDNN": products.linear}
"""Who multiplies float32 matrices on a CPU: torch by itself (MKL), and `matpac.core.products`."""


def machine() -> dict[str, Any]:
    """Where and when a benchmark runs, and of which code."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    found = information.exists() and re.search(r"model name\s*: (.+)", information.read_text())
    return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the repository that holds this file; ``-dirty`` if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() or None


def in_turns(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Runs all works once per round, so that a machine's other load disturbs all alike.

    Args:
        works: each returns what it measured: `seconds` of something, or a rate.
        rounds: after one that is not counted.
    Returns: per work its measurements, one per round.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            value = work()
            if number:
                found[name].append(value)
    return found


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes, to the end of what it started on a GPU."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def product_rate(
    product: Product, shape: tuple[int, int, int], *, device: torch.device, dtype: torch.dtype
) -> Callable[[], float]:
    """A work for `in_turns` that gives the FLOP/s of one matrix product.

    Args:
        shape: (n, k, m) of inputs (n, k) @ weight (m, k).T.
    """
    rows, inner, columns = shape
    inputs = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)
    operations = 2 * rows * inner * columns
    # Long enough for the clock, short enough not to heat anything.
    times = min(max(1, int(2e10 / operations)), 50) if device.type == "cpu" else 50

    def rate() -> float:
        def repeat() -> None:
            for _ in range(times):
                product(inputs, weight)

        return times * operations / seconds(repeat)

    return rate


def memory_gib(field: str) -> float | None:
    """Memory of this process: ``VmHWM`` its peak, ``RssAnon`` without mapped files (Linux)."""
    status = Path("/proc/self/status")
    found = status.exists() and re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    return int(found[1]) / 2**20 if found else None


def ratio(rates: list[float], others: list[float]) -> float:
    """The median of what they are to each other in each round."""
    return median([rate / other for rate, other in zip(rates, others, strict=True)])


def median(values: list[float]) -> float:
    """To four digits: more are noise."""
    return float(f"{statistics.median(values):.4g}")

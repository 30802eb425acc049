"""How long the probes of one task take: trained side by side, and one after another.

    python -m benchmarks.probe    # ESC-50 with embeddings of ViT-Base
    python -m benchmarks.probe --clips 1000 --dim 320 --labels 10    # a task of the mini profile
    python -m benchmarks.probe --rates 1e-4 3e-4 1e-3

Random clips of as many Gaussian clusters as there are labels: the time depends on sizes only.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from matpac.core import distributed
from matpac.probing.linear import ProbeResult, train_probes
from matpac.probing.splits import Problem, make_problems


def report(
    *,
    clips: int = 2000,
    dim: int = 3840,
    labels: int = 50,
    folds: int = 5,
    repeats: int = 5,
    epochs: int = 100,
    rates: Sequence[float] = (1e-3,),
) -> dict[str, Any]:
    """Trains the same probes both ways.

    Returns: the sizes; seconds of both ways and their ratio, GFLOP/s of the first one (products of
        the training steps only), and how far the results of the two are apart.
    """
    features, targets, problems = _task(clips, dim, labels, folds, repeats)
    options = {"kind": "multiclass", "num_classes": labels, "device": distributed.device()}

    def train(
        some: Sequence[Problem], some_rates: Sequence[float], epochs: int
    ) -> list[ProbeResult]:
        results = train_probes(
            features, targets, some, learning_rates=some_rates, epochs=epochs, **options
        )
        return [result for each in results.values() for result in each]

    train(problems[:1], rates, 1)  # what libraries set up once
    single = [(problem, rate) for rate in rates for problem in problems]
    together_s, together = _timed(lambda: train(problems, rates, epochs))
    alone_s, alone = _timed(lambda: [train([p], [rate], epochs)[0] for p, rate in single])
    sizes = {"clips": clips, "dim": dim, "labels": labels, "probes": len(single), "epochs": epochs}
    where = {"device": str(options["device"]), "threads": torch.get_num_threads()}
    rows = sum(len(problem.train_idx) for problem in problems)
    operations = 4 * rows * dim * labels * epochs * len(rates)  # forward, and gradient of weights
    pairs = list(zip(together, alone, strict=True))
    return {
        "settings": sizes | where,
        "figures": {
            "together_s": round(together_s, 2),
            "one_after_another_s": round(alone_s, 2),
            "ratio": round(alone_s / together_s, 2),
            "gflop_per_s": round(operations / together_s / 1e9, 1),
            "largest_loss_difference": max(abs(a.valid_loss - b.valid_loss) for a, b in pairs),
            "largest_score_difference": max(abs(a.score - b.score) for a, b in pairs),
        },
    }


def _timed(work: Callable[[], list[ProbeResult]]) -> tuple[float, list[ProbeResult]]:
    found: list[ProbeResult] = []
    return measure.seconds(lambda: found.extend(work())), found


def _task(
    clips: int, dim: int, labels: int, folds: int, repeats: int
) -> tuple[np.ndarray, np.ndarray, list[Problem]]:
    """Features (clips, dim), their labels, and the problems of a k-fold task."""
    random = np.random.default_rng(0)
    targets = random.integers(0, labels, clips)
    features = random.standard_normal((clips, dim), dtype=np.float32)
    features += 0.1 * random.standard_normal((labels, dim), dtype=np.float32)[targets]
    problems = make_problems(
        scheme="folds",
        splits=[""] * clips,
        folds=1 + np.arange(clips) % folds,
        groups=np.arange(clips).astype(str),
        targets=targets,
        repeats=repeats,
        seed=0,
    )
    return features, targets, problems


def main() -> None:
    """Prints the measurement as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe")
    sizes = {"clips": 2000, "dim": 3840, "labels": 50, "folds": 5, "repeats": 5, "epochs": 100}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    told = report(**vars(parser.parse_args()))
    print(json.dumps({"machine": measure.machine(), **told}, indent=1))


if __name__ == "__main__":
    main()

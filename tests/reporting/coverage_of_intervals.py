"""How often intervals of a difference hold the true one: the numbers of docs/tables.md.

    PYTHONPATH=. python tests/reporting/coverage_of_intervals.py

Two rows, whose difference on a recording varies with the seed, the recording, and both.
"""

import numpy as np
import pandas as pd

from matpac.reporting.comparisons import crossed

RECORDINGS = 150
SPREADS = {
    "seeds decide": (0.02, 0.05, 0.1),
    "clips decide": (0.005, 0.2, 0.4),
}
"""Standard deviations between seeds, between recordings, and of what is left."""


def coverage(spread: tuple[float, float, float], num_seeds: int, *, trials: int) -> np.ndarray:
    """Share of 95 % intervals that hold 0, the true difference.

    Returns: of ours; of Student's t over the seeds alone; of a percentile bootstrap that draws
        seeds and recordings alike.
    """
    held = np.zeros(3)
    for trial in range(trials):
        generator = np.random.default_rng([num_seeds, trial])
        of_seeds, of_recordings, of_both = spread
        apart = of_seeds * generator.normal(size=num_seeds)
        apart = apart + of_recordings * generator.normal(size=(RECORDINGS, 1))
        apart = apart + of_both * generator.normal(size=apart.shape)  # (R, U)
        units, without = pd.Series(apart.mean(axis=0)), pd.DataFrame([[0.0] * num_seeds] * 2)
        changes = pd.DataFrame((apart - apart.mean(axis=0)) / RECORDINGS)
        found = [crossed(units, changes), crossed(units, without)]
        rows = generator.integers(RECORDINGS, size=(400, RECORDINGS, 1))
        columns = generator.integers(num_seeds, size=(400, 1, num_seeds))
        low, high = np.quantile(apart[rows, columns].mean(axis=(1, 2)), [0.025, 0.975])
        held += [*(abs(one.value) <= one.ci95 for one in found), low <= 0 <= high]
    return held / trials


if __name__ == "__main__":
    for name, spread in SPREADS.items():
        for num_seeds in (3, 5, 10):
            shares = ", ".join(f"{share:.1%}" for share in coverage(spread, num_seeds, trials=2000))
            print(f"{name}, {num_seeds} seeds: ours, t over seeds, drawing both: {shares}")

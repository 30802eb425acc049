"""Scores by layer as a picture, from rows whose means are known."""

import pandas as pd
import pytest

from matpac.reporting import layers


def test_a_line_per_task_and_their_mean_with_intervals_over_the_repeats() -> None:
    rows = pd.DataFrame(
        [
            {"encoder": "base", "seed": 0, "task": task, "layer": layer, "fold": fold,
             "repeat": repeat, "score": base + layer / 10 + fold / 100 + repeat / 1000}
            for task, base in (("esc50", 0.2), ("mine", 0.4))
            for layer in (0, 1, 2)
            for fold in (1, 2)
            for repeat in (1, 2, 3)
        ]
    )  # fmt: skip
    (axes,) = layers.draw(rows).axes
    lines = {bars.get_label(): bars for bars in axes.containers}
    assert list(lines) == ["ESC-50", "mine", "mean"]
    data, _, (bars,) = lines["mean"]
    assert list(data.get_xdata()) == [1, 2, 3]
    assert data.get_ydata() == pytest.approx([31.7, 41.7, 51.7])
    (low, high) = bars.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / 3**0.5)  # t of three repeats

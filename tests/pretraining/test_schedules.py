"""Schedules at their boundary steps."""

import pytest

from matpac.pretraining.schedules import learning_rate, linear


@pytest.mark.parametrize(
    ("step", "start", "end", "num_steps", "value"),
    [
        (100, 0.04, 0.07, 300, 0.05),  # the teacher's temperature
        (299, 0.04, 0.07, 300, 0.0699),
        (301, 0.04, 0.07, 300, 0.07),
        (0, 0.3, 0.7, 0, 0.7),  # no ramp
        (5, 0.3, 0.7, 0, 0.7),
        (0, 0.3, 0.7, 0.5, 0.3),  # a ramp shorter than a step
        (1, 0.3, 0.7, 0.5, 0.7),
        (1, 1.0, 0.0, 4, 0.75),  # downwards
        (100, 0.99995, 0.99999, 1000, 0.999954),  # parity/README.md
        (100, 0.998, 1.0, 1000, 0.9982),
        (1000, 0.998, 1.0, 1000, 1.0),
    ],
)
def test_linear(step: int, start: float, end: float, num_steps: float, value: float) -> None:
    assert linear(step, start, end, num_steps) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "value"),
    [
        (0, 0.0),  # the first update changes nothing
        (1, 3e-5),
        (5, 1.5e-4),
        (10, 3e-4),
        (35, 2.5606601717798213e-4),  # a quarter of the cosine: 3e-4 (1 + √½) / 2
        (60, 1.5e-4),
        (109, 7.401e-8),
        (110, 0.0),
        (200, 0.0),
    ],
)
def test_learning_rate(step: int, value: float) -> None:
    ours = learning_rate(step, peak=3e-4, warmup_steps=10, total_steps=110)
    assert ours == pytest.approx(value, rel=1e-4, abs=1e-15)


def test_learning_rate_of_warm_up_alone_and_without() -> None:
    values = [learning_rate(step, peak=1.0, warmup_steps=4, total_steps=4) for step in range(5)]
    assert values == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert learning_rate(0, peak=2.0, warmup_steps=0, total_steps=10) == 2.0

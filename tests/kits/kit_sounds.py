"""Made sounds of four kinds, which differ enough for any encoder to tell them apart."""

import numpy as np

SAMPLE_RATE = 16_000
CLASSES = ("clicks", "hiss", "sweep", "tone")
Sound = tuple[str, np.ndarray]
"""Its class and its waveform."""


def sound(label: str, rng: np.random.Generator, seconds: float = 1.0) -> np.ndarray:
    """A mono sound of one class, its pitch, rate and loudness drawn: (samples,) float32."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = rng.uniform(400, 600)
    wave = {
        "clicks": lambda: (np.sin(2 * np.pi * rng.uniform(8, 20) * t) > 0.99).astype(float),
        "hiss": lambda: 0.3 * rng.standard_normal(len(t)),
        "sweep": lambda: np.sin(2 * np.pi * pitch_hz * t * (1 + t / seconds)),
        "tone": lambda: np.sin(2 * np.pi * pitch_hz * t),
    }[label]()
    loud = rng.uniform(0.05, 0.3)
    return (loud * wave + 0.001 * rng.standard_normal(len(t))).astype(np.float32)

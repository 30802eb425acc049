"""Environmental sounds of animals and people: a pitch that glides, shaped by a throat.

Same convention as textures.py: ``source`` draws what one recording keeps, ``take`` the rest;
result (num_samples,), any level, with silence between calls.
"""

import numpy as np
from numpy.random import Generator

from matpac.corpus.synthesis import (
    SAMPLE_RATE,
    Signal,
    bump,
    buzz,
    log_uniform,
    noise,
    place,
    regular_times,
    repeat,
    resonances,
    samples,
    tone,
    wander,
)


def dog(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Barks: a short rough voice whose pitch jumps up and falls."""
    pitch_hz, size = log_uniform(source, 180, 700), samples(source.uniform(0.12, 0.28))
    throat = log_uniform(source, 600, 1500)

    def bark() -> Signal:
        glide = (
            pitch_hz
            * take.uniform(0.9, 1.1)
            * np.interp(np.arange(size) / size, [0, 0.25, 1], [0.8, 1.3, 0.7])
        )
        voice = buzz(glide, size, 0.85) + 0.5 * noise(take, size, 400, 5000)
        return resonances(voice, [(throat, 250, 1.0), (throat * 2.2, 400, 0.5)]) * bump(size, 0.2)

    return repeat(take, num_samples, source.uniform(0.9, 2.8), 0.15, bark)


def cat(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Mews: a slow rise and fall of pitch while the mouth opens and closes."""
    pitch_hz, size = log_uniform(source, 350, 800), samples(source.uniform(0.5, 1.0))

    def mew() -> Signal:
        glide = pitch_hz * np.interp(np.arange(size) / size, [0, 0.4, 1], [0.8, 1.25, 0.75])
        closed = resonances(buzz(glide, size, 0.8), [(700, 200, 1.0)])
        wide = resonances(buzz(glide, size, 0.8), [(1300, 300, 1.0), (3000, 500, 0.5)])
        mouth = bump(size, 0.4)
        return (closed * (1 - mouth) + wide * mouth) * mouth**0.5

    return repeat(take, num_samples, source.uniform(0.4, 0.9), 0.2, mew)


def rooster(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A crow: two short calls and a long one that falls."""
    pitch_hz = log_uniform(source, 400, 800)
    out = np.zeros(num_samples, np.float32)
    start = take.uniform(0.0, 1.5)
    for length_s, ratio in ((0.15, 0.9), (0.2, 1.1), (0.8, 1.3), (0.4, 0.9)):
        size = samples(length_s * source.uniform(0.8, 1.2))
        glide = pitch_hz * ratio * np.linspace(1.0, take.uniform(0.8, 1.05), size)
        call = resonances(buzz(glide, size, 0.88), [(1200, 400, 1.0), (2800, 600, 0.7)])
        place(out, call * bump(size, 0.3) ** 0.5, start)
        start += length_s + take.uniform(0.02, 0.1)
    return out


def birds(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Song of one bird: a motif of two to four chirps, repeated."""
    base_hz, count = log_uniform(source, 1800, 4500), int(source.integers(2, 5))
    bends = source.uniform(0.75, 1.4, (count, 2))
    size = samples(source.uniform(0.05, 0.14))

    def motif() -> Signal:
        chirps = [tone(base_hz * np.linspace(a, b, size), size) * bump(size) for a, b in bends]
        return np.concatenate([np.append(chirp, np.zeros(size // 3)) for chirp in chirps])

    return repeat(take, num_samples, source.uniform(0.8, 2.2), 0.2, motif).astype(np.float32)


def crow(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Caws in groups: a hoarse, flat voice."""
    pitch_hz, size = log_uniform(source, 350, 650), samples(source.uniform(0.25, 0.45))
    formant = log_uniform(source, 1000, 1900)

    def caw() -> Signal:
        rough = buzz(pitch_hz * np.linspace(1.05, 0.9, size), size, 0.9)
        rough = rough * (1.0 + noise(take, size, 40, 200))
        return resonances(rough, [(formant, 300, 1.0), (2600, 500, 0.4)]) * bump(size, 0.3)

    return repeat(take, num_samples, source.uniform(1.0, 1.9), 0.1, caw)


def frogs(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Croaks: bursts of slow pulses through one resonance."""
    size, rate_hz = samples(source.uniform(0.2, 0.5)), source.uniform(25, 60)
    body_hz = log_uniform(source, 400, 1600)

    def croak() -> Signal:
        return resonances(buzz(rate_hz, size, 0.95), [(body_hz, 120, 1.0)]) * bump(size, 0.6)

    return repeat(take, num_samples, source.uniform(1.0, 2.4), 0.1, croak)


def sneeze(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A drawn breath and a burst."""
    out = np.zeros(num_samples, np.float32)
    breath, burst = samples(source.uniform(0.3, 0.8)), samples(source.uniform(0.2, 0.45))
    low_hz, start = log_uniform(source, 600, 2000), take.uniform(0.0, 1.5)
    while start < num_samples / SAMPLE_RATE:
        place(out, noise(take, breath, low_hz / 2, 4000) * bump(breath, 0.8), start, 0.15)
        voiced = noise(take, burst, low_hz, 8000) + buzz(220.0, burst, 0.8)
        place(out, voiced * bump(burst, 0.1), start + breath / SAMPLE_RATE)
        start += breath / SAMPLE_RATE + take.uniform(1.5, 3.5)
    return out


def children(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Playing children: several high voices babbling syllables at once."""
    out = np.zeros(num_samples, np.float32)
    for _ in range(int(source.integers(2, 4))):
        pitch_hz = log_uniform(source, 230, 450)
        for start in regular_times(take, num_samples, source.uniform(1.5, 3.5), 0.3):
            size = samples(take.uniform(0.12, 0.4))
            glide = pitch_hz * (0.8 + 0.7 * wander(take, size, 4.0))
            vowel = [(take.uniform(400, 1100), 120, 1.0), (take.uniform(1200, 3000), 200, 0.6)]
            syllable = resonances(buzz(glide, size, 0.8), vowel) * bump(size, 0.3)
            place(out, syllable, start, take.uniform(0.2, 1.0))
    return out

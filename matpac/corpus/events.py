"""Environmental sounds made of separate events: objects and signals.

Same convention as textures.py: ``source`` draws what one recording keeps, ``take`` the rest;
result (num_samples,), any level, with silence between events.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from matpac.corpus.synthesis import (
    SAMPLE_RATE,
    Signal,
    bump,
    buzz,
    decay,
    log_uniform,
    noise,
    place,
    regular_times,
    repeat,
    samples,
    tone,
)


def _knocks(
    source: Generator, take: Generator, tau_s: float, low_hz: float, high_hz: float
) -> Callable[[], Signal]:
    """Strokes on one object: a resonance the source fixes, excited by a short burst of noise."""
    centre_hz = log_uniform(source, low_hz, high_hz)
    size = samples(6 * tau_s)
    envelope = decay(size, tau_s)
    ring = tone(centre_hz, size) * source.uniform(0.2, 1.0)
    return lambda: (noise(take, size, centre_hz / 2, centre_hz * 4) + ring) * envelope


def clock_tick(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Strictly regular clicks, every second one a little different."""
    tick = _knocks(source, take, 0.006, 800, 5000)
    tock = _knocks(source, take, 0.006, 800, 5000)
    rate_hz = float(source.choice([1.0, 2.0, 2.5, 4.0]))
    out = np.zeros(num_samples, np.float32)
    for count, start in enumerate(regular_times(take, num_samples, rate_hz, 0.0)):
        place(out, tick() if count % 2 else tock(), start)
    return out


def door_knock(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Groups of three to five fast knocks on wood, with pauses."""
    out = np.zeros(num_samples, np.float32)
    knock = _knocks(source, take, 0.03, 150, 900)
    gap_s, start = source.uniform(0.12, 0.3), take.uniform(0.0, 1.0)
    while start < num_samples / SAMPLE_RATE:
        for _ in range(int(take.integers(3, 6))):
            place(out, knock(), start)
            start += gap_s * take.uniform(0.9, 1.1)
        start += take.uniform(0.7, 1.5)
    return out


def footsteps(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Steps at walking pace: heel and sole, about 100 ms apart."""
    heel = _knocks(source, take, 0.02, 120, 1500)
    sole = _knocks(source, take, 0.03, 500, 4000)
    out = np.zeros(num_samples, np.float32)
    for start in regular_times(take, num_samples, source.uniform(1.4, 2.6), 0.03):
        place(out, heel(), start)
        place(out, sole(), start + 0.09, source.uniform(0.2, 0.6))
    return out


def keyboard_typing(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Irregular fast clicks with pauses between words."""
    key = _knocks(source, take, 0.008, 600, 4500)
    out = np.zeros(num_samples, np.float32)
    rate_hz, start = source.uniform(5, 12), take.uniform(0.0, 0.3)
    while start < num_samples / SAMPLE_RATE:
        place(out, key(), start, take.uniform(0.3, 1.0))
        start += take.exponential(1.0 / rate_hz) + (0.4 if take.random() < 0.12 else 0.03)
    return out


def glass(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A glass that is struck or breaks: inharmonic partials, or a shower of them."""
    breaks = source.random() < 0.5
    base_hz, size = log_uniform(source, 1200, 3000), samples(0.5)
    tau_s = log_uniform(source, 0.04, 0.2)

    def clink() -> Signal:
        wave = np.zeros(size, np.float32)
        for ratio in (1.0, 1.83, 2.57):
            partial = base_hz * ratio * (take.uniform(0.7, 1.4) if breaks else 1.0)
            wave += tone(min(partial, 7500.0), size) * decay(size, tau_s / ratio)
        return wave

    return repeat(take, num_samples, 9.0 if breaks else source.uniform(0.8, 3), 0.5, clink)


def gun_shot(source: Generator, take: Generator, num_samples: int) -> Signal:
    """One or a few shots: a crack and a long low tail."""
    size, tail_s = samples(1.2), log_uniform(source, 0.08, 0.35)
    dull_hz = log_uniform(source, 500, 2500)

    def shot() -> Signal:
        crack = noise(take, size, 200, 9000) * decay(size, 0.01)
        boom = noise(take, size, 40, dull_hz, -3.0) * decay(size, tail_s)
        return crack + 0.5 * boom

    return repeat(take, num_samples, log_uniform(source, 0.3, 2.5), 0.3, shot)


def car_horn(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Two reeds a third apart, one to four honks."""
    pitch_hz, bright = log_uniform(source, 300, 550), source.uniform(0.75, 0.93)
    length_s = log_uniform(source, 0.15, 1.2)

    def honk() -> Signal:
        size = samples(length_s * take.uniform(0.8, 1.2))
        chord = buzz(pitch_hz, size, bright) + buzz(pitch_hz * 1.26, size, bright)
        return chord * np.minimum(1.0, 12.0 * bump(size)) / 2

    return repeat(take, num_samples, source.uniform(0.5, 1.0) / max(length_s, 0.4), 0.15, honk)


def siren(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Wail, yelp or two-tone: a bright tone whose pitch moves in a fixed pattern."""
    low_hz, high_hz = log_uniform(source, 400, 750), log_uniform(source, 900, 1600)
    rate_hz = float(source.choice([0.25, 0.5, 1.0, 3.0]))
    phase = (np.arange(num_samples) / SAMPLE_RATE * rate_hz + take.random()) % 1.0
    if source.random() < 0.35:
        pitch_hz = np.where(phase < 0.5, low_hz, low_hz * 1.33)
    else:
        pitch_hz = low_hz + (high_hz - low_hz) * (0.5 - 0.5 * np.cos(2 * np.pi * phase))
    return buzz(pitch_hz, num_samples, source.uniform(0.3, 0.8))


def church_bells(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Bells with the partials of a minor-third bell, rung in turn."""
    base_hz, size = log_uniform(source, 180, 500), samples(1.5)
    envelope = decay(size, source.uniform(0.4, 1.2))
    partials = ((0.5, 0.5), (1.0, 1.0), (1.19, 0.7), (1.5, 0.4), (2.0, 0.8), (2.67, 0.4))
    bells = [
        sum(gain * tone(base_hz * prime * ratio, size) for ratio, gain in partials) * envelope
        for prime in (1.0, 1.125, 1.5)
    ]
    rate_hz = source.uniform(0.7, 1.6)
    return repeat(take, num_samples, rate_hz, 0.05, lambda: bells[int(take.integers(3))])


def alarm(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A beeping clock or phone: groups of equal short beeps."""
    carrier = buzz(log_uniform(source, 700, 3000), num_samples, source.uniform(0.0, 0.6))
    seconds = np.arange(num_samples) / SAMPLE_RATE + take.random()
    beep_hz, per_group = source.uniform(4, 12), int(source.integers(2, 6))
    count = np.floor(seconds * beep_hz).astype(np.int64)
    on = ((seconds * beep_hz) % 1.0 < 0.5) & (count % (per_group + 3) < per_group)
    return (carrier * on).astype(np.float32)

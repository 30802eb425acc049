"""Environmental sounds made of separate events: animals, objects, people, signals.

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
    resonances,
    samples,
    tone,
    wander,
)


def _repeat(
    take: Generator, num_samples: int, rate_hz: float, jitter: float, event: Callable[[], Signal]
) -> Signal:
    """Fresh events at nearly regular times, with 3 dB of variation in level."""
    out = np.zeros(num_samples, np.float32)
    for start in regular_times(take, num_samples, rate_hz, jitter):
        place(out, event(), start, take.uniform(0.7, 1.0))
    return out


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

    return _repeat(take, num_samples, 9.0 if breaks else source.uniform(0.8, 3), 0.5, clink)


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

    return _repeat(take, num_samples, source.uniform(0.9, 2.8), 0.15, bark)


def cat(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Mews: a slow rise and fall of pitch while the mouth opens and closes."""
    pitch_hz, size = log_uniform(source, 350, 800), samples(source.uniform(0.5, 1.0))

    def mew() -> Signal:
        glide = pitch_hz * np.interp(np.arange(size) / size, [0, 0.4, 1], [0.8, 1.25, 0.75])
        closed = resonances(buzz(glide, size, 0.8), [(700, 200, 1.0)])
        wide = resonances(buzz(glide, size, 0.8), [(1300, 300, 1.0), (3000, 500, 0.5)])
        mouth = bump(size, 0.4)
        return (closed * (1 - mouth) + wide * mouth) * mouth**0.5

    return _repeat(take, num_samples, source.uniform(0.4, 0.9), 0.2, mew)


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

    return _repeat(take, num_samples, source.uniform(0.8, 2.2), 0.2, motif).astype(np.float32)


def crow(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Caws in groups: a hoarse, flat voice."""
    pitch_hz, size = log_uniform(source, 350, 650), samples(source.uniform(0.25, 0.45))
    formant = log_uniform(source, 1000, 1900)

    def caw() -> Signal:
        rough = buzz(pitch_hz * np.linspace(1.05, 0.9, size), size, 0.9)
        rough = rough * (1.0 + noise(take, size, 40, 200))
        return resonances(rough, [(formant, 300, 1.0), (2600, 500, 0.4)]) * bump(size, 0.3)

    return _repeat(take, num_samples, source.uniform(1.0, 1.9), 0.1, caw)


def frogs(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Croaks: bursts of slow pulses through one resonance."""
    size, rate_hz = samples(source.uniform(0.2, 0.5)), source.uniform(25, 60)
    body_hz = log_uniform(source, 400, 1600)

    def croak() -> Signal:
        return resonances(buzz(rate_hz, size, 0.95), [(body_hz, 120, 1.0)]) * bump(size, 0.6)

    return _repeat(take, num_samples, source.uniform(1.0, 2.4), 0.1, croak)


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


def gun_shot(source: Generator, take: Generator, num_samples: int) -> Signal:
    """One or a few shots: a crack and a long low tail."""
    size, tail_s = samples(1.2), log_uniform(source, 0.08, 0.35)
    dull_hz = log_uniform(source, 500, 2500)

    def shot() -> Signal:
        crack = noise(take, size, 200, 9000) * decay(size, 0.01)
        boom = noise(take, size, 40, dull_hz, -3.0) * decay(size, tail_s)
        return crack + 0.5 * boom

    return _repeat(take, num_samples, log_uniform(source, 0.3, 2.5), 0.3, shot)


def car_horn(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Two reeds a third apart, one to four honks."""
    pitch_hz, bright = log_uniform(source, 300, 550), source.uniform(0.75, 0.93)
    length_s = log_uniform(source, 0.15, 1.2)

    def honk() -> Signal:
        size = samples(length_s * take.uniform(0.8, 1.2))
        chord = buzz(pitch_hz, size, bright) + buzz(pitch_hz * 1.26, size, bright)
        return chord * np.minimum(1.0, 12.0 * bump(size)) / 2

    return _repeat(take, num_samples, source.uniform(0.5, 1.0) / max(length_s, 0.4), 0.15, honk)


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
    return _repeat(take, num_samples, rate_hz, 0.05, lambda: bells[int(take.integers(3))])


def alarm(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A beeping clock or phone: groups of equal short beeps."""
    carrier = buzz(log_uniform(source, 700, 3000), num_samples, source.uniform(0.0, 0.6))
    seconds = np.arange(num_samples) / SAMPLE_RATE + take.random()
    beep_hz, per_group = source.uniform(4, 12), int(source.integers(2, 6))
    count = np.floor(seconds * beep_hz).astype(np.int64)
    on = ((seconds * beep_hz) % 1.0 < 0.5) & (count % (per_group + 3) < per_group)
    return (carrier * on).astype(np.float32)

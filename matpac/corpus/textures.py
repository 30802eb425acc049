"""Continuous environmental sounds: weather, machines, crowds.

A generator takes two random streams: ``source`` draws what stays the same within one recording
(the machine, the animal, the place) and ``take`` everything else (noise, timing). Two takes of one
source are thus as alike as two cuts of one recording. Ranges are wide and overlap between classes
in spectrum, so that what happens over time matters. Result: (num_samples,), any level.
"""

import numpy as np
import scipy.fft
from numpy.random import Generator

from matpac.corpus.synthesis import (
    SAMPLE_RATE,
    Signal,
    band,
    bump,
    buzz,
    decay,
    log_uniform,
    noise,
    place,
    random_times,
    regular_times,
    resonances,
    samples,
    tone,
    unit_rms,
    wander,
)


def _grains(
    take: Generator, num_samples: int, rate_hz: float, piece: Signal, spread_db: float
) -> Signal:
    """Many copies of one short piece at random times and levels (rain, applause, fire)."""
    impulses = np.zeros(num_samples, np.float32)
    times = _indices(random_times(take, num_samples, rate_hz), num_samples)
    gains = 10.0 ** (spread_db * take.standard_normal(len(times)) / 20.0)
    np.add.at(impulses, times, (gains * take.choice([-1.0, 1.0], len(times))).astype(np.float32))
    size = scipy.fft.next_fast_len(num_samples + len(piece), real=True)
    spectrum = scipy.fft.rfft(impulses, size) * scipy.fft.rfft(piece, size)
    return scipy.fft.irfft(spectrum, size)[:num_samples]


def _indices(times_s: np.ndarray, num_samples: int) -> np.ndarray:
    """Sample indices of times, those beyond the end left out."""
    index = (times_s * SAMPLE_RATE).astype(np.int64)
    return index[index < num_samples]


def rain(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A steady hiss of many drops and a few audible ones."""
    hiss = noise(take, num_samples, log_uniform(source, 300, 1500), log_uniform(source, 4e3, 12e3))
    drop = noise(source, samples(0.012), 800, 7000) * decay(samples(0.012), 0.003)
    drops = _grains(take, num_samples, log_uniform(source, 30, 250), drop, 5.0)
    return hiss + unit_rms(drops) * source.uniform(0.2, 0.9)


def wind(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Low noise in slow gusts, at times with a whistle that follows them."""
    gust = wander(take, num_samples, log_uniform(source, 0.4, 1.5))
    low = noise(take, num_samples, 30, log_uniform(source, 200, 900), -3.0)
    centre = log_uniform(source, 350, 900)
    howl = noise(take, num_samples, centre * 0.85, centre * 1.2)
    return low * (0.2 + gust) + howl * gust**2 * source.uniform(0.2, 1.0)


def sea_waves(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Broad noise that swells and breaks every few seconds."""
    rate_hz = source.uniform(0.25, 0.6)
    phase = (np.arange(num_samples) / SAMPLE_RATE * rate_hz + take.random()) % 1.0
    swell = np.interp(phase, [0.0, source.uniform(0.3, 0.7), 1.0], [0.05, 1.0, 0.05]) ** 2
    low_hz, high_hz = log_uniform(source, 100, 500), log_uniform(source, 2e3, 9e3)
    body = noise(take, num_samples, low_hz, high_hz, source.uniform(-4, 0))
    return (body * swell + 0.1 * noise(take, num_samples, 50, 500)).astype(np.float32)


def crackling_fire(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A soft roar with crackles of very different loudness."""
    crack = noise(source, samples(0.02), log_uniform(source, 500, 2e3), 8000)
    crackles = _grains(
        take, num_samples, log_uniform(source, 8, 45), crack * decay(len(crack), 0.004), 8.0
    )
    roar = noise(take, num_samples, 40, log_uniform(source, 300, 1200), -3.0)
    return unit_rms(crackles) + roar * source.uniform(0.1, 0.6)


def applause(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Many hands clapping, from a scattered few to a dense crowd."""
    clap = band(noise(source, samples(0.03), 500, 6000), log_uniform(source, 500, 1200), 5000)
    claps = _grains(
        take, num_samples, log_uniform(source, 40, 400), clap * decay(len(clap), 0.007), 5.0
    )
    return unit_rms(claps) * (0.6 + 0.4 * wander(take, num_samples, 1.0))


def water_drops(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Single drops: short tones that rise in pitch, a few a second."""
    out = np.zeros(num_samples, np.float32)
    rate_hz, base_hz = log_uniform(source, 1.0, 5.0), log_uniform(source, 500, 2000)
    size = samples(0.09)
    for start in regular_times(take, num_samples, rate_hz, source.uniform(0.02, 0.4)):
        rise = base_hz * log_uniform(take, 0.8, 1.25) * np.linspace(1.0, 1.6, size)
        place(out, tone(rise, size) * decay(size, 0.02), start, take.uniform(0.4, 1.0))
    return out


def insects(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Crickets: a high tone switched on in regular groups of short pulses."""
    carrier = tone(log_uniform(source, 2200, 5500), num_samples)
    seconds = np.arange(num_samples) / SAMPLE_RATE + take.random()
    pulses = np.clip(np.sin(2 * np.pi * seconds * source.uniform(14, 40)), 0.0, None)
    group_hz, share = log_uniform(source, 0.8, 3.5), source.uniform(0.3, 0.8)
    groups = (seconds * group_hz) % 1.0 < share
    night = noise(take, num_samples, 1000, 6000) * source.uniform(0.02, 0.15)
    return (carrier * pulses * groups + night).astype(np.float32)


def engine(source: Generator, take: Generator, num_samples: int) -> Signal:
    """An idling motor: firing pulses with unequal cylinders and a slow drift in speed."""
    rate_hz = log_uniform(source, 18, 60) * (0.97 + 0.06 * wander(take, num_samples, 1.0))
    firing = buzz(rate_hz, num_samples, source.uniform(0.75, 0.93))
    uneven = 1.0 + source.uniform(0.1, 0.5) * tone(rate_hz / 2, num_samples, take.random())
    body = resonances(firing * uneven, [(log_uniform(source, 60, 400), 80, 1.0), (900, 700, 0.25)])
    return unit_rms(body) + noise(take, num_samples, 100, 2500, -3.0) * source.uniform(0.1, 0.6)


def helicopter(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Rotor blades: bursts of low noise at 9-22 a second over a turbine."""
    rate_hz = source.uniform(9, 22)
    phase = (np.arange(num_samples) / SAMPLE_RATE * rate_hz + take.random()) % 1.0
    chop = np.exp(-phase * source.uniform(3, 7))
    low = noise(take, num_samples, 30, log_uniform(source, 250, 1500), -3.0)
    turbine = noise(take, num_samples, 500, 4000) * source.uniform(0.05, 0.3)
    return (low * chop + turbine).astype(np.float32)


def chainsaw(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A two-stroke buzz that is revved up and let go."""
    revs = 0.5 + 0.5 * wander(take, num_samples, log_uniform(source, 0.8, 2.5))
    raw = buzz(source.uniform(90, 180) * revs, num_samples, source.uniform(0.85, 0.96))
    rough = raw * (1.0 + 0.4 * noise(take, num_samples, 20, 400))
    return band(rough, 150, log_uniform(source, 3e3, 8e3)) * revs


def drilling(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A power drill: a high whine that sags under load, with noise of the material."""
    load = wander(take, num_samples, 1.5)
    speed_hz = log_uniform(source, 180, 500) * (1.0 - 0.25 * load)
    whine = buzz(speed_hz, num_samples, source.uniform(0.6, 0.9))
    grind = noise(take, num_samples, log_uniform(source, 400, 2e3), 8000) * load
    return whine + grind * source.uniform(0.4, 1.5)


def jackhammer(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Hard blows at 10-28 a second, in bursts."""
    rate_hz = source.uniform(10, 28)
    phase = (np.arange(num_samples) / SAMPLE_RATE * rate_hz + take.random()) % 1.0
    blow = np.exp(-phase * source.uniform(5, 12))
    low_hz, high_hz = log_uniform(source, 80, 600), log_uniform(source, 2e3, 8e3)
    hits = noise(take, num_samples, low_hz, high_hz) * blow
    working = wander(take, num_samples, 0.8) > source.uniform(0.0, 0.35)
    return (hits * (0.05 + 0.95 * working)).astype(np.float32)


def air_conditioner(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Steady fan noise with mains hum and the blades' faint modulation."""
    fan = noise(take, num_samples, 40, log_uniform(source, 600, 5000), source.uniform(-5, -2))
    blades = 1.0 + source.uniform(0.0, 0.2) * tone(source.uniform(3, 20), num_samples)
    hum = buzz(source.choice([50.0, 60.0]) * 2, num_samples, source.uniform(0.2, 0.7))
    return fan * blades + hum * source.uniform(0.05, 0.5)


def train(source: Generator, take: Generator, num_samples: int) -> Signal:
    """Wheels over rail joints: pairs of thuds above a rumble."""
    out = noise(take, num_samples, 40, log_uniform(source, 300, 1500), -3.0)
    size, gap_s = samples(0.12), source.uniform(0.1, 0.2)
    high_hz = log_uniform(source, 800, 4e3)
    for start in regular_times(take, num_samples, source.uniform(0.9, 1.8), 0.01):
        thud = noise(take, size, 60, high_hz) * decay(size, 0.03)
        place(out, thud, start, 3.0)
        place(out, thud, start + gap_s, 2.4)
    return out


def washing(source: Generator, take: Generator, num_samples: int) -> Signal:
    """A washing machine: a drum that turns, pauses and turns back, with sloshing water."""
    turning = bump(samples(source.uniform(1.2, 2.2)), 0.5) ** 0.3
    envelope = np.resize(np.append(turning, np.zeros(samples(0.4))), num_samples + samples(1.0))
    envelope = envelope[samples(take.random()) :][:num_samples]
    hum = buzz(log_uniform(source, 60, 160), num_samples, source.uniform(0.4, 0.8))
    slosh = noise(take, num_samples, 150, log_uniform(source, 1e3, 5e3), -2.0)
    slosh *= 0.3 + wander(take, num_samples, 6.0)
    return ((hum * source.uniform(0.3, 0.9) + slosh) * (0.1 + envelope)).astype(np.float32)

"""Building blocks of synthetic sound: random streams, noise, tones, envelopes, filters.

Everything here is a pure function of its arguments and of a NumPy generator. Signals are float32
at ``SAMPLE_RATE``; times are in seconds, frequencies in Hz. Legend: S samples.
"""

import zlib
from collections.abc import Callable

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
Signal = NDArray[np.float32]


def stream(seed: int, *keys: str | int) -> Generator:
    """The random stream of one thing (a clip, a source recording), independent of all others.

    Args:
        seed: seed of the whole corpus, >= 0.
        keys: what the stream is for; equal keys give equal streams in every process.
    """
    words = [key if isinstance(key, int) else zlib.crc32(key.encode()) for key in keys]
    return np.random.default_rng([seed, *words])


def samples(seconds: float) -> int:
    """Number of samples nearest to a duration."""
    return round(seconds * SAMPLE_RATE)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A positive number whose logarithm is uniform: the fair draw for frequencies and times."""
    return float(low * (high / low) ** rng.random())


def band_gain(num_bins: int, low_hz: float, high_hz: float, slope_db: float = 0.0) -> Signal:
    """Amplitude response of a soft band-pass (second-order skirts) with a tilt.

    Args:
        num_bins: bins of the spectrum, from 0 Hz to half the sample rate; at least 2.
        low_hz, high_hz: corners, where the skirts have fallen by 3 dB.
        slope_db: tilt in dB per octave around 1 kHz; -3 turns white noise pink.
    Returns: gains, (num_bins,); the bin of 0 Hz is always 0.
    """
    hz = np.linspace(0.0, SAMPLE_RATE / 2, num_bins, dtype=np.float32)
    hz[0] = hz[1]
    below, above = np.square(np.float32(low_hz) / hz), np.square(hz / np.float32(high_hz))
    gain = 1.0 / np.sqrt((1.0 + below * below) * (1.0 + above * above))
    if slope_db:
        gain *= (hz / 1000.0) ** np.float32(slope_db / 6.02)
    gain[0] = 0.0
    return gain


def noise(
    rng: Generator,
    num_samples: int,
    low_hz: float = 20.0,
    high_hz: float = 16_000.0,
    slope_db: float = 0.0,
) -> Signal:
    """Gaussian noise of unit RMS in a band, drawn in the frequency domain (one transform)."""
    size = scipy.fft.next_fast_len(num_samples, real=True)
    num_bins = size // 2 + 1
    white = rng.standard_normal((num_bins, 2), dtype=np.float32)
    spectrum = white.view(np.complex64)[:, 0]
    spectrum *= band_gain(num_bins, low_hz, high_hz, slope_db)
    return unit_rms(scipy.fft.irfft(spectrum, size)[:num_samples])


def band(signal: Signal, low_hz: float, high_hz: float, slope_db: float = 0.0) -> Signal:
    """The signal through the zero-phase band-pass of ``band_gain``, same length."""
    size = scipy.fft.next_fast_len(len(signal), real=True)
    spectrum = scipy.fft.rfft(signal, size)
    spectrum *= band_gain(len(spectrum), low_hz, high_hz, slope_db)
    return scipy.fft.irfft(spectrum, size)[: len(signal)]


def resonances(signal: Signal, peaks: list[tuple[float, float, float]]) -> Signal:
    """The signal through parallel zero-phase resonances, e.g. the formants of a voice.

    Args:
        signal: (S,).
        peaks: (centre in Hz, bandwidth in Hz, amplitude) of each resonance.
    Returns: (S,).
    """
    size = scipy.fft.next_fast_len(len(signal), real=True)
    spectrum = scipy.fft.rfft(signal, size)
    hz = np.linspace(0.0, SAMPLE_RATE / 2, len(spectrum))
    gain = np.zeros(len(spectrum))
    for centre_hz, width_hz, amplitude in peaks:
        gain += amplitude / (1.0 + ((hz - centre_hz) / width_hz) ** 2)
    return scipy.fft.irfft(spectrum * gain.astype(np.float32), size)[: len(signal)]


def tone(hz: float | NDArray[np.float64], num_samples: int, phase: float = 0.0) -> Signal:
    """Sine of constant or given instantaneous frequency ((S,) Hz); phase in turns."""
    steps = np.broadcast_to(np.asarray(hz, np.float64) / SAMPLE_RATE, (num_samples,))
    turns = np.cumsum(steps) + phase
    return np.sin(2 * np.pi * (turns % 1.0)).astype(np.float32)


def buzz(hz: float | NDArray[np.float64], num_samples: int, sharpness: float) -> Signal:
    """Periodic pulse train with a decaying harmonic series, in closed form.

    Args:
        hz: instantaneous fundamental, scalar or (S,).
        num_samples: S.
        sharpness: ratio between neighbouring harmonics, in [0, 1): 0 is a sine, 0.95 a bright buzz.
    Returns: (S,), roughly unit peak.
    """
    steps = np.broadcast_to(np.asarray(hz, np.float64) / SAMPLE_RATE, (num_samples,))
    half = (np.pi * (np.cumsum(steps) % 1.0)).astype(np.float32)
    # The series sum over k >= 1 of r^(k-1) sin(k a) is sin(a) / (1 - 2 r cos(a) + r^2). In half
    # angles its denominator does not cancel, so that CPUs whose sines differ in the last bit agree.
    sine, cosine = np.sin(half), np.cos(half)
    wave = 2.0 * sine * cosine / ((1.0 - sharpness) ** 2 + 4.0 * sharpness * sine**2)
    return (wave * (1.0 - sharpness**2)).astype(np.float32)


def decay(num_samples: int, tau_s: float, attack_s: float = 0.001) -> Signal:
    """Envelope of a struck object: a short linear attack, then exp(-t / tau)."""
    seconds = np.arange(num_samples, dtype=np.float32) / SAMPLE_RATE
    return np.minimum(seconds / attack_s, 1.0) * np.exp(-seconds / np.float32(tau_s))


def bump(num_samples: int, skew: float = 0.5) -> Signal:
    """Smooth envelope from 0 over 1 back to 0; ``skew`` in (0, 1) is where its top lies."""
    position = np.linspace(0.0, 1.0, num_samples)
    warped = np.interp(position, [0.0, skew, 1.0], [0.0, 0.5, 1.0])
    return (np.sin(np.pi * warped) ** 2).astype(np.float32)


def wander(rng: Generator, num_samples: int, rate_hz: float) -> Signal:
    """Slow random curve in [0, 1]: random points at ``rate_hz``, joined by straight lines."""
    points = rng.random(max(2, int(num_samples / SAMPLE_RATE * rate_hz) + 2))
    position = np.linspace(0.0, len(points) - 1.0, num_samples)
    return np.interp(position, np.arange(len(points)), points).astype(np.float32)


def regular_times(
    rng: Generator, num_samples: int, rate_hz: float, jitter: float
) -> NDArray[np.float64]:
    """Times of nearly periodic events: period 1 / rate, each moved by ``jitter`` periods (std)."""
    duration_s = num_samples / SAMPLE_RATE
    count = max(1, int(duration_s * rate_hz))
    period_s = 1.0 / rate_hz
    times = (np.arange(count) + rng.random() + jitter * rng.standard_normal(count)) * period_s
    return np.sort(np.clip(times, 0.0, 0.9 * duration_s))  # the last event is still heard


def random_times(rng: Generator, num_samples: int, rate_hz: float) -> NDArray[np.float64]:
    """Times of independent events (a Poisson process, at least one event)."""
    duration_s = num_samples / SAMPLE_RATE
    count = max(1, int(rng.poisson(rate_hz * duration_s)))
    return np.sort(rng.random(count) * duration_s)


def place(out: Signal, piece: Signal, start_s: float, gain: float = 1.0) -> None:
    """Adds ``gain`` x ``piece`` to ``out`` in place at a time; what does not fit is cut."""
    start = samples(start_s)
    length = min(len(piece), len(out) - start)
    if length > 0:
        out[start : start + length] += np.float32(gain) * piece[:length]


def repeat(
    take: Generator, num_samples: int, rate_hz: float, jitter: float, event: Callable[[], Signal]
) -> Signal:
    """Fresh events at nearly regular times, with 3 dB of variation in level."""
    out = np.zeros(num_samples, np.float32)
    for start in regular_times(take, num_samples, rate_hz, jitter):
        place(out, event(), start, take.uniform(0.7, 1.0))
    return out


def unit_rms(signal: Signal) -> Signal:
    """The signal scaled to an RMS of 1 (silence stays silence)."""
    rms = float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
    return (signal / np.float32(rms)).astype(np.float32) if rms > 1e-9 else signal


def amplitude(level_db: float) -> float:
    """Amplitude ratio of a level in dB."""
    return 10.0 ** (level_db / 20.0)

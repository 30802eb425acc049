"""From parts to a clip: relative levels, the room and microphone, the noise floor, 16-bit PCM.

The log-mel front end takes log(power + 1.19e-7) without any normalisation of clips, so digital
silence would sit 12 nats below speech-level sound and dominate every statistic. A noise floor of
-66 to -46 dBFS, as recordings have, keeps silence a sound among others.
"""

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

from matpac.corpus.synthesis import (
    SAMPLE_RATE,
    Signal,
    amplitude,
    band_gain,
    log_uniform,
    noise,
    samples,
    unit_rms,
)

ROOM_S = 0.4  # longest reverberation kept
LEVEL_DB = (-32.0, -16.0)  # RMS of a clip, dB relative to full scale
FLOOR_DB = (-66.0, -46.0)  # RMS of the noise floor


def active_rms(signal: Signal) -> float:
    """RMS over the parts where something sounds: frames within 30 dB of the loudest (50 ms)."""
    frame = samples(0.05)
    frames = signal[: len(signal) // frame * frame].reshape(-1, frame)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))


def at_level(signal: Signal, level_db: float) -> Signal:
    """The signal scaled so that its active RMS has a level (silence stays silence)."""
    rms = active_rms(signal)
    return signal * np.float32(amplitude(level_db) / rms) if rms > 1e-9 else signal


def _room(source: Generator) -> Signal:
    """Impulse response: the direct sound, then noise that decays over 50-600 ms (T60)."""
    size = samples(ROOM_S)
    t60_s, wet = log_uniform(source, 0.05, 0.6), amplitude(source.uniform(-20.0, -4.0))
    seconds = np.arange(size, dtype=np.float32) / SAMPLE_RATE
    tail = source.standard_normal(size, dtype=np.float32) * np.exp(seconds * (-6.9 / t60_s))
    response = np.float32(wet) * unit_rms(tail) / np.sqrt(np.float32(size))
    response[0] = 1.0
    return response.astype(np.float32)


def record(
    signal: Signal, source: Generator, take: Generator, *, tilt_db: float = 3.0
) -> NDArray[np.int16]:
    """The signal as heard through a room and a microphone, with noise, as 16-bit PCM.

    Args:
        signal: (S,), any level.
        source: draws the room and the microphone (kept within one source recording).
        take: draws the level, the noise floor and its noise.
        tilt_db: largest slope of the microphone's response, in dB per octave, up or down.
    Returns: (S,) int16; RMS within LEVEL_DB unless its peaks would clip.
    """
    num_samples = len(signal)
    size = scipy.fft.next_fast_len(num_samples + samples(ROOM_S), real=True)
    spectrum = scipy.fft.rfft(signal, size) * scipy.fft.rfft(_room(source), size)
    low_hz, high_hz = log_uniform(source, 20, 150), log_uniform(source, 3500, 16_000)
    slope_db = source.uniform(-tilt_db, tilt_db)
    spectrum *= band_gain(len(spectrum), low_hz, high_hz, slope_db)
    heard = scipy.fft.irfft(spectrum, size)[:num_samples]
    peak = float(np.max(np.abs(heard)))
    level = amplitude(take.uniform(*LEVEL_DB))
    rms = float(np.sqrt(np.mean(np.square(heard, dtype=np.float64))))
    scale = min(level / max(rms, 1e-9), 0.95 / max(peak, 1e-9))
    return to_pcm(heard * np.float32(scale) + _floor(take, num_samples))


def _floor(take: Generator, num_samples: int) -> Signal:
    level = amplitude(take.uniform(*FLOOR_DB))
    return noise(take, num_samples, slope_db=take.uniform(-3.0, 0.0)) * np.float32(level)


def to_pcm(signal: Signal) -> NDArray[np.int16]:
    """Rounds to 16-bit PCM, full scale at +-1."""
    return np.rint(np.clip(signal, -1.0, 1.0) * 32767.0).astype(np.int16)

"""The front end against hand-worked values, an independent computation and the released one."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio import transforms

from matpac.audio import logmel
from matpac.audio.logmel import LogMel, log_mel, resample

FIXTURE = Path(__file__).parents[3] / "shared/parity/inference_public.npz"


def sine(frequency_hz: float, *, rate: int = 16000, duration_s: float = 1.0) -> torch.Tensor:
    time_s = torch.arange(int(rate * duration_s), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * torch.pi * frequency_hz * time_s)).float()


def slaney_edges(num_mels: int, fmin_hz: float, fmax_hz: float) -> np.ndarray:
    """Slaney's scale: linear up to 1000 Hz (15 mel), then 27 steps per factor of 6.4."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    mel = np.linspace(to_mel(fmin_hz), to_mel(fmax_hz), num_mels + 2)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def independent_frame(samples: np.ndarray) -> np.ndarray:
    """One log-mel frame of 400 samples in float64, written from the definition."""
    n = np.arange(400)
    windowed = samples * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400))
    bins = np.arange(201)
    power = np.abs(np.exp(-2j * np.pi * np.outer(bins, n) / 400) @ windowed) ** 2
    edges, hz = slaney_edges(80, 50, 8000), bins * 40.0
    mel = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        rising, falling = (hz - low) / (centre - low), (high - hz) / (high - centre)
        triangle = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
        mel.append(triangle @ power)
    return np.log(np.array(mel) + 2.0**-23)


def test_frame_equals_independent_computation() -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 2000).astype(np.float32)
    frames = log_mel(torch.from_numpy(samples))
    for t in (0, 7):
        expected = independent_frame(samples[160 * t : 160 * t + 400].astype(np.float64))
        np.testing.assert_allclose(frames[:, t].numpy(), expected, rtol=0, atol=3e-4)  # float32 FFT


def test_digital_silence() -> None:
    silence = torch.full((2, 80, 8), -15.942385)  # log(2**-23)
    assert torch.equal(log_mel(torch.zeros(2, 1600)), silence)


@pytest.mark.parametrize(
    ("samples", "frames"), [(400, 1), (559, 1), (560, 2), (51360, 319), (160000, 998)]
)
def test_number_of_frames(samples: int, frames: int) -> None:
    assert LogMel().num_frames(samples) == frames
    assert log_mel(torch.zeros(samples)).shape == (80, frames)


def test_batch_equals_single_waveforms() -> None:
    batch = torch.stack([sine(440), sine(880)])
    torch.testing.assert_close(log_mel(batch)[1], log_mel(batch[1]), rtol=0, atol=1e-5)


def test_shorter_than_a_window_is_refused() -> None:
    assert LogMel().num_frames(399) == 0
    with pytest.raises(ValueError, match="got 399 samples, allowed: at least one window of 400"):
        log_mel(torch.zeros(399))


def test_sizes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"window_ms: got 25, which is 275\.625 samples at 11025"):
        LogMel(sample_rate=11025, fmax_hz=5000)
    with pytest.raises(ValueError, match="fmin_hz < fmax_hz <= 4000"):
        LogMel(sample_rate=8000)


def test_equals_released_front_end() -> None:
    if not FIXTURE.exists():
        pytest.skip("the recorded arrays of the released code are not on this machine")
    recorded = np.load(FIXTURE)
    assert json.loads(str(recorded["config_json"]))
    for length in ("3.21s", "10s"):
        ours = LogMel()(torch.from_numpy(recorded[f"wave__{length}"])).numpy()
        # Near silence the logarithm magnifies the rounding of the FFT; with an offset of 1e-6,
        # silence alone would differ by 2.1.
        np.testing.assert_allclose(ours, recorded[f"logmel__{length}"], rtol=0, atol=3e-4)


KAISER_BEST = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
@pytest.mark.parametrize("samples", [1, 700, 44099, 44100])
def test_resampling_is_torchaudios(rate: int, samples: int, monkeypatch) -> None:
    """To rounding: the sums over the kernel run in another order; blocks leave no seams."""
    waveform = torch.rand(2, samples, generator=torch.Generator().manual_seed(0)) - 0.5
    # Its functional form makes the kernel in float32, which is wrong by up to 2e-5.
    expected = transforms.Resample(rate, 16000, **KAISER_BEST)(waveform)
    for block in (logmel.BLOCK_STEPS, 7):
        monkeypatch.setattr(logmel, "BLOCK_STEPS", block)
        torch.testing.assert_close(resample(waveform, rate, 16000), expected, rtol=0, atol=1e-6)


def exactly_resampled(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """The sum over a Kaiser-windowed sinc, from its definition, in float64."""
    width, beta = KAISER_BEST["lowpass_filter_width"], KAISER_BEST["beta"]
    cutoff = min(source, target) * KAISER_BEST["rolloff"]
    places = np.arange(len(samples)) / source
    found = []
    for time in np.arange(math.ceil(len(samples) * target / source)) / target:
        x = (places - time) * cutoff
        window = np.i0(beta * np.sqrt(np.clip(1 - (x / width) ** 2, 0, None))) / np.i0(beta)
        kernel = np.where(np.abs(x) < width, np.sinc(x) * window, 0) * cutoff / source
        found.append(kernel @ samples)
    return np.array(found)


@pytest.mark.parametrize(("source", "target"), [(11127, 16000), (2003, 1999), (44056, 16000)])
def test_rates_with_large_terms_have_the_same_filter(source: int, target: int) -> None:
    waveform = torch.rand(2, 1500, generator=torch.Generator().manual_seed(0)) - 0.5
    ours = resample(waveform, source, target)
    assert not torch.equal(ours[0], ours[1])
    for row, samples in zip(ours, waveform, strict=True):
        exact = exactly_resampled(samples.double().numpy(), source, target)
        np.testing.assert_allclose(row, exact, rtol=0, atol=2e-6)  # float32, some 400 terms
    parts = torch.tensor_split(waveform, [1, 40, 41, 1000], dim=-1)
    assert torch.equal(torch.cat(list(logmel.resampled(parts, source, target)), -1), ours)


@pytest.mark.parametrize("rate", [1001, 11127, 44056, 47999, 88199, 999_983])
def test_a_tone_of_any_rate_keeps_its_frequency(rate: int) -> None:
    """Off by at most 1 / 32768: after a second at 300 Hz, by 0.06 of a radian."""
    resampled = resample(sine(300, rate=rate), rate, 16000)
    assert len(resampled) == 16000
    inside = slice(4000, 12000)
    torch.testing.assert_close(resampled[inside], sine(300)[inside], rtol=0, atol=0.03)


ODD = """
import resource, sys, torch
from scipy.signal import upfirdn
from matpac.audio import logmel
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for rate in map(int, sys.argv[1:]):
    samples = sum(len(b) for b in logmel.resampled([torch.zeros(2 * rate)], rate, 16000))
    assert abs(samples - 32000) <= 1, samples
    logmel._filter.cache_clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_no_rate_decides_the_memory() -> None:
    rates = ["1000", "1001", "11127", "44056", "47999", "191999", "999983", "1000000"]
    command = [sys.executable, "-c", ODD, *rates]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400 * 1024  # KiB; 17.6 GB with a whole period in one kernel


def test_same_rate_is_untouched() -> None:
    waveform = sine(440)
    assert resample(waveform, 16000, 16000) is waveform

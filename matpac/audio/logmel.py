"""The front end (MATPAC Sec. IV-A): waveform -> log-mel spectrogram, and its normalisation.

One definition for pretraining and probing. Shapes: B clips, S samples, F mel bins, T frames.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.core import products

EPSILON = torch.finfo(torch.float32).eps
"""Added to the power before the logarithm, so digital silence is -15.942385."""
RESAMPLING = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
"""What torchaudio's documentation gives as equal to librosa's "kaiser_best", as released."""
BLOCK_STEPS = 4096
"""Of the resampling kernel at a time; at 44.1 kHz it goes 441 samples a step."""
FEWEST_UP = 128
"""Samples out of a step. With one each, as from 48 to 16 kHz, a product is one of vectors."""
BLOCK_SAMPLES = 1 << 18
"""Of a file of an odd rate resampled at a time."""
LARGEST_KERNEL = 1 << 21
"""Numbers in a kernel; between common rates it has up to a million."""
LARGEST_WINDOWS = 1 << 23
"""Samples that the steps done at a time read, each counted in every step that reads it."""
LARGEST_TERM = 1 << 14
"""Of the ratio of two rates. One with larger terms is replaced by the nearest without: off by at
most 1 / 32768 of the frequency, a twentieth of a cent."""


class LogMel(nn.Module):
    """Natural logarithm of the mel power spectrogram, without padding of any kind.

    Periodic Hann window, an FFT of the window's length, power spectrum, Slaney mel scale with
    area-normalised filters, as the released code. The defaults are the paper's front end.

    Args:
        sample_rate: Hz, of the waveforms given to `forward`.
        window_ms, hop_ms: both must be whole numbers of samples.
        num_mels: F.
        fmin_hz, fmax_hz: edges of the filter bank.
    Raises: ValueError if the sizes do not fit together.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        window_ms: float = 25,
        hop_ms: float = 10,
        num_mels: int = 80,
        fmin_hz: float = 50,
        fmax_hz: float = 8000,
    ) -> None:
        super().__init__()
        self.sample_rate, self.num_mels = sample_rate, num_mels
        self.window = whole_samples(window_ms, sample_rate, "window_ms")
        self.hop = whole_samples(hop_ms, sample_rate, "hop_ms")
        if not 0 <= fmin_hz < fmax_hz <= sample_rate / 2:
            raise ValueError(
                f"fmin_hz, fmax_hz: got {fmin_hz}, {fmax_hz}, "
                f"allowed: 0 <= fmin_hz < fmax_hz <= {sample_rate / 2}"
            )
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate,
            n_fft=self.window,
            hop_length=self.hop,
            f_min=fmin_hz,
            f_max=fmax_hz,
            n_mels=num_mels,
            power=None,  # in `forward`
            center=False,
            norm="slaney",
            mel_scale="slaney",
        )

    def num_frames(self, num_samples: int) -> int:
        """T of a waveform of S samples: only windows that lie wholly inside it; 0 if none does."""
        return max(0, 1 + (num_samples - self.window) // self.hop)

    def forward(self, waveform: Tensor) -> Tensor:
        """Log-mel of a waveform.

        Args: waveform: mono, (B, S) or (S,), nominal range -1 to 1, at ``sample_rate``.
        Returns: (B, F, T) or (F, T), natural log.
        Raises: ValueError if the waveform is shorter than one window.
        """
        if self.num_frames(waveform.shape[-1]) == 0:
            raise ValueError(
                f"waveform: got {waveform.shape[-1]} samples, "
                f"allowed: at least one window of {self.window}"
            )
        spectrum = self.mel.spectrogram(waveform)  # (..., bins, T), complex
        # Its absolute value, squared, takes as long as everything else here together.
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.log(self.mel.mel_scale(power) + EPSILON)


front_end = lru_cache(maxsize=4)(LogMel)
"""A `LogMel` that is made once per process for the same parameters."""


def log_mel(waveform: Tensor) -> Tensor:
    """Log-mel of a 16 kHz waveform, (B, S) or (S,), with the paper's front end: (B, F, T)."""
    return front_end()(waveform)


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Changes the sample rate by Kaiser-windowed sinc interpolation.

    Args: waveform: (..., S). source_rate, target_rate: Hz.
    Returns: (..., ceil(S * target_rate / source_rate)).
    """
    if source_rate == target_rate:
        return waveform
    return torch.cat(list(resampled([waveform], source_rate, target_rate)), dim=-1)


def resampled(blocks: Iterable[Tensor], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """`resample` for a waveform that comes in blocks, with the same numbers however it is cut.

    Args: blocks: (..., any length) one after another, at least one.
    Returns: blocks of the result; an hour needs no more memory than a minute, and no rates more
        than some 100 MB.
    """
    if source_rate == target_rate:
        yield from blocks
        return
    made = _filter(source_rate, target_rate)
    received = sent = 0
    waiting: Tensor | None = None
    for block in blocks:
        received += block.shape[-1]
        waiting = (
            F.pad(block, (made.before, 0)) if waiting is None else torch.cat([waiting, block], -1)
        )
        while waiting.shape[-1] >= made.reach(made.most_steps):
            yield made.steps(waiting[..., : made.reach(made.most_steps)])
            sent += made.most_steps * made.up
            waiting = waiting[..., made.most_steps * made.down :]
    length = math.ceil(received * target_rate / source_rate)
    while waiting is not None and sent < length:
        steps = min(made.most_steps, math.ceil((length - sent) / made.up))
        missing = made.reach(steps) - waiting.shape[-1]
        yield made.steps(F.pad(waiting, (0, max(0, missing))))[..., : length - sent]
        sent += steps * made.up
        waiting = waiting[..., steps * made.down :]


def whole_samples(duration_ms: float, sample_rate: int, name: str) -> int:
    """A duration in samples. Raises: ValueError if it is not a positive whole number of them."""
    samples = duration_ms * sample_rate / 1000
    if samples < 1 or abs(samples - round(samples)) > 1e-6:
        raise ValueError(
            f"{name}: got {duration_ms}, which is {samples:g} samples at {sample_rate} Hz, "
            "allowed: a positive whole number of samples"
        )
    return round(samples)


@dataclass(frozen=True)
class _Filter:
    """A step takes ``down`` samples in and gives ``up`` out; it reaches a little further."""

    up: int
    down: int
    before: int
    """Samples in front of a step that it reads."""
    behind: int
    kernel: Tensor
    """(up, before + down + behind)."""

    @property
    def most_steps(self) -> int:
        """At a time."""
        return min(BLOCK_STEPS, LARGEST_WINDOWS // self.kernel.shape[1])

    def reach(self, steps: int) -> int:
        """Samples in that some steps read."""
        return self.before + steps * self.down + self.behind

    def steps(self, samples: Tensor) -> Tensor:
        """Every step in ``samples``, (..., S): torchaudio's convolution, written as a product."""
        windows = samples.unfold(-1, self.kernel.shape[1], self.down)  # (..., steps, taps)
        return products.linear(windows, self.kernel).flatten(-2)


class _OddFilter(_Filter):
    """The same for rates with large terms, whose ``kernel``, nearly all of it zeros, would fill
    gigabytes: here it is one impulse response at the rate ``up`` times the first, (taps,)."""

    @property
    def most_steps(self) -> int:
        """At a time."""
        return max(1, BLOCK_SAMPLES // self.down)

    def steps(self, samples: Tensor) -> Tensor:
        """As `_Filter.steps`."""
        from scipy.signal import upfirdn  # half a second, for rare rates alone

        made = upfirdn(self.kernel.numpy(), samples.numpy(), self.up, self.down, axis=-1)
        steps = (samples.shape[-1] - self.reach(0)) // self.down
        first = (len(self.kernel) // 2 + self.before * self.up) // self.down
        return torch.from_numpy(made[..., first : first + steps * self.up])


@lru_cache(maxsize=8)
def _filter(source_rate: int, target_rate: int) -> _Filter:
    """torchaudio's filter for two rates; making it for an odd pair is costly, so it is kept."""
    ratio = Fraction(target_rate, source_rate)
    if max(ratio.as_integer_ratio()) > LARGEST_TERM:
        down = ratio < 1
        nearest = (ratio if down else 1 / ratio).limit_denominator(LARGEST_TERM)
        ratio = nearest if down else 1 / nearest
    up, down = ratio.as_integer_ratio()
    cutoff = min(up, down) * RESAMPLING["rolloff"]
    width = math.ceil(RESAMPLING["lowpass_filter_width"] * down / cutoff)
    if up * (down + 2 * width) <= LARGEST_KERNEL:
        kernel = torchaudio.transforms.Resample(down, up, **RESAMPLING).kernel.squeeze(1)
        # Several of its steps at once where each gives few samples and would read many for them.
        count = max(1, FEWEST_UP // up)
        several = kernel.new_zeros(count * up, kernel.shape[1] + (count - 1) * down)
        for step, rows in enumerate(several.split(up)):
            rows[:, step * down :][:, : kernel.shape[1]] = kernel
        return _Filter(count * up, count * down, width, width, several)
    before = math.ceil(width / down) * down  # so that steps begin where the two rates meet
    half = math.ceil(width * up / down) * down
    time = torch.arange(-half, half + 1, dtype=torch.float64)
    time *= cutoff / (up * down)  # in periods of the cutoff
    within, beta = RESAMPLING["lowpass_filter_width"], torch.tensor(RESAMPLING["beta"]).double()
    shape = (1 - (time / within).square()).clamp(min=0).sqrt()
    window = torch.special.i0(beta * shape) / torch.special.i0(beta)
    kernel = torch.sinc(time) * window.where(time.abs() < within, 0) * (cutoff / down)
    return _OddFilter(up, down, before, width, kernel.float())

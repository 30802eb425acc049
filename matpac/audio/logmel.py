"""The front end (MATPAC Sec. IV-A): waveform -> log-mel spectrogram, and its normalisation.

One definition for pretraining and probing. Shapes: B clips, S samples, F mel bins, T frames.
"""

import math
from collections.abc import Iterable, Iterator
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


@lru_cache(maxsize=4)
def front_end(
    sample_rate: int,
    window_ms: float,
    hop_ms: float,
    num_mels: int,
    fmin_hz: float,
    fmax_hz: float,
) -> LogMel:
    """A `LogMel` that is made once per process for the same parameters."""
    return LogMel(
        sample_rate=sample_rate,
        window_ms=window_ms,
        hop_ms=hop_ms,
        num_mels=num_mels,
        fmin_hz=fmin_hz,
        fmax_hz=fmax_hz,
    )


def log_mel(waveform: Tensor) -> Tensor:
    """Log-mel of a 16 kHz waveform, (B, S) or (S,), with the paper's front end: (B, F, T)."""
    return front_end(16000, 25, 10, 80, 50, 8000)(waveform)


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
    Returns: blocks of the result; an hour needs no more memory than a minute.
    """
    if source_rate == target_rate:
        yield from blocks
        return
    # torchaudio's convolution written as a product.
    kernel, width, step = _kernel(source_rate, target_rate)  # (samples out per step, taps)
    taps = kernel.shape[1]
    received = sent = 0
    waiting: Tensor | None = None
    for block in blocks:
        received += block.shape[-1]
        waiting = F.pad(block, (width, 0)) if waiting is None else torch.cat([waiting, block], -1)
        while waiting.shape[-1] >= (BLOCK_STEPS - 1) * step + taps:
            windows = waiting.unfold(-1, taps, step)[..., :BLOCK_STEPS, :]  # (..., steps, taps)
            yield products.linear(windows, kernel).flatten(-2)
            sent += BLOCK_STEPS * kernel.shape[0]
            waiting = waiting[..., BLOCK_STEPS * step :]
    length = math.ceil(received * target_rate / source_rate)
    if waiting is not None and sent < length:
        windows = F.pad(waiting, (0, width + step)).unfold(-1, taps, step)
        rest = [products.linear(each, kernel) for each in windows.split(BLOCK_STEPS, dim=-2)]
        yield torch.cat(rest, dim=-2).flatten(-2)[..., : length - sent]


def whole_samples(duration_ms: float, sample_rate: int, name: str) -> int:
    """A duration in samples. Raises: ValueError if it is not a positive whole number of them."""
    samples = duration_ms * sample_rate / 1000
    if samples < 1 or abs(samples - round(samples)) > 1e-6:
        raise ValueError(
            f"{name}: got {duration_ms}, which is {samples:g} samples at {sample_rate} Hz, "
            "allowed: a positive whole number of samples"
        )
    return round(samples)


@lru_cache(maxsize=32)
def _kernel(source_rate: int, target_rate: int) -> tuple[Tensor, int, int]:
    """Filters of one period (out, taps), samples before a period that they reach, its samples in.

    Making them for an odd pair of rates is costly: it is done once.
    """
    made = torchaudio.transforms.Resample(source_rate, target_rate, **RESAMPLING)
    return made.kernel.squeeze(1), made.width, source_rate // math.gcd(source_rate, target_rate)

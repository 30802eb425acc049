"""The HEAR 2021 common API (Holistic Evaluation of Audio Representations), for any encoder.

    MATPAC_ENCODER=data/mini/pretrain/base/seed_0 <HEAR's runner> matpac.hear ...

A scene embedding is the mean over all time columns, as in MATPAC Sec. IV-A; the timestamp
embeddings are the columns themselves. HEAR wants sounds of any length and evenly spaced timestamps
that lie within the sound, so here, unlike in `WaveEncoder.embed`,

- what is too short for an encoder is filled up with silence, and
- columns are given at the even spacing of a whole piece: a last column whose middle would lie
  behind the end of the sound is left out (it still counts in the scene embedding).

Shapes: N sounds of S samples, n time columns, D embedding size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matpac.audio.chunking import shortest
from matpac.encoders import hub
from matpac.encoders.interface import Frames, WaveEncoder

SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)
"""Hz, at which HEAR's tasks are to be had."""


class HearModel(nn.Module):
    """An encoder with the attributes that HEAR asks for.

    Raises: ValueError for an encoder of a sample rate that HEAR's tasks do not come in.
    """

    def __init__(self, encoder: WaveEncoder) -> None:
        super().__init__()
        if encoder.sample_rate not in SAMPLE_RATES:
            allowed = ", ".join(map(str, SAMPLE_RATES))
            raise ValueError(f"sample_rate: got {encoder.sample_rate}, HEAR allows: {allowed}")
        self.encoder = encoder
        self.sample_rate = encoder.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = encoder.width

    def forward(self, audio: Tensor) -> Tensor:
        """As `get_scene_embeddings`: (N, S) -> (N, D)."""
        return get_scene_embeddings(audio, self)


def load_model(model_file_path: str = "") -> HearModel:
    """The model that the two other functions take, on the CPU.

    Args:
        model_file_path: what `matpac.load` takes: an encoder's folder, a name on the Hugging Face
            Hub, or a published row; "": the environment variable MATPAC_ENCODER says it.
    Raises: ValueError saying what to give if neither does; as `matpac.load`.
    """
    return HearModel(hub.load(hub.chosen(str(model_file_path)), device="cpu"))


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding per sound.

    Args:
        audio: mono, (N, S), between -1 and 1, at the model's ``sample_rate``.
        model: as `load_model` gives it, on any device.
    Returns: (N, D) float32 on the audio's device.
    Raises: ValueError for another shape.
    """
    found = model.encoder.embed(_clips(audio, model), sample_rate=model.sample_rate)
    return found.to(audio.device)


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Embeddings over time, and when they are.

    Args: as `get_scene_embeddings`.
    Returns: (N, n, D) float32 and (N, n) milliseconds from the start to the middle of each column,
        float32; both on the audio's device.
    Raises: ValueError for another shape.
    """
    clips = _clips(audio, model)
    found = model.encoder.embed(clips, sample_rate=model.sample_rate, frames=True)
    times, nearest = _even(found[0], model.encoder, audio.shape[1] / model.sample_rate)
    embeddings = torch.stack([each.embeddings[nearest] for each in found])
    stamps = (1000 * times).float().expand(len(clips), -1).contiguous()
    return embeddings.to(audio.device), stamps.to(audio.device)


def _clips(audio: Tensor, model: HearModel) -> list[Tensor]:
    """Sounds that are long enough, one by one: (N, S) -> N times (S,)."""
    if audio.ndim != 2 or not len(audio):
        raise ValueError(f"audio: got shape {tuple(audio.shape)}, allowed: (sounds, samples), mono")
    missing = max(0, shortest(model.encoder) - audio.shape[1])
    return list(F.pad(audio, (0, missing)))


def _even(found: Frames, encoder: WaveEncoder, duration_s: float) -> tuple[Tensor, Tensor]:
    """Evenly spaced times (n,) within the sound, seconds, and the column nearest to each."""
    of_piece = encoder.times(encoder.piece_samples)
    if len(of_piece) > 1:
        step = float(of_piece[1] - of_piece[0])
    else:
        step = (encoder.piece_hop or encoder.piece_samples) / encoder.sample_rate
    times, order = found.times.sort()
    first = min(float(times[0]), duration_s)  # a filled-up sound may end before its first middle
    # What is lost in float64 is no reason to lose a column.
    num = 1 + int((duration_s - first) / step + 1e-9)
    wanted = first + step * torch.arange(num, dtype=torch.float64)
    nearest = torch.bucketize(wanted, (times[1:] + times[:-1]) / 2)
    return wanted.clamp(max=duration_s), order[nearest]

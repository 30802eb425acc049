"""The embedded corpus for ears and eyes: what notebook 07 plays, draws and tabulates.

Everything is made on the fly from recipe and seed; no stage needs to have run. Shapes: S samples,
F mel bins, T frames, N patches.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import soundfile
import torch
from torch import Tensor

from matpac.audio.logmel import log_mel
from matpac.corpus import RECIPES, example
from matpac.corpus.music import FAMILIES
from matpac.method.masking import random_mask
from matpac.method.patches import patch_grid
from matpac.reporting.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE = 16000  # Hz, of the corpus
FADE_S = 0.02
LEVEL = 0.08  # RMS of an excerpt, so that classes are heard equally loud
WIDTH = 900  # pixels, of images and players
HIDDEN = "#D9D4CC"  # patches that are not shown


def splits(sizes: Mapping[str, int]) -> pd.DataFrame:
    """What each data set asks and how its clips are divided.

    Args: sizes: recipe -> number of clips.
    Returns: one row per recipe.
    """
    rows = {}
    for name, num_clips in sizes.items():
        recipe = RECIPES[name]
        slots = pd.Series([recipe.slot(index).split for index in range(num_clips)])
        parts = [f"{(slots == part).sum()} {part}" for part in ("train", "valid", "test")]
        folds = f"{recipe.num_folds} folds of {num_clips // max(recipe.num_folds, 1)}"
        rows[name] = {
            "labels": recipe.kind,
            "classes": len(recipe.classes),
            "metric": (recipe.metric or "").replace("map", "mAP"),
            "clips": num_clips,
            "parts": folds if recipe.num_folds else " / ".join(parts) if recipe.classes else "",
        }
    return pd.DataFrame(rows).T


def presets() -> pd.DataFrame:
    """The General-MIDI presets of the NSynth-like families, by part. One row per family."""
    from pretty_midi import program_to_instrument_name

    parts = ("train", "valid and test")
    return pd.DataFrame(
        {
            family: {
                part: ", ".join(map(program_to_instrument_name, programs))
                for part, programs in zip(parts, of_parts, strict=True)
            }
            for family, of_parts in FAMILIES.items()
        }
    ).T


def clips(recipe: str, *, seed: int, num_clips: int) -> pd.DataFrame:
    """Makes the first clips of a data set and tells where each belongs.

    Returns: per clip its ``part`` (split or fold), ``group`` (preset, artist or source recording)
        and ``target`` (class index or labels).
    """
    made = RECIPES[recipe]
    rows = []
    for index in range(num_clips):
        slot = made.slot(index)
        clip = made.make(seed, slot)
        part = f"fold {slot.fold}" if slot.fold else slot.split
        rows.append({"part": part, "group": clip.group, "target": clip.target})
    return pd.DataFrame(rows)


def answers(recipe: str, table: pd.DataFrame) -> pd.DataFrame:
    """Multi-label targets of `clips` in words: what is there, and how many cells say no or nothing.

    Returns: per clip ``heard`` (label with likelihood), ``not heard`` and ``not asked`` (counts).
    """
    classes = np.array(RECIPES[recipe].classes)
    rows = []
    for target in table["target"]:
        values = np.array(target, dtype=float)
        heard = [f"{classes[i]} {values[i]:.1f}" for i in np.flatnonzero(values > 0.5)]
        row = {"heard": ", ".join(heard), "not heard": int((values <= 0.5).sum())}
        rows.append(row | {"not asked": int(np.isnan(values).sum())})
    return pd.DataFrame(rows, index=table.index)


def listen(recipe: str, *, seed: int, seconds: float = 1.2) -> None:
    """Shows a log-mel of short excerpts, one of every class, and a player for them.

    Args:
        recipe: a name in RECIPES; of one without classes the first eight clips are taken.
        seed: of the corpus.
        seconds: of each excerpt, the loudest part of a clip.
    """
    made = RECIPES[recipe]
    if made.classes:
        sounds = {name: example(recipe, name, seed=seed)[0] for name in made.classes}
    else:
        slots = [made.slot(index) for index in range(8)]
        sounds = {f"clip {s.index}": made.make(seed, s).audio / 32767 for s in slots}
    play(list(sounds.items()), seconds=seconds, alt=recipe)


def play(sounds: Sequence[tuple[str, np.ndarray]], *, seconds: float = 1.2, alt: str = "") -> None:
    """Shows a log-mel of an excerpt of each sound under its name, and a player for them.

    Args: sounds: name and waveform (S,), 16 kHz; alt: what the picture is called.
    """
    from IPython.display import HTML, Image, display

    pieces = [excerpt(sound, seconds) for _, sound in sounds]
    length = round(RATE * seconds)
    waveform = np.concatenate([np.pad(piece, (0, length - len(piece))) for piece in pieces])
    strip = _strip(waveform, [name for name, _ in sounds], seconds)
    display(Image(strip, format="jpeg", width=WIDTH, alt=alt))
    audio = base64.b64encode(mp3(waveform)).decode()
    player = f'<audio controls style="width: {WIDTH}px; max-width: 100%" src="data:audio/mpeg'
    display(HTML(f'{player};base64,{audio}"></audio>'))


def excerpt(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The loudest stretch of a clip (S,), found in steps of 0.1 s, faded and at one level."""
    length, step = round(seconds * RATE), RATE // 10
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    starts = np.arange(0, max(len(waveform) - length, 0) + 1, step)
    ends = np.minimum(starts + length, len(waveform))
    start = starts[np.argmax(energy[ends] - energy[starts])]
    piece = waveform[start : start + length].astype(np.float64)
    fade = np.minimum(1.0, np.arange(len(piece)) / (FADE_S * RATE))
    piece = piece * fade * fade[::-1]
    loud, peak = np.sqrt(np.mean(piece**2)), np.abs(piece).max()
    return piece * min(LEVEL / loud, 0.9 / peak) if peak else piece


def mp3(waveform: np.ndarray) -> bytes:
    """A waveform (S,) at 24 kbit/s, which every browser plays."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, waveform, RATE, format="MP3", subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT", compression_level=0.9,
    )  # fmt: skip
    return buffer.getvalue()


def masked(
    waveform: np.ndarray, *, crop_frames: int, patch_size: int, mask_ratio: float
) -> tuple["Figure", pd.Series]:
    """One random mask on the first crop of a clip: what is there, what student and teacher get.

    Args:
        waveform: (S,), 16 kHz, at least one crop long.
        crop_frames, patch_size, mask_ratio: as in ``params.yaml``.
    Returns: the figure, and the numbers of rows, columns, patches, visible and masked ones.
    """
    import matplotlib.pyplot as plt

    logmel = log_mel(torch.from_numpy(waveform).float())[:, :crop_frames]  # (F, T)
    rows, columns = patch_grid(*logmel.shape, patch_size)
    noise = torch.rand(1, rows * columns, generator=torch.Generator().manual_seed(0))
    mask = random_mask(noise, mask_ratio)
    panels = {
        "the log-mel and its patches": None,
        f"the student sees {mask.visible.shape[1]} of them": mask.visible[0],
        f"the teacher encodes the other {mask.masked.shape[1]}": mask.masked[0],
    }
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(7.16, 2.4), layout="constrained", sharey=True)
        for panel, (title, shown) in zip(axes, panels.items(), strict=True):
            _patches(panel, logmel, patch_size, shown)
            panel.set(title=title, xlabel="frame (10 ms)")
        axes[0].set_ylabel("mel band")
        plt.close(figure)
    counts = {"rows": rows, "columns": columns, "patches": rows * columns}
    counts |= {"visible": mask.visible.shape[1], "masked": mask.masked.shape[1]}
    return figure, pd.Series(counts)


def _patches(panel: "Axes", logmel: Tensor, size: int, shown: Tensor | None) -> None:
    """A log-mel under its patch grid; patches other than those shown are covered."""
    num_mels, num_frames = logmel.shape
    image = logmel.numpy()
    if shown is not None:
        seen = torch.zeros(num_mels // size * (num_frames // size), dtype=torch.bool)
        seen[shown] = True
        tiles = seen.reshape(num_mels // size, num_frames // size)  # (R, C), row 0 lowest
        pixels = tiles.repeat_interleave(size, 0).repeat_interleave(size, 1)  # (F, T)
        image = np.ma.masked_array(image, mask=~pixels.numpy())
    panel.set_facecolor(HIDDEN)
    panel.imshow(
        image, origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
        extent=(0, num_frames, 0, num_mels), vmin=logmel.min(), vmax=logmel.max(),
    )  # fmt: skip
    for position in range(0, num_frames + 1, size):
        panel.axvline(position, color="white", lw=0.5)
    for position in range(0, num_mels + 1, size):
        panel.axhline(position, color="white", lw=0.5)
    panel.set(xticks=range(0, num_frames + 1, 2 * size), yticks=range(0, num_mels + 1, size))


def _strip(waveform: np.ndarray, names: Sequence[str], seconds: float) -> bytes:
    """The log-mel of excerpts one after the other, each under its name, as JPEG."""
    import matplotlib.pyplot as plt

    logmel = log_mel(torch.from_numpy(waveform).float()).numpy()  # (F, T)
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(10, 1.9), layout="constrained")
        end = len(names) * seconds
        axes.imshow(
            logmel, origin="lower", aspect="auto", cmap="magma",
            extent=(0, end, 0, len(logmel)), vmin=np.percentile(logmel, 2),
        )  # fmt: skip
        for number, name in enumerate(names):
            axes.axvline(number * seconds, color="white", lw=0.8)
            axes.text((number + 0.1) * seconds, len(logmel) + 2, name.replace("_", " "),
                      rotation=28, ha="left", va="bottom", fontsize=7)  # fmt: skip
        axes.set(yticks=(), ylabel="mel bands", xlabel="seconds", ylim=(0, len(logmel)))
        plt.close(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="jpeg", dpi=110, pil_kwargs={"quality": 75})
    return buffer.getvalue()

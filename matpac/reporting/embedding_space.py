"""What an encoder has learnt, to look at: neighbours, maps of its space, attention, patches.

Notebook 08 shows it of a run; `matpac similar` and `matpac pretrain FOLDER` take parts of it.

Shapes: N clips, D embedding size, F mel bins, T frames of a clip, R patch rows and n patch columns
of it, H heads, M patches of a piece.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from matpac.audio import logmel, reading
from matpac.data import manifests
from matpac.encoders.frozen import AudioEncoder
from matpac.probing.config import ProbeParams
from matpac.probing.knn import nearest as nearest
from matpac.probing.probe import load_task
from matpac.probing.rows import Features, list_features, on_the_way, random_encoder
from matpac.probing.task import Task
from matpac.reporting.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AROUND = 20
"""Dots that decide where a class's name stands."""
MOST_NAMED = 50
"""Classes whose names fit into a picture."""


class Look(NamedTuple):
    """The clips of a task as a run sees them, from its start to its end."""

    encoders: list[Features]
    """Before the first update, as kept on the way, and at the end; of the run's first seed."""
    tasks: list[Task]
    """In the embeddings of each."""
    clips: pd.DataFrame
    """The manifest, a row per clip."""
    classes: np.ndarray
    """Name of each clip's class, (N,)."""


def opened(params: ProbeParams, run: str, task: str) -> Look:
    """Embeds the clips of a task, or reads what was kept.

    Raises: ValueError for a task of several labels per clip; as `list_features` and `load_task`.
    """
    end = list_features(params, run)[0]
    start = random_encoder(params, run, end.seed)
    kept = [each for each in on_the_way(params, run) if each.seed == end.seed and each.fraction]
    encoders = [end._replace(encoder=start, fraction=0.0), *kept, end]
    loaded = [load_task(params, each, task) for each in encoders]
    _, clips, info = loaded[-1]
    if info["kind"] != "multiclass":
        raise ValueError(f"task: got {task}, {info['kind']}, allowed: one class per clip")
    classes = np.array(info["classes"])[clips["label"].to_numpy(int)]
    return Look(encoders, [each for each, *_ in loaded], clips, classes)


def recording(params: ProbeParams, task: str, clip: pd.Series) -> np.ndarray:
    """The sound of a row of a manifest, (S,), resampled to 16 kHz. Raises: as `read`."""
    path = manifests.audio_folder(params, task) / clip["path"]
    samples, own = reading.read(path, start_s=clip["start_s"], duration_s=clip["duration_s"])
    return logmel.resample(torch.from_numpy(samples), own, 16000).numpy()


# ------------------------------------------------------------------------- the space of clips


def standardised(task: Task) -> np.ndarray:
    """Embeddings of all clips, to zero mean and unit variance of the first split's training part,
    as its probes have them, (N, D)."""
    return task.inputs(task.splits[0])[np.arange(len(task.features))].cpu().numpy()


def principal(rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components of some rows: (N, D) -> (N, number), and their shares of the
    variance (number,). The largest loading of each is positive."""
    from sklearn.decomposition import PCA  # which also fixes the signs so

    pca = PCA(number, svd_solver="full")
    return pca.fit_transform(rows.astype(np.float64)), pca.explained_variance_ratio_


def course(spaces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first two principal components of each space, turned or mirrored as a whole to lie as
    well as they can on those of the last: (N, D) each -> (N, 2) each."""
    from scipy.linalg import orthogonal_procrustes

    points = [principal(space, 2)[0] for space in spaces]
    return [each @ orthogonal_procrustes(each, points[-1])[0] for each in points]


def flattened(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, 2) by t-SNE, always the same for the same numbers; N is 3 or more."""
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    scaled = StandardScaler().fit_transform(embeddings)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(scaled)


def scatter(axes: "Axes", points: np.ndarray, classes: np.ndarray) -> None:
    """A dot per clip (N, 2), and each class's name at that of its dots with most of them around it.

    Args: classes: (N,); "" for none.
    """
    from matplotlib import colormaps
    from sklearn.neighbors import NearestNeighbors

    around = NearestNeighbors(n_neighbors=min(AROUND, len(points))).fit(points)
    near = around.kneighbors(points, return_distance=False)  # (N, AROUND)
    alike = (classes[near] == classes[:, None]).sum(axis=1)
    colours, size = colormaps["tab20"].colors, min(12.0, max(3.0, 1500 / len(points)))
    named = sorted(set(classes) - {""})
    for number, name in enumerate(["", *named] if "" in classes else named):
        own = points[classes == name]
        colour = colours[number % len(colours)] if name else "0.7"
        axes.scatter(*own.T, s=size, color=colour, linewidths=0)
        if name and len(named) <= MOST_NAMED:
            label(axes, own[alike[classes == name].argmax()], name)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def label(axes: "Axes", at: np.ndarray, name: str) -> None:
    """A name that can be read on top of dots. Args: at: (2,)."""
    from matplotlib import patheffects

    text = axes.text(*at, name, ha="center", va="center", fontsize=5, parse_math=False)
    text.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="white")])


def spaces(panels: dict[str, np.ndarray], classes: np.ndarray) -> "Figure":
    """`scatter` of several sets of points side by side. Args: panels: title -> (N, 2)."""
    import matplotlib.pyplot as plt

    with plt.style.context(STYLE):
        size = {"figsize": (2.9 * len(panels), 2.7), "layout": "constrained", "squeeze": False}
        figure, axes = plt.subplots(1, len(panels), **size)
        for panel, (title, points) in zip(axes[0], panels.items(), strict=True):
            scatter(panel, points, classes)
            panel.set_title(title)
        plt.close(figure)
    return figure


# ------------------------------------------------------------------------- inside of a clip


def attention(encoder: AudioEncoder, piece: Tensor) -> Tensor:
    """What the last block attends to: of every token (row) how much goes to every other.

    Args: piece: log-mels before normalisation, of at most one crop, (B, F, T).
    Returns: (B, H, 1 + M, 1 + M), the class token first; rows sum to 1.
    """
    last, caught = encoder.encoder.blocks[-1].attn, []
    with last.register_forward_pre_hook(lambda _, inputs: caught.extend(inputs)):
        encoder.columns(piece)
    parts = last.qkv(caught[0]).unflatten(2, (3, last.num_heads, -1))  # (B, 1 + M, 3, H, D/H)
    query, key, _ = parts.permute(2, 0, 3, 1, 4)  # each (B, H, 1 + M, D/H)
    return (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)


def class_attention(encoder: AudioEncoder, clip: Tensor) -> Tensor:
    """What the class token of the last block attends to: log-mel (F, T) -> (H, R, n).

    Every piece of a crop is a matter of its own; 1 is what each token gets if all get the same.
    """
    maps = []
    for piece in encoder.pieces(clip[None]):
        given = attention(encoder, piece)[0, :, 0]  # (H, 1 + M)
        maps.append((given * given.shape[1])[:, 1:].unflatten(1, (encoder.patches.rows, -1)))
    return torch.cat(maps, dim=2)


def patch_colours(latents: Sequence[Tensor]) -> list[np.ndarray]:
    """The first three principal components of the patches of some clips as red, green, blue.

    Args: latents: of each clip, (R, n, D).
    Returns: (R, n, 3) each, 0 to 1 from the lowest to the highest of all patches.
    """
    rows = torch.cat([each.flatten(0, 1) for each in latents]).cpu().numpy()
    points, _ = principal(rows, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    colours = (points - low) / np.maximum(high - low, 1e-12)
    ends = np.cumsum([each.shape[0] * each.shape[1] for each in latents])[:-1]
    shapes = [(*each.shape[:2], 3) for each in latents]
    return [part.reshape(s) for part, s in zip(np.split(colours, ends), shapes, strict=True)]


def maps(panels: Sequence[tuple[str, Tensor, np.ndarray | None]], patch_size: int) -> "Figure":
    """Log-mels (F, T) in grey, one below the other, each under its title and what is laid over it:
    a number or a colour per patch, (R, n) or (R, n, 3), or nothing."""
    import matplotlib.pyplot as plt

    with plt.style.context(STYLE):
        size = {"figsize": (7.16, 0.95 * len(panels)), "layout": "constrained", "squeeze": False}
        figure, axes = plt.subplots(len(panels), 1, sharex=True, **size)
        for panel, (title, clip, grid) in zip(axes[:, 0], panels, strict=True):
            look = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
            num_mels, num_frames = clip.shape
            panel.imshow(clip.numpy(), cmap="gray", extent=(0, num_frames, 0, num_mels), **look)
            if grid is not None:
                rows, columns = (patch_size * count for count in grid.shape[:2])
                panel.imshow(grid, alpha=0.6, cmap="magma", extent=(0, columns, 0, rows), **look)
            panel.set(title=title, xlim=(0, num_frames), yticks=())
            panel.grid(visible=False)
        axes[-1, 0].set_xlabel("frame (10 ms)")
        plt.close(figure)
    return figure

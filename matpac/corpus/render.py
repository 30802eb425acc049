"""Writes a recipe's clips as WAV files and describes them in a manifest.

Every clip is a pure function of (recipe, seed, index), so workers, their number and what is
already on disk change nothing.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from matpac.core.progress import Progress
from matpac.corpus.instruments import soundfont_path
from matpac.corpus.layout import Recipe
from matpac.corpus.recipes import recipe_of
from matpac.corpus.synthesis import SAMPLE_RATE

if TYPE_CHECKING:
    import pandas as pd

FINGERPRINT = "corpus.json"  # in every folder of clips: what made them
_CHUNK = 20  # clips a worker takes at a time
_WAV_HEADER_BYTES = 44


@contextlib.contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes to pass to ``render``; reused over recipes, they keep their note samples.

    They are started afresh ("spawn"), since a fork of a process with torch's threads can hang.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        yield executor


def render(
    recipe: str,
    folder: Path,
    *,
    num_clips: int,
    seed: int,
    workers: int | Executor = 1,
    sample_rate: int = SAMPLE_RATE,
) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """Renders a data set of the embedded corpus.

    Files of an earlier call are kept if the folder's fingerprint says that the same code, seed and
    SoundFont made them (the number of clips may differ); otherwise all are made again.

    Args:
        recipe: a name in RECIPES.
        folder: where ``<clip>.wav`` (16-bit PCM, mono) go; made if missing.
        num_clips: how many clips; clip i is the same whatever the number.
        seed: seed of the whole corpus, >= 0.
        workers: processes, or an executor (see ``pool``).
        sample_rate: must be SAMPLE_RATE; here so that a front end for another rate fails early.
    Returns: the manifest, one row per clip, and the data set's description.
    Raises:
        ValueError: unknown recipe, too few clips for its classes and folds, or another rate.
        ModuleNotFoundError: midirenderer or pretty_midi is not installed.
    """
    import pandas as pd  # here, so that workers start without it

    made = recipe_of(recipe)
    _check(made, num_clips=num_clips, seed=seed, workers=workers, sample_rate=sample_rate)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, made, seed)
    chunks = [range(i, min(i + _CHUNK, num_clips)) for i in range(0, num_clips, _CHUNK)]
    work = partial(_render_chunk, recipe, folder, seed)
    with contextlib.ExitStack() as stack:
        if isinstance(workers, Executor):
            results = workers.map(work, chunks)
        elif workers > 1:
            results = stack.enter_context(pool(workers)).map(work, chunks)
        else:
            results = map(work, chunks)
        progress = stack.enter_context(Progress(num_clips, f"render {recipe}", unit="clip"))
        rows = []
        for chunk in results:
            rows += chunk
            progress.update(len(chunk))
    return pd.DataFrame(rows), _info(made, folder, rows, seed)


def example(recipe: str, label: str | int, *, seed: int, number: int = 0) -> tuple[np.ndarray, int]:
    """A clip of a class, to look at or to listen to.

    Args:
        recipe: a name in RECIPES other than "pretraining".
        label: name or index of the class that the clip shows.
        seed: seed of the corpus.
        number: which of the clips of this class, from 0.
    Returns: waveform (S,) float32 in [-1, 1], and its sample rate in Hz.
    Raises: ValueError for an unknown recipe or class.
    """
    made = recipe_of(recipe)
    lead = made.classes.index(label) if label in made.classes else label
    if not isinstance(lead, int) or not 0 <= lead < len(made.classes):
        raise ValueError(f"label of {recipe}: got {label!r}, allowed: {', '.join(made.classes)}")
    slots = (made.slot(index) for index in range((number + 1) * made.smallest))
    slot = [slot for slot in slots if slot.lead == lead][number]
    return made.make(seed, slot).audio.astype(np.float32) / 32767.0, SAMPLE_RATE


def _check(
    recipe: Recipe, *, num_clips: int, seed: int, workers: int | Executor, sample_rate: int
) -> None:
    if num_clips < recipe.smallest:
        parts = f"{recipe.num_folds} folds" if recipe.num_folds else "train, valid and test"
        raise ValueError(
            f"num_clips of {recipe.name}: got {num_clips}, at least {recipe.smallest} are needed "
            f"for {len(recipe.classes)} classes in {parts}"
        )
    if seed < 0:
        raise ValueError(f"seed: got {seed}, must be >= 0")
    if isinstance(workers, int) and workers < 1:
        raise ValueError(f"workers: got {workers}, must be >= 1")
    if sample_rate != SAMPLE_RATE:
        raise ValueError(f"sample_rate: got {sample_rate}, the corpus is made at {SAMPLE_RATE} Hz")
    soundfont_path()


@cache
def _code_version() -> str:
    """Hash of the package's source, the SoundFont and the renderer that make the sound."""
    digest = hashlib.sha256(version("midirenderer").encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py")), soundfont_path()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _claim(folder: Path, recipe: Recipe, seed: int) -> None:
    """Makes the folder this recipe's, removing clips that something else made."""
    mark = folder / FINGERPRINT
    wanted = {"recipe": recipe.name, "seed": seed, "code": _code_version()}
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return
    mark.unlink(missing_ok=True)
    for path in (*folder.glob(f"{recipe.name}-*.wav"), *folder.glob(f"{recipe.name}-*.json")):
        path.unlink()
    _write(mark, json.dumps(wanted, indent=2).encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a whole file or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _render_chunk(recipe: str, folder: Path, seed: int, indices: range) -> list[dict[str, Any]]:
    """Makes the clips of a chunk, or finds them made, and returns their manifest rows."""
    done = folder / f"{recipe}-{indices.start:05d}.json"  # written when its clips are complete
    if done.exists():
        rows = json.loads(done.read_text())[: len(indices)]
        if len(rows) == len(indices) and all(_is_complete(folder, row) for row in rows):
            return rows
    rows = [_render_clip(recipe_of(recipe), folder, seed, index) for index in indices]
    _write(done, json.dumps(rows).encode())
    return rows


def _is_complete(folder: Path, row: dict[str, Any]) -> bool:
    path = folder / row["path"]
    size = _WAV_HEADER_BYTES + 2 * round(row["duration_s"] * SAMPLE_RATE)
    return path.exists() and path.stat().st_size == size


def _render_clip(recipe: Recipe, folder: Path, seed: int, index: int) -> dict[str, Any]:
    """Makes one clip, writes it and returns its manifest row."""
    slot = recipe.slot(index)
    clip = recipe.make(seed, slot)
    name = f"{recipe.name}-{index:05d}"
    buffer = io.BytesIO()
    soundfile.write(buffer, clip.audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    content = buffer.getvalue()
    _write(folder / f"{name}.wav", content)
    row = {
        "clip": name,
        "path": f"{name}.wav",
        "start_s": 0.0,
        "duration_s": len(clip.audio) / SAMPLE_RATE,
        "split": slot.split,
        "fold": slot.fold,
        "group": clip.group or name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "excluded": "",
    }
    column = {"multiclass": "label", "multilabel": "labels"}.get(recipe.kind)
    return row | ({column: clip.target} if column else {})


def _info(recipe: Recipe, folder: Path, rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The description of the data set that goes with its manifest."""
    return {
        "name": recipe.name,
        "source": f"embedded corpus, seed {seed}, code {_code_version()[:12]}",
        "kind": recipe.kind,
        "metric": recipe.metric,
        "split_scheme": recipe.split_scheme,
        "num_folds": recipe.num_folds,
        "classes": list(recipe.classes),
        "audio": folder.name,
        "sample_rate": SAMPLE_RATE,
        "num_clips": len(rows),
        "hours": round(sum(row["duration_s"] for row in rows) / 3600, 4),
    }

"""The ``probe`` stage: a frozen encoder -> scores on every task (MATPAC Sec. IV-A).

Embeddings of a task are computed once per encoder (`matpac.probing.extract`), so adding a task or
changing the probe never embeds anything again. Which protocol this is, and what the paper leaves
open: ``docs/probing.md``.

Shapes: N clips of a task, D embedding size, C labels.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch

from matpac.core import distributed, files, paths, section, threads
from matpac.core.parallel import follow_the_parent, unforked
from matpac.core.progress import track
from matpac.data import manifests
from matpac.encoders.frozen import AudioEncoder
from matpac.encoders.interface import WaveEncoder
from matpac.encoders.vit import ViTEncoder
from matpac.features.store import Store
from matpac.probing.config import ProbeParams
from matpac.probing.embedders import Embedder, Recorded, Stored
from matpac.probing.extract import extract
from matpac.probing.fewshot import few_shot
from matpac.probing.kept import keep_head
from matpac.probing.knn import knn
from matpac.probing.linear import ProbeResult, choose, row_of, train_probes
from matpac.probing.measures import measures
from matpac.probing.rows import Features, list_features, on_the_way
from matpac.probing.splits import make_splits
from matpac.probing.task import Task

MOST_PROCESSES = 8
"""Each needs half a gigabyte."""
FEWEST_CLIPS = 5000
"""Of all seeds and tasks, for other processes, which need seconds to start, to be worth it."""


class Scores(NamedTuple):
    """What comes of probing; tables whose first columns are encoder, seed, task and metric."""

    linear: pd.DataFrame
    """One row per (seed, ``fraction`` of training, task, fold, repeat): the linear probe at the
    learning rate taken; and, the same for each of them, the `measures` of the task's embeddings."""
    quick: pd.DataFrame
    """The same of ``probe`` knn and fewshot, whose repeats are draws; ``setting`` is k or the clips
    per class."""
    predictions: pd.DataFrame
    """One row per test clip of every linear probe."""


def probe(encoder: str, params: ProbeParams | dict[str, Any]) -> pd.DataFrame:
    """The ``probe`` stage: scores of one run or encoder on every task.

    Writes into ``data/<profile>/probe/<encoder>/``:

        scores.csv           `Scores.linear` at the end of training; score, accuracy or mAP, is in
                             [0, 1]
        curve.csv            the same of encoders kept on the way (``pretrain.encoders_at``), if any
        quick.csv            `Scores.quick`
        predictions.parquet  `Scores.predictions`
        heads/seed_<s>/      a file per task: the probe with the best validation loss, which
                             `matpac.load(..., head=FILE)` puts on the encoder

    and the means per task to ``data/<profile>/metrics/probe/<encoder>.json``.

    Args:
        encoder: its name in ``runs`` or ``encoders``.
        params: the sections of `matpac.probing.config.ProbeParams`.
    Returns: the content of ``scores.csv``.
    Raises: ValueError for bad parameters; FileNotFoundError naming the stage that has not run; as
        `paths.claimed`.
    """
    params = section.parse(ProbeParams, params)
    found = list_features(params, encoder) + on_the_way(params, encoder)
    work = [(params, each, task) for each in found for task in params.tasks]
    with paths.claimed(params, f"probe-{encoder}"):
        every = list(track(_each(work), len(work), f"probe {encoder}", unit="task"))
    scores = Scores(*(pd.concat(tables, ignore_index=True) for tables in zip(*every, strict=True)))
    ended = scores.linear["fraction"] == 1
    curve, linear = scores.linear[~ended], scores.linear[ended].drop(columns="fraction")
    small = paths.small(params)
    means = linear.groupby("task", sort=False)["score"].mean()
    metrics = {"mean": means.mean(), **means.to_dict()}
    files.write_json(small / "metrics" / "probe" / f"{encoder}.json", metrics)
    folder = small / "probe" / encoder
    write_csv(folder / "scores.csv", linear)
    write_csv(folder / "quick.csv", scores.quick)
    (folder / "curve.csv").unlink(missing_ok=True)  # an earlier one may be of other settings
    if len(curve):
        write_csv(folder / "curve.csv", curve)
    files.write_table(folder / "predictions.parquet", scores.predictions)
    return linear


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """The same bytes for the same numbers; learning rates as people write them."""
    if "learning_rate" in table:
        table = table.assign(learning_rate=table["learning_rate"].map("{:g}".format))
    with files.replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def _each(work: Sequence[tuple[ProbeParams, Features, str]]) -> Iterator[Scores]:
    """`probe_task` of each, in order; networks of ours on the cores of one processor side by side.

    Small layers keep one core busy at most, and so do small networks, see
    `matpac.pretraining.side_by_side`. Encoders of others may be large, or not to be sent elsewhere.
    """
    ours = all(isinstance(each.encoder, AudioEncoder | None) for _, each, _ in work)
    count = min(joblib.cpu_count(), len(work), MOST_PROCESSES)
    infos = [manifests.load(params, task, columns=["clip"])[1] for params, _, task in work]
    clips = sum(info["num_clips"] for info in infos)
    few = count == 1 or clips < FEWEST_CLIPS
    if few or not ours or torch.cuda.is_available() or distributed.is_joined():
        yield from (probe_task(*each) for each in work)
        return
    context = unforked(__name__)
    here = Path.cwd(), dict(os.environ)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=here) as pool:
        try:
            yield from pool.map(_alone, work)
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"one of {count} processes was killed, most often because memory ran out; what is "
                "embedded is kept: run the stage again, with LOKY_MAX_CPU_COUNT=1 task by task"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(folder: Path, environment: dict[str, str]) -> None:
    """In a new process, which may be of a server started when these were others."""
    follow_the_parent()
    os.chdir(folder)
    os.environ.update(environment)


def _alone(work: tuple[ProbeParams, Features, str]) -> Scores:
    """In a process of its own."""
    with threads.limited(1):
        return probe_task(*work)


def probe_task(params: ProbeParams, features: Features, name: str) -> Scores:
    """Probes one task; an encoder on its way only linearly."""
    task, manifest, info = load_task(params, features, name)
    results = choose(train_probes(task, params.probe))
    told = {"encoder": features.name, "seed": features.seed, "task": name, "metric": info["metric"]}
    measured = measures(task)
    linear = pd.DataFrame([told | row_of(result) | measured for result in results])
    linear["fraction"] = features.fraction
    if features.fraction < 1:
        return Scores(linear, pd.DataFrame(), pd.DataFrame())
    keep_head(params, features, name, task, results, info["classes"])
    quick = pd.DataFrame([told | row for row in knn(task) + few_shot(task, seed=params.probe.seed)])
    predictions = pd.concat(predicted(task, results, manifest), ignore_index=True)
    for at, column in enumerate(("encoder", "seed", "task")):
        predictions.insert(at, column, told[column])
    return Scores(linear, quick, predictions)


def predicted(
    task: Task, results: Sequence[ProbeResult], manifest: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """What each probe says of each clip of its test part, so that rows can be compared by clip.

    Columns: fold, repeat, clip, group (source recording); of one label per clip ``label`` and
    ``predicted``, its class and the one with the largest logit; of several ``labels`` (1, 0 or NaN)
    and ``scores`` (logits), (C,).
    """
    splits = {(split.fold, split.repeat): split for split in task.splits}
    for result in results:
        part = splits[result.fold, result.repeat].test
        clips = manifest.iloc[part]
        told: dict[str, Any] = {"fold": result.fold, "repeat": result.repeat}
        told |= {"clip": clips["clip"].to_numpy(str), "group": clips["group"].to_numpy(str)}
        targets = task.of(part).cpu().numpy()
        if task.multilabel:
            told["labels"] = list(targets)
            told["scores"] = list(result.logits)
        else:
            told |= {"label": targets, "predicted": result.logits.argmax(axis=1)}
        yield pd.DataFrame(told)


def load_task(
    params: ProbeParams, features: Features, name: str, *, layer: int = -1
) -> tuple[Task, pd.DataFrame, dict[str, Any]]:
    """A task in the embeddings of an encoder.

    Args: layer: of the encoder.
    Returns: the task; its manifest, one row per clip of the task; and the manifest's info.
    Raises: ValueError if the log-mels were made of another manifest.
    """
    manifest, info = manifests.load(params, name)
    store = open_store(params, name)
    made_of = pd.read_parquet(store.folder / "clips.parquet", columns=["clip"])["clip"]
    if not np.array_equal(made_of.to_numpy(str), manifest["clip"].to_numpy(str)):
        # They are joined row by row: clips would get the labels of others.
        command = paths.command(params.profile, "logmel")
        raise ValueError(f"{name}: its log-mels are of another manifest: run {command}")
    manifest = manifest.iloc[store.rows]
    targets = target_array(manifest, info["kind"])
    splits = make_splits(
        scheme=info["split_scheme"],
        splits=manifest["split"].to_numpy(str),
        folds=manifest["fold"].to_numpy(int),
        groups=manifest["group"].to_numpy(str),
        targets=targets,
        repeats=params.probe.repeats,
        seed=params.probe.seed,
        valid_fraction=params.probe.valid_fraction,
    )
    embedder = embedder_of(params, features, name, store, manifest, layer=layer)
    folder = paths.bulk(params) / "embeddings" / features.name
    task = Task(
        extract(embedder, folder, name=features.name),
        targets,
        splits,
        num_classes=len(info["classes"]),
        device=distributed.device(),
    )
    return task, manifest, info


def embedder_of(
    params: ProbeParams,
    features: Features,
    task: str,
    store: Store,
    manifest: pd.DataFrame,
    *,
    layer: int = -1,
) -> Embedder:
    """An encoder on the clips of a task.

    An encoder with the front end of the stored log-mels takes those, any other one the audio.

    Args: manifest: one row per clip of the store.
    """
    encoder = features.encoder
    if isinstance(encoder, ViTEncoder) and encoder.is_fed_by(store.index["front_end"]):
        encoder = encoder.net
    if isinstance(encoder, WaveEncoder):
        folder = manifests.audio_folder(params, task)
        return Recorded(encoder, manifest, folder, code=features.code, layer=layer)
    return Stored(encoder, store, layer=layer)


def target_array(manifest: pd.DataFrame, kind: str) -> np.ndarray:
    """Class indices (N,), or 1, 0 or NaN (not observed) per label, (N, C).

    OpenMIC's labels are likelihoods; at least one half is positive, as its authors have it.
    """
    if kind == "multiclass":
        return manifest["label"].to_numpy(np.int64, copy=True)
    likelihoods = np.stack(manifest["labels"].to_list()).astype(np.float32)
    return np.where(np.isnan(likelihoods), np.nan, likelihoods >= 0.5).astype(np.float32)


def open_store(params: ProbeParams, task: str) -> Store:
    """The log-mels of a task, checked against the index that DVC tracks."""
    tracked = paths.small(params) / "logmel" / "tasks" / f"{task}.json"
    paths.made(tracked, params.profile, "logmel")
    return Store(paths.bulk(params) / "logmel" / task, index_sha256=files.sha256(tracked))

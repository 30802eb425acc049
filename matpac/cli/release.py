"""A trained run as a folder that others can load, or push to the Hugging Face Hub.

    matpac release RUN -o FOLDER

The folder holds ``model.safetensors``, ``config.json`` (sizes, front end, normalisation; no
training state) and ``README.md``, a model card of what the run's files say. `matpac.load` takes the
folder; ``matpac.load(FOLDER).push_to_hub("owner/name")`` publishes it.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from matpac.cli.model_card import Corpus, Facts, ProbeScore, model_card
from matpac.core import files, paths, section
from matpac.data import catalogue
from matpac.encoders.frozen import CONFIG, AudioEncoder, load_encoder
from matpac.encoders.hub import Pretrained
from matpac.params import Params
from matpac.pretraining import config
from matpac.pretraining.run import training
from matpac.probing.embedders import identity
from matpac.reporting.statistics import summary

SIZES = ("crop_frames", "patch_size", "mask_ratio", "positions", "encoder_width", "encoder_depth")
SIZES += ("encoder_heads", "mlp_ratio", "predictor_width", "predictor_depth", "num_prototypes")
SHOWN = ("epochs", "warmup_epochs", "batch_size", "learning_rate", "weight_decay", "precision")
METRICS = {"map": "mAP", "accuracy": "accuracy"}
RENDERED = "rendered sounds of this project"


def release(
    run: str,
    params: Params | dict[str, Any],
    out: Path,
    *,
    seed: int | None = None,
    licence: str = "",
) -> Facts:
    """Writes the folder of one run; the same bytes for the same results.

    Args:
        run: its name in ``runs``.
        params: the sections of `matpac.params.config.Params`, those that it was trained with.
        out: folder, made if needed; what it holds of an older release is replaced.
        seed: of the pretraining; None: the run's first.
        licence: of the weights, an identifier as the Hub has them ("mit"); "": not decided.
    Returns: what the model card says.
    Raises: ValueError for a run or seed that there is not, or if the run's files are of another
        model, of other log-mels, or its scores of an earlier training; FileNotFoundError naming
        the stage that has not run.
    """
    params = section.parse(Params, params)
    seeds = config.seeds(params, run)
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"seed: got {seed}, allowed: {', '.join(map(str, seeds))}")
    stage = f"run the stage pretrain@{params.profile}-{run}"
    folder = paths.small(params) / "pretrain" / run / f"seed_{seed}"
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: missing; {stage}")
    encoder = load_encoder(folder)
    facts = gather(params, run, seed, encoder, licence)
    out.mkdir(parents=True, exist_ok=True)
    with files.replacing(out / "README.md") as temporary:
        temporary.write_text(str(model_card(facts)), "utf-8")
    Pretrained(encoder).save_pretrained(out)  # keeps the card
    return facts


def gather(params: Params, run: str, seed: int, encoder: AudioEncoder, licence: str) -> Facts:
    """What the run's files say, checked against each other."""
    small = paths.small(params)
    resolved = config.resolve(params, run, seed=seed)
    index = files.read_json(_existing(small / "logmel" / "pretraining.json", "logmel", params))
    measured = small / "metrics" / "pretrain" / f"{run}.json"
    finals = files.read_json(_existing(measured, "pretrain", params, run))
    constants = {"mean": encoder.mean, "std": encoder.std}
    trained = files.read_json(small / "pretrain" / run / f"seed_{seed}" / CONFIG)
    settings = training(resolved)
    same = {name: trained.get(name) for name in settings} == settings
    if encoder.config != resolved.model or not same or f"seed_{seed}" not in finals:
        raise ValueError(f"{run}: trained with other parameters; run the stage pretrain again")
    if encoder.front_end != index["front_end"] or not constants.items() <= (
        index["normalisation"].items()
    ):
        raise ValueError(f"{run}: trained on other log-mels; run the stage pretrain again")
    scores, not_probed = probe_scores(params, run, seed)
    if scores and not _is_probed(params, run, encoder):
        raise ValueError(f"{run}: probed before it was trained anew; run the stage probe again")
    label = params.runs[run].label or run
    return Facts(
        title=f"{label}, {params.profile} profile",
        profile=params.profile,
        run=run,
        seed=seed,
        version=version("matpac"),
        width=encoder.width,
        num_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        column_ms=encoder.config.patch_size * encoder.front_end["hop_ms"],
        corpora=[corpus(params, entry, index) for entry in index["corpora"]],
        front_end=encoder.front_end,
        **constants,
        model={name: getattr(resolved.model, name) for name in SIZES},
        objective=resolved.objective.model_dump(),
        pretrain={name: getattr(resolved.pretrain, name) for name in SHOWN},
        finals=finals[f"seed_{seed}"],
        scores=scores,
        not_probed=not_probed,
        licence=licence,
    )


def corpus(params: Params, entry: dict[str, Any], index: dict[str, Any]) -> Corpus:
    """A corpus of ``pretraining.json``; what it is comes from its manifest."""
    manifest = paths.small(params) / "manifests" / f"{entry['name']}.json"
    info = files.read_json(_existing(manifest, "fetch", params))
    return Corpus(
        name=entry["name"],
        source=describe(info["source"]),
        licence=_licence(info["source"]),
        num_clips=entry["num_clips"],
        hours=entry["num_frames"] * index["front_end"]["hop_ms"] / 3_600_000,
        weight=entry["weight"],
    )


def describe(source: str) -> str:
    """A manifest's source in words."""
    if source == "embedded":
        return RENDERED
    if source in catalogue.SOURCES:
        return catalogue.SOURCES[source].title
    return "audio files of the trainer's own"


def _licence(source: str) -> str:
    if source == "embedded":
        return "rendered, no recordings; see the project for its SoundFont"
    if source in catalogue.SOURCES:
        return catalogue.SOURCES[source].licence
    return "not known here"


def probe_scores(params: Params, run: str, seed: int) -> tuple[list[ProbeScore], list[str]]:
    """Means with intervals of the tasks that were probed, and the names of those that were not."""
    small = paths.small(params)
    path = small / "probe" / run / "scores.csv"
    if not path.exists():
        return [], list(params.tasks)
    table = pd.read_csv(path)
    table = table[(table["seed"] == seed) & table["task"].isin(params.tasks)]
    found = []
    for row in summary(table).to_dict("records") if len(table) else []:
        info = files.read_json(
            _existing(small / "manifests" / f"{row['task']}.json", "fetch", params)
        )
        source = "a miniature made by this project" if info["source"] == "embedded" else ""
        metric = table.loc[table["task"] == row["task"], "metric"].iloc[0]
        found.append(
            ProbeScore(
                task=row["task"],
                source=source or describe(info["source"]),
                metric=METRICS.get(metric, metric),
                mean=100 * row["mean"],
                ci95=100 * row["ci95"],
                repeats=row["n"],
            )
        )
    return found, [task for task in params.tasks if task not in set(table["task"])]


def _is_probed(params: Params, run: str, encoder: AudioEncoder) -> bool:
    """Whether embeddings kept by the ``probe`` stage are this encoder's, if any are there."""
    kept = (paths.bulk(params) / "embeddings" / run).glob("*.json")
    found = [files.read_json(path)["identity"] for path in kept]
    return not found or identity(encoder) in found


def _existing(path: Path, stage: str, params: Params, run: str = "") -> Path:
    """The path. Raises: FileNotFoundError naming the stage that makes it."""
    if not path.exists():
        target = f"{stage}@{params.profile}" + (f"-{run}" if run else "")
        raise FileNotFoundError(f"{path}: missing; run the stage {target}")
    return path

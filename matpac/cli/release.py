"""A trained run as a folder that others can load, or push to the Hugging Face Hub.

    matpac release RUN -o FOLDER

The folder holds ``model.safetensors``, ``config.json`` (sizes, front end, normalisation; no
training state), ``heads/`` (the best linear probe of each task) and ``README.md``, a model card:
``model_card.jinja`` with what the run's files say.
`matpac.load` takes the folder; ``matpac.load(FOLDER).push_to_hub("owner/name")`` publishes it.
"""

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from math import log
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined

from matpac.core import files, paths, section
from matpac.data import catalogue
from matpac.encoders import heads
from matpac.encoders.frozen import CONFIG, AudioEncoder, load_encoder
from matpac.encoders.hub import CARD, Pretrained
from matpac.params import Params
from matpac.pretraining import config
from matpac.pretraining.run import training
from matpac.probing.identity import identity
from matpac.reporting.figures import pretraining
from matpac.reporting.results import of_probe
from matpac.reporting.statistics import summary

PAPER = "https://arxiv.org/abs/2502.12031"
LIBRARY = "matpac"
TAGS = ["audio", "feature-extraction", "self-supervised-learning", "matpac"]
TEMPLATE = Path(__file__).with_name("model_card.jinja")
SIZES = ("crop_frames", "patch_size", "mask_ratio", "positions", "encoder_width", "encoder_depth")
SIZES += ("encoder_heads", "mlp_ratio", "predictor_width", "predictor_depth", "hypotheses")
SIZES += ("num_prototypes",)
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
    told: Mapping[str, Any] | None = None,
    ours: bool = False,
) -> dict[str, Any]:
    """Writes the folder of one run; the same bytes for the same results.

    Args:
        run: its name in ``runs``.
        params: the sections of `matpac.params.Params`, those that it was trained with.
        out: folder, made if needed; what it holds of an older release is replaced, nothing else.
        seed: of the pretraining; None: the run's first.
        licence: of the weights, an identifier as the Hub has them ("mit"); "": not decided.
        told: what the card says besides, or instead.
        ours: whether the caller has made ``out``, which may then hold other files of its own.
    Returns: what the model card says.
    Raises: ValueError for a run or seed that there is not, for an ``out`` that holds something and
        is no older release, or if the run's files are of another model, of other log-mels, or its
        scores of an earlier training; FileNotFoundError naming the stage that has not run.
    """
    check_folder(out, ours=ours)
    params = section.parse(Params, params)
    seeds = config.seeds(params, run)
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"seed: got {seed}, allowed: {', '.join(map(str, seeds))}")
    folder = paths.small(params) / "pretrain" / run / f"seed_{seed}"
    encoder = load_encoder(paths.made(folder, params.profile, "pretrain", run))
    facts = gather(params, run, seed, encoder) | {"licence": licence} | dict(told or {})
    text = card(facts)
    # The card is the first: by it an interrupted release is known for one.
    with files.replacing(out / CARD) as temporary:
        temporary.write_text(text, "utf-8")
    for older in (out / heads.FOLDER).glob("*.safetensors"):
        older.unlink()
    with suppress(OSError):  # there is none, or something else is in it
        (out / heads.FOLDER).rmdir()
    released = Pretrained(encoder)
    for task, head in facts["heads"].items():
        released.add_head(task, head)
    released.save_pretrained(out)  # keeps the card
    return facts


def check_folder(out: Path, *, ours: bool = False) -> None:
    """Whether a release may be written there. Args: as of `release`. Raises: ValueError."""
    readme = out / CARD
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: got a file, allowed: a folder")
    if readme.exists():
        if f"library_name: {LIBRARY}" not in readme.read_text("utf-8", "replace"):
            raise ValueError(f"{readme}: is no card of this library; give a folder without it")
    elif not ours and out.is_dir() and (there := sorted(out.glob("[!.]*"))):  # .git may be there
        raise ValueError(
            f"{out}: got a folder with {there[0].name} in it, allowed: a new or empty one, or an "
            f"older release, which has a {CARD}"
        )


def card(facts: dict[str, Any]) -> str:
    """The model card, with the metadata that the Hub reads."""
    metadata = ModelCardData(
        library_name=LIBRARY,
        tags=TAGS,
        pipeline_tag="feature-extraction",
        license=facts["licence"] or None,
    )
    form = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = form.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(
        facts,
        metadata=metadata.to_yaml(),
        paper=PAPER,
        log=log,
        hours=sum(corpus["hours"] for corpus in facts["corpora"]),
        synthetic=all(corpus["what"] == RENDERED for corpus in facts["corpora"]),
    )


def gather(params: Params, run: str, seed: int, encoder: AudioEncoder) -> dict[str, Any]:
    """What the run's files say, checked against each other."""
    small, profile = paths.small(params), params.profile
    resolved = config.resolve(params, run, seed=seed)
    index = pretraining(params)
    path = paths.made(small / "metrics" / "pretrain" / f"{run}.json", profile, "pretrain", run)
    finals = files.read_json(path)
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
    scores = probe_scores(params, run, seed)
    if scores and not _is_probed(params, run, encoder):
        raise ValueError(f"{run}: probed before it was trained anew; run the stage probe again")
    return {
        "title": f"{params.runs[run].label or run}, {profile} profile",
        "profile": profile,
        "run": run,
        "seed": seed,
        "version": version("matpac"),
        "width": encoder.width,
        "num_parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "column_ms": encoder.config.patch_size * encoder.front_end["hop_ms"],
        "corpora": [corpus(params, entry, index) for entry in index["corpora"]],
        "front_end": encoder.front_end,
        **constants,
        "model": {name: getattr(resolved.model, name) for name in SIZES},
        "objective": resolved.objective.model_dump(),
        "pretrain": {name: getattr(resolved.pretrain, name) for name in SHOWN},
        "finals": finals[f"seed_{seed}"],
        "scores": scores,
        "heads": kept_heads(params, run, seed),
        "not_probed": [t for t in params.tasks if t not in {score["task"] for score in scores}],
    }


def corpus(params: Params, entry: dict[str, Any], index: dict[str, Any]) -> dict[str, Any]:
    """A corpus of ``pretraining.json``; what it is comes from its manifest."""
    what, licence = _source(params, entry["name"])
    hours = entry["num_frames"] * index["front_end"]["hop_ms"] / 3_600_000
    return entry | {"what": what, "licence": licence, "hours": hours}


def probe_scores(params: Params, run: str, seed: int) -> list[dict[str, Any]]:
    """Means with intervals of the tasks that were probed, in [0, 1]."""
    path = paths.small(params) / "probe" / run / "scores.csv"
    table = of_probe(pd.read_csv(path)) if path.exists() else pd.DataFrame({"seed": []})
    table = table[table["seed"] == seed]
    table = table[table["task"].isin(params.tasks)] if len(table) else table
    if table.empty:
        return []
    metrics = table.groupby("task")["metric"].first()
    found = []
    for row in summary(table).to_dict("records"):
        what, _ = _source(params, row["task"])
        what = "a miniature made by this project" if what == RENDERED else what
        metric = metrics[row["task"]]
        found.append(row | {"what": what, "metric": METRICS.get(metric, metric)})
    return found


def kept_heads(params: Params, run: str, seed: int) -> dict[str, heads.Head]:
    """Task -> the linear probe that the ``probe`` stage kept."""
    folder = paths.small(params) / "probe" / run / heads.FOLDER / f"seed_{seed}"
    kept = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    return {task: heads.load(kept[task]) for task in params.tasks if task in kept}


def _source(params: Params, name: str) -> tuple[str, str]:
    """What a data set is, and the licence of its audio, in words."""
    manifest = paths.small(params) / "manifests" / f"{name}.json"
    source = files.read_json(paths.made(manifest, params.profile, "fetch"))["source"]
    if source == "embedded":
        return RENDERED, "rendered, no recordings; see the project for its SoundFont"
    if source in catalogue.SOURCES:
        return catalogue.SOURCES[source].title, catalogue.SOURCES[source].licence
    return "audio files of the trainer's own", "not known here"


def _is_probed(params: Params, run: str, encoder: AudioEncoder) -> bool:
    """Whether embeddings kept by the ``probe`` stage are this encoder's, if any are there."""
    kept = (paths.bulk(params) / "embeddings" / run).glob("[!.]*.json")
    found = [files.read_json(path)["identity"] for path in kept]
    return not found or identity(encoder) in found

"""A project root of smoke size: every stage run once on the parameters of ``notebooks/smoke.yaml``.

Tests and the notebooks' nbval run share it. Preparing takes some seconds and is done once per
session.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

import yaml

from matpac.core import paths
from matpac.params import Params, parse

SMOKE_YAML = Path(__file__).parents[1] / "notebooks" / "smoke.yaml"
TRAINED = ("base", "alpha1", "k8")
"""Of the runs those that the tests look at; the notebooks look at all."""


def sections(*runs: str) -> dict:
    """The smoke parameters as ``params.yaml`` would hold them. Args: runs: these alone."""
    made = yaml.safe_load(SMOKE_YAML.read_text())
    return made | {"runs": {name: made["runs"][name] for name in runs or made["runs"]}}


def run_stages(params: Params) -> None:
    """Every stage of the pipeline, in this process."""
    from matpac.data import sources
    from matpac.data.fetch import fetch
    from matpac.features.preprocess import preprocess
    from matpac.pretraining.pretrain import pretrain
    from matpac.probing.probe import probe
    from matpac.probing.sources import write_weights
    from matpac.reporting.figures import figures

    with contextlib.redirect_stdout(io.StringIO()):
        sources.write(params)
        write_weights(params)
        fetch(params)
        preprocess(params)
        for run in params.runs:
            pretrain(run, params)
        for encoder in [*params.runs, *params.encoders]:
            probe(encoder, params)
        figures(params)


def prepare(root: Path, *runs: str) -> None:
    """Runs all stages below ``root`` and points MATPAC_ROOT there.

    Training states and embeddings are removed again: a notebook that trains really trains.

    Args: runs: these alone.
    """
    os.environ |= {"MATPAC_ROOT": str(root), "MATPAC_PROGRESS": "silent", "MATPAC_DATA": ""}
    params = parse(Params, sections(*runs), source=str(SMOKE_YAML))
    run_stages(params)
    for folder in ("checkpoints", "embeddings"):
        shutil.rmtree(paths.bulk(params) / folder)

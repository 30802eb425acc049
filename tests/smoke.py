"""A project root of smoke size: every stage run once on the parameters of ``tests/smoke.yaml``.

Tests and the notebooks' nbval run share it. Preparing takes some seconds and is done once per
session.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

import yaml

from matpac import config

SMOKE_YAML = Path(__file__).parent / "smoke.yaml"


def sections() -> dict:
    """The smoke parameters as ``params.yaml`` would hold them."""
    return yaml.safe_load(SMOKE_YAML.read_text())


def run_stages(params: config.Params) -> None:
    """Every stage of the pipeline, in this process."""
    from matpac import sources
    from matpac.fetch import fetch
    from matpac.figures import figures
    from matpac.preprocess import preprocess
    from matpac.pretrain import pretrain
    from matpac.probe import probe

    with contextlib.redirect_stdout(io.StringIO()):
        sources.write(params)
        sources.write_weights(params)
        fetch(params)
        preprocess(params)
        for run in params.runs:
            pretrain(run, params)
        for encoder in [*params.runs, *params.encoders]:
            probe(encoder, params)
        figures(params)


def prepare(root: Path) -> None:
    """Runs all stages below ``root`` and points MATPAC_ROOT there.

    Training states and embeddings are removed again: a notebook that trains really trains.
    """
    os.environ |= {"MATPAC_ROOT": str(root), "MATPAC_PROGRESS": "silent", "MATPAC_DATA": ""}
    params = config.parse(config.Params, sections(), source=str(SMOKE_YAML))
    run_stages(params)
    for folder in ("checkpoints", "embeddings"):
        shutil.rmtree(config.bulk(params) / folder)

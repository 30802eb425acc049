"""The ``pretrain`` stage (MATPAC Sec. IV-A): one run of ``params.yaml`` -> frozen encoders.

A run is trained once per seed. ``matpac pretrain RUN`` is what torchrun and batch systems start.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from matpac.core import files, paths, section
from matpac.pretraining import config, states
from matpac.pretraining.checkpoint import identity
from matpac.pretraining.config import PretrainParams
from matpac.pretraining.logs import write_curve
from matpac.pretraining.run import Job
from matpac.pretraining.side_by_side import train_all


def pretrain(
    run: str, params: PretrainParams | dict[str, Any], *, checkpoint: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The ``pretrain`` stage: trains one run, once per seed.

    Writes, below ``data/<profile>``: ``pretrain/<run>/seed_<seed>/model.safetensors`` with its
    ``config.json``, ``logs/<run>/seed_<seed>/{log,diagnostics}.csv``,
    ``metrics/pretrain/<run>.json`` and, for ``dvc plots``,
    ``plots/{losses,collapse}/<run>.csv`` of the first seed.

    Args:
        run: its name in ``runs``.
        params: the sections of `PretrainParams`.
        checkpoint: the training state to go on from; of several seeds, for the one it belongs to.
            None: each goes on from its newest.
    Returns: ``seed_<seed>`` -> what the last step measured, the content of the metrics file.
    Raises: ValueError for bad parameters, and for a checkpoint of another run, naming the
        differences; FileNotFoundError if the ``logmel`` stage has not run.
    """
    params = section.parse(PretrainParams, params)
    small = paths.small(params)
    jobs = jobs_of(run, params)
    if checkpoint is not None:
        jobs = going_on_from(jobs, checkpoint)
    trained = train_all(list(jobs.values()))
    results = {f"seed_{seed}": result for seed, result in zip(jobs, trained, strict=True)}
    if not all(results.values()):
        return results  # under torchrun: another process is the first, and writes
    files.write_json(small / "metrics" / "pretrain" / f"{run}.json", results)
    logs = next(iter(jobs.values())).logs
    for log, kind in (("log", "losses"), ("diagnostics", "collapse")):
        write_curve(logs / f"{log}.csv", small / "plots" / kind / f"{run}.csv")
    return results


def jobs_of(run: str, params: PretrainParams) -> dict[int, Job]:
    """Seed -> training run. Raises: as `pretrain`."""
    seeds = config.seeds(params, run)
    small = paths.small(params)
    tracked = paths.made(small / "logmel" / "pretraining.json", params.profile, "logmel")
    index = files.read_json(tracked)
    jobs = {}
    for seed in seeds:
        resolved = config.resolve(params, run, seed=seed)
        own = identity(resolved, index)
        jobs[seed] = Job(
            name=run if len(seeds) == 1 else f"{run} seed {seed}",
            run=resolved,
            index=index,
            stores=paths.bulk(params),
            identity=own,
            checkpoints=paths.bulk(params) / "checkpoints" / run / own.fingerprint,
            encoder=small / "pretrain" / run / f"seed_{seed}",
            logs=small / "logs" / run / f"seed_{seed}",
        )
    return jobs


def going_on_from(jobs: dict[int, Job], checkpoint: Path) -> dict[int, Job]:
    """The same jobs, the one that the training state belongs to going on from it.

    Raises: ValueError listing what differs if it belongs to none; as `states.describe`.
    """
    given = states.describe(checkpoint).identity
    problems = []
    for seed, job in jobs.items():
        if not (differences := job.identity.differences(given)):
            return jobs | {seed: replace(job, chosen=checkpoint)}
        problems.append("\n  ".join([f"{checkpoint}: not a state of {job.name}:", *differences]))
    raise ValueError("\n".join(problems))

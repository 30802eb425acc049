"""Several processes compute what one does; a failure of any is told."""

import csv
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import workers_ddp

from matpac.core import distributed
from matpac.pretraining.batches import Batches, Corpus

UPDATES, LOST = 4, 3
# Some gradients are 0 but for rounding (of the attention's key bias, say); divided by their own
# size, as Adam does with its usual epsilon, they would move weights by chance.
RATE, EPS = 0.03, 1e-3
STEADY = {"eps": EPS, "learning_rate": RATE, "batch_size": 12}
ROUNDING = UPDATES * tiny.SECTIONS["pretrain"]["clip_norm"] * 2**-24 * RATE / EPS
"""How far a weight may be moved by another order of summation. An update moves it by rate * g /
(|g| + eps), so what rounding makes of its gradient g, at most the clipped norm, counts rate / eps
times; an error in the exchange moves it by about the rate."""
FOUR = 4
"""Processes; more than two can add up a gradient in different orders."""
RUNS = {
    "plain": {"pretrain": STEADY},
    # Of each process's three clips two, then one; in one process all at once.
    "accumulated": {"pretrain": STEADY, "objective": {"centering": "logits"}},
    # The head gets no gradient.
    "no_classification": {"pretrain": STEADY, "objective": {"alpha": 1.0}},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def test_alone_everything_is_the_identity() -> None:
    tensor, module = torch.ones(2), torch.nn.Linear(1, 1)
    assert distributed.rank() == 0 and distributed.world_size() == 1
    assert distributed.all_mean(tensor) is tensor
    assert distributed.replicate(module) is module


def test_one_process_is_no_new_process() -> None:
    unpicklable = lambda x: [x, distributed.world_size()]  # noqa: E731
    assert distributed.launch(unpicklable, 3, num_processes=1) == [3, 1]


def test_processes_that_exist_already_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun: the environment says which process this is."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    for name, value in (place | {"MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(name, value)
    joined = lambda: torch.distributed.is_initialized()  # noqa: E731
    assert distributed.launch(joined, num_processes=7)
    assert not joined()  # and left again


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK=1, but not WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2, RANK=1, but not LOCAL_RANK, MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "WORLD_SIZE=2, but not RANK, LOCAL_RANK"),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS=4, but not RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4, but not RANK"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_half_an_environment_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    """It would start as many separate trainings as there are processes."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match=f"^{message}"):
        distributed.launch(pytest.fail, "it ran", num_processes=1)


@pytest.mark.parametrize("variables", [{"SLURM_NTASKS": "1"}, {"WORLD_SIZE": "1"}, {}])
def test_one_task_is_alone(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not distributed.is_joined()


@pytest.mark.parametrize(
    ("gpus", "batch", "used"), [(0, 8, 1), (1, 8, 1), (8, 2048, 8), (6, 2048, 4), (3, 32, 2)]
)
def test_as_many_gpus_as_divide_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys, gpus: int, batch: int, used: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert distributed.num_processes(batch) == used
    said = f"using {used} of {gpus} GPUs: a batch of {batch} cannot be shared by all\n"
    assert capsys.readouterr().out == (said if used < gpus else "")


# ------------------------------------------------------------------------------ the order of clips


class Lengths:
    """A stand-in for a store: every frame of clip i holds ``first`` + i."""

    def __init__(self, num_frames: np.ndarray, first: int) -> None:
        self.num_frames, self.first = num_frames, first

    def crops(self, indices: np.ndarray, starts: np.ndarray, num_frames: int) -> np.ndarray:
        assert (np.asarray(starts) + num_frames <= self.num_frames[indices]).all()
        values = (self.first + np.asarray(indices)).astype(np.float32)
        return values[:, None, None].repeat(num_frames, axis=2)  # (B, 1, T)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_an_epoch_holds_every_clip_as_often_as_its_weight_on_any_number_of_processes(
    seed: int,
) -> None:
    """Corpora of random sizes, lengths and weights; epochs end anywhere in a batch."""
    random = np.random.default_rng(seed)
    crop, batch_size, epochs = 5, 24, 3
    stores, weights = [], random.choice([0.3, 1.0, 1.7, 2.0], size=3)
    for number, size in enumerate(random.integers(20, 60, size=3)):
        stores.append(Lengths(random.integers(1, 20, size), 1000 * number))
    corpora = [Corpus(store, weight) for store, weight in zip(stores, weights, strict=True)]

    def order(world_size: int) -> list[int]:
        """Clips of all updates that touch the epochs, as the processes together see them."""
        sizes = {"batch_size": batch_size, "crop_frames": crop, "num_patches": 4, "seed": seed}
        places = [{"rank": rank, "world_size": world_size} for rank in range(world_size)]
        ranks = [Batches(corpora, **sizes, **place) for place in places]
        updates = range(-(-epochs * ranks[0].sampler.epoch_length // batch_size))
        crops = [each[update].logmel[:, 0, 0] for update in updates for each in ranks]
        return torch.cat(crops).int().tolist()

    alone = order(1)
    for world_size in (2, 3, 4, 8):
        assert order(world_size) == alone
    usable = [np.flatnonzero(s.num_frames >= crop) + s.first for s in stores]
    counts = [round(len(u) * w) for u, w in zip(usable, weights, strict=True)]
    assert sum(counts) % batch_size  # some batch spans two epochs
    for epoch in range(epochs):
        seen = Counter(alone[epoch * sum(counts) : (epoch + 1) * sum(counts)])
        for clips, count in zip(usable, counts, strict=True):
            times = [seen.pop(clip, 0) for clip in clips]
            whole, extra = divmod(count, len(clips))
            assert sorted(times) == [whole] * (len(clips) - extra) + [whole + 1] * extra
        assert not seen  # nor any clip that is shorter than a crop


# ------------------------------------------------------------------------------ several processes


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bulk")
    tiny.make_store(folder / "logmel" / "noise", [32 + 3 * n for n in range(12)])
    return folder


def several_things(bulk: Path, processes: int) -> dict[str, Any]:
    outputs = bulk / f"{processes} processes"
    jobs = {}
    for name, changes in RUNS.items():
        micro = 2 if name == "accumulated" and processes == FOUR else None
        changes = changes | {"pretrain": changes["pretrain"] | {"micro_batch_size": micro}}
        jobs[name] = tiny.make_job(bulk, outputs, tiny.run(**changes))
    often = {"epochs": 2.0, "checkpoint_every_s": 0.0, "keep_checkpoints": 9}
    run = tiny.run(objective={"alpha": 1.0}, pretrain=often)
    whole, again = (tiny.make_job(bulk, folder, run) for folder in (outputs, outputs / "again"))
    lost = tiny.make_job(bulk, outputs / "lost", tiny.run(pretrain={"batch_size": 4}))
    work = (jobs, UPDATES, whole, again, (lost, LOST))
    done = distributed.launch(workers_ddp.several_things, *work, num_processes=processes)
    return done | {"folder": outputs, "whole": whole, "again": again}


@pytest.fixture(scope="module")
def one(bulk: Path) -> dict[str, Any]:
    return several_things(bulk, 1)


@pytest.fixture(scope="module")
def several(bulk: Path) -> dict[str, Any]:
    """The same work in several processes, started once."""
    return several_things(bulk, FOUR)


@pytest.mark.ddp
@pytest.mark.slow
def test_exchanges_between_processes(several) -> None:
    assert several["world_size"] == FOUR
    assert several["mean"] == [4, -1.5]  # of 1 + 2 rank, and of -rank
    assert several["largest"] == [1, 0]
    assert several["gathered"] == [{"rank": rank} for rank in range(FOUR)]
    # Each its own until the last micro-batch; then everyone has the mean of all that gathered.
    assert several["gradients"] == [[3.0 * (rank + 1), 15.0] for rank in range(FOUR)]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_parts_of_a_batch_are_the_whole_batch(several, one, run: str) -> None:
    """Losses, gradient norm, diagnostics, then weights, teacher and centre after some updates."""
    ours, expected = several["updates"][run], one["updates"][run]
    # Sums in another order: 1e-7 of each number, growing a little from update to update.
    np.testing.assert_allclose(ours["measured"], expected["measured"], rtol=1e-5, atol=1e-6)
    assert set(ours["tensors"]) == set(expected["tensors"])
    for name, tensor in expected["tensors"].items():
        assert np.abs(np.subtract(ours["tensors"][name], tensor)).max() <= ROUNDING, name


@pytest.mark.ddp
@pytest.mark.slow
def test_a_whole_run_in_several_processes(several, one) -> None:
    """Without the classification task, whose head then takes no part; only one process writes."""
    assert several["train"] == pytest.approx(one["train"], rel=1e-4, abs=1e-5)
    logs = [read_log(each["folder"] / "logs" / "log.csv") for each in (several, one)]
    assert len(logs[0]) == 6
    np.testing.assert_allclose(*logs, rtol=1e-4)
    assert (several["folder"] / "encoder" / "model.safetensors").exists()


@pytest.mark.ddp
@pytest.mark.slow
def test_a_resumed_run_of_as_many_processes_is_the_same_to_the_bit(several) -> None:
    """From the third update on."""
    tiny.assert_equal_results(several["again"], several["whole"])


@pytest.mark.ddp
@pytest.mark.slow
def test_a_clip_that_spoils_an_update_stops_every_process(several) -> None:
    """It was in the last process's part; all say so, and the last good state is kept."""
    clip = several["lost"][-1][1]
    for said, _ in several["lost"]:
        assert said.startswith(f"tiny: step {LOST}: not finite, nothing updated since: ")
        assert f"\n  log-mel of {clip}\n" in said and said.count("log-mel of") == 1
    states = (several["folder"] / "lost").rglob("state-*.pt")
    assert max(path.name for path in states) == f"state-{LOST:09d}.pt"


def read_log(path: Path) -> list[list[float]]:
    with path.open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


# ------------------------------------------------------------------------------ ends of processes


@pytest.mark.ddp
@pytest.mark.slow
def test_a_failing_process_is_told_with_its_traceback() -> None:
    with pytest.raises(RuntimeError) as error:
        distributed.launch(workers_ddp.second_fails, "no such thing", num_processes=2)
    message = str(error.value)
    # The first process fails too, a moment later, for want of the second.
    assert message.startswith("process 1 failed: Traceback")
    assert "in second_fails\n    raise LookupError(message)" in message
    assert "LookupError: no such thing" in message


@pytest.mark.ddp
@pytest.mark.slow
def test_a_killed_process_is_told() -> None:
    """As the system does when memory runs out."""
    with pytest.raises(RuntimeError, match=r"process 1 failed: Signal 9 \(SIGKILL\)"):
        distributed.launch(workers_ddp.second_fails, "", num_processes=2)


@pytest.mark.ddp
@pytest.mark.slow
def test_processes_that_were_told_to_stop() -> None:
    """torch's launcher would wait for ever for what they return."""
    with pytest.raises(KeyboardInterrupt, match="state saved"):
        distributed.launch(workers_ddp.all_stop, "state saved", num_processes=2)


@pytest.mark.ddp
@pytest.mark.slow
def test_one_group_after_the_other_under_torchrun_until_one_fails() -> None:
    """As for several seeds: where others were in the one before is no longer true. The traceback of
    what fails is the one that torchrun calls the cause."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, workers_ddp.__file__, "is_there,is_there,second_fails", "no such thing"],
        env=os.environ | {"PYTHONPATH": str(Path(distributed.__file__).parents[1])},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.count("[0, 1] are there") == 4, done.stderr
    assert done.returncode == 1
    _, cause = done.stderr.split("Root Cause (first observed failure):")
    assert "rank      : 1 (local_rank: 1)" in cause
    assert "in second_fails" in cause and "LookupError: no such thing" in cause

"""Embeddings of a data set: parts, processes, what a killed extraction left, whose they are."""

import json
import multiprocessing
import pickle
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from matpac.encoders.frozen import AudioEncoder, frozen
from matpac.features.store import Store
from matpac.method.student import Student
from matpac.probing import extract as module
from matpac.probing.embedders import Embedder, Stored
from matpac.probing.extract import extract
from matpac.probing.identity import identity

import command
from probes import alone

LENGTHS = [32, 8, 45, 64, 33, 8, 100, 45, 9, 32, 50]
CLOSE = {"rtol": 0, "atol": 1e-5}
"""Other clips in a batch: another order of summation at most, of some hundred terms that are 6e-8
exact and at most 4 (16 numbers with a norm of 4). Embeddings of other clips differ by 0.1."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny.make_store(tmp_path_factory.mktemp("bulk") / "tiny" / "logmel" / "noise", LENGTHS)


@pytest.fixture
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return frozen(Student(tiny.run().model, 16), tiny.FRONT_END, mean=-8.0, std=4.0)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The parts that are computed from here on."""
    calls, original = [], module._write_part

    def write_part(file: Path, embedder: Embedder, clips: range) -> None:
        calls.append(clips)
        original(file, embedder, clips)

    monkeypatch.setattr(module, "_write_part", write_part)
    return calls


def test_parts_together_are_all_clips_in_order(
    encoder: AudioEncoder, store: Store, written: list[range], tmp_path: Path
) -> None:
    ours = extract(Stored(encoder, store), tmp_path, name="base", part_clips=4)
    np.testing.assert_allclose(ours, alone(encoder, store), **CLOSE)
    assert written == [range(0, 4), range(4, 8), range(8, 11)]
    assert isinstance(ours, np.memmap) and ours.dtype == np.float32
    (path,) = tmp_path.glob("*.npy")
    assert [p.suffix for p in sorted(tmp_path.glob("[!.]*"))] == [".json", ".npy"]
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "encoder": "base",
        "identity": identity(encoder),
        "clips": module.files.sha256(store.folder / "index.json"),
        "code": Stored(encoder, store).origin()["code"],
        "dtype": "float32",
        "shape": [11, 32],
        "sha256": module.files.sha256(path),
    }
    again = extract(Stored(encoder, store), tmp_path, name="base", part_clips=4)
    assert len(written) == 3 and np.array_equal(again, ours)


def test_statistics_in_parts(store: Store, tmp_path: Path) -> None:
    ours = extract(Stored(None, store), tmp_path, name="logmel", part_clips=3)
    for row, index in zip(ours, range(11), strict=True):
        logmel = store.clip(index).astype(np.float64)
        mean = logmel.sum(axis=0) / len(logmel)
        std = np.sqrt(((logmel - mean) ** 2).sum(axis=0) / len(logmel))
        np.testing.assert_allclose(row, np.concatenate([mean, std]), rtol=0, atol=1e-5)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_share_the_parts_and_change_no_number(
    encoder: AudioEncoder,
    store: Store,
    written: list[range],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = extract(Stored(encoder, store), tmp_path / "one", name="base", part_clips=2)
    assert len(written) == 6
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    two = extract(Stored(encoder, store), tmp_path / "two", name="base", part_clips=2)
    assert len(written) == 6, "this process only waits"
    assert np.array_equal(one, two)
    assert len(list((tmp_path / "two").glob("[!.]*"))) == 2


def test_two_tasks_of_the_same_clips_are_embedded_once(
    encoder: AudioEncoder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are probed side by side, in processes of their own."""
    original, told = module._write_part, tmp_path.with_name("parts of both")

    def write_part(*arguments: Any) -> None:
        with told.open("a") as file:
            file.write("part\n")
        original(*arguments)

    monkeypatch.setattr(module, "_write_part", write_part)
    run = multiprocessing.get_context("fork").Process
    options = {"name": "base", "part_clips": 2}
    begun = [run(target=extract, args=(Stored(encoder, store), tmp_path), kwargs=options)]
    begun += [run(target=extract, args=(Stored(encoder, store), tmp_path), kwargs=options)]
    for each in begun:
        each.start()
    for each in begun:
        each.join()
    assert [each.exitcode for each in begun] == [0, 0]
    assert told.read_text() == 6 * "part\n"
    found = extract(Stored(encoder, store), tmp_path, **options)
    np.testing.assert_allclose(found, alone(encoder, store), **CLOSE)


KILLED = """
    import os, pickle, signal, sys
    from pathlib import Path
    from matpac.probing import extract
    from matpac.probing.embedders import Stored
    encoder, store = pickle.loads(Path(sys.argv[1]).read_bytes())
    original, parts = extract._write_part, []

    def write_part(*args):
        if len(parts) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        parts.append(args)
        original(*args)

    extract._write_part = write_part
    extract.extract(Stored(encoder, store), Path(sys.argv[2]), name="base", part_clips=3)
"""


def test_a_killed_extraction_goes_on_where_it_was(
    encoder: AudioEncoder, store: Store, written: list[range], tmp_path: Path
) -> None:
    (tmp_path / "work").write_bytes(pickle.dumps((encoder, store)))
    code = textwrap.dedent(KILLED)
    killed = command.python("-c", code, tmp_path / "work", tmp_path / "out")
    assert killed.returncode == -9, killed.stderr
    left = [p.name for p in sorted((tmp_path / "out").rglob("*.npy"))]
    assert left == ["00000000-00000003.npy", "00000003-00000006.npy"]
    ours = extract(Stored(encoder, store), tmp_path / "out", name="base", part_clips=3)
    assert written == [range(6, 9), range(9, 11)]
    whole = extract(Stored(encoder, store), tmp_path / "whole", name="base", part_clips=3)
    assert np.array_equal(ours, whole)


def test_parts_of_another_encoder_are_not_taken_up(
    encoder: AudioEncoder, store: Store, written: list[range], tmp_path: Path
) -> None:
    first = extract(Stored(encoder, store), tmp_path, name="base")
    with torch.no_grad():
        encoder.encoder.norm.bias[0] += 1e-3
    second = extract(Stored(encoder, store), tmp_path, name="base")
    encoder.mean += 0.1  # normalisation belongs to an encoder
    extract(Stored(encoder, store), tmp_path, name="base")
    assert len(written) == 3 and not np.array_equal(first, second)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_embeddings_that_are_not_what_their_key_says_are_refused(
    encoder: AudioEncoder, store: Store, written: list[range], tmp_path: Path
) -> None:
    expected = extract(Stored(encoder, store), tmp_path, name="base").copy()
    (path,) = tmp_path.glob("*.npy")
    described = path.with_suffix(".json")
    text, whole = described.read_text(), path.read_bytes()
    described.write_text(text.replace('"base"', '"alpha1"'))
    with pytest.raises(ValueError, match=r"encoder 'alpha1', needed: 'base'; delete it"):
        extract(Stored(encoder, store), tmp_path, name="base")
    described.write_text(text)
    np.save(path, expected[:5])
    with pytest.raises(ValueError, match=r"float32 \[5, 32\], needed: float32 \[11, 32\]"):
        extract(Stored(encoder, store), tmp_path, name="base")
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"its checksum is not the recorded one; delete it"):
        extract(Stored(encoder, store), tmp_path, name="base")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{path.name}: .*; delete it"):
        extract(Stored(encoder, store), tmp_path, name="base")
    described.unlink()  # of unknown origin: computed again
    assert len(written) == 1
    assert np.array_equal(extract(Stored(encoder, store), tmp_path, name="base"), expected)
    assert len(written) == 2


MEMORY = """
    import dataclasses, sys, threading
    from pathlib import Path
    import numpy as np
    from matpac.probing.embedders import Stored
    from matpac.probing.extract import extract
    from matpac.probing.fewshot import few_shot
    from matpac.probing.knn import knn
    from matpac.probing.linear import train_probes
    from matpac.probing.config import ProbeConfig
    from matpac.probing.splits import make_splits
    from matpac.probing.task import Task

    def anonymous():  # without pages of files, which the system may drop at any time
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

    class Clips:  # 60,000 clips of two frames of 500 bands: 240 MB of embeddings
        folder, num_mels = Path(sys.argv[1]), 500
        frames = np.random.default_rng(0).normal(size=(60_002, 2)).astype(np.float16)
        def __len__(self):
            return 60_000
        def clip(self, index):
            return np.repeat(self.frames[index : index + 2], 250, axis=1)

    def probe(features, num):
        splits = np.array(["train", "valid", "test", "train"])[np.arange(num) % 4]
        labels = np.arange(num) % 3
        made = make_splits(scheme="tvt", splits=splits, folds=splits, groups=splits,
                           targets=labels, repeats=5, seed=0)
        settings = ProbeConfig(batch_size=128, learning_rate=[1e-3, 1e-2], epochs=1,
                               weight_decay=0.0, standardize=True, repeats=5,
                               valid_fraction=0.1, seed=0)
        task = Task(features[:num], labels, made, num_classes=3)
        train_probes(task, settings)
        few_shot(task, seed=0)
        one = made[0]  # of which all pairs would take a minute
        parts = {"train": one.train[::3], "valid": one.valid[::4], "test": one.test[::4]}
        fewer = dataclasses.replace(one, **parts)
        knn(Task(features[:num], labels, [fewer], num_classes=3))

    def peak(function, *args):  # megabytes beyond what was in use before
        before, seen, done = anonymous(), [0.0], threading.Event()
        def watch():
            while not done.wait(0.005):
                seen.append(anonymous() - before)
        thread = threading.Thread(target=watch)
        thread.start()
        result = function(*args)
        done.set(), thread.join()
        print(round(max(seen)))
        return result

    probe(np.zeros((8000, 1000), np.float32), 8000)  # what libraries allocate once
    clips = Clips()
    features = peak(lambda: extract(Stored(None, clips), clips.folder, name="logmel"))
    peak(probe, features, len(clips))
    print(round(features.nbytes / 2**20))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts memory as Linux does")
def test_neither_embedding_nor_probing_holds_all_embeddings_in_memory(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    extracting, probing, embeddings = map(int, command.code(MEMORY, tmp_path).split())
    assert embeddings == 229
    # A part is 8 MB; five problems evaluate 1,024 clips each at once in 20 MB,
    # and neighbours are looked for among 1,024 clips for as many: 80 to 130 MB as they overlap with
    # what the allocator keeps. A part held in float32 would be 115, all of them 458.
    assert extracting < 60 and probing < 180

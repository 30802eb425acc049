"""Making stores: the same bytes whoever makes them, and whoever of them is killed meanwhile."""

import os
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster

from matpac.core import files
from matpac.core.parallel import Workers
from matpac.features import build, shards
from matpac.features.store import Store, verify

import command
import smoke
from noise import FRONT_END, LENGTHS_S, Corpus, content, make_corpus

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="looks at the open files of processes in /proc"
)


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """A shard for every 20 kB, so that little audio fills several, or 16 in all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SMALLEST_SHARD", 20_000)
        yield


@pytest.fixture
def store_folder(tmp_path: Path) -> Path:
    return tmp_path / "mini/logmel/noise"


@dataclass
class Four:
    """A store of four shards to be, and what it holds in the end."""

    corpus: Corpus
    folder: Path
    expected: dict[str, bytes]

    def build(self, write: Callable[[shards.ShardJob], int] | None = None, **options: int) -> tuple:
        """By ``write`` in place of `shards.write_shard`."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "write_shard", write or shards.write_shard)
            return self.corpus.build(self.folder, **{"shard_bytes": 1000} | options)

    def killed(self, owner: object, name: str, by: Callable | None = None) -> None:
        """Builds until this function is called."""
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, by or killed)
            self.build()

    def assert_whole(self) -> None:
        assert content(self.folder) == self.expected
        assert_alone(self.folder)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("four")
    corpus, store = make_corpus(folder / "audio", LENGTHS_S), folder / "mini/logmel/noise"
    corpus.build(store, shard_bytes=1000)
    assert len(list(store.glob("*.f16"))) == 4
    return corpus, content(store)


@pytest.fixture
def four(made: tuple[Corpus, dict[str, bytes]], store_folder: Path) -> Four:
    corpus, expected = made
    return Four(Corpus(corpus.folder, corpus.manifest.copy()), store_folder, expected)


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sixteen shards, each of which takes some time to write."""
    lengths_s = {f"{number}": 10.0 + 0.1 * number for number in range(48)}
    return make_corpus(tmp_path_factory.mktemp("long") / "audio", lengths_s)


@pytest.fixture(scope="module")
def long_store(long_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of ``long_corpus``."""
    folder = tmp_path_factory.mktemp("long") / "mini/logmel/noise"
    long_corpus.build(folder)
    assert len(list(folder.glob("*.f16"))) == 16
    return content(folder)


def assert_alone(folder: Path) -> None:
    """Nothing lies beside the store; what lies in it is compared."""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("count", "fewest"), [(1, 0), (2, 0), (3, 25)], ids=["one", "processes", "threads"]
)
def test_same_bytes_for_any_number_of_workers(tmp_path: Path, count: int, fewest: int) -> None:
    corpus = make_corpus(tmp_path / "audio", {f"{i}": 0.2 + 0.01 * i for i in range(24)})
    one, other = (tmp_path / f"{name}/logmel/noise" for name in ("one", "other"))
    corpus.build(one)
    with Workers(count, preload="matpac.features.shards", fewest=fewest) as workers:
        corpus.build(other, workers=workers)
    assert len(list(one.glob("*.f16"))) > 4
    assert content(one) == content(other)


# ------------------------------------------------------------------------------- interruptions


def test_interrupted_store_is_continued(four: Four) -> None:
    written = []

    def until_third(job: shards.ShardJob) -> int:
        return killed() if job.number == 2 else shards.write_shard(job)

    def noting(job: shards.ShardJob) -> int:
        written.append(job.number)
        return shards.write_shard(job)

    with pytest.raises(KeyboardInterrupt):
        four.build(until_third)
    with pytest.raises(FileNotFoundError, match=r"index\.json: missing; run `dvc repro -f logmel@"):
        Store(four.folder)
    four.build(noting)
    assert written == [2, 3]
    four.assert_whole()


def test_killed_before_the_exchange(four: Four) -> None:
    four.build()
    before = content(four.folder)
    four.corpus.manifest.loc[0, "sha256"] = "another file"
    four.killed(build, "_swap")
    assert content(four.folder) == before
    index, made = four.build(killed)  # nothing is left to compute
    assert made and verify(four.folder, again=True) == index
    assert_alone(four.folder)


@pytest.mark.parametrize("replaced", [False, True])
def test_killed_within_the_exchange(four: Four, replaced: bool) -> None:
    four.build(shard_bytes=10**8)  # an older store
    move = Path.replace
    if replaced:  # what was left is not removed
        four.killed(build, "_tidy")
    else:  # the old store has its other name, the new one not yet its own
        four.killed(
            Path, "replace", lambda at, to: killed() if ".building" in at.name else move(at, to)
        )
    assert four.folder.exists() == replaced
    assert four.build()[1] != replaced
    four.assert_whole()


def test_a_part_torn_by_a_power_cut_is_made_again(four: Four) -> None:
    four.killed(build, "_write_index")
    (building,) = four.folder.parent.iterdir()
    shards.part_path(building, 1).write_text("")
    shards.shard_path(building, 2).write_bytes(b"")
    shards.shard_path(building, 3).unlink()
    assert shards.finished(building) == {0}
    four.build()
    four.assert_whole()


def test_a_full_disk_is_named_and_leaves_no_piece(
    four: Four, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"shard-00000\.f16: not written: No space left on device"):
        four.build()
    (building,) = four.folder.parent.iterdir()
    assert [path.name for path in building.iterdir()] == ["parts"]


def test_what_was_begun_for_other_inputs_is_removed(four: Four) -> None:
    old = []

    def first_of_old(job: shards.ShardJob) -> int:
        old.append(job)
        return shards.write_shard(job) if len(old) == 1 else killed()

    def with_a_late_one(job: shards.ShardJob) -> int:
        """A worker of the first run that wakes up late has nowhere to write."""
        with pytest.raises(FileNotFoundError, match="all have to see its folder"):
            shards.write_shard(old[1])
        return shards.write_shard(job)

    with pytest.raises(KeyboardInterrupt):
        four.build(first_of_old, front_end=FRONT_END | {"num_mels": 64})
    four.build(with_a_late_one)
    four.assert_whole()


# ------------------------------------------------------------------- two workers on one shard


@pytest.mark.parametrize("ends", ["before", "after"])
def test_a_lost_worker_that_is_still_at_it_is_harmless(
    four: Four, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """It writes a shard that another writes and finishes, and ends before or after the build."""
    write, read = shards.write_shard, shards.reading.read
    go_on, waits, lost = threading.Event(), threading.Event(), []

    def reading(path: Path, **part: float) -> tuple:
        if threading.current_thread().name.startswith("lost"):
            waits.set()
            assert go_on.wait(20)
        return read(path, **part)

    def twice(job: shards.ShardJob) -> int:
        if job.number == 1:
            lost.append(executor.submit(write, job))
            assert waits.wait(20)
        if job.number == 3 and ends == "before":
            go_on.set()
            assert lost[0].result() == 1
        return write(job)

    monkeypatch.setattr(shards.reading, "read", reading)
    with ThreadPoolExecutor(1, thread_name_prefix="lost") as executor:
        four.build(twice)
        go_on.set()
        assert isinstance(lost[0].exception(), FileNotFoundError) == (ends == "after")
    four.assert_whole()


def test_many_writers_of_one_shard(four: Four) -> None:
    def at_once(job: shards.ShardJob) -> int:
        with ThreadPoolExecutor(4) as executor:
            return max(executor.map(shards.write_shard, [job] * 4))

    four.build(at_once)
    four.assert_whole()


def test_two_writers_that_read_different_things(four: Four) -> None:
    """The one that could not read the clip told of its shard last, the other renamed its last."""

    def contradicted(job: shards.ShardJob) -> int:
        shards.write_shard(job)
        if job.number == 1:
            shards.shard_path(job.folder, 1).write_bytes(b"")
        return len(job.clips)

    with pytest.raises(RuntimeError, match=r"shard-00001\.f16: got 0 bytes, 00001\.json says"):
        four.build(contradicted)
    four.build()
    four.assert_whole()


# ---------------------------------------------------------------------------- killed processes


@contextmanager
def killing_a_writer(folder: Path, processes: Callable[[], Iterable[int]]) -> Iterator[Future]:
    """Kills, without warning, a process that is writing a shard of a store being built.

    Args:
        folder: the store.
        processes: those that write it.
    Yields: the number of shards that were finished then.
    """
    over = threading.Event()

    def kill() -> int:
        while not over.is_set():
            finished = len(list(folder.parent.glob("*.building*/parts/*.json")))
            for process in processes() if finished >= 3 else ():
                if not is_writing(process):
                    continue
                os.kill(process, signal.SIGSTOP)
                if is_writing(process):
                    os.kill(process, signal.SIGKILL)
                    return finished
                os.kill(process, signal.SIGCONT)
            time.sleep(0.001)
        raise AssertionError("nobody was killed")

    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(kill)
        over.set()


def is_writing(process: int) -> bool:
    """Whether a process has a temporary file of a shard open."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:  # one was closed meanwhile
        return False
    return any("/.shard-" in link and link.endswith(".tmp") for link in links)


@needs_proc
def test_a_killed_process_costs_its_shard(
    long_corpus: Corpus, long_store: dict[str, bytes], store_folder: Path
) -> None:
    with Workers(2, preload="matpac.features.shards") as workers:
        with (
            killing_a_writer(store_folder, lambda: list(workers.pool()._processes)) as killed,
            pytest.raises(RuntimeError, match="one of 2 worker processes was killed"),
        ):
            long_corpus.build(store_folder, workers=workers)
        assert 3 <= killed.result() < 16
    (building,) = store_folder.parent.iterdir()
    finished = {path: path.stat().st_ino for path in building.glob("*.f16")}
    assert list(building.glob(".*.tmp"))  # the killed one's
    long_corpus.build(store_folder)
    kept = [path for path, inode in finished.items()
            if (store_folder / path.name).stat().st_ino == inode]  # fmt: skip
    assert len(kept) >= len(finished) - 1 >= 2  # of one the part may be missing
    assert content(store_folder) == long_store
    assert_alone(store_folder)


@needs_proc
@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_same_store(
    long_corpus: Corpus, long_store: dict[str, bytes], store_folder: Path
) -> None:
    with (
        LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local.scheduler_address, set_as_default=False) as client,
    ):
        processes = list(client.run(os.getpid).values())
        folders = [long_corpus.folder]
        with (
            Workers(preload="math", scheduler=local.scheduler_address, folders=folders) as workers,
            killing_a_writer(store_folder, lambda: processes) as killed,
        ):
            index, _ = long_corpus.build(store_folder, workers=workers)
        assert 3 <= killed.result() < 16
    assert index["num_clips"] == 48 and index["num_excluded"] == 0
    assert content(store_folder) == long_store
    assert_alone(store_folder)


# --------------------------------------------------------------------------------------- memory


def memory_of_building(num_clips: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that this process needs, besides the manifest, for a store whose shards cost none."""

    def nothing(job: shards.ShardJob) -> int:
        shards.shard_path(job.folder, job.number).touch()
        entry = {"file": shards.shard_path(job.folder, job.number).name, "bytes": 0, "sha256": ""}
        found = {key: [998.5] * len(job.clips) for key in ("num_frames", "sums", "squares")}
        found["problems"] = [""] * len(job.clips)
        files.write_json(shards.part_path(job.folder, job.number), {"entry": entry, "clips": found})
        return len(job.clips)

    names = [f"clip-{number:07d}" for number in range(num_clips)]
    manifest = pd.DataFrame({"clip": names, "path": names, "start_s": 0.0, "duration_s": 10.0})
    manifest["sha256"], manifest["excluded"] = "", ""
    monkeypatch.setattr(build, "write_shard", nothing)
    tracemalloc.start()
    try:
        Corpus(folder, manifest).build(folder / f"{num_clips}/logmel/noise", shard_bytes=64_000_000)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_hardly_grows_with_the_number_of_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent keeps numbers of each clip, not jobs or other objects: 0.25 GB for two million."""
    few, many = (memory_of_building(n, tmp_path, monkeypatch) for n in (3_000, 30_000))
    assert (many - few) / 27_000 < 150


@needs_proc
def test_memory_of_a_worker_does_not_grow_with_the_number_of_clips(
    long_corpus: Corpus, tmp_path: Path
) -> None:
    def write(number: int) -> None:
        clips = long_corpus.manifest[["path", "start_s", "duration_s"]].iloc[:16]
        listed = list(clips.itertuples(index=False, name=None))
        job = shards.ShardJob(number, tmp_path, long_corpus.folder, FRONT_END, listed)
        assert shards.write_shard(job) == 16

    def resident_mb() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    write(0)
    before = resident_mb()
    for number in range(1, 6):
        write(number)
    assert resident_mb() - before < 20  # 80 clips are 55 MB of samples and 14 MB of log-mels


def test_command_names_damaged_stores(
    four: Four, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path))
    monkeypatch.delenv("MATPAC_DATA", raising=False)
    (tmp_path / "params.yaml").write_text(smoke.SMOKE_YAML.read_text())
    assert command.matpac("verify") == 1
    assert "smoke/logmel: no log-mel store; run the stage logmel" in capsys.readouterr().err
    for name in ("a", "b"):
        four.corpus.build(tmp_path / "data/smoke/logmel" / name)
    assert command.matpac("verify") == 0
    assert capsys.readouterr().out.count(": as written, ") == 2
    shard = tmp_path / "data/smoke/logmel/a/shard-00000.f16"
    original = shard.read_bytes()
    shard.write_bytes(bytes([original[0] ^ 1]) + original[1:])
    assert command.matpac("verify") == 1
    out, err = capsys.readouterr()
    assert f"{shard}: its checksum is not the index's; run" in err
    assert out.count(": as written, ") == 1 and "logmel/b: as written" in out
    shard.unlink()  # what it says
    assert four.corpus.build(shard.parent)[1] and shard.read_bytes() == original

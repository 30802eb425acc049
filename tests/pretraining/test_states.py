"""A training state as a file: exact, whole or not there, checked, and no other run's."""

import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from matpac.pretraining import states
from matpac.pretraining.states import Identity, Snapshot

IDENTITY = {"config": {"model": {"width": 8}}, "data": "d", "code": "c"}


def make_state(**content: Any) -> dict[str, Any]:
    described = {"step": 3, "order": {"position": 12}, "identity": IDENTITY, "versions": {}}
    return Snapshot(described | content).content()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state-000000003.pt"


@contextmanager
def full_disk(num_bytes: int = resource.RLIM_INFINITY) -> Iterator[Callable[[int], None]]:
    """No file can grow beyond so many bytes: writing fails as it does on a full disk.

    Yields: a function that sets another limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(num_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))

    limit(num_bytes)
    try:
        yield limit
    finally:
        limit(soft)


# ---------------------------------------------------------------------------------- snapshot


def test_a_snapshot_is_what_was_and_stays_so() -> None:
    weight, moments = torch.randn(3, requires_grad=True), torch.arange(4.0)
    state = {"w": weight, "groups": [{"lr": 0.1, "betas": (0.9, 0.95)}], "view": moments[1:3]}
    before = weight.detach().clone()
    copy = Snapshot(state).content()
    with torch.no_grad():
        weight += 1
    moments.zero_()
    state["groups"][0]["lr"] = 7.0
    assert torch.equal(copy["w"], before) and not copy["w"].requires_grad
    assert copy["view"].tolist() == [1.0, 2.0]
    assert copy["groups"] == [{"lr": 0.1, "betas": (0.9, 0.95)}]


@pytest.mark.parametrize("value", [Path("a"), np.float64(1), {1, 2}, torch.float16])
def test_what_could_not_be_read_back_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="holds tensors, numbers and text, got"):
        Snapshot({"a": [value]})


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    """Also if text or tensors are one object in one of them and several in the other."""
    paths = [tmp_path / name / "state-000000003.pt" for name in ("a", "b")]
    one = torch.ones(2)
    shared = make_state(a={"lr": 1.0}, b={"lr": 2.0}, c=one, d=one, e=[one, one])
    names = ["".join(["l", "r"]) for _ in range(2)]
    apart = make_state(a={names[0]: 1.0}, b={names[1]: 2.0}, c=one, d=one.clone(), e=[one, one])
    for path, state in zip(paths, (shared, apart), strict=True):
        states.write(path, state)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_snapshot_of_a_gpu_is_of_its_moment_and_waits_for_nothing() -> None:
    weight = torch.ones(2**24, device="cuda")
    Snapshot({"w": weight}).content()  # the first allocation of pinned memory waits
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        snapshot = Snapshot({"w": weight})
        for _ in range(100):  # the next updates
            weight += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    copy = snapshot.content()["w"]
    assert copy.is_pinned() and copy.min() == copy.max() == 1


# ------------------------------------------------------------------------------ write and read


def test_a_state_comes_back_exactly(path: Path) -> None:
    generator = torch.get_rng_state()
    state = make_state(w=torch.randn(5, dtype=torch.float64), random=[{"cpu": generator}])
    states.write(path, state)
    loaded = states.read(path)
    assert torch.equal(loaded["w"], state["w"]) and loaded["w"].dtype == torch.float64
    assert torch.equal(loaded["random"][0]["cpu"], generator)
    assert list(loaded) == list(state) and loaded["identity"] == IDENTITY
    assert states.describe(path).identity == Identity(**IDENTITY)
    assert sorted(p.name for p in path.parent.iterdir()) == [f"{path.stem}.json", path.name]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def undescribe(path: Path) -> None:
    path.with_suffix(".json").unlink()


def misdescribe(path: Path) -> None:
    path.with_suffix(".json").write_text('{"sha256": "0"}')


def halve_description(path: Path) -> None:
    path.with_suffix(".json").write_text('{"sha256": "0", "by')


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, r"3\.pt: (\d+) bytes, but (\d+) were written"),
        (flip, r"3\.pt: not what was written: its SHA-256 is another"),
        (undescribe, r"3\.pt: state-000000003\.json, which vouches for it, is missing"),
        (misdescribe, r"3\.pt: state-000000003\.json describes no state: KeyError\('bytes'\)"),
        (
            halve_description,
            r"3\.pt: state-000000003\.json describes no state: .*not readable as JSON",
        ),
        (Path.unlink, r"3\.pt: no such training state"),
    ],
)
def test_damage_is_told(path: Path, damage: Any, reason: str) -> None:
    states.write(path, make_state(w=torch.ones(100)))
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        states.read(path)


class Executed:
    """Unpickling it makes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("foreign", ["text", "pickle", "torch"])
def test_a_foreign_file_with_a_right_checksum_is_no_state(
    path: Path, tmp_path: Path, foreign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "executed"
    content = {"text": b"hello", "pickle": pickle.dumps(Executed(witness), 2)}
    real = torch.save

    def save(_: object, file: Any) -> None:
        if foreign == "torch":
            real(Executed(witness), file)
        else:
            file.write(content[foreign])

    monkeypatch.setattr(torch, "save", save)
    states.write(path, make_state())
    with pytest.raises(ValueError, match=r"3\.pt: not a training state"):
        states.read(path)
    assert not witness.exists()


def test_a_state_appears_after_all_that_it_refers_to(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the disk when the machine dies: never a state without its logs or checksum."""
    log, events = tmp_path / "log.csv", []
    log.write_text("step\n0\n")
    real_sync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        events.append(f"sync {name.split('.')[1] if name.startswith('.') else name}")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"name {Path(target).name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    states.write(path, make_state(), after=[log])
    assert events == [
        "sync state-000000003",  # under its temporary name
        "sync log.csv",
        "name state-000000003.json",
        "sync state-000000003.json",
        f"sync {tmp_path.name}",
        "name state-000000003.pt",
        f"sync {tmp_path.name}",
    ]


@pytest.mark.parametrize("limit", [0, 100, 50_000, 390_000])
def test_a_full_disk_is_named_and_leaves_nothing(path: Path, limit: int) -> None:
    state = make_state(w=torch.ones(100_000))
    with full_disk(limit), pytest.raises(OSError, match=r"3\.pt: not written: File too large"):
        states.write(path, state)
    assert list(path.parent.iterdir()) == []
    states.write(path, state)
    assert torch.equal(states.read(path)["w"], state["w"])


def test_a_description_that_cannot_be_written_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(states.files, "sync", no_space)
    with pytest.raises(OSError, match=r"\[Errno 28\] .*3\.pt: not written: No space left"):
        states.write(path, make_state())
    assert list(path.parent.iterdir()) == []


# ------------------------------------------------------------------------------------ identity


def identity(**changes: dict) -> Identity:
    return Identity(tiny.run(**changes).deciding(), "data", "code")


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("model", {"num_prototypes": 13}),
        ("model", {"positions": "learned"}),
        ("objective", {"alpha": 0.25}),
        ("objective", {"centering": "none"}),
        ("pretrain", {"seed": 1}),
        ("pretrain", {"epochs": 7.0}),
        ("pretrain", {"precision": "bfloat16"}),
        ("pretrain", {"diagnostics_every": 6}),
    ],
)
def test_the_fingerprint_follows_what_decides_the_result(section: str, change: dict) -> None:
    ours, other = identity(), identity(**{section: change})
    assert ours.fingerprint != other.fingerprint
    (key, value), old = *change.items(), tiny.SECTIONS[section][next(iter(change))]
    assert ours.differences(other) == [f"{section}.{key}: {value} there, {old} here"]


@pytest.mark.parametrize(
    "change", [{"workers": 3}, {"checkpoint_every_s": 1.0}, {"keep_checkpoints": 7}]
)
def test_the_fingerprint_ignores_how_fast_and_how_safely(change: dict) -> None:
    assert identity(pretrain=change).fingerprint == identity().fingerprint
    assert identity().differences(identity(pretrain=change)) == []


def test_data_and_code_decide_too() -> None:
    ours = identity()
    for change, said in (({"data": "x"}, "the pretraining data differ"), ({"code": "x"}, "code")):
        other = Identity(**(vars(ours) | change))
        assert other.fingerprint != ours.fingerprint
        assert said in "".join(ours.differences(other))


def test_keys_that_only_one_side_has_are_told() -> None:
    older = identity().config
    older["model"] = {k: v for k, v in older["model"].items() if k != "positions"} | {"depth": 3}
    assert identity().differences(Identity(older, "data", "code")) == [
        "model.depth: 3 there, absent here",
        "model.positions: absent there, sincos here",
    ]

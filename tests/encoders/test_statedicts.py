"""Reading and converting checkpoints without executing anything in them."""

import argparse
import builtins
import os
import pathlib
import re
import shutil
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matpac.encoders.statedicts import convert, read_checkpoint, read_state

import command

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor(7)}
COMPANY = {
    "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("x")),
    "best": np.float64(0.5),
    "scores": np.arange(3.0),
    "where": pathlib.PosixPath("/data"),
    "meters": defaultdict(list, {"loss": [1.5], "args": [argparse.Namespace()]}),
    "epoch": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
}


class Malicious:
    """Its pickle calls a function as soon as it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def same(read: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return sorted(read) == sorted(expected) and all(
        torch.equal(read[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize(
    "form", ["safetensors", "plain", "ordered", "model", "state_dict", "teacher", "old"]
)
def test_files_that_are_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("state.safetensors" if form == "safetensors" else "state.pt")
    if form == "safetensors":
        save_file(STATE, path)
    elif form in ("model", "state_dict", "teacher"):
        torch.save({form: STATE, "epoch": 3, "cfg": {"depth": 12}}, path)
    else:
        state = OrderedDict(STATE) if form == "ordered" else STATE
        torch.save(state, path, _use_new_zipfile_serialization=form != "old")
    assert same(read_state(path), STATE)


def test_the_rest_of_a_checkpoint_is_there_too(tmp_path: Path) -> None:
    path = tmp_path / "beats.pt"
    torch.save({"cfg": {"encoder_layers": 12}, "model": STATE}, path)
    assert read_checkpoint(path)["cfg"] == {"encoder_layers": 12}


def test_files_that_are_no_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    with pytest.raises(FileNotFoundError, match=r"state\.pt: no such checkpoint"):
        read_state(path)
    for content, found in [
        ([torch.zeros(1)], "list"),
        (STATE | {"epoch": 3}, r"epoch \(int\)"),
        ({"model": STATE | {"epoch": 3}}, r"epoch \(int\)"),
        ({}, "no tensors"),
        ({"model": {}}, "no tensors"),
        (torch.zeros(1), "Tensor"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"state\.pt: got {found}, allowed: a mapping name"):
            read_state(path)
        if found != r"epoch \(int\)":
            with pytest.raises(ValueError, match=r"state\.pt: got .*allowed: a mapping name"):
                convert(path, tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("name", ["state.pt", "state.safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99])
def test_damaged_files(tmp_path: Path, name: str, kept: float) -> None:
    whole, path = tmp_path / f"whole-{name}", tmp_path / name
    large = {"a": torch.randn(300)}
    (save_file if name.endswith("safetensors") else torch.save)(large, whole)
    content = whole.read_bytes()
    path.write_bytes(content[: kept if kept == 5 else int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: not readable as"):
        read_state(path)
    if name == "state.pt":
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: not converted"):
            convert(path, tmp_path / "out.safetensors")
        assert not (tmp_path / "out.safetensors").exists()


def test_objects_are_refused_by_name_with_the_command_that_converts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a run.pt"
    torch.save({"model": STATE, **COMPANY}, path)
    with pytest.raises(ValueError) as error:
        read_state(path)
    message = str(error.value)
    for name in ("argparse.Namespace", "pathlib.PosixPath", "pathlib.PurePosixPath", "multiarray"):
        assert name in message
    target = tmp_path / "a run.safetensors"
    said = f"matpac convert '{path}' '{target}'"
    assert message.endswith(said)
    assert command.matpac("convert", path, target) == 0
    assert capsys.readouterr().out == (
        f"{target}: written; left out: args (argparse.Namespace), "
        "best (numpy._core.multiarray.scalar), scores (numpy._core.multiarray._reconstruct), "
        "where (pathlib.PosixPath), meters (dict), epoch (int), optimizer (dict)\n"
    )
    assert same(read_state(target), STATE)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (exec, "builtins.exec"),
        (eval, "builtins.eval"),
        (builtins.open, f"{builtins.open.__module__}.open"),  # of io or, in Python 3.12, _io
        (os.mkdir, "posix.mkdir"),
        (shutil.copyfile, "shutil.copyfile"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_executed(tmp_path: Path, function: Any, name: str, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "state.pt"
    code = f"open({str(trace)!r}, 'w')"
    arguments = {
        os.mkdir: (str(trace),),
        builtins.open: (str(trace), "w"),
        shutil.copyfile: (__file__, str(trace)),
    }.get(function, (code,))
    content = {"model": STATE, "bad": Malicious(function, *arguments)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"state\.pt: not readable as plain tensors") as error:
        read_state(path)
    assert name in str(error.value) or not zipped
    assert ("matpac convert" in str(error.value)) == (zipped and not name.startswith("posix"))
    target = tmp_path / "state.safetensors"
    if zipped and not name.startswith("posix"):
        assert convert(path, target) == [f"bad ({name})"]
        assert same(load_file(target), STATE)
    else:  # functions of the operating system are not even replaced
        reason = rf"it calls {name}" if zipped else "cannot be left out"
        with pytest.raises(ValueError, match=rf"state\.pt: not converted: .*{reason}"):
            convert(path, target)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the payload is a real one
    assert trace.exists()


def test_placeholders_are_allowed_only_while_converting(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"model": STATE, **COMPANY}, path)
    before = set(torch.serialization.get_safe_globals())
    convert(path, tmp_path / "state.safetensors")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(ValueError, match=r"argparse\.Namespace"):
        read_state(path)


def test_a_class_that_does_not_exist_here(tmp_path: Path, monkeypatch) -> None:
    """Its module is not imported, and need not be installed."""
    gone = type("Gone", (), {"__module__": "not_installed"})
    module = type(sys)("not_installed")
    module.Gone = gone
    path = tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "not_installed", module)
        made = gone()
        made.inner = {"lr": 1}
        torch.save({"model": STATE, "config": made}, path)
    assert convert(path, tmp_path / "state.safetensors") == ["config (not_installed.Gone)"]
    assert "not_installed" not in sys.modules


def test_a_whole_module_is_not_converted(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"got model \(torch\.nn\.modules\.linear\.Linear\)"):
        convert(tmp_path / "module.pt", tmp_path / "module.safetensors")


def test_shared_and_strided_tensors(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {
        "whole": whole,
        "same": whole,
        "row": whole[1],
        "turned": whole.t(),
        "spread": torch.ones(1).expand(5),
        "parameter": nn.Parameter(torch.ones(2)),
        "half": whole.half(),
    }
    torch.save({"state_dict": state, **COMPANY}, tmp_path / "state.pt")
    convert(tmp_path / "state.pt", tmp_path / "state.safetensors")
    read = read_state(tmp_path / "state.safetensors")
    assert same(read, state)
    assert read["half"].dtype == torch.float16
    assert (tmp_path / "state.safetensors").stat().st_size < 2000  # no storage written whole


def test_other_names_are_no_target(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: allowed: a name that ends with .safetensors"):
        convert(tmp_path / "state.pt", tmp_path / "state.pt")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such checkpoint"):
        convert(tmp_path / "absent.pt", tmp_path / "state.safetensors")

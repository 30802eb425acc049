"""Loading whole or not at all, and what is said when a package is not there."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from matpac.encoders import strict

PATH = Path("weights.pt")


def test_one_error_lists_all_that_does_not_fit() -> None:
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError) as error:
        strict.load(module, {"weight": torch.zeros(3, 3), "scale": torch.zeros(1)}, PATH)
    assert str(error.value).splitlines() == [
        "weights.pt: does not fit:",
        "  missing: bias",
        "  unexpected: scale",
        "  shape of weight: got (3, 3), allowed: (2, 3)",
    ]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_fits_is_loaded() -> None:
    module = nn.Linear(3, 2)
    strict.load(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, PATH)
    assert module.weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(
    ("row", "package", "extra"),
    [
        ("passt", "hear21passt", "passt"),
        ("htsat", "transformers", "htsat"),
        ("mae_ast", "s3prl", "mae-ast"),
        ("beats", "speechbrain", "beats"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    row: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    message = rf"{package} is not installed: pip install 'matpac\[{extra}\]'"
    with pytest.raises(ImportError, match=message):
        import_module(f"matpac.encoders.{row}").make(None)

"""Dasheng: the contract, its published names, and the numbers of the package's own forward."""

import pickle
from pathlib import Path

import encoder_checks
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from matpac.encoders import dasheng
from matpac.encoders.dasheng import DashengEncoder

pytest.importorskip("dasheng", reason="the extra dasheng is not installed")


def theirs(model: str = "base", **options: int) -> nn.Module:
    """The package's network, statistics as after training on log-mels; a new one has 0 and 1."""
    from dasheng.pretrained.pretrained import Dasheng

    torch.manual_seed(0)
    net = Dasheng(**dasheng.SIZES[model] | options).eval()
    net.init_bn[1].running_mean.fill_(-20.0)
    net.init_bn[1].running_var.fill_(400.0)
    return net


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return theirs()


@pytest.fixture(scope="module")
def encoder(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> DashengEncoder:
    """Loaded from a file such as the package reads."""
    path = tmp_path_factory.mktemp("dasheng") / "dasheng_base.pt"
    torch.save({"model": net.state_dict(), "config": {"target_length": 1008}}, path)
    return dasheng.make(path, model="base")


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_contract(encoder: DashengEncoder, check: encoder_checks.Check) -> None:
    check(encoder)


def test_the_larger_model_is_the_package_s_own() -> None:
    larger = dasheng.make(None, model="0.6b")
    assert (larger.width, larger.num_layers) == (1280, 32)
    assert sum(p.numel() for p in larger.parameters()) == 630_333_568  # 600 million are published
    piece = encoder_checks.waves(larger, 1, 8_000)
    difference = encoder_checks.difference(larger.net(piece), larger.columns(piece))
    assert difference < encoder_checks.CLOSE


def test_sizes_of_the_base_model(encoder: DashengEncoder) -> None:
    assert (encoder.width, encoder.num_layers, encoder.piece_hop) == (768, 12, 161_280)
    assert sum(p.numel() for p in encoder.parameters()) == 85_447_808  # 86 million are published
    with pytest.raises(ValueError, match=r"model: got 'large', allowed: 'base', '0\.6b'"):
        dasheng.make(None, model="large")


@pytest.mark.parametrize("seconds", [3.0, 25.3])
def test_columns_of_a_clip_are_those_of_the_package(
    net: nn.Module, encoder: DashengEncoder, seconds: float
) -> None:
    """Which frames the whole clip and cuts the frames."""
    clip = encoder_checks.waves(encoder, 1, int(seconds * 16_000))
    with torch.no_grad():
        expected = net(clip)[0]
    found = encoder.embed(clip[0], sample_rate=16_000, frames=True)
    assert encoder_checks.difference(expected, found.embeddings) < encoder_checks.CLOSE
    centres = torch.arange(len(expected), dtype=torch.float64) * 0.04 + 0.015
    torch.testing.assert_close(found.times, centres, rtol=0, atol=1e-9)


def test_inner_layers_are_outputs_of_their_blocks(net: nn.Module, encoder: DashengEncoder) -> None:
    piece, caught = encoder_checks.waves(encoder, 1, 32_000), []
    hook = encoder.net.blocks[4].register_forward_hook(lambda _m, _i, out: caught.append(out))
    encoder.columns(piece)
    hook.remove()
    assert torch.equal(encoder.columns(piece, layer=4), caught[0])


def test_silence_is_the_same_beside_a_loud_clip(encoder: DashengEncoder) -> None:
    """The package's floor of decibels is below the loudest of the batch."""
    loud = torch.sin(torch.arange(32_000) * 0.3)
    both = encoder.columns(torch.stack([1e-6 * loud, loud]))
    alone = encoder.columns(1e-6 * loud[None])
    assert encoder_checks.difference(alone[0], both[0]) < encoder_checks.CLOSE


def test_checkpoints_load_strictly(net: nn.Module, encoder: DashengEncoder, tmp_path: Path) -> None:
    encoder_checks.loads_strictly(
        lambda path: dasheng.make(path, model="base"),
        encoder,
        net.state_dict(),
        tmp_path,
        wrap=lambda state: {"model": state, "config": {"depth": 12}},
    )
    larger = theirs("0.6b", depth=1)
    torch.save({"model": larger.state_dict()}, tmp_path / "larger.pt")
    with pytest.raises(ValueError, match=r"shape of time_pos_embed: got \(1, 1280, 1, 252\)"):
        dasheng.make(tmp_path / "larger.pt", model="base")


def test_a_file_with_other_positions_has_other_pieces(tmp_path: Path) -> None:
    """The package's default is 1008 frames, that of the authors' model on the Hub 1012."""
    longer = theirs(target_length=1012)
    save_file(longer.state_dict(), tmp_path / "d.safetensors")
    encoder = dasheng.make(tmp_path / "d.safetensors", model="base")
    assert encoder.piece_hop == 1012 * 160


def test_it_can_be_sent_to_other_processes(encoder: DashengEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    piece = encoder_checks.waves(encoder, 1, 8_000)
    assert torch.equal(again.columns(piece), encoder.columns(piece))

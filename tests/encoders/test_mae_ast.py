"""MAE-AST: the contract, its published names, and the latents as s3prl's upstream gives them."""

from collections.abc import Iterator
from pathlib import Path

import encoder_checks
import pytest
import torch
from torch import Tensor

from matpac.encoders import mae_ast

pytest.importorskip("s3prl", reason="the extra mae-ast is not installed")


def with_statistics(encoder: mae_ast.MAEAST) -> mae_ast.MAEAST:
    """Running mean and variance as after training on log-mels; a new network has 0 and 1."""
    encoder.net.batch_norm.running_mean.fill_(-6.0)
    encoder.net.batch_norm.running_var.fill_(16.0)
    return encoder


@pytest.fixture(scope="module", params=["patch", "frame"])
def encoder(request: pytest.FixtureRequest) -> mae_ast.MAEAST:
    """Random weights of the true sizes."""
    torch.manual_seed(0)
    return with_statistics(mae_ast.make(None, model=request.param))


@pytest.fixture
def patch() -> Iterator[mae_ast.MAEAST]:
    torch.manual_seed(0)
    yield with_statistics(mae_ast.make(None))


def kind(encoder: mae_ast.MAEAST) -> str:
    return "patch" if encoder.rows == 8 else "frame"


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract(encoder: mae_ast.MAEAST, check: encoder_checks.Check) -> None:
    check(encoder)


def test_loads_the_published_checkpoint(encoder: mae_ast.MAEAST, tmp_path: Path) -> None:
    """The file is fairseq's: the state dict lies under "model", the configuration beside it."""

    def wrap(state: dict[str, Tensor]) -> dict[str, object]:
        return {"cfg": {"model": {"encoder_layers": 12}, "task": {}}, "model": state}

    def make(path: Path) -> mae_ast.MAEAST:
        return mae_ast.make(path, model=kind(encoder))

    encoder_checks.loads_strictly(make, encoder, encoder.net.state_dict(), tmp_path, wrap=wrap)


def test_names_and_shapes_are_those_that_the_package_loads(encoder: mae_ast.MAEAST) -> None:
    """s3prl loads the authors' files strictly, so its names are theirs."""
    state = encoder.net.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes["post_extract_proj.weight"] == (768, 256)  # 16 x 16, and 2 x 128
    assert shapes["encoder.layers.11.self_attn.q_proj.weight"] == (768, 768)
    assert shapes["decoder.layers.1.fc1.weight"] == (3072, 768)
    assert shapes["enc_sine_pos_embed.pe"] == (1, 48_000, 768)
    assert shapes["batch_norm.running_mean"] == (1,)
    assert "decoder.layers.2.fc1.weight" not in state


@pytest.mark.parametrize("seconds", [1.0, 2.56, 10.0])
def test_latents_are_those_of_the_upstream(encoder: mae_ast.MAEAST, seconds: float) -> None:
    """The whole way of s3prl's `UpstreamExpert`, which reads the checkpoint itself."""
    waves = encoder_checks.waves(encoder, 2, int(seconds * 16_000))
    hidden = upstream(encoder, list(waves))
    for layer in (0, 5, -1):
        assert torch.equal(encoder.columns(waves, layer=layer), hidden[layer])


def upstream(encoder: mae_ast.MAEAST, waves: list[Tensor]) -> list[Tensor]:
    """Hidden states by s3prl's own front end and grouping, of the network that is under test."""
    from s3prl.upstream.mae_ast.expert import UpstreamExpert

    expert = UpstreamExpert.__new__(UpstreamExpert)  # its __init__ reads a file of 700 MB
    torch.nn.Module.__init__(expert)
    expert.model, expert.sample_rate, expert.feature_dim = encoder.net, 16_000, 128
    expert.num_vertical_patch, expert.is_decoder_finetune = encoder.rows, False
    expert.ast_kernel_stride_time = encoder.patch_frames
    with torch.no_grad():
        return expert.forward(waves)["hidden_states"]


def test_times_are_centres_of_patches(patch: mae_ast.MAEAST) -> None:
    times = patch.times(160_000)
    assert len(times) == 62  # 998 frames, 16 at a time
    assert times[0].item() == pytest.approx((7.5 * 160 + 200) / 16_000)
    assert times[1].item() - times[0].item() == pytest.approx(0.16)


def test_pieces_have_the_frames_of_the_clip(patch: mae_ast.MAEAST) -> None:
    clip = encoder_checks.waves(patch, 1, patch.piece_hop + 32_000)
    banks = patch.logmel(clip)
    first = patch.logmel(clip[:, : patch.piece_samples])
    second = patch.logmel(clip[:, patch.piece_hop :])
    # float32 FFTs of other batch sizes differ in the last bits of quiet bins
    torch.testing.assert_close(torch.cat([first, second], dim=1), banks, rtol=0, atol=1e-3)


def test_a_short_piece_is_filled_up_with_silence(patch: mae_ast.MAEAST) -> None:
    short = encoder_checks.waves(patch, 1, 1_000)
    filled = torch.cat([short, torch.zeros(1, 1_800)], dim=1)  # 2800 samples: 16 frames
    assert torch.equal(patch.columns(short), patch.columns(filled))
    assert patch.columns(short).shape == (1, 1, 8 * 768)
    assert patch.times(1_000).tolist() == [1_000 / 2 / 16_000]


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model: got 'base', allowed: 'patch', 'frame'"):
        mae_ast.make(None, model="base")


def test_weights_of_the_other_model_are_told_by_their_configuration(
    patch: mae_ast.MAEAST, tmp_path: Path
) -> None:
    """Both have 256 inputs per token, so that their tensors have the same shapes."""
    content = {"cfg": {"model": {"ast_kernel_size_time": 2}}, "model": patch.net.state_dict()}
    torch.save(content, tmp_path / "frame.pt")
    with pytest.raises(ValueError, match=r"frame\.pt: patches of 2 frames; model: 'patch' has 16"):
        mae_ast.make(tmp_path / "frame.pt")
    assert mae_ast.make(tmp_path / "frame.pt", model="frame").width == 768

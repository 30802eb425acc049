"""PaSST: the contract, its published names, and its embedding as the package gives it."""

from pathlib import Path

import encoder_checks
import pytest
import torch

from matpac.encoders import passt

pytest.importorskip("hear21passt", reason="the extra passt is not installed")


@pytest.fixture(scope="module")
def encoder() -> passt.PaSST:
    """Random weights of the true sizes."""
    torch.manual_seed(0)
    return passt.make(None)


@pytest.fixture(scope="module")
def of_patches(encoder: passt.PaSST) -> passt.PaSST:
    """The same weights, embedded per time column."""
    return passt.PaSST(encoder.mel, encoder.net, pool="patches")


FOR_A_PIECE = [c for c in encoder_checks.CHECKS if c is not encoder_checks.columns_follow_time]
"""With the class token all columns of a piece are alike."""


@pytest.mark.parametrize("check", FOR_A_PIECE, ids=lambda check: check.__name__)
def test_class_token_keeps_the_contract(encoder: passt.PaSST, check: encoder_checks.Check) -> None:
    check(encoder)


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_patches_keep_the_contract(of_patches: passt.PaSST, check: encoder_checks.Check) -> None:
    check(of_patches)


def test_loads_the_published_names(encoder: passt.PaSST, tmp_path: Path) -> None:
    encoder_checks.loads_strictly(passt.make, encoder, encoder.net.state_dict(), tmp_path)


def test_names_and_shapes_are_those_of_the_published_file(encoder: passt.PaSST) -> None:
    state = encoder.net.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes["time_new_pos_embed"] == (1, 768, 1, 99)  # of 998 frames
    assert shapes["freq_new_pos_embed"] == (1, 768, 12, 1)
    assert shapes["new_pos_embed"] == (1, 2, 768)
    assert shapes["patch_embed.proj.weight"] == (768, 1, 16, 16)
    assert shapes["blocks.11.attn.qkv.weight"] == (2304, 768)
    assert shapes["head.1.weight"] == shapes["head_dist.weight"] == (527, 768)
    assert len(state) == 5 + 2 + 12 * 12 + 2 + 4 + 2


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_class_token_is_the_embedding_of_the_package(encoder: passt.PaSST, seconds: float) -> None:
    """`PasstBasicWrapper` is what the package's `load_model` returns for HEAR."""
    from hear21passt.wrapper import PasstBasicWrapper

    waves = encoder_checks.waves(encoder, 2, int(seconds * 32_000))
    with torch.no_grad():
        wrapper = PasstBasicWrapper(mel=encoder.mel, net=encoder.net, mode="embed_only").eval()
        expected = wrapper.get_scene_embeddings(waves)
    columns = encoder.columns(waves)
    assert torch.equal(columns[:, 0], expected)
    assert torch.equal(columns, expected[:, None].expand_as(columns))


def test_mean_of_patches_undoes_the_flattening(of_patches: passt.PaSST) -> None:
    """The package flattens rows first: token 2 + row * n + column."""
    waves = encoder_checks.waves(of_patches, 1, 32_000)
    caught = []
    hook = of_patches.net.blocks[4].register_forward_hook(lambda *given: caught.append(given[2]))
    columns = of_patches.columns(waves, layer=4)
    hook.remove()
    num_columns = columns.shape[1]
    assert num_columns == 9  # 100 frames: (100 - 16) // 10 + 1
    for column in (0, 5, 8):
        rows = [caught[0][0, 2 + row * num_columns + column] for row in range(12)]
        torch.testing.assert_close(columns[0, column], torch.stack(rows).mean(dim=0))


def test_times_are_centres_of_patches(encoder: passt.PaSST) -> None:
    times = encoder.times(320_000)
    assert len(times) == 99
    assert times[0].item() == pytest.approx(0.075)  # frames 0 to 15, every 10 ms
    assert times[-1].item() == pytest.approx(0.075 + 98 * 0.1)


def test_a_short_piece_is_filled_up_with_silence(encoder: passt.PaSST) -> None:
    short = encoder_checks.waves(encoder, 1, 1_000)
    filled = torch.cat([short, torch.zeros(1, 3_802)], dim=1)  # 4802 samples: 16 frames
    assert torch.equal(encoder.columns(short), encoder.columns(filled))
    assert encoder.columns(short).shape[1] == 1


def test_calls_leave_the_global_generator_alone_and_print_nothing(
    encoder: passt.PaSST, capsys: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    before = torch.get_rng_state()
    encoder.columns(encoder_checks.waves(encoder, 1, 16_000))
    assert torch.equal(before, torch.get_rng_state())
    assert capsys.readouterr().out == ""
    assert not recwarn.list


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool: got 'mean', allowed: 'class', 'patches'"):
        passt.make(None, pool="mean")

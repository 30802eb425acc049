"""BEATs; needs the extra ``beats``."""

from pathlib import Path

import encoder_checks
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("speechbrain", reason="needs pip install 'matpac[beats]'")

from matpac.encoders import beats
from matpac.encoders.beats import BEATsEncoder

SMALL = {"encoder_layers": 2, "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 96}
SMALL |= {"embed_dim": 32, "encoder_attention_heads": 4, "conv_pos_groups": 4}


def published(encoder: BEATsEncoder) -> dict[str, torch.Tensor]:
    """Its state under the names of the published files, which are those of torch's old weight norm.

    The names were compared with those of another package's copy of the published class.
    """
    return encoder_checks.with_old_weight_norm(encoder.net.state_dict())


@pytest.fixture(scope="module")
def encoder() -> BEATsEncoder:
    torch.manual_seed(0)
    return beats.make(None)


@pytest.mark.parametrize("check", encoder_checks.CHECKS, ids=lambda check: check.__name__)
def test_contract(encoder: BEATsEncoder, check: encoder_checks.Check) -> None:
    check(encoder)


def test_sizes_of_the_base_model(encoder: BEATsEncoder) -> None:
    assert (encoder.width, encoder.num_layers, encoder.piece_samples) == (768, 12, 160_000)
    # 90 million (BEATs, Table 1).
    assert sum(p.numel() for p in encoder.parameters()) == 90_311_792
    names = published(encoder)
    assert len(names) == 250
    for name in ("encoder.pos_conv.0.weight_g", "encoder.layers.11.self_attn.grep_linear.bias"):
        assert name in names
    # 998 frames: 62 whole patches, the middle of the last one at frame 976 + 7.5.
    times = encoder.times(160_000)
    assert len(times) == 62
    assert times[-1].item() == pytest.approx((983.5 * 160 + 200) / 16000, abs=1e-12)


def test_it_is_the_package_s_own_model(tmp_path: Path) -> None:
    """The mean over columns is the mean over the tokens that SpeechBrain's class gives."""
    from speechbrain.lobes.models.beats import BEATs

    torch.manual_seed(1)
    small = beats.make(None, **SMALL)
    path = tmp_path / "beats.pt"
    torch.save({"cfg": beats.ARCHITECTURE | SMALL, "model": published(small)}, path)
    theirs = BEATs(str(path))
    waves = encoder_checks.waves(small, 2, 33_000)
    with torch.no_grad():
        tokens = theirs.extract_features(waves, torch.ones(2))[0]
    ours = small.columns(waves)
    assert tokens.shape == (2, 8 * ours.shape[1], 48)
    torch.testing.assert_close(ours.mean(dim=1), tokens.mean(dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[:, 3], tokens[:, 24:32].mean(dim=1), rtol=0, atol=1e-6)


def test_checkpoints_load_strictly(tmp_path: Path) -> None:
    torch.manual_seed(2)
    small = beats.make(None, **SMALL)
    predictor = {"predictor.weight": torch.zeros(527, 48), "predictor.bias": torch.zeros(527)}
    for beside in ({}, predictor):
        encoder_checks.loads_strictly(
            beats.make,
            small,
            published(small),
            tmp_path,
            wrap=lambda state, beside=beside: {
                "cfg": beats.ARCHITECTURE | SMALL | {"finetuned_model": bool(beside)},
                "model": state | beside,
                "label_dict": {0: "/m/09x0r"},
            },
        )
    save_file(published(small), tmp_path / "b.safetensors")
    again = beats.make(tmp_path / "b.safetensors", **SMALL)
    piece = encoder_checks.waves(small, 1, 16_000)
    assert torch.equal(again.columns(piece), small.columns(piece))


def test_short_pieces_are_padded_with_silence() -> None:
    small = beats.make(None, **SMALL)
    piece = encoder_checks.waves(small, 1, 1000)
    padded = torch.nn.functional.pad(piece, (0, 1800))
    assert torch.equal(small.columns(piece), small.columns(padded))
    assert small.times(1000).tolist() == [pytest.approx((1.5 * 160 + 200) / 16000)]  # of 4 frames


def test_the_front_end_stays_in_float32() -> None:
    small, inputs = beats.make(None, **SMALL), []
    small.net.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    piece = encoder_checks.waves(small, 1, 16_000)
    small.columns(piece)
    with torch.autocast("cpu", torch.bfloat16):
        small.columns(piece)
    assert torch.equal(*inputs)

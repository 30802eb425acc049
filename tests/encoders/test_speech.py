"""HuBERT and data2vec: the contract, published names, and the numbers of transformers' own way."""

import pickle
from pathlib import Path

import encoder_checks
import pytest
import torch
from torch import nn

from matpac.encoders import speech
from matpac.encoders.speech import SpeechEncoder

transformers = pytest.importorskip("transformers", reason="the extra speech is not installed")

SIZES = {"hubert": (94_371_712, 211), "data2vec": (93_164_288, 230)}
"""Numbers and tensors of the base models; 95 and 93 million are published."""


def theirs(model: str) -> nn.Module:
    """The package's network, with random weights of the true sizes."""
    kind = {"hubert": "Hubert", "data2vec": "Data2VecAudio"}[model]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")()
    return getattr(transformers, f"{kind}Model")(config).eval()


@pytest.fixture(scope="module", params=SIZES)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def net(model: str) -> nn.Module:
    return theirs(model)


@pytest.fixture(scope="module")
def encoder(model: str, net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> SpeechEncoder:
    """Loaded from a file in the published names."""
    path = tmp_path_factory.mktemp(model) / "pytorch_model.bin"
    torch.save(encoder_checks.with_old_weight_norm(net.state_dict()), path)
    return speech.make(path, model=model)


OTHERWISE = (encoder_checks.hears_loudness, encoder_checks.columns_follow_time)
"""Every piece is normalised, so that a burst changes all its columns."""
CHECKS = [check for check in encoder_checks.CHECKS if check not in OTHERWISE]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(encoder: SpeechEncoder, check: encoder_checks.Check) -> None:
    check(encoder)


@pytest.mark.parametrize("start", [40_000, 120_000])
def test_other_sounds_change_the_columns_where_they_are(encoder: SpeechEncoder, start: int) -> None:
    """Equally loud, for 0.2 s: at most 0.1 s beside them is the largest change."""
    piece, stop = encoder_checks.waves(encoder, 1, encoder.piece_samples), start + 3_200
    other = piece.clone()
    other[:, start:stop] = piece[:, start:stop].flip(1)
    change = (encoder.columns(other) - encoder.columns(piece)).norm(dim=2)[0]
    at = encoder.times(encoder.piece_samples)[change.argmax()].item()
    assert start / 16_000 - 0.1 < at < stop / 16_000 + 0.1


def test_sizes_of_the_base_models(model: str, net: nn.Module, encoder: SpeechEncoder) -> None:
    assert (encoder.width, encoder.num_layers) == (768, 12)
    names = encoder_checks.with_old_weight_norm(net.state_dict())
    assert (sum(p.numel() for p in net.parameters()), len(names)) == SIZES[model]
    published = {
        "hubert": {"encoder.pos_conv_embed.conv.weight_g": (1, 1, 128)},
        "data2vec": {"encoder.pos_conv_embed.layers.4.conv.weight": (768, 48, 19)},
    }[model] | {
        "masked_spec_embed": (768,),
        "feature_extractor.conv_layers.0.conv.weight": (512, 1, 10),
        "encoder.layers.11.feed_forward.output_dense.weight": (768, 3072),
    }
    assert {name: tuple(names[name].shape) for name in published} == published


def test_columns_are_those_of_the_package(net: nn.Module, encoder: SpeechEncoder) -> None:
    """Normalised by the package's feature extractor, every layer as it gives it."""
    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    waves = encoder_checks.waves(encoder, 2, 33_000) + 0.01
    normal = extract(list(waves.numpy()), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        found = net(normal, output_hidden_states=True)
    assert encoder_checks.difference(found.last_hidden_state, encoder.columns(waves)) < 1e-4
    for layer in range(12):
        hidden = found.hidden_states[layer + 1]
        assert encoder_checks.difference(hidden, encoder.columns(waves, layer=layer)) < 1e-4


def test_checkpoints_load_strictly(
    model: str, net: nn.Module, encoder: SpeechEncoder, tmp_path: Path
) -> None:
    state = encoder_checks.with_old_weight_norm(net.state_dict())
    encoder_checks.loads_strictly(
        lambda path: speech.make(path, model=model), encoder, state, tmp_path
    )


def test_one_model_s_file_is_not_the_other_s(net: nn.Module, model: str, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "x.bin")
    (other,) = set(SIZES) - {model}
    with pytest.raises(ValueError, match=r"(?s)x\.bin: does not fit:.*missing: encoder\.pos_conv"):
        speech.make(tmp_path / "x.bin", model=other)
    with pytest.raises(ValueError, match="model: got 'wavlm', allowed: 'hubert', 'data2vec'"):
        speech.make(None, model="wavlm")


def test_a_clip_of_several_pieces_has_the_columns_of_the_whole(encoder: SpeechEncoder) -> None:
    clip = encoder_checks.waves(encoder, 1, 2 * 160_000 + 8_000)[0]
    found = encoder.embed(clip, sample_rate=16_000, frames=True)
    assert len(found.times) == 1 + (len(clip) - 400) // 320
    expected = torch.arange(len(found.times), dtype=torch.float64) * 0.02 + 0.0125
    torch.testing.assert_close(found.times, expected, rtol=0, atol=1e-9)


def test_it_can_be_sent_to_other_processes(encoder: SpeechEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    piece = encoder_checks.waves(encoder, 1, 8_000)
    assert torch.equal(again.columns(piece), encoder.columns(piece))

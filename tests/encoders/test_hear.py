"""The HEAR 2021 API: its validator's checks, and what the numbers are."""

from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch

from matpac import hear
from matpac.encoders.frozen import save_encoder
from matpac.encoders.interface import WaveEncoder
from matpac.hear import HearModel, get_scene_embeddings, get_timestamp_embeddings, load_model

RATES = (16000, 22050, 32000, 44100, 48000)
THEIRS = [(2, 17_120), (2, 31_680), (2, 64_000), (4, 43_840)]
"""Sounds in a batch and their samples, as the validator feeds them."""
ODD = [1, 160, 399, 400, 401, 2560, 97_601, 195_201, 195_437]
"""Samples: one, 0.01 s, around a window of 0.025 s, 0.16 s, a piece and 1 or 2 more samples."""


@pytest.fixture(scope="module", params=[0, 200], ids=["plain", "centred STFT"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's grid in time, 608 frames in columns of 16, in a narrow network."""
    net = encoder_checks.tiny_net(crop_frames=608, patch_size=16)
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(net, folder, reflect=request.param)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> HearModel:
    return load_model(str(folder))


def white(num: int, num_samples: int, *, seed: int = 0) -> torch.Tensor:
    """White noise between -1 and 1: (num, num_samples)."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(num, num_samples, generator=generator) - 1


# ------------------------------------------------------------------------------- the validator's


def test_the_model_has_the_attributes_of_the_api(model: HearModel) -> None:
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in RATES
    for name in ("sample_rate", "scene_embedding_size", "timestamp_embedding_size"):
        assert type(getattr(model, name)) is int
    assert not model.encoder.training


@pytest.mark.parametrize(("num", "num_samples"), [*THEIRS, *((2, n) for n in ODD)])
def test_shapes_types_and_timestamps(model: HearModel, num: int, num_samples: int) -> None:
    audio, duration_ms = white(num, num_samples), 1000 * num_samples / model.sample_rate
    scene = get_scene_embeddings(audio, model)
    assert scene.shape == (num, model.scene_embedding_size) and scene.dtype == torch.float32
    embeddings, stamps = get_timestamp_embeddings(audio, model)
    assert embeddings.ndim == 3 and embeddings.dtype == torch.float32
    assert embeddings.shape[::2] == (num, model.timestamp_embedding_size)
    assert stamps.shape == embeddings.shape[:2] and stamps.shape[1] >= 1
    assert scene.isfinite().all() and embeddings.isfinite().all() and stamps.isfinite().all()
    assert (stamps >= 0).all() and (stamps == stamps[0]).all()
    assert stamps[0, -1] <= duration_ms * (1 + 1e-6)  # float32's step
    if stamps.shape[1] > 1:
        hops = stamps[0].diff()
        assert (hops > 0).all() and (hops - hops.mean()).abs().max() < 1
        # Only warnings: the first and the last lie less than a hop from the ends.
        assert stamps[0, 0] <= hops.mean() and duration_ms - stamps[0, -1] <= hops.mean() + 1


# ---------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("num_samples", [17_120, 400, 97_601, 200_000])
def test_a_scene_is_the_mean_over_columns(model: HearModel, num_samples: int) -> None:
    audio = white(2, num_samples)
    clip = audio[1].numpy()
    expected = model.encoder.embed(clip, sample_rate=16000)
    ours = get_scene_embeddings(audio, model)[1]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model(audio), get_scene_embeddings(audio, model))


def test_timestamps_are_the_columns_of_the_encoder(model: HearModel) -> None:
    """10 s: every 160 ms from the middle of 16 frames on, over the seam of two pieces."""
    audio = white(1, 160_000)
    embeddings, stamps = get_timestamp_embeddings(audio, model)
    first, num = (75.0, 63) if model.encoder.reflect else (87.5, 62)
    np.testing.assert_allclose(stamps[0], first + 160 * np.arange(num), rtol=0, atol=1e-3)
    found = model.encoder.embed(audio[0], sample_rate=16000, frames=True)
    assert len(found.times) == 63  # the last one is partly filled: its middle would be at 10.0075 s
    np.testing.assert_allclose(embeddings[0], found.embeddings[:num], rtol=0, atol=1e-6)


def test_a_column_whose_middle_is_behind_the_end_is_left_out(model: HearModel) -> None:
    reflect = model.encoder.reflect
    # 16 whole frames, and one more, which begins a second column with its middle at 240 ms or so.
    num_samples = 400 + 16 * 160 - 2 * reflect
    embeddings, stamps = get_timestamp_embeddings(white(1, num_samples), model)
    assert model.encoder.embed(
        white(1, num_samples)[0], sample_rate=16000, frames=True
    ).embeddings.shape == (2, model.scene_embedding_size)
    assert embeddings.shape[1] == 1 and stamps.tolist() == [[75.0 if reflect else 87.5]]


@pytest.mark.parametrize("num_samples", [1, 100, 399])
def test_what_is_too_short_is_filled_up_with_silence(model: HearModel, num_samples: int) -> None:
    audio = white(1, num_samples)
    least = 201 if model.encoder.reflect else 400
    filled = torch.nn.functional.pad(audio, (0, max(0, least - num_samples)))
    expected = model.encoder.embed(filled[0], sample_rate=16000)
    assert torch.equal(get_scene_embeddings(audio, model)[0], expected)
    _, stamps = get_timestamp_embeddings(audio, model)
    assert stamps.shape == (1, 1) and 0 <= float(stamps) <= num_samples / 16


def test_a_sound_does_not_depend_on_its_batch(model: HearModel) -> None:
    audio = white(4, 43_840)
    scenes, (columns, stamps) = (
        get_scene_embeddings(audio, model),
        get_timestamp_embeddings(audio, model),
    )
    for i in range(4):
        alone = get_scene_embeddings(audio[i : i + 1], model)
        np.testing.assert_allclose(scenes[i], alone[0], rtol=0, atol=1e-6)
        one, at = get_timestamp_embeddings(audio[i : i + 1], model)
        np.testing.assert_allclose(columns[i], one[0], rtol=0, atol=1e-6)
        assert torch.equal(stamps[i], at[0])
    assert (scenes[0] - scenes[1]).abs().max() > 1e-3


class Uneven(WaveEncoder):
    """Pieces of 1 s with columns at 0.2 and 0.5 s: neither even over pieces nor up to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.width, self.piece_samples = 16000, 1, 16000
        self.weight = torch.nn.Parameter(torch.ones(1))

    def columns(self, waves: torch.Tensor, *, layer: int = -1) -> torch.Tensor:
        middles = [int(16000 * t) for t in self.times(waves.shape[1])]
        return torch.stack([waves[:, middle] for middle in middles], dim=1)[..., None]

    def times(self, num_samples: int) -> torch.Tensor:
        every = torch.tensor([0.2, 0.5], dtype=torch.float64)
        return every[every < num_samples / 16000] if num_samples > 3200 else every[:1]


def test_uneven_columns_are_given_where_they_are_nearest() -> None:
    audio = torch.arange(32_000)[None] / 32_000
    embeddings, stamps = get_timestamp_embeddings(audio, HearModel(Uneven()))
    np.testing.assert_allclose(stamps[0], [200, 500, 800, 1100, 1400, 1700, 2000], atol=1e-3)
    # Columns there are at 0.2, 0.5, 1.2 and 1.5 s.
    nearest = [0.2, 0.5, 0.5, 1.2, 1.5, 1.5, 1.5]
    np.testing.assert_allclose(embeddings[0, :, 0], np.array(nearest) / 2, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------- loading


def test_without_a_path_the_environment_names_the_encoder(
    folder: Path, model: HearModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"encoder: missing; give a folder of .* MATPAC_ENCODER"):
        load_model()
    monkeypatch.setenv("MATPAC_ENCODER", str(folder))
    audio = white(1, 5000)
    ours = get_scene_embeddings(audio, load_model())
    assert torch.equal(ours, get_scene_embeddings(audio, model))
    assert next(load_model().parameters()).device.type == "cpu"


def test_bad_input_is_refused(model: HearModel) -> None:
    for shape in ((16000,), (0, 16000), (1, 2, 16000)):
        with pytest.raises(ValueError, match=r"audio: got shape .* allowed: \(sounds, samples\)"):
            get_scene_embeddings(torch.zeros(shape), model)
    odd = Uneven()
    odd.sample_rate = 8000
    with pytest.raises(ValueError, match="sample_rate: got 8000, HEAR allows: 16000, 22050"):
        hear.HearModel(odd)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_works_on_the_models_device(folder: Path) -> None:
    model = load_model(str(folder)).to("cuda")
    audio = white(2, 17_120).to("cuda")
    scene = get_scene_embeddings(audio, model)
    embeddings, stamps = get_timestamp_embeddings(audio, model)
    assert {each.device.type for each in (scene, embeddings, stamps)} == {"cuda"}
    expected = get_scene_embeddings(audio.cpu(), load_model(str(folder)))
    np.testing.assert_allclose(scene.cpu(), expected, rtol=0, atol=1e-4)  # another order of sums

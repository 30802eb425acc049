"""What notebook 08 computes and draws of an embedding space."""

from pathlib import Path

import encoder_checks
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from matpac.params import Params, parse
from matpac.probing.task import ROWS_AT_ONCE, Inputs
from matpac.reporting import embedding_space

import smoke


@pytest.fixture
def params(smoke_root: Path) -> Params:
    return parse(Params, smoke.sections())


def test_a_run_is_opened_from_its_own_start_to_its_end(params: Params) -> None:
    """The start is the network of the run's sizes and seed that its training began with."""
    look = embedding_space.opened(params, "base", "esc50")
    assert [each.fraction for each in look.encoders] == [0, 0.5, 1]
    assert len(look.classes) == len(look.clips) == 100 and len(set(look.classes)) == 20
    rooster = look.clips["path"][look.classes == "rooster"]
    labels = look.clips.loc[rooster.index, "label"]
    assert labels.nunique() == 1
    spaces = [embedding_space.standardised(task) for task in look.tasks]
    train = look.tasks[0].splits[0].train
    for space in spaces:
        assert space.shape == (100, 160)
        np.testing.assert_allclose(space[train].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(space[train].std(axis=0), 1, atol=1e-4)
    torch.manual_seed(0)
    begun = embedding_space.random_encoder(params, "base", 0).state_dict()
    for name, tensor in look.encoders[0].encoder.state_dict().items():
        assert torch.equal(tensor, begun[name])
    # A run of the same weights in the encoder, though other prototypes, starts there, too.
    (start, end) = embedding_space.opened(params, "k8", "esc50").encoders
    assert start.encoder.config.num_prototypes == 8 and (start.fraction, end.fraction) == (0, 1)
    with pytest.raises(ValueError, match="task: got fsd50k, multilabel, allowed: one class"):
        embedding_space.opened(params, "base", "fsd50k")


def test_a_recording_is_the_clip_of_its_row(params: Params) -> None:
    clips = embedding_space.opened(params, "base", "esc50").clips
    sound = embedding_space.recording(params, "esc50", clips.iloc[3])
    assert sound.shape == (80_000,) and sound.dtype == np.float32


def test_the_nearest_are_the_exact_ones_over_all_windows() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * ROWS_AT_ONCE + 7, 5, generator=random) * 3 + 1
    among = np.arange(0, len(rows), 2)
    inputs = Inputs(rows, among)
    asked = inputs[np.array([1, 3, 5])]
    cosines, found = embedding_space.nearest(inputs, among, asked, 4)
    exact = (rows.double() - rows[among].double().mean(0)) / rows[among].double().std(
        0, correction=0
    )
    every = F.normalize(exact[[1, 3, 5]]) @ F.normalize(exact[among]).T
    best = every.argsort(dim=1, descending=True)[:, :4]
    np.testing.assert_array_equal(found, among[best])
    np.testing.assert_allclose(cosines, every.gather(1, best), rtol=0, atol=1e-5)
    cosines, found = embedding_space.nearest(inputs, among[:3], asked, 9)
    assert cosines.shape == found.shape == (3, 3)


def test_principal_components_have_fixed_signs_and_shares() -> None:
    random = np.random.default_rng(0)
    along = random.normal(size=(200, 2)) * [10, 2]
    axes = np.array([[-0.8, 0.6, 0], [0.6, 0.8, 0]])
    rows = along @ axes + 5
    points, shares = embedding_space.principal(rows, 2)
    loadings = np.linalg.lstsq(points, rows - rows.mean(axis=0), rcond=None)[0]
    for loading in loadings:
        assert loading[np.abs(loading).argmax()] > 0
    np.testing.assert_allclose(points.var(axis=0) / rows.var(axis=0).sum(), shares)
    assert shares.sum() == pytest.approx(1) and shares[0] > 0.9
    mirrored, _ = embedding_space.principal(rows[::-1], 2)
    np.testing.assert_allclose(mirrored[::-1], points, atol=1e-9)


def test_maps_of_a_course_are_turned_onto_the_last_one() -> None:
    random = np.random.default_rng(0)
    last = random.normal(size=(50, 6)) * [9, 5, 1, 1, 1, 1]
    turn, _ = np.linalg.qr(random.normal(size=(6, 6)))
    first, second = embedding_space.course([last @ turn, last])
    np.testing.assert_allclose(first, second, atol=1e-9)
    np.testing.assert_allclose(second, embedding_space.principal(last, 2)[0], atol=1e-9)


def test_attention_is_what_the_block_itself_mixes_with() -> None:
    net = encoder_checks.tiny_net()
    piece = torch.randn(2, 16, 30, generator=torch.Generator().manual_seed(0)) - 8
    weights = embedding_space.attention(net, piece)
    assert weights.shape == (2, 2, 9, 9)  # of 2 rows, 4 columns and the class token
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 9))
    seen = {}
    last = net.encoder.blocks[-1].attn
    last.register_forward_hook(lambda _, given, out: seen.update(given=given[0], out=out))
    net.columns(piece)
    value = last.qkv(seen["given"]).chunk(3, dim=2)[2].unflatten(2, (2, -1)).transpose(1, 2)
    mixed = last.proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, seen["out"], rtol=1e-4, atol=1e-5)


def test_class_attention_has_the_grid_of_a_clip_piece_by_piece() -> None:
    net = encoder_checks.tiny_net()
    clip = torch.randn(16, 45, generator=torch.Generator().manual_seed(0)) - 8
    found = embedding_space.class_attention(net, clip)
    assert found.shape == (2, 2, 6)  # a crop of 32 frames and one of 13, in columns of 8
    piece = embedding_space.attention(net, clip[None, :, :32])[0, :, 0, 1:].reshape(2, 2, 4)
    torch.testing.assert_close(found[..., :4], 9 * piece)


def test_patches_of_a_kind_have_a_colour_and_the_picture_has_the_grid() -> None:
    kinds = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    grids = [torch.tensor([[0, 1, 1], [2, 3, 1]]), torch.tensor([[2, 0], [3, 1]])]
    colours = embedding_space.patch_colours([kinds[grid] for grid in grids])
    assert [each.shape for each in colours] == [(2, 3, 3), (2, 2, 3)]
    of_kind = colours[0][[0, 0, 1, 1], [0, 1, 0, 1]]
    for grid, each in zip(grids, colours, strict=True):
        np.testing.assert_allclose(each, of_kind[grid], atol=1e-6)
    np.testing.assert_allclose([of_kind.min(axis=0), of_kind.max(axis=0)], [[0] * 3, [1] * 3])
    figure = embedding_space.maps([("a", torch.zeros(32, 40), colours[0])], 16)
    assert figure.axes[0].images[1].get_array().shape == (2, 3, 3)
    assert list(figure.axes[0].images[1].get_extent()) == [0, 48, 0, 32]

"""Which clip, crop and mask an update sees: everything once, whoever reads it."""

from collections import Counter

import numpy as np
import pytest
import tiny
import torch

from matpac.features.store import Store
from matpac.pretraining.batches import Batch, Batches, Corpus, Sampler, Stream, generator, loader


class Numbered:
    """A stand-in for a store: frame t of clip i holds 1000 i + t, in float32 for exactness."""

    def __init__(self, lengths: list[int], first: int = 0) -> None:
        self.num_frames, self.first = np.array(lengths), first

    def crops(self, indices: np.ndarray, starts: np.ndarray, num_frames: int) -> np.ndarray:
        first = 1000 * (self.first + np.asarray(indices)) + np.asarray(starts, dtype=int)
        frames = first[:, None] + np.arange(num_frames)
        return frames.astype(np.float32)[:, None].repeat(2, axis=1)  # (B, F, T)


def make_batches(*corpora: tuple[Numbered, float], **options: object) -> Batches:
    settings = {"batch_size": 4, "crop_frames": 10, "num_patches": 6, "seed": 1} | options
    return Batches([Corpus(store, weight) for store, weight in corpora], **settings)


def content(batch: Batch) -> list[tuple[int, int]]:
    """Clip and first frame of every crop."""
    return [divmod(int(value), 1000) for value in batch.logmel[:, 0, 0]]


TWELVE = Numbered([10 + n for n in range(12)])


# -------------------------------------------------------------------------------- order


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_clip_once_per_epoch(world_size: int) -> None:
    ranks = [make_batches((TWELVE, 1.0), rank=r, world_size=world_size) for r in range(world_size)]
    for epoch in range(3):
        updates = range(3 * epoch, 3 * epoch + 3)
        seen = [clip for b in ranks for update in updates for clip, _ in content(b[update])]
        assert sorted(seen) == list(range(12))


def test_epochs_have_different_orders() -> None:
    sampler = Sampler([np.arange(30)], [1.0], seed=0)
    first, second = sampler.clips(0, 30)[:, 1], sampler.clips(30, 30)[:, 1]
    assert sorted(first) == sorted(second) == list(range(30))
    assert first.tolist() != second.tolist() and first.tolist() != list(range(30))
    other = Sampler([np.arange(30)], [1.0], seed=1).clips(0, 30)[:, 1]
    assert first.tolist() != other.tolist()


def test_a_batch_may_span_epochs() -> None:
    sampler = Sampler([np.arange(5)], [1.0], seed=0)
    joined = sampler.clips(0, 10)
    np.testing.assert_array_equal(sampler.clips(3, 4), joined[3:7])
    batches = make_batches((Numbered([10] * 5), 1.0))
    clips = [clip for update in range(5) for clip, _ in content(batches[update])]
    assert Counter(clips) == dict.fromkeys(range(5), 4)  # 20 positions, 4 epochs


def test_an_epoch_is_found_again_in_any_order() -> None:
    sampler = Sampler([np.arange(7)], [1.0], seed=0)
    forth = [sampler.clips(7 * epoch, 7).tolist() for epoch in range(5)]
    back = [sampler.clips(7 * epoch, 7).tolist() for epoch in reversed(range(5))]
    assert forth == back[::-1]


def test_weights_say_how_often_clips_are_seen() -> None:
    twice, half = Numbered([10] * 3), Numbered([10] * 8, first=100)
    batches = make_batches((twice, 2.0), (half, 0.5), batch_size=5)
    assert batches.sampler.epoch_length == 2 * 3 + 4
    halves = []
    for epoch in range(4):
        seen = [
            clip for update in (2 * epoch, 2 * epoch + 1) for clip, _ in content(batches[update])
        ]
        assert Counter(clip for clip in seen if clip < 100) == dict.fromkeys(range(3), 2)
        halves.append(frozenset(clip for clip in seen if clip >= 100))
        assert len(halves[-1]) == 4  # four different ones of the eight
    assert len(set(halves)) > 1  # others each epoch


def test_whole_updates() -> None:
    batches = make_batches((TWELVE, 1.0), batch_size=5)
    assert [batches.steps(epochs) for epochs in (0, 0.5, 1, 2, 2.5)] == [0, 1, 2, 4, 6]
    with pytest.raises(ValueError, match=r"batch_size: got 5, allowed: at most .* 4"):
        batches.steps(0.4)


# -------------------------------------------------------------------------------- crops and masks


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_are_one_process(world_size: int) -> None:
    alone = make_batches((TWELVE, 1.0))
    ranks = [make_batches((TWELVE, 1.0), rank=r, world_size=world_size) for r in range(world_size)]
    for update in (0, 7):
        parts = [batches[update] for batches in ranks]
        assert torch.equal(torch.cat([p.logmel for p in parts]), alone[update].logmel)
        assert torch.equal(torch.cat([p.noise for p in parts]), alone[update].noise)
    rows = alone[0].noise.tolist() + alone[7].noise.tolist()
    assert len({tuple(row) for row in rows}) == 8


def test_same_masks_on_all_ranks() -> None:
    first, second = (
        make_batches((TWELVE, 1.0), rank=r, world_size=2, same_masks=True)[3] for r in range(2)
    )
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.noise, make_batches((TWELVE, 1.0))[3].noise[:2])
    assert not torch.equal(first.noise[0], first.noise[1])  # alike on ranks, not on clips
    assert not torch.equal(first.logmel, second.logmel)


def test_crops_lie_anywhere_within_their_clip() -> None:
    batches = make_batches((Numbered([10, 13]), 1.0), batch_size=2)
    starts: dict[int, Counter] = {0: Counter(), 1: Counter()}
    for update in range(400):
        for clip, start in content(batches[update]):
            starts[clip][start] += 1
    assert starts[0] == {0: 400}
    assert set(starts[1]) == {0, 1, 2, 3}
    assert min(starts[1].values()) > 60  # of 100 expected, with a standard deviation of 9


def test_crops_and_masks_are_drawn_anew_each_epoch() -> None:
    long = make_batches((Numbered([1000]), 1.0), batch_size=1)
    assert len({content(long[update])[0][1] for update in range(20)}) > 15
    assert len({tuple(long[update].noise[0].tolist()) for update in range(20)}) == 20


def test_crops_of_a_batch_are_drawn_apart() -> None:
    """Clips of equal length do not all start alike."""
    batches = make_batches((Numbered([900] * 4), 1.0))
    starts = [start for update in range(10) for _, start in content(batches[update])]
    assert len(set(starts)) > 35  # of 40 draws from 891: 0.9 coincidences are expected


def test_streams_of_different_purpose_seed_update_or_index_differ() -> None:
    keys = [(0, 1, 0, 0), (0, 2, 0, 0), (1, 1, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1), (1, 0, 0, 0)]
    assert len({generator(*key).random() for key in keys}) == len(keys)
    assert generator(*keys[0]).random() == generator(*keys[0]).random()


def test_the_streams_are_what_they_always_were() -> None:
    """Committed results and half-finished runs depend on them."""
    order = Sampler([np.arange(8), np.arange(3)], [1.0, 1.5], seed=7).clips(10, 8)
    expected = [[0, 2], [0, 3], [0, 4], [1, 1], [1, 2], [1, 0], [0, 3], [0, 5]]
    assert order.tolist() == expected
    batch = make_batches((Numbered([10, 300, 500, 800]), 1.0))[2]
    assert content(batch) == [(2, 209), (3, 454), (1, 16), (0, 0)]
    assert batch.noise[0, :3].tolist() == pytest.approx([0.9064102, 0.4619818, 0.3843003], abs=1e-7)


def test_crops_of_several_corpora_stand_where_the_order_says() -> None:
    corpora = (Numbered([10] * 5), 1.0), (Numbered([10] * 5, first=50), 1.0)
    batches = make_batches(*corpora, batch_size=10)
    picked = batches.sampler.clips(10, 10)
    assert [clip for clip, _ in content(batches[1])] == (picked @ [50, 1]).tolist()


def test_a_stream_gives_the_generators() -> None:
    stream = Stream(5, 1)
    for update, index in [(0, 0), (3, 7), (3, 8), (2**40, 0), (3, 7)]:
        expected = generator(5, 1, update, index)
        assert stream.at(update, index).random(3).tolist() == expected.random(3).tolist()
        stream.at(update, index).random(dtype=np.float32)  # half a word is left over
        assert stream.at(update, index).integers(9, size=5).tolist() == (
            generator(5, 1, update, index).integers(9, size=5).tolist()
        )


# -------------------------------------------------------------------------------- errors


def test_clips_shorter_than_a_crop_are_left_out_and_counted() -> None:
    batches = make_batches((Numbered([9, 10, 3, 11, 12, 30]), 1.0))
    assert (batches.num_clips, batches.num_usable) == (6, 4)
    assert sorted(clip for clip, _ in content(batches[0])) == [1, 3, 4, 5]
    beside = make_batches((Numbered([9, 9]), 1.0), (Numbered([10] * 4, first=50), 1.0))
    assert sorted(clip for clip, _ in content(beside[0])) == [50, 51, 52, 53]


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="hold no clip as long as a crop"):
        make_batches((Numbered([9, 2]), 1.0))
    with pytest.raises(ValueError, match=r"pretrain\.batch_size: got 4, .* multiples of the 3"):
        make_batches((TWELVE, 1.0), world_size=3)


# -------------------------------------------------------------------------------- real store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny.make_store(tmp_path_factory.mktemp("bulk") / "logmel" / "noise", [40, 20, 33, 50])


def of_store(store: Store, batch_size: int) -> Batches:
    sizes = {"batch_size": batch_size, "crop_frames": tiny.CROP, "num_patches": 8}
    return Batches([Corpus(store, 1.0)], seed=0, **sizes)


def test_crops_come_from_the_store(store: Store) -> None:
    batches = of_store(store, 3)
    batch = batches[0]
    assert batch.logmel.shape == (3, 16, tiny.CROP) and batch.logmel.dtype == torch.float16
    for crop, (_, clip) in zip(batch.logmel.numpy(), batches.sampler.clips(0, 3), strict=True):
        whole = store.clip(clip).T
        places = range(whole.shape[1] - tiny.CROP + 1)
        assert any(np.array_equal(crop, whole[:, p : p + tiny.CROP]) for p in places)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_from_the_middle_goes_on_as_before(store: Store, workers: int) -> None:
    """A resumed run sees what it would have seen, with any number of loader processes."""
    batches = of_store(store, 2)
    resumed = list(loader(batches, first=4, last=9, workers=workers))
    assert len(resumed) == 5
    for update, batch in enumerate(resumed, start=4):
        assert torch.equal(batch.logmel, batches[update].logmel)
        assert torch.equal(batch.noise, batches[update].noise)

"""The embedded corpus: determinism, splits, labels, levels, errors."""

import hashlib
import io
import itertools
import json
import math
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from matpac import corpus
from matpac.corpus import instruments, layout, music, pretraining, soundscapes, synthesis
from matpac.corpus.environment import SOUNDS
from matpac.corpus.mixing import LEVEL_DB, active_rms, record
from matpac.corpus.recipes import RECIPES
from matpac.reporting.paper import TABLE1

pytest.importorskip("midirenderer")
pytest.importorskip("pretty_midi")

RECORDED = Path(__file__).parents[1] / "data" / "corpus" / "excerpts.json"
TASKS = tuple(name for name in RECIPES if name != "pretraining")


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATPAC_PROGRESS", "silent")


def make(recipe: str, index: int, *, seed: int = 0) -> layout.Clip:
    return RECIPES[recipe].make(seed, RECIPES[recipe].slot(index))


# --- Determinism


def test_a_clip_does_not_depend_on_its_neighbours_or_on_note_samples_kept_from_them() -> None:
    alone = make("mtt", 7).audio
    instruments._recording.cache_clear()
    for index in (3, 5):
        make("mtt", index)
    np.testing.assert_array_equal(make("mtt", 7).audio, alone)
    assert (make("mtt", 7, seed=1).audio != alone).mean() > 0.9


def test_workers_and_number_of_clips_change_no_byte(tmp_path: Path) -> None:
    one, _ = corpus.render("pretraining", tmp_path / "one", num_clips=25, seed=3)
    two, _ = corpus.render("pretraining", tmp_path / "two", num_clips=21, seed=3, workers=2)
    pd.testing.assert_frame_equal(one[:21], two)
    for path in two["path"]:
        content = (tmp_path / "one" / path).read_bytes()
        assert content == (tmp_path / "two" / path).read_bytes()
    assert one["sha256"].is_unique


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_clips_agree_with_recorded_excerpts_within_one_step(recipe: str) -> None:
    """Recorded on one CPU; another's sines and transforms may round the last bit differently."""
    for index, excerpts in json.loads(RECORDED.read_text())[recipe].items():
        audio = make(recipe, int(index)).audio.astype(int)
        for start, expected in excerpts.items():
            got = audio[int(start) : int(start) + len(expected)]
            assert np.max(np.abs(got - expected)) <= 1


# --- Layout


@pytest.mark.parametrize("recipe", TASKS)
def test_the_smallest_corpus_has_every_class_in_every_part(recipe: str) -> None:
    made = RECIPES[recipe]
    slots = [made.slot(index) for index in range(made.smallest)]
    parts = {(slot.split, slot.fold) for slot in slots}
    assert len(parts) == (made.num_folds or 3)
    leads = {part: {s.lead for s in slots if (s.split, s.fold) == part} for part in parts}
    assert all(found == set(range(len(made.classes))) for found in leads.values())
    shorter = slots[: -(made.num_folds or 10)]
    assert {slot.lead for slot in shorter} == set(range(len(made.classes) - 1))


def test_real_tasks_types_are_kept() -> None:
    for name in TASKS:
        made, real = RECIPES[name], TABLE1[name]
        assert made.kind == ("multilabel" if real["type"] == "ML" else "multiclass")
        assert made.metric == {"mAP": "map", "Acc.": "accuracy"}[real["metric"]]
        assert real["split"] == (f"{made.num_folds}-Fold" if made.num_folds else "TVT")
    sizes = [len(RECIPES[name].classes) for name in TASKS]
    assert sizes == [20, 11, 10, 20, 20, 20, 10] and not RECIPES["pretraining"].classes


def test_a_thousand_clips_split_600_to_400() -> None:
    splits = pd.Series([RECIPES["gtzan"].slot(i).split for i in range(1000)]).value_counts()
    assert splits.to_dict() == {"train": 500, "test": 400, "valid": 100}
    numbers = [s.number for s in map(RECIPES["gtzan"].slot, range(200)) if s[1:4] == ("test", 0, 2)]
    assert numbers == list(range(8))  # counts the clips of one class and split


def source_of(recipe: str, slot: layout.Slot) -> str:
    if recipe == "openmic":
        return music.artist_of(slot)
    if recipe == "nsynth":
        return str(music.program_of(slot))
    return soundscapes.recording_of(RECIPES[recipe].classes[slot.lead], slot)


@pytest.mark.parametrize("recipe", ["esc50", "us8k", "nsynth", "openmic"])
def test_sources_stay_in_one_part_and_hold_several_clips(recipe: str) -> None:
    slots = [RECIPES[recipe].slot(index) for index in range(1000)]
    rows = pd.DataFrame(slots).assign(source=[source_of(recipe, slot) for slot in slots])
    if recipe == "nsynth":  # as in NSynth, valid and test are of the same instruments
        rows["split"] = rows["split"].replace("valid", "test")
    by_source = rows.groupby("source")
    assert by_source["split"].nunique().max() == 1
    assert by_source["fold"].nunique().max() == 1
    assert by_source["lead"].nunique().max() == 1
    assert by_source.size().mean() > 1.8
    assert source_of(recipe, slots[7]) in make(recipe, 7).group


def waveforms() -> dict[int, set[tuple[int, int]]]:
    """General-MIDI program -> where in the SoundFont its recorded waveforms lie.

    Read from the font's own tables (SoundFont 2.01, section 7): presets name instruments, these
    name samples, and several samples may be one waveform.
    """
    tables = soundfont_tables(instruments.soundfont_path().read_bytes())

    def named(bags: list, generators: list, first: int, last: int, kind: int) -> list[int]:
        span = generators[bags[first][0] : bags[last][0]]
        return [amount for generator, amount in span if generator == kind]

    def of_instrument(number: int) -> set[tuple[int, int]]:
        zones = tables["inst"][number][1], tables["inst"][number + 1][1]
        found = named(tables["ibag"], tables["igen"], *zones, 53)
        return {tables["shdr"][sample][1:3] for sample in found}

    presets = {}
    for preset, following in itertools.pairwise(tables["phdr"]):
        _, program, bank, first, *_ = preset
        if bank == 0:
            used = named(tables["pbag"], tables["pgen"], first, following[3], 41)
            presets[program] = set().union(*map(of_instrument, used))
    return presets


def soundfont_tables(content: bytes) -> dict[str, list[tuple]]:
    """The records of a SoundFont's ``pdta`` list."""
    forms = {"phdr": "<20sHHHIII", "pbag": "<HH", "pgen": "<HH", "inst": "<20sH"}
    forms |= {"ibag": "<HH", "igen": "<HH", "shdr": "<20sIIIIIBbHH"}
    start = content.index(b"pdta") + 4
    tables = {}
    while len(tables) < len(forms) and start < len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        if form := forms.get(name.decode()):
            body = content[start + 8 : start + 8 + size]
            tables[name.decode()] = list(struct.iter_unpack(form, body))
        start += 8 + size + size % 2
    return tables


def test_unseen_presets_share_no_waveform_with_train_or_pretraining() -> None:
    used = waveforms()
    assert len(used) == 128
    unseen = {p for _, programs in music.FAMILIES.values() for p in programs}
    train = {p for programs, _ in music.FAMILIES.values() for p in programs}
    heard = {place for p in train | set(pretraining.PRESETS) for place in used[p]}
    assert not [program for program in unseen if used[program] & heard]
    # The relatives are those, and no more, that would break it.
    related = {p for p in range(112) if any(used[p] & used[other] for other in unseen)}
    assert related == music.HELD_OUT
    assert len(train) + len(unseen) == sum(
        len(p) for parts in music.FAMILIES.values() for p in parts
    )


def test_two_takes_of_a_source_share_it_and_differ() -> None:
    recipe = RECIPES["esc50"]
    slots = [s for s in map(recipe.slot, range(400)) if (s.fold, s.lead) == (2, 0)]
    first, second, third = (recipe.make(0, slot) for slot in slots[:3])
    assert first.group == second.group != third.group
    assert (first.audio != second.audio).mean() > 0.9


# --- Labels


@pytest.mark.parametrize("recipe", TASKS)
def test_labels_show_the_lead_class(recipe: str) -> None:
    made = RECIPES[recipe]
    for index in range(0, 40, 13):
        slot, target = made.slot(index), make(recipe, index).target
        if made.kind == "multiclass":
            assert target == slot.lead
        else:
            assert len(target) == len(made.classes)
            assert target[slot.lead] > 0.5


def test_openmic_labels_are_likelihoods_with_unobserved_cells() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([music._likelihoods(rng, [3, 8, 9], 20) for _ in range(500)])
    assert not np.isnan(labels[:, 3]).any()  # the lead instrument is always judged
    assert np.isnan(labels[:, 8]).mean() == pytest.approx(0.2, abs=0.06)  # 3 std of 500 draws
    assert np.isnan(labels[:, 0]).mean() == pytest.approx(0.65, abs=0.07)
    assert np.nanmin(labels[:, [3, 8, 9]]) >= 0.6
    assert np.nanmax(np.delete(labels, [3, 8, 9], axis=1)) <= 0.4
    assert np.nanmin(labels) >= 0.0
    assert np.nanmax(labels) <= 1.0


def test_mtt_tags_never_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    for lead in music.TAGS * 5:
        tags, programs = music._draw_tags(rng, lead)
        assert lead in tags <= set(music.TAGS)
        assert all(len(tags & set(pair)) <= 1 for pair in music._OPPOSED[:6])
        assert len(programs) == {"solo": 1, "ensemble": 3}.get(
            next(iter(tags & {"solo", "ensemble"}), ""), 2
        )


# --- Sound


def test_a_note_has_its_pitch() -> None:
    note = instruments.render_note(73, 69, velocity=100, hold_s=1.0, duration_s=1.0)  # flute, A4
    spectrum = np.abs(np.fft.rfft(note[4000:12000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(440, abs=4)  # bins of 2 Hz
    repitched = instruments.play([instruments.Note(0.0, 1.0, 73, 71, 1.0)], 16000)
    spectrum = np.abs(np.fft.rfft(repitched[4000:12000]))
    assert np.argmax(spectrum) * 2 == pytest.approx(440 * 2 ** (2 / 12), abs=5)


def test_keys_without_a_sample_are_played_an_octave_nearer() -> None:
    octave = instruments.render_note(65, 52, velocity=90, hold_s=0.3, duration_s=0.4)
    missing = instruments.render_note(65, 64, velocity=90, hold_s=0.3, duration_s=0.4)
    assert np.abs(octave).max() > 0.01
    np.testing.assert_array_equal(missing, octave)


@pytest.mark.parametrize("name", list(SOUNDS))
def test_every_environmental_sound_is_heard(name: str) -> None:
    for number in range(3):
        source, take = synthesis.stream(number, "source"), synthesis.stream(number, "take")
        sound = SOUNDS[name](source, take, 30_001)  # no round number of anything
        assert sound.shape == (30_001,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert active_rms(sound) > 1e-3
    assert len(SOUNDS) >= 24


def test_clips_lie_in_the_level_range_and_are_never_digital_silence() -> None:
    levels = []
    for recipe in RECIPES:
        for index in range(4):
            audio = make(recipe, index).audio / 32767.0
            levels.append(20 * math.log10(np.sqrt(np.mean(audio**2))))
            assert np.abs(audio).max() < 0.99
            quietest = np.square(audio[: len(audio) // 800 * 800].reshape(-1, 800)).mean(axis=1)
            assert quietest.min() > 10 ** (-70 / 10)  # the noise floor, at -66 dB or above
    assert max(levels) < LEVEL_DB[1] + 0.5
    assert np.median(levels) > LEVEL_DB[0]
    silence = record(
        np.zeros(16_000, np.float32), np.random.default_rng(0), np.random.default_rng(1)
    )
    assert 1 < np.std(silence) < 400


# --- Files


def test_manifest_describes_the_files(tmp_path: Path) -> None:
    rows, info = corpus.render("nsynth", tmp_path, num_clips=110, seed=0, workers=1)
    assert list(rows.columns) == [
        "clip", "path", "start_s", "duration_s", "split", "fold", "group", "sha256", "excluded",
        "label",
    ]  # fmt: skip
    content = (tmp_path / rows["path"][5]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == rows["sha256"][5]
    audio = soundfile.info(io.BytesIO(content))
    assert (audio.samplerate, audio.channels, audio.subtype) == (16_000, 1, "PCM_16")
    assert audio.frames == 48_000 == rows["duration_s"][5] * 16_000
    assert rows["clip"].is_unique
    parts = rows["split"].replace("valid", "test").groupby(rows["group"])
    assert parts.nunique().max() == 1
    assert (info["num_clips"], info["hours"]) == (110, round(110 * 3 / 3600, 4))
    assert info["classes"][rows["label"][0]] == "bass"
    left = {path.suffix for path in tmp_path.iterdir()}
    assert left == {".wav", ".json"}


def test_finished_clips_are_kept_and_others_made_again(tmp_path: Path) -> None:
    def render(seed: int) -> pd.DataFrame:
        return corpus.render("pretraining", tmp_path, num_clips=4, seed=seed)[0]

    first = render(0)
    files = [tmp_path / path for path in first["path"]]
    times = [path.stat().st_mtime_ns for path in files]
    pd.testing.assert_frame_equal(render(0), first)
    assert [path.stat().st_mtime_ns for path in files] == times
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:1000])  # as if cut off
    pd.testing.assert_frame_equal(render(0), first)
    assert files[2].read_bytes() == whole
    assert not set(render(1)["sha256"]) & set(first["sha256"])


def test_example_shows_its_class() -> None:
    wave, rate = corpus.example("us8k", "siren", seed=0, number=1)
    assert (wave.shape, wave.dtype, rate) == ((80_000,), np.float32, 16_000)
    slots = [s for s in map(RECIPES["us8k"].slot, range(300)) if s.lead == 8]
    np.testing.assert_array_equal(np.rint(wave * 32767), make("us8k", slots[1].index).audio)
    with pytest.raises(ValueError, match="label of us8k: got 'cow', allowed: air_conditioner"):
        corpus.example("us8k", "cow", seed=0)


def test_errors_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe, changed, said in (
        ("esc", {}, "recipe: got 'esc', allowed: pretraining, openmic"),
        ("us8k", {"num_clips": 99}, r"num_clips of us8k: got 99, at least 100 .* 10 folds"),
        ("gtzan", {"sample_rate": 22_050}, "sample_rate: got 22050"),
        ("gtzan", {"workers": 0}, "workers: got 0"),
        ("gtzan", {"seed": -1}, "seed: got -1"),
    ):
        with pytest.raises(ValueError, match=said):
            corpus.render(recipe, tmp_path, **{"num_clips": 100, "seed": 0} | changed)
    monkeypatch.setattr(instruments, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"midirenderer: pip install matpac\[corpus\]"):
        corpus.render("gtzan", tmp_path, num_clips=100, seed=0)
    assert not list(tmp_path.iterdir())

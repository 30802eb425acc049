"""The benchmarks measure what they say; the texts show what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as benchmarks
from benchmarks import loader, logmel, measure, step
from benchmarks.tables import BEGIN, END, insert, of_gpu, results, table
from matpac.core import files
from matpac.core.parallel import Workers
from matpac.features.store import Store
from matpac.pretraining import sizes

import command

ROOT = Path(__file__).parents[1]


# -------------------------------------------------------------------------------- measure


def test_works_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []

    def work(name: str):
        return lambda: calls.append(name) or float(len(calls))

    found = measure.in_turns({"a": work("a"), "b": work("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert found == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_memory_is_that_of_this_process() -> None:
    before = measure.memory_gib("VmHWM")
    if before is None:
        pytest.skip("this system has no /proc")
    held = torch.ones(2**27)  # 0.5 GiB
    assert measure.memory_gib("RssAnon") > 0.5
    assert measure.memory_gib("VmHWM") >= max(before, 0.5) and len(held)


# -------------------------------------------------------------------------------- step


def test_a_step_computes_what_is_counted_and_nothing_else() -> None:
    """Every matrix product of a whole update, as torch counts them."""
    run = tiny.run()
    trainer = step.make_trainer(run, 16, batch_size=3, precision="float32")
    update = step.make_step(trainer, 16, 3)
    ours = {torch.ops.mkldnn._linear_pointwise: _flops_of_linear}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=ours) as all_:
        update()
    assert all_.get_total_flops() == 3 * sizes.per_clip(run, 16)


def _flops_of_linear(inputs, weight, *_: object, out_shape=None, **__: object) -> int:
    return 2 * int(np.prod(inputs)) * weight[0]


def test_step_reports_rates_that_fit_together() -> None:
    threads = torch.get_num_threads()
    try:
        found = step.report(tiny.run(), 16, batch_size=2, threads=1, rounds=1)
    finally:
        torch.set_num_threads(threads)
    figures = found["figures"]
    work = 2 * sizes.per_clip(tiny.run(), 16)
    assert figures["gflop_per_s"] * 1e9 == pytest.approx(
        work / 2 * figures["samples_per_s"], rel=0.01
    )
    assert found["settings"]["products"]["MLP"] == [2 * 6, 16, 32]  # 8 patches, 5 masked, class
    for name, fraction in figures["fraction_of_product"].items():
        bare = figures["product_gflop_per_s"][name]
        assert fraction == pytest.approx(figures["gflop_per_s"] / bare, rel=0.01)
    assert sum(figures["profile_percent"].values()) == pytest.approx(100, abs=1)


# -------------------------------------------------------------------------------- loader


@pytest.fixture
def small_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "TILE", 30)


def test_a_tiled_store_repeats_its_first_clips(tmp_path: Path, small_tile: None) -> None:
    store = loader.tiled_store(tmp_path, 100, num_mels=4, clip_frames=20)
    assert len(store) == 100 and set(store.num_frames) == {20}
    clips = [store.clip(index) for index in range(100)]
    assert all(np.array_equal(clips[i], clips[i % 30]) for i in range(100))
    assert len({clip.tobytes() for clip in clips}) == 30


def test_files_hold_the_same_clips(tmp_path: Path, small_tile: None) -> None:
    store = loader.tiled_store(tmp_path / "tiled", 30, num_mels=4, clip_frames=20)
    theirs = loader.one_file_per_clip(store, tmp_path / "files", 8)
    assert len(theirs) == 30
    crop, whole = theirs[7].numpy(), store.clip(7).T
    assert crop.shape == (4, 8) and crop.dtype == np.float32
    assert any(np.array_equal(crop, whole[:, t : t + 8]) for t in range(13))


def test_loader_reports_rates_of_both_ways(small_tile: None) -> None:
    found = loader.report(
        num_mels=4,
        clip_frames=20,
        crop_frames=8,
        batch_size=5,
        num_patches=4,
        updates=4,
        rounds=1,
        growth=(60,),
    )
    figures = found["figures"]
    rates = figures["samples_per_s"]
    for workers in ("0 workers", "1 workers"):
        expected = rates[f"store, {workers}"] / rates[f"files, {workers}"]
        assert figures["ratio"][workers] == pytest.approx(expected, rel=0.01)
        speed = figures["crops_mb_per_s"][f"store, {workers}"]
        assert speed == pytest.approx(rates[f"store, {workers}"] * 4 * 8 * 2 / 1e6, rel=0.01)
    assert figures["growth"]["60"]["us_per_sample"] > 0


# -------------------------------------------------------------------------------- logmel


def test_both_ways_make_the_same_logmels(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(audio / f"{name}.wav", random.uniform(-0.5, 0.5, 44100), 44100)
    clips = logmel.manifest(audio)
    with Workers(1, preload="benchmarks.logmel") as alone:
        assert logmel._ours(clips, audio, tmp_path / "store", alone)() > 0
        assert logmel._usual(clips, audio, tmp_path / "usual", alone)() > 0
    store = Store(tmp_path / "store")
    assert store.clip_ids.tolist() == ["a", "b"]
    for index, name in enumerate("ab"):
        usual = np.load(tmp_path / "usual" / f"{name}.npy")
        # Half precision has 11 bits: 2^-8 between 4 and 8.
        np.testing.assert_allclose(store.clip(index).T, usual, rtol=0, atol=2**-8)


def test_logmel_reports_both_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 22050)
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / "audio" / f"{name}.flac", noise, 22050)
    found = logmel.report(tmp_path, workers=1, rounds=1)
    told = {"clips": 3, "repeats": {"files": 1, "wav": 8}, "files": "flac"}
    assert found["settings"] == told | {"workers": 1, "rounds": 1}
    rates = found["figures"]["clips_per_s"]
    for way, other in (("store", "usual"), ("together", "alone")):
        for kind in ("files", "wav"):
            expected = rates[f"{way}, {kind}"] / rates[f"{other}, {kind}"]
            ratio = found["figures"]["ratio"][f"to {other}, {kind}"]
            assert ratio == pytest.approx(expected, rel=0.01)


# -------------------------------------------------------------------------------- gpu


def test_the_gpu_kit_runs_without_a_gpu(tmp_path: Path) -> None:
    """Every part gives figures, at toy sizes and nothing compiled; the table takes them."""
    out = tmp_path / "gpu.jsonl"
    done = command.python("-m", "benchmarks.gpu", "--toy", "--out", out, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line for line in lines if "problem" in line] == []
    assert [line["part"] for line in lines[:: len(lines) - 1]] == ["machine", "end"]
    shown = table(results(tmp_path))
    assert "| training step on a GPU, compiled, 12 as 4 x 3 clips |" in shown
    assert "| the same, compiled, 2 clips, from 1 loader processes |" in shown


# -------------------------------------------------------------------------------- command


MACHINE = {"processor": "Abacus", "cores": 2, "gpu": None, "torch": "2.11.0"}
MACHINE |= {"load_before": 0.1, "date": "2026-12-01", "commit": "abc1234"}
GROWN = {"open_s": 0.1, "us_per_sample": 31.4, "opened_mib": 5.0, "read_mib": 24.0}
LOADER = {
    "part": "loader",
    "machine": MACHINE,
    "settings": {"workers": 1},
    "figures": {
        "samples_per_s": {
            "store, 0 workers": 12345.0,
            "files, 0 workers": 2000.0,
            "store, 1 workers": 8000.0,
            "files, 1 workers": 1600.0,
        },
        "crops_mb_per_s": {"store, 0 workers": 1201.0, "store, 1 workers": 778.0},
        "ratio": {"0 workers": 6.17, "1 workers": 5.0},
        "growth": {"1000": GROWN, "1000000": GROWN | {"us_per_sample": 32.0}},
    },
}
GPU = """
{"part": "machine", "gpu": "Old card"}
{"part": "step, eager, 512", "samples_per_s": 100.0, "fraction_of_product": 0.9}
{"part": "machine", "gpu": "Card", "processor": "Abacus", "cores": 2, "torch": "2.11.0", \
"date": "2026-12-01", "commit": "abc1234"}
{"part": "step, eager, 256", "samples_per_s": 1.0, "fraction_of_product": 0.1}
{"part": "plain, 256", "samples_per_s": 2000.0, "fraction_of_product": 0.32, \
"peak_memory_gib": 31.0}
{"part": "step, eager, 256", "samples_per_s": 2600.0, "fraction_of_product": 0.41, \
"peak_memory_gib": 30.0}
{"part": "step, compiled, 256", "problem": "out of memory"}
{"part": "fed, eager, 256", "workers": 12, "samples_per_s": 2590.0, "without_loader": 2610.0}
{"part": "embedding, eager, 256", "clips_per_s": 8000.0, "times_real_time": 48800.0, \
"peak_memory_gib": 2.0}
""".strip()


def test_table() -> None:
    assert table([LOADER, of_gpu(GPU)]).splitlines() == [
        "| what | measured | to compare |",
        "| --- | --- | --- |",
        "| crops of 6.1 s from 10 s, in the training process | 12,345 samples/s, 1,201 MB/s "
        "| 2,000 from a file per clip (6.2 ×) |",
        "| crops of 6.1 s from 10 s, loader processes: 1 | 8,000 samples/s, 778 MB/s "
        "| 1,600 from a file per clip (5.0 ×) |",
        "| processor time per crop, 1,000 to 1,000,000 clips | 31 / 32 µs "
        "| opened in 0.10 / 0.10 s, 29 / 29 MiB of memory |",
        "| training step on a GPU, eager, 256 clips "
        "| 2,600 samples/s, 30.0 GiB, 41% of bare products | 1.30 × plain |",
        "| plain torch.nn on a GPU, 256 clips "
        "| 2,000 samples/s, 31.0 GiB, 32% of bare products |  |",
        "| the same, eager, 256 clips, from 12 loader processes | 2,590 samples/s "
        "| 2,610 on one batch again and again |",
        "| waveforms of 6.1 s to embeddings on a GPU, eager, 256 clips "
        "| 8,000 clips/s, 2.0 GiB | 48,800 × real time |",
        "",
        "- loader: Abacus (2 cores), torch 2.11.0, 2026-12-01, commit abc1234",
        "- gpu: Card, Abacus (2 cores), torch 2.11.0, 2026-12-01, commit abc1234",
        "- not measured yet: step, logmel",
    ]


def test_the_table_takes_its_place_in_a_text() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert insert(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert insert(insert(text, "new"), "old") == text
    with pytest.raises(ValueError, match="no place for the table"):
        insert("before", "new")


def test_the_command_runs_a_part_and_renews_the_texts(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(benchmarks, "run", lambda part, esc10: LOADER)
    text = tmp_path / "page.md"
    text.write_text(f"{BEGIN}\n{END}\n")
    arguments = ["loader", "--out", str(tmp_path / "out"), "--docs", str(text)]
    assert benchmarks.main(arguments) == 0
    assert files.read_json(tmp_path / "out" / "loader.json") == LOADER
    assert text.read_text() == f"{BEGIN}\n{table([LOADER])}\n{END}\n"
    assert capsys.readouterr().out == table([LOADER]) + "\n"
    with pytest.raises(SystemExit):
        benchmarks.main(["loadr"])
    assert "got loadr, allowed: step, logmel, loader, table" in capsys.readouterr().err


def test_the_page_shows_the_committed_results() -> None:
    """Every figure of the table is one of the files beside it."""
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == table(results(ROOT / "docs" / "bench"))
    *_, measured = results(ROOT / "docs" / "bench")
    scale = (ROOT / "docs" / "scale.md").read_text("utf-8")
    for clips in ("256", "512", "2048 as 4 x 512"):
        assert f"{measured['figures'][f'step, compiled, {clips}']['samples_per_s']:,.0f}" in scale

"""PART logmel: audio files -> stored log-mels, as the stage makes them (also by one process, to see
what a second one brings), and the usual way.

The usual way computes the same by torchaudio alone, with a resampling kernel made for every file
and a .npy file of float32 per clip. Both ways have the same worker processes, started before the
clock.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
import torchaudio
from torchaudio.functional import resample

from benchmarks import measure
from matpac.audio import logmel, reading
from matpac.core.parallel import Workers
from matpac.features import build

PAPER = {"sample_rate": 16000, "window_ms": 25.0, "hop_ms": 10.0}
PAPER |= {"num_mels": 80, "fmin_hz": 50.0, "fmax_hz": 8000.0}
CHUNK = 25
"""Files in a job of the usual way: as many as in a shard of ESC-10."""
REPEATS = {"files": 1, "wav": 8}
"""How often each clip is made where one process is compared with more. 400 WAV files take them less
than half a second, a tenth of which is the beginning and the end, when not all have work."""


def report(esc10: Path, *, workers: int = 2, rounds: int = 5) -> dict[str, Any]:
    """Clips per second from the files of ESC-10 as they are, and as WAV at their own rate.

    Args: esc10: a folder with audio/.
    """
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Workers(workers, preload="benchmarks.logmel") as pool,
        Workers(1, preload="benchmarks.logmel") as alone,
    ):
        folder = Path(temporary)
        kinds = {"files": esc10 / "audio", "wav": as_wav(esc10 / "audio", folder / "wav")}
        works: dict[str, Callable[[], float]] = {}
        for kind, audio_folder in kinds.items():
            clips = manifest(audio_folder)
            works[f"store, {kind}"] = _ours(clips, audio_folder, folder / f"{kind}-store", pool)
            works[f"usual, {kind}"] = _usual(clips, audio_folder, folder / "usual", pool)
            repeated = repeat(clips, REPEATS[kind])
            for way, processes in (("together", pool), ("alone", alone)):
                store = folder / f"{kind}-{way}"
                works[f"{way}, {kind}"] = _ours(repeated, audio_folder, store, processes)
        found = measure.in_turns(works, rounds)
        parts = {kind: parts_ms(sorted(each.iterdir())) for kind, each in kinds.items()}
    suffixes = {path.suffix.removeprefix(".") for path in (esc10 / "audio").iterdir()}
    return {
        "settings": {
            "clips": len(clips),
            "repeats": REPEATS,
            "files": "/".join(sorted(suffixes)),
            "workers": workers,
            "rounds": rounds,
        },
        "figures": {
            "clips_per_s": {name: measure.median(rates) for name, rates in found.items()},
            "ratio": {
                f"to {other}, {kind}": measure.ratio(
                    found[f"{way}, {kind}"], found[f"{other}, {kind}"]
                )
                for kind in kinds
                for way, other in (("store", "usual"), ("together", "alone"))
            },
            "parts_ms": parts,
        },
    }


def as_wav(source: Path, folder: Path) -> Path:
    """The same samples as 16-bit WAV at the same rate."""
    folder.mkdir()
    for path in sorted(source.iterdir()):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(folder / f"{path.stem}.wav", samples, rate)
    return folder


def manifest(folder: Path) -> pd.DataFrame:
    """One row per file: what `stores.build` reads."""
    paths = sorted(folder.iterdir())
    seconds = [soundfile.info(path).duration for path in paths]
    table = pd.DataFrame({"clip": [path.stem for path in paths], "path": [p.name for p in paths]})
    return table.assign(start_s=0.0, duration_s=seconds, sha256="", excluded="")


def repeat(clips: pd.DataFrame, times: int) -> pd.DataFrame:
    """A manifest with every clip several times, under other names."""
    return pd.concat(
        [clips.assign(clip=clips["clip"] + f" {number}") for number in range(times)],
        ignore_index=True,
    )


def _ours(
    clips: pd.DataFrame, audio_folder: Path, folder: Path, workers: Workers
) -> Callable[[], float]:
    """A work for `measure.in_turns`: clips per second into a new store each time."""

    def rate() -> float:
        if folder.exists():
            shutil.rmtree(folder)
        os.sync()  # what others left to write is not this one's to wait for
        start = time.perf_counter()
        index, _ = build.build(
            clips,
            audio_folder,
            folder,
            front_end=PAPER,
            shard_bytes=4 * 10**9,
            max_bad_fraction=0.0,
            workers=workers,
        )
        return index["num_clips"] / (time.perf_counter() - start)

    return rate


def _usual(
    clips: pd.DataFrame, audio_folder: Path, folder: Path, workers: Workers
) -> Callable[[], float]:
    """The same of one file per clip."""
    folder.mkdir(exist_ok=True)
    paths = [audio_folder / name for name in clips["path"]]
    jobs = [(paths[i : i + CHUNK], folder) for i in range(0, len(paths), CHUNK)]

    def rate() -> float:
        os.sync()
        start = time.perf_counter()
        done = sum(workers.map(write_files, jobs, num_items=len(paths)))
        return done / (time.perf_counter() - start)

    return rate


def write_files(job: tuple[list[Path], Path]) -> int:
    """The usual way for some files; returns their number."""
    paths, folder = job
    torch.set_num_threads(1)
    front_end = logmel.front_end(**PAPER)
    mel = torchaudio.transforms.MelSpectrogram(
        front_end.sample_rate,
        n_fft=front_end.window,
        hop_length=front_end.hop,
        f_min=PAPER["fmin_hz"],
        f_max=PAPER["fmax_hz"],
        n_mels=front_end.num_mels,
        center=False,
        norm="slaney",
        mel_scale="slaney",
    )
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.mean(axis=1))
        waveform = resample(waveform, rate, front_end.sample_rate, **logmel.RESAMPLING)
        np.save(folder / f"{path.stem}.npy", torch.log(mel(waveform) + logmel.EPSILON).numpy())
    return len(paths)


def parts_ms(paths: Iterable[Path]) -> dict[str, float]:
    """Milliseconds of processor time per clip of each part of our way, in this process."""
    front_end = logmel.front_end(**PAPER)
    sums = dict.fromkeys(("decoding", "resampling", "log-mel", "saving"), 0.0)
    with tempfile.TemporaryFile() as file:
        for number, path in enumerate([*list(paths)[:1], *paths]):
            times = [time.process_time()]
            samples, rate = reading.read(path)
            times.append(time.process_time())
            waveform = logmel.resample(torch.from_numpy(samples), rate, front_end.sample_rate)
            times.append(time.process_time())
            frames = front_end(waveform)
            times.append(time.process_time())
            file.write(frames.T.contiguous().half().numpy().tobytes())
            times.append(time.process_time())
            if number:  # the first file makes the kernel
                for part, begin, end in zip(sums, times, times[1:], strict=False):
                    sums[part] += end - begin
    return {part: round(total / number * 1e3, 2) for part, total in sums.items()}

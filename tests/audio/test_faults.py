"""Every kind of file, after everything that happens to files: all the audio, or a reason."""

import io
from pathlib import Path

import faults
import numpy as np
import pytest

from matpac.audio import reading

PAGE = Path(__file__).parents[2] / "docs/audio.md"
CASES = Path(__file__).parents[3] / "shared/cases"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    return faults.outcomes(tmp_path_factory.mktemp("faults"))


def test_the_table_is_that_of_the_documentation(outcomes: dict) -> None:
    assert faults.table(outcomes) in PAGE.read_text()


UNTOLD = {"a tag behind", "1000 zeros behind", "says none", "says half", "says twice"}
"""Faults that leave the audio whole."""


def test_no_second_is_lost_without_a_word(outcomes: dict) -> None:
    """But of streamed WAVs, which say no length; joined MP3s without index are both read."""
    for kind, row in outcomes.items():
        assert row["whole"] == "whole"
        for fault, cell in row.items():
            if kind == "wav, streamed" or (fault == "twice, joined" and "no index" in kind):
                continue
            if cell == "whole":
                assert fault in UNTOLD | {"whole"} or (kind, fault[:4]) == ("wav, RF64", "last")
            elif cell == "as it is":  # samples, or sound of frames, without a checksum
                assert kind.startswith(("wav", "aiff", "mp3"))
                assert fault in ("a bit flipped", "512 zero bytes", "zeros to the end")
            else:
                assert cell == "told"


@pytest.mark.parametrize("kind", faults.kinds())
def test_counts_are_ffmpegs(kind: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    data = faults.kinds()[kind]
    for fault, harm in faults.FAULTS.items():
        if isinstance(found := faults.given(harm(data), tmp_path / "a"), str):
            continue
        try:
            with av.open(io.BytesIO(harm(data))) as file:
                count = sum(frame.samples for frame in file.decode(audio=0))
        except av.FFmpegError:
            assert kind.startswith("mp3") and "behind" in fault  # it takes that for a frame
            continue
        # ffmpeg does not cut the last packet of a Vorbis file; it resamples Opus to 48 kHz, and
        # does not leave out the delay of an MP3's decoder.
        ours = 2 * len(found) if "opus" in kind else len(found)
        slack = {"ogg vorbis": 1024, "mp3, variable, no index": 529}.get(kind, 0)
        assert ours <= count <= ours + slack, fault


def test_whole_files_are_what_was_written(tmp_path: Path) -> None:
    written = faults.wave()[:, 0]
    for kind, data in faults.kinds().items():
        if kind.startswith(("wav", "aiff", "flac")):
            found = faults.given(data, tmp_path / "a")
            np.testing.assert_allclose(found, written, rtol=0, atol=2**-15)
        elif kind in ("ogg vorbis", "ogg opus", "mp3", "mp3, cover"):
            found = faults.given(data, tmp_path / "a")
            assert len(found) == len(written)
            assert (
                np.corrcoef(found, written)[0, 1] > 0.7
            )  # the noise is not kept; a frame too early, it is 0


@pytest.mark.skipif(not CASES.exists(), reason="the reported files are not beside the project")
@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("1_joined/joined.mp3", "joined or damaged: its index says 86 frames, 173 are there"),
        ("1_joined/joined.ogg", "a second stream begins at byte"),
        ("1_joined/joined.opus", "a second stream begins at byte"),
        ("1_joined/joined.flac", "a second stream begins at byte"),
        ("2_cut_flac/cut.flac", "truncated or damaged"),
        ("5_mp3_in.wav", 3.096),
        ("6_size0.wav", "its header says 0 samples, but 32000 bytes follow it"),
        ("4_folder/clip.aifc", 1.0),
        ("4_folder/clip.oga", 1.0),
        ("4_folder/clip.rf64", 1.0),
        ("4_folder/clip.wave", 1.0),
        ("4_folder/clip.au", "AU is not read, allowed: wav, aiff, flac, ogg, mp3"),
        ("4_folder/clip.w64", "W64 is not read"),
        ("4_folder/clip.caf", "CAF is not read"),
    ],
)
def test_reported_files(name: str, right: str | float) -> None:
    facts = reading.check(CASES / name)
    if isinstance(right, str):
        assert facts.problem.startswith(right)
    else:
        assert (facts.problem, facts.duration_s) == ("", pytest.approx(right, abs=1e-9))

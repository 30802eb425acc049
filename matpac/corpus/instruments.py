"""Sampled instruments: notes of the General-MIDI SoundFont that the pretty_midi package carries.

The SoundFont (TimGM6mb.sf2) is played from where pip installed it and never copied. Playing a
whole clip through the synthesizer costs 30 ms, mixing it from notes kept in memory a few, so a
clip is made the way a hardware sampler works: each preset is recorded at every sixth semitone,
dry, and repitched by at most three semitones in between.

Legend: a *program* is a General-MIDI preset 0-127; ``drum_kit(k)`` codes percussion kit k.
"""

import functools
import io
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
import soundfile

from matpac.corpus.synthesis import SAMPLE_RATE, Signal, place, samples

SOUNDFONT_RATE = 48_000  # midirenderer renders at this rate only
NOTE_S = 1.8  # length of a recorded note; longer notes of a phrase end here
RELEASE_S = 0.15  # fade of a note that ends before its recording
GRID = 6  # semitones between recorded notes
MIDDLE_C = 60
LOWEST, HIGHEST = 30, 90  # recorded range; GRID divides both

_FIRST_KIT = 128
KITS = (0, 8, 16, 24, 25, 40)  # standard, room, power, electronic, TR-808, brush
KICK, SNARE, CLAP, CLOSED_HAT, OPEN_HAT, CRASH, RIDE = 36, 38, 39, 42, 46, 49, 51
RIM, TAMBOURINE, SPLASH = 37, 54, 55


class Note(NamedTuple):
    """One note of a phrase."""

    start_s: float
    length_s: float
    program: int  # 0-127, or drum_kit(k)
    pitch: int  # MIDI key; selects the drum for a kit
    gain: float  # amplitude, 1 = a full-scale peak


def drum_kit(kit: int) -> int:
    """The program number under which notes of a percussion kit are played."""
    return _FIRST_KIT + kit


@functools.cache
def _soundfont() -> bytes:
    return soundfont_path().read_bytes()


def soundfont_path() -> Path:
    """Where the SoundFont lies. Raises: ModuleNotFoundError naming the extra to install."""
    for package in ("midirenderer", "pretty_midi", "mido"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"the embedded corpus needs {package}: pip install matpac[corpus]", name=package
            )
    folder = Path(str(find_spec("pretty_midi").origin)).parent
    return folder / "TimGM6mb.sf2"


def render_note(
    program: int, pitch: int, *, velocity: int, hold_s: float, duration_s: float
) -> Signal:
    """One note from the synthesizer, without its reverberation and chorus.

    A few presets have no sample for some keys; those are played an octave nearer to middle C.

    Args:
        program: 0-127, or drum_kit(k).
        pitch: MIDI key 0-127.
        velocity: 1-127.
        hold_s: time until the key is released.
        duration_s: length of the result.
    Returns: (S,) at SAMPLE_RATE, at the synthesizer's own level.
    Raises: ModuleNotFoundError if the corpus extra is not installed.
    """
    soundfont = _soundfont()
    import midirenderer

    midi = _note_midi(program, pitch, velocity, hold_s, duration_s)
    wave = midirenderer.render_wave_from(soundfont, midi)
    stereo, _ = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = (stereo[:, 0] + stereo[:, 1]) / 2
    if not mono.any() and program < _FIRST_KIT:
        nearer = pitch - 12 if pitch > MIDDLE_C else pitch + 12
        return render_note(program, nearer, velocity=velocity, hold_s=hold_s, duration_s=duration_s)
    return _decimate(mono, samples(duration_s))


def _decimate(signal: Signal, num_samples: int) -> Signal:
    """From SOUNDFONT_RATE to SAMPLE_RATE: the lower spectrum, rolled off from 7.5 kHz."""
    factor = SOUNDFONT_RATE // SAMPLE_RATE
    size = scipy.fft.next_fast_len(num_samples + samples(0.02), real=True)  # no wrap to the start
    spectrum = scipy.fft.rfft(signal, factor * size)[: size // 2 + 1]
    hz = np.linspace(0.0, SAMPLE_RATE / 2, len(spectrum), dtype=np.float32)
    spectrum *= np.clip((8000 - hz) / 500, 0.0, 1.0) / factor
    return scipy.fft.irfft(spectrum, size)[:num_samples]


def _note_midi(program: int, pitch: int, velocity: int, hold_s: float, duration_s: float) -> bytes:
    from mido import Message, MetaMessage, MidiFile, MidiTrack

    is_drum = program >= _FIRST_KIT
    channel = 9 if is_drum else 0
    preset = program - _FIRST_KIT if is_drum else program
    off, end = round(1000 * hold_s), round(1000 * duration_s)
    track = MidiTrack(
        [
            MetaMessage("set_tempo", tempo=500_000),  # with 500 ticks per beat: 1 tick = 1 ms
            Message("control_change", channel=channel, control=91, value=0),  # reverberation
            Message("control_change", channel=channel, control=93, value=0),  # chorus
            Message("program_change", channel=channel, program=preset),
            Message("note_on", channel=channel, note=pitch, velocity=velocity),
            Message("note_off", channel=channel, note=pitch, time=min(off, end)),
            MetaMessage("end_of_track", time=max(0, end - off)),
        ]
    )
    midi = MidiFile(ticks_per_beat=500, tracks=[track])
    buffer = io.BytesIO()
    midi.save(file=buffer)
    return buffer.getvalue()


@functools.cache
def _recording(program: int, pitch: int) -> Signal:
    """A held note with a peak of 1, so that presets are about equally loud."""
    note = render_note(program, pitch, velocity=100, hold_s=NOTE_S, duration_s=NOTE_S)
    return note / max(float(np.max(np.abs(note))), 1e-4)


@functools.cache
def _release() -> Signal:
    return (0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, samples(RELEASE_S)))).astype(np.float32)


def _sound(note: Note) -> Signal:
    """The note at its pitch and length: repitched by linear interpolation, then faded out."""
    if note.program >= _FIRST_KIT:
        return _recording(note.program, note.pitch)
    pitch = min(max(note.pitch, LOWEST), HIGHEST)
    nearest = LOWEST + GRID * round((pitch - LOWEST) / GRID)
    recording = _recording(note.program, nearest)
    release = _release()
    ratio = 2.0 ** ((pitch - nearest) / 12.0)
    length = min(samples(note.length_s) + len(release), int((len(recording) - 1) / ratio))
    position = np.arange(length) * ratio
    below = position.astype(np.int64)
    fraction = (position - below).astype(np.float32)
    sound = recording[below] * (1.0 - fraction) + recording[below + 1] * fraction
    sound[-len(release) :] *= release
    return sound


def play(notes: list[Note], num_samples: int) -> Signal:
    """The sum of the notes, (num_samples,); what sounds beyond the end is cut."""
    out = np.zeros(num_samples, np.float32)
    for note in notes:
        place(out, _sound(note), note.start_s, note.gain)
    return out

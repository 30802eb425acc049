"""Phrases: melodies, chords, riffs and drum patterns as lists of notes over one song.

A pattern is a string of sixteenths, one character a step, repeated as long as the clip lasts:
``x`` plays, ``X`` plays louder, ``.`` rests, and in riffs a digit is the scale step above the
chord's root.
"""

from typing import NamedTuple

from numpy.random import Generator

from matpac.corpus.instruments import Note, drum_kit

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
DORIAN, BLUES = (0, 2, 3, 5, 7, 9, 10), (0, 3, 5, 6, 7, 10)
SCALES = (MAJOR, MINOR, DORIAN)
PROGRESSIONS = ((0, 3, 4, 0), (0, 4, 5, 3), (0, 5, 3, 4), (1, 4, 0, 0), (0, 0, 3, 4), (5, 3, 0, 4))
STEPS_PER_BAR = 16


class Song(NamedTuple):
    """What the parts of one clip share."""

    root: int  # pitch class of the key, 0-11
    scale: tuple[int, ...]  # semitones above the root
    chords: tuple[int, ...]  # scale step of each bar's chord
    step_s: float  # length of a sixteenth
    swing: float  # how late odd sixteenths come, in steps
    first_step: int  # where in the song the clip starts
    num_steps: int

    def time(self, step: int) -> float:
        """Start of the clip's ``step``-th sixteenth."""
        late = self.swing if (step + self.first_step) % 2 else 0.0
        return (step + late) * self.step_s

    def bar_chord(self, step: int) -> int:
        """Scale step on which the chord at a sixteenth is built."""
        return self.chords[(step + self.first_step) // STEPS_PER_BAR % len(self.chords)]

    def pitch(self, degree: int, register: int) -> int:
        """MIDI key of a scale step, in the octave that starts at or below ``register``."""
        octave, index = divmod(degree, len(self.scale))
        base = register - (register - self.root) % 12
        return base + 12 * octave + self.scale[index]

    def char(self, pattern: str, step: int) -> str:
        """The pattern's character at a sixteenth of the clip."""
        return pattern[(step + self.first_step) % len(pattern)]


def compose(
    rng: Generator,
    *,
    clip_s: float,
    tempo_bpm: float,
    swing: float = 0.0,
    scale: tuple[int, ...] | None = None,
) -> Song:
    """A song in a random key with a random progression, cut at a random place."""
    step_s = 60.0 / tempo_bpm / 4
    return Song(
        root=int(rng.integers(12)),
        scale=scale or SCALES[int(rng.integers(len(SCALES)))],
        chords=PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))],
        step_s=step_s,
        swing=swing,
        first_step=int(rng.integers(4 * STEPS_PER_BAR)),
        num_steps=int(clip_s / step_s),
    )


def melody(
    rng: Generator, song: Song, program: int, register: int, *, density: float, legato: float
) -> list[Note]:
    """A random walk over the scale.

    Args:
        program: the instrument.
        register: MIDI key around which the walk stays (within an octave).
        density: notes per sixteenth, in (0, 1].
        legato: length of a note as a share of the time to the next, in (0, 1].
    """
    starts = [s for s in range(song.num_steps) if rng.random() < density] or [0]
    notes, degree = [], int(rng.integers(7))
    for start, following in zip(starts, [*starts[1:], song.num_steps], strict=True):
        degree += int(rng.integers(-3, 4))
        degree = degree - 7 if degree > 9 else degree + 7 if degree < -5 else degree
        length_s = max(0.05, legato * (following - start) * song.step_s)
        pitch = song.pitch(degree, register)
        notes.append(Note(song.time(start), length_s, program, pitch, rng.uniform(0.6, 1.0)))
    return notes


def riff(
    rng: Generator, song: Song, program: int, register: int, pattern: str, *, legato: float = 0.9
) -> list[Note]:
    """A figure that follows the chords: bass lines, arpeggios. Digits are steps above the root."""
    steps = [s for s in range(song.num_steps) if song.char(pattern, s).isdigit()]
    notes = []
    for start, following in zip(steps, [*steps[1:], song.num_steps], strict=False):
        degree = song.bar_chord(start) + int(song.char(pattern, start))
        length_s = legato * (following - start) * song.step_s
        pitch = song.pitch(degree, register)
        notes.append(Note(song.time(start), length_s, program, pitch, rng.uniform(0.75, 1.0)))
    return notes


def chords(
    rng: Generator,
    song: Song,
    program: int,
    register: int,
    pattern: str,
    *,
    length_steps: float = 1.0,
    voicing: tuple[int, ...] = (0, 2, 4),
) -> list[Note]:
    """Chords at the pattern's steps; ``voicing`` lists scale steps above the chord's root."""
    notes = []
    for step in range(song.num_steps):
        mark = song.char(pattern, step)
        if mark in "xX":
            gain = (0.55 if mark == "X" else 0.4) * rng.uniform(0.85, 1.0)
            for offset in voicing:
                pitch = song.pitch(song.bar_chord(step) + offset, register)
                length_s = length_steps * song.step_s
                notes.append(Note(song.time(step), length_s, program, pitch, gain))
    return notes


def drums(rng: Generator, song: Song, kit: int, patterns: dict[int, str]) -> list[Note]:
    """A beat: one pattern per drum (MIDI key), with slightly uneven strokes."""
    notes = []
    for key, pattern in patterns.items():
        for step in range(song.num_steps):
            mark = song.char(pattern, step)
            if mark in "xX":
                gain = (1.0 if mark == "X" else 0.65) * rng.uniform(0.85, 1.0)
                notes.append(Note(song.time(step), 0.0, drum_kit(kit), key, gain))
    return notes


def any_part(rng: Generator, song: Song, program: int, register: int) -> list[Note]:
    """A part of random kind: melody, arpeggio or chords, in random density and articulation."""
    kind = rng.random()
    if kind < 0.5:
        density, legato = rng.uniform(0.12, 0.55), rng.uniform(0.3, 1.0)
        return melody(rng, song, program, register, density=density, legato=legato)
    if kind < 0.75:
        figures = ("0.2.4.2.", "0242", "0...4...", "0..2..4.", "4.2.0...", "02470742")
        figure = figures[int(rng.integers(len(figures)))]
        return riff(rng, song, program, register, figure, legato=rng.uniform(0.4, 1.0))
    strums = (
        "X...............",
        "X.......x.......",
        "X...x...X...x...",
        "X..x..x.",
        "..x.",
        "X.x.",
    )
    strum = strums[int(rng.integers(len(strums)))]
    length_steps = rng.uniform(0.3, 1.0) * len(strum) / max(1, strum.count("x") + strum.count("X"))
    return chords(rng, song, program, register, strum, length_steps=length_steps)

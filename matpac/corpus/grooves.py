"""Ten grooves: what the classes of the GTZAN-like task are made of.

A groove is a tempo range, a beat, a bass figure and a comping figure. Instruments are drawn from
lists that overlap between grooves, tempos overlap too, and three parts in ten are replaced by
another groove's instrument, so that neither timbre nor tempo alone tells the class.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from numpy.random import Generator

from matpac.corpus.instruments import (
    CLAP,
    CLOSED_HAT,
    KICK,
    OPEN_HAT,
    RIDE,
    RIM,
    SNARE,
    TAMBOURINE,
    Note,
)
from matpac.corpus.phrases import (
    BLUES,
    DORIAN,
    MAJOR,
    MINOR,
    Song,
    chords,
    compose,
    drums,
    melody,
    riff,
)

Choice = TypeVar("Choice")
SUBSTITUTION = 0.3  # chance that a part is played by another groove's instrument
VARIATION = 0.08  # chance that a sixteenth of a pattern is dropped


@dataclass(frozen=True)
class Groove:
    """One groove; patterns as in phrases.py."""

    tempo_bpm: tuple[float, float]
    scale: tuple[int, ...]
    bass: tuple[str, ...]
    comping: tuple[str, ...]
    bass_programs: tuple[int, ...]
    comping_programs: tuple[int, ...]
    lead_programs: tuple[int, ...]
    beat: dict[int, str] = field(default_factory=dict)
    kits: tuple[int, ...] = (0, 8, 16)
    swing: float = 0.0
    comping_steps: float = 1.5  # length of a comping chord, in sixteenths
    lead_density: float = 0.3


GROOVES = {
    "blues": Groove(
        tempo_bpm=(70, 115), scale=BLUES, swing=0.33,
        beat={KICK: "X.......X.......", SNARE: "....X.......X...", RIDE: "x...x..xx...x..x"},
        bass=("0...2...4...2...", "0..02..24..42..2"), comping=("X..x....X..x....",),
        bass_programs=(32, 33), comping_programs=(0, 2, 16, 26), lead_programs=(26, 27, 22, 65),
    ),
    "classical": Groove(
        tempo_bpm=(70, 130), scale=MAJOR,
        bass=("0.......4.......", "0..............."),
        comping=("x.x.x.x.x.x.x.x.", "X.......x......."),
        bass_programs=(42, 43, 32), comping_programs=(0, 6, 48, 46),
        lead_programs=(40, 73, 71, 60), lead_density=0.4,
    ),
    "country": Groove(
        tempo_bpm=(85, 140), scale=MAJOR,
        beat={KICK: "X.......X.......", SNARE: "....x.......x...", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
        bass=("0.......4.......",), comping=("....X.......X...", "....X..x....X..x"),
        bass_programs=(32, 33), comping_programs=(25, 24, 0), lead_programs=(25, 105, 110, 22),
    ),
    "disco": Groove(
        tempo_bpm=(105, 130), scale=MINOR,
        beat={KICK: "X...X...X...X...", CLAP: "....X.......X...", OPEN_HAT: "..x...x...x...x."},
        bass=("0.7.0.7.0.7.0.7.",), comping=("..X...X...X...X.", "X..x..x.X..x..x."),
        bass_programs=(33, 36, 38), comping_programs=(4, 27, 48), lead_programs=(48, 61, 81),
        kits=(0, 24, 25),
    ),
    "hiphop": Groove(
        tempo_bpm=(75, 105), scale=MINOR,
        beat={KICK: "X..x..x...X.....", SNARE: "....X.......X...", CLOSED_HAT: "x.x.x.xxx.x.x.xx"},
        bass=("0.....0...0.....", "0..0......0....."),
        comping=("X...............", "X.....x........."),
        bass_programs=(38, 33, 39), comping_programs=(4, 5, 48), lead_programs=(80, 11, 73),
        kits=(0, 24, 25), lead_density=0.15, comping_steps=4,
    ),
    "jazz": Groove(
        tempo_bpm=(95, 160), scale=DORIAN, swing=0.33,
        beat={RIDE: "X...x..xX...x..x", CLOSED_HAT: "....x.......x...", KICK: "x.......x......."},
        bass=("0...1...2...4...", "0...2...4...5..."),
        comping=("...x......x.....", "x.....x........."),
        bass_programs=(32, 35), comping_programs=(0, 4, 26), lead_programs=(65, 66, 56, 11),
        kits=(0, 40), lead_density=0.4,
    ),
    "metal": Groove(
        tempo_bpm=(100, 165), scale=MINOR,
        beat={KICK: "X.xxX.xxX.xxX.xx", SNARE: "....X.......X...", CLOSED_HAT: "X...X...X...X..."},
        bass=("0.000.000.000.00",), comping=("X.xxX.xxX.xxX.xx", "X.x.xxX.x.x.xxX."),
        bass_programs=(34, 33), comping_programs=(30, 29), lead_programs=(30, 29, 81),
        kits=(0, 16), comping_steps=0.8,
    ),
    "pop": Groove(
        tempo_bpm=(90, 135), scale=MAJOR,
        beat={KICK: "X.....x.X.......", SNARE: "....X.......X...", TAMBOURINE: "x.x.x.x.x.x.x.x."},
        bass=("0.0.0.0.0.0.0.0.",), comping=("X.......X.......", "X...x...X...x..."),
        bass_programs=(33, 38, 36), comping_programs=(0, 4, 25), lead_programs=(52, 73, 80, 0),
        comping_steps=4,
    ),
    "reggae": Groove(
        tempo_bpm=(70, 100), scale=MINOR,
        beat={KICK: "........X.......", RIM: "........X.......", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
        bass=("..0.0...2.4.....", "0..0....4..2...."),
        comping=("....X.......X...", "....X.x.....X.x."),
        bass_programs=(33, 32, 38), comping_programs=(16, 27, 0), lead_programs=(56, 16, 66),
        lead_density=0.15, comping_steps=0.7,
    ),
    "rock": Groove(
        tempo_bpm=(95, 150), scale=BLUES,
        beat={KICK: "X.......X.x.....", SNARE: "....X.......X...", CLOSED_HAT: "X.x.X.x.X.x.X.x."},
        bass=("0.0.0.0.0.0.2.4.", "0.0.0.0."), comping=("X.....X...X.....", "X.x.X.x.X.x.X.x."),
        bass_programs=(33, 34), comping_programs=(29, 27, 30), lead_programs=(29, 27, 18),
        comping_steps=2,
    ),
}  # fmt: skip


def perform(rng: Generator, name: str, *, clip_s: float) -> list[Note]:
    """A few bars of a groove: the beat, the bass, the comping and, mostly, a lead."""
    groove = GROOVES[name]
    tempo_bpm = rng.uniform(*groove.tempo_bpm)
    song = compose(rng, clip_s=clip_s, tempo_bpm=tempo_bpm, swing=groove.swing, scale=groove.scale)
    beat = {drum: _vary(rng, pattern) for drum, pattern in groove.beat.items()}
    notes = drums(rng, song, _pick(rng, groove.kits), beat)
    notes += riff(rng, song, _program(rng, groove, "bass_programs"), 36, _pick(rng, groove.bass))
    notes += _comp(rng, groove, song)
    if rng.random() < 0.8:
        program = _program(rng, groove, "lead_programs")
        notes += melody(rng, song, program, 64, density=groove.lead_density, legato=0.8)
    return notes


def _comp(rng: Generator, groove: Groove, song: Song) -> list[Note]:
    program = _program(rng, groove, "comping_programs")
    pattern = _vary(rng, _pick(rng, groove.comping))
    return chords(rng, song, program, 55, pattern, length_steps=groove.comping_steps)


def _program(rng: Generator, groove: Groove, part: str) -> int:
    """The part's instrument: the groove's own, or now and then any groove's."""
    if rng.random() < SUBSTITUTION:
        groove = _pick(rng, tuple(GROOVES.values()))
    return _pick(rng, getattr(groove, part))


def _vary(rng: Generator, pattern: str) -> str:
    """The pattern over four bars with a few strokes dropped."""
    return "".join("." if rng.random() < VARIATION else mark for mark in pattern * 4)


def _pick(rng: Generator, choices: tuple[Choice, ...]) -> Choice:
    return choices[int(rng.integers(len(choices)))]

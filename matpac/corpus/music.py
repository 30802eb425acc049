"""The four music tasks: OpenMIC-, NSynth-, GTZAN- and MagnaTagATune-like clips."""

from numpy.random import Generator

from matpac.corpus.grooves import GROOVES, perform
from matpac.corpus.instruments import (
    CLOSED_HAT,
    CRASH,
    KICK,
    KITS,
    OPEN_HAT,
    RIDE,
    SNARE,
    SPLASH,
    Note,
    play,
    render_note,
)
from matpac.corpus.layout import Clip, Slot
from matpac.corpus.mixing import at_level, record
from matpac.corpus.phrases import Song, any_part, chords, compose, drums, melody, riff
from matpac.corpus.synthesis import Signal, samples, stream

CLIP_S = 5.0
NOTE_CLIP_S = 3.0

# General-MIDI programs of each NSynth family: in train, and in valid and test, which share their
# instruments as NSynth's do. Presets of a SoundFont share recorded waveforms (its 42 guitars, pads
# and choirs are one such family), so the two sides are of different waveforms, and what shares one
# with the second side is heard nowhere in pretraining.
FAMILIES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "bass": ((33, 34, 35, 38, 39), (32, 36, 37)),
    "brass": ((56, 61, 62, 63), (57, 58, 60)),
    "flute": ((73, 75, 76, 77, 79), (72, 74, 78)),
    "guitar": ((24, 25, 27, 29, 30), (26, 105)),
    "keyboard": ((0, 2, 3, 4, 7), (5, 6)),
    "mallet": ((8, 11, 12, 14, 15), (9, 10, 13)),
    "organ": ((16, 19, 20, 21, 22), (17, 18)),
    "reed": ((64, 66, 68, 71), (65, 67, 69, 70)),
    "string": ((42, 43, 44, 48, 51), (40, 41, 50)),
    "synth_lead": ((81, 82, 84, 87, 90), (80,)),
    "vocal": ((53, 54, 85, 91), (52,)),
}
RELATIVES = (59, 106, 109, 110)
"""Presets of no family above, or of its train part, that share waveforms with valid and test."""
HELD_OUT = frozenset(p for _, unseen in FAMILIES.values() for p in unseen) | set(RELATIVES)

# OpenMIC's classes with the presets that play them and the register (MIDI key); drums apart.
INSTRUMENTS: dict[str, tuple[tuple[int, ...], int]] = {
    "accordion": ((21, 23), 60),
    "banjo": ((105,), 60),
    "bass": ((32, 33, 34, 35), 33),
    "cello": ((42,), 45),
    "clarinet": ((71,), 60),
    "cymbals": ((), 0),
    "drums": ((), 0),
    "flute": ((73, 72), 72),
    "guitar": ((25, 26, 27, 29), 52),
    "mallet_percussion": ((11, 12, 13), 67),
    "mandolin": ((15,), 67),
    "organ": ((16, 17, 18, 19), 55),
    "piano": ((0, 1, 2), 57),
    "saxophone": ((64, 65, 66), 57),
    "synthesizer": ((80, 81, 87, 90), 60),
    "trombone": ((57,), 48),
    "trumpet": ((56, 59), 62),
    "ukulele": ((24,), 65),
    "violin": ((40,), 69),
    "voice": ((52, 53, 54), 60),
}
_FULL_BEATS = ("X...x...X...x...", "X.....x.X.......", "X...X...X...X...", "X..x..x...X.....")
_BACK_BEATS = ("....X.......X...", "........X.......", "....X..x.x..X...")
_TIME_BEATS = ("x.x.x.x.x.x.x.x.", "x...x...x...x...", "xxxxxxxxxxxxxxxx", "..x...x...x...x.")

TAGS = (
    "slow", "fast", "sparse", "dense", "staccato", "legato", "high", "low", "solo", "ensemble",
    "beat", "no beat", "chords", "piano", "guitar", "strings", "flute", "brass", "organ", "choir",
)  # fmt: skip
_OPPOSED = (
    ("slow", "fast"), ("sparse", "dense"), ("staccato", "legato"), ("beat", "no beat"),
    ("high", "low", ""), ("solo", "ensemble", ""), ("chords", "", ""),
)  # fmt: skip
_TAG_PROGRAMS = {
    "piano": (0, 1, 2), "guitar": (24, 25, 26, 27), "strings": (40, 41, 42, 48, 49),
    "flute": (72, 73, 75), "brass": (56, 57, 60, 61), "organ": (16, 18, 19, 21),
    "choir": (52, 53, 54, 91),
}  # fmt: skip
_FILLERS = (11, 33, 46, 65, 71, 80, 88, 105)  # instruments without a tag


def choose(rng: Generator, values: tuple) -> object:
    """One of the values, all equally likely."""
    return values[int(rng.integers(len(values)))]


def openmic(seed: int, slot: Slot) -> Clip:
    """Two to four of 20 instruments in one key and tempo, each a random part.

    Labels imitate OpenMIC's: a likelihood above 0.5 for what is heard, below for what is not, and
    NaN where nobody was asked. Two clips of a split form an artist with common sound.
    """
    group = artist_of(slot)
    artist = stream(seed, "openmic", group)
    take = stream(seed, "openmic", slot.index)
    names = tuple(INSTRUMENTS)
    others = [i for i in range(len(names)) if i != slot.lead]
    count = int(take.integers(1, 4))
    chosen = [slot.lead, *(int(i) for i in take.choice(others, count, replace=False))]
    song = compose(take, clip_s=CLIP_S, tempo_bpm=artist.uniform(70, 150))
    mix = sum(
        at_level(_openmic_part(take, song, names[i]), take.uniform(-8.0, 0.0)) for i in chosen
    )
    return Clip(record(mix, artist, take), _likelihoods(take, chosen, len(names)), group)


def artist_of(slot: Slot) -> str:
    """Who plays an OpenMIC-like clip: two clips of one split and lead instrument share it."""
    return f"artist-{slot.split}-{slot.lead}-{slot.number // 2}"


def _openmic_part(take: Generator, song: Song, name: str) -> Signal:
    programs, register = INSTRUMENTS[name]
    if name == "drums":
        notes = random_beat(take, song)
    elif name == "cymbals":
        drum = int(choose(take, (RIDE, CRASH, SPLASH)))
        notes = drums(take, song, 0, {drum: str(choose(take, ("X...", "X.......", "X..x..x.")))})
    else:
        notes = any_part(take, song, int(choose(take, programs)), register)
    return play(notes, samples(CLIP_S))


def random_beat(take: Generator, song: Song) -> list[Note]:
    """Kick, snare and hi-hat in random patterns on a random kit."""
    hat = CLOSED_HAT if take.random() < 0.7 else OPEN_HAT
    patterns = {KICK: _FULL_BEATS, SNARE: _BACK_BEATS, hat: _TIME_BEATS}
    beat = {drum: str(choose(take, choices)) for drum, choices in patterns.items()}
    return drums(take, song, int(choose(take, KITS)), beat)


def _likelihoods(take: Generator, present: list[int], num_classes: int) -> list[float]:
    """80 % of the instruments heard and 35 % of the others are judged, the lead one always."""
    labels = []
    for index in range(num_classes):
        heard = index in present
        asked = take.random() < (0.8 if heard else 0.35) or index == present[0]
        likelihood = take.uniform(0.6, 1.0) if heard else take.uniform(0.0, 0.4)
        labels.append(round(likelihood, 3) if asked else float("nan"))
    return labels


def nsynth(seed: int, slot: Slot) -> Clip:
    """One note: 11 families x presets x pitch x velocity; valid and test are of unseen presets."""
    family, program = tuple(FAMILIES)[slot.lead], program_of(slot)
    take = stream(seed, "nsynth", slot.index)
    pitch = int(take.integers(30, 51) if family == "bass" else take.integers(52, 73))
    note = render_note(
        program,
        pitch,
        velocity=int(take.integers(40, 128)),
        hold_s=2.0,
        duration_s=NOTE_CLIP_S,
    )
    return Clip(record(note, take, take, tilt_db=0.5), slot.lead, f"program-{program}")


def program_of(slot: Slot) -> int:
    """The preset of an NSynth-like clip: those of its family and part in turn."""
    train, unseen = tuple(FAMILIES.values())[slot.lead]
    programs = train if slot.split == "train" else unseen
    return programs[slot.number % len(programs)]


def gtzan(seed: int, slot: Slot) -> Clip:
    """Ten grooves; see grooves.py."""
    take = stream(seed, "gtzan", slot.index)
    notes = perform(take, tuple(GROOVES)[slot.lead], clip_s=CLIP_S)
    return Clip(record(play(notes, samples(CLIP_S)), take, take), slot.lead, "")


def mtt(seed: int, slot: Slot) -> Clip:
    """Tags of tempo, density, articulation, register, parts and instruments.

    The drawn properties are the labels; the slot's lead tag holds for certain.
    """
    take = stream(seed, "mtt", slot.index)
    tags, programs = _draw_tags(take, TAGS[slot.lead])
    tempo_bpm = take.uniform(60, 90) if "slow" in tags else take.uniform(115, 170)
    song = compose(take, clip_s=CLIP_S, tempo_bpm=tempo_bpm)
    register = 74 if "high" in tags else 40 if "low" in tags else 57
    mix = 0.0
    for program in programs:
        part = play(_mtt_part(take, song, program, register, tags), samples(CLIP_S))
        mix = mix + at_level(part, take.uniform(-5.0, 0.0))
    if "beat" in tags:
        beat = play(random_beat(take, song), samples(CLIP_S))
        mix = mix + at_level(beat, take.uniform(-8.0, 2.0))
    return Clip(record(mix, take, take), [float(tag in tags) for tag in TAGS], "")


def _mtt_part(
    take: Generator, song: Song, program: int, register: int, tags: set[str]
) -> list[Note]:
    dense = "dense" in tags
    legato = take.uniform(0.15, 0.35) if "staccato" in tags else take.uniform(0.8, 1.0)
    if "chords" in tags:
        strum = "X.x.X.x.X.x.X.x." if dense else "X.......x......."
        return chords(
            take, song, program, register, strum, length_steps=legato * (2 if dense else 8)
        )
    if take.random() < 0.5:
        density = take.uniform(0.4, 0.7) if dense else take.uniform(0.1, 0.2)
        return melody(take, song, program, register, density=density, legato=legato)
    figure = "02470742" if dense else "0...4...2...4..."
    return riff(take, song, program, register, figure, legato=legato)


def _draw_tags(take: Generator, lead: str) -> tuple[set[str], list[int]]:
    """The tags of a clip and the instruments of its parts (programs; some have no tag)."""
    tags = {lead}
    for group in _OPPOSED:
        if not tags & set(group):
            tags |= {str(choose(take, group))} - {""}
    count = 1 if "solo" in tags else 3 if "ensemble" in tags else 2
    names = [lead] if lead in _TAG_PROGRAMS else []
    while len(names) < count:
        names.append(str(choose(take, (*_TAG_PROGRAMS, "other", "other"))))
    tags |= set(names) & set(TAGS)
    return tags, [int(choose(take, _TAG_PROGRAMS.get(name, _FILLERS))) for name in names]

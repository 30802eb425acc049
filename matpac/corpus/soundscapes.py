"""The three environmental tasks: FSD50K-, ESC-50- and UrbanSound8K-like clips."""

import numpy as np
from numpy.random import Generator

from matpac.corpus.environment import SOUNDS
from matpac.corpus.grooves import GROOVES, perform
from matpac.corpus.instruments import play
from matpac.corpus.layout import TAKES, Clip, Slot
from matpac.corpus.mixing import at_level, record
from matpac.corpus.synthesis import Signal, noise, place, samples, stream

CLIP_S = 5.0
EDGE_S = 0.03  # fade at the ends of an excerpt

FSD50K = (
    "applause", "birds", "car_horn", "cat", "children", "church_bells", "clock_tick",
    "crackling_fire", "dog", "engine", "footsteps", "frogs", "glass", "gun_shot", "insects",
    "keyboard_typing", "rain", "sea_waves", "siren", "wind",
)  # fmt: skip
ESC50 = (
    "alarm", "chainsaw", "church_bells", "clock_tick", "crackling_fire", "crow", "dog",
    "door_knock", "footsteps", "frogs", "helicopter", "insects", "keyboard_typing", "rain",
    "rooster", "sea_waves", "sneeze", "train", "washing", "water_drops",
)  # fmt: skip
US8K = (
    "air_conditioner", "car_horn", "children", "dog", "drilling", "engine", "gun_shot",
    "jackhammer", "siren", "street_music",
)  # fmt: skip
_BACKGROUNDS = tuple(name for name in SOUNDS if name not in US8K)


def excerpt(signal: Signal) -> Signal:
    """The signal faded in and out at its ends."""
    edge = np.linspace(0.0, 1.0, samples(EDGE_S), dtype=np.float32)
    out = signal.copy()
    out[: len(edge)] *= edge
    out[-len(edge) :] *= edge[::-1]
    return out


def sound(name: str, source: Generator, take: Generator, duration_s: float) -> Signal:
    """A named environmental sound, or street music, of a given length."""
    if name == "street_music":
        groove = tuple(GROOVES)[int(source.integers(len(GROOVES)))]
        return play(perform(take, groove, clip_s=duration_s), samples(duration_s))
    return SOUNDS[name](source, take, samples(duration_s))


def mixture(rng: Generator, names: list[str], *, clip_s: float = CLIP_S) -> Signal:
    """Each sound in a window of 1.2-4 s at a random place and level, over quiet pink noise."""
    out = noise(rng, samples(clip_s), 20, 8000, -3.0) * np.float32(10.0 ** rng.uniform(-1.8, -0.9))
    for name in names:
        duration_s = rng.uniform(1.2, 4.0)
        part = excerpt(at_level(sound(name, rng, rng, duration_s), rng.uniform(-8.0, 0.0)))
        place(out, part, rng.uniform(0.0, clip_s - duration_s))
    return out


def fsd50k(seed: int, slot: Slot) -> Clip:
    """One to three of 20 sounds, each in its own window."""
    take = stream(seed, "fsd50k", slot.index)
    others = [i for i in range(len(FSD50K)) if i != slot.lead]
    count = int(take.integers(0, 3))
    chosen = {slot.lead, *(int(i) for i in take.choice(others, count, replace=False))}
    mix = mixture(take, [FSD50K[i] for i in sorted(chosen)])
    return Clip(record(mix, take, take), [float(i in chosen) for i in range(len(FSD50K))], "")


def recording_of(name: str, slot: Slot) -> str:
    """The source recording of a clip in a task with folds: TAKES clips of one fold share it."""
    return f"{name}-{slot.fold}-{slot.number // TAKES}"


def esc50(seed: int, slot: Slot) -> Clip:
    """One class for five seconds; clips of one source recording stay in one fold."""
    name = ESC50[slot.lead]
    group = recording_of(name, slot)
    source = stream(seed, "esc50", group)
    take = stream(seed, "esc50", slot.index)
    signal = at_level(sound(name, source, take, CLIP_S), 0.0)
    hum = noise(take, len(signal), 20, 8000, source.uniform(-5.0, 0.0))
    mix = signal + hum * np.float32(10.0 ** source.uniform(-1.5, -0.4))
    return Clip(record(mix, source, take), slot.lead, group)


def us8k(seed: int, slot: Slot) -> Clip:
    """One class at -6 to +8 dB against another sound; ten folds of source recordings."""
    name = US8K[slot.lead]
    group = recording_of(name, slot)
    source = stream(seed, "us8k", group)
    take = stream(seed, "us8k", slot.index)
    other = _BACKGROUNDS[int(source.integers(len(_BACKGROUNDS)))]
    background = at_level(sound(other, source, take, CLIP_S), 0.0)
    foreground = at_level(sound(name, source, take, CLIP_S), source.uniform(-6.0, 8.0))
    return Clip(record(foreground + background, source, take), slot.lead, group)

"""The unlabelled corpus: music, phrases, environmental mixtures and a rest of odd clips.

The environmental generators are the tasks' own, with the same parameter ranges but other sources,
so these tasks are in-domain. The presets of the NSynth-like task's valid and test parts are kept
out everywhere.
"""

import numpy as np
from numpy.random import Generator

from matpac.corpus.environment import SOUNDS
from matpac.corpus.instruments import play
from matpac.corpus.layout import Clip, Slot
from matpac.corpus.mixing import at_level, record
from matpac.corpus.music import HELD_OUT, choose, random_beat
from matpac.corpus.phrases import any_part, compose
from matpac.corpus.soundscapes import mixture, sound
from matpac.corpus.synthesis import Signal, samples, stream

CLIP_S = 5.0
PRESETS = tuple(program for program in range(112) if program not in HELD_OUT)
# What a clip shows, with its share of the corpus.
SHARES = {"music": 0.40, "phrase": 0.15, "environment": 0.35, "mixed": 0.10}


def pretraining(seed: int, slot: Slot) -> Clip:
    """One clip of the kind its number draws."""
    take = stream(seed, "pretraining", slot.index)
    makers = {"music": _music, "phrase": _phrase, "environment": _environment, "mixed": _mixed}
    kind = str(take.choice(tuple(SHARES), p=tuple(SHARES.values())))
    return Clip(record(makers[kind](take), take, take), None, "")


def _phrase(take: Generator) -> Signal:
    song = compose(take, clip_s=CLIP_S, tempo_bpm=take.uniform(60, 170))
    register = int(take.integers(38, 78))
    return play(any_part(take, song, int(choose(take, PRESETS)), register), samples(CLIP_S))


def _music(take: Generator) -> Signal:
    """Two to four parts of random presets in one key and tempo, mostly with a beat."""
    swing = float(take.choice([0.0, 0.0, 0.33]))
    song = compose(take, clip_s=CLIP_S, tempo_bpm=take.uniform(60, 170), swing=swing)
    mix = np.zeros(samples(CLIP_S), np.float32)
    for _ in range(int(take.integers(2, 5))):
        notes = any_part(take, song, int(choose(take, PRESETS)), int(take.integers(36, 78)))
        mix += at_level(play(notes, len(mix)), take.uniform(-8.0, 0.0))
    if take.random() < 0.6:
        mix += at_level(play(random_beat(take, song), len(mix)), take.uniform(-8.0, 2.0))
    return mix


def _environment(take: Generator) -> Signal:
    """One to three sounds, in windows or through the whole clip."""
    names = [str(name) for name in take.choice(tuple(SOUNDS), int(take.integers(1, 4)))]
    if take.random() < 0.5:
        return mixture(take, names)
    parts = [at_level(sound(name, take, take, CLIP_S), take.uniform(-8.0, 0.0)) for name in names]
    return sum(parts[1:], parts[0])


def _mixed(take: Generator) -> Signal:
    """Music heard in a place: a phrase and an environmental sound."""
    place = at_level(sound(str(choose(take, tuple(SOUNDS))), take, take, CLIP_S), 0.0)
    return place + at_level(_phrase(take), take.uniform(-6.0, 6.0))

"""The environmental sounds by name; see textures.py, events.py and voices.py."""

from collections.abc import Callable
from types import MappingProxyType

from numpy.random import Generator

from matpac.corpus import events, textures, voices
from matpac.corpus.synthesis import Signal

SoundGenerator = Callable[[Generator, Generator, int], Signal]

_GENERATORS: tuple[SoundGenerator, ...] = (
    textures.air_conditioner,
    textures.applause,
    textures.chainsaw,
    textures.crackling_fire,
    textures.drilling,
    textures.engine,
    textures.helicopter,
    textures.insects,
    textures.jackhammer,
    textures.rain,
    textures.sea_waves,
    textures.train,
    textures.washing,
    textures.water_drops,
    textures.wind,
    events.alarm,
    voices.birds,
    events.car_horn,
    voices.cat,
    voices.children,
    events.church_bells,
    events.clock_tick,
    voices.crow,
    voices.dog,
    events.door_knock,
    events.footsteps,
    voices.frogs,
    events.glass,
    events.gun_shot,
    events.keyboard_typing,
    voices.rooster,
    events.siren,
    voices.sneeze,
)

SOUNDS = MappingProxyType({generator.__name__: generator for generator in _GENERATORS})

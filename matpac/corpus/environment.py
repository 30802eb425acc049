"""The environmental sounds by name; see textures.py and events.py for how each is made."""

from collections.abc import Callable
from types import MappingProxyType

from numpy.random import Generator

from matpac.corpus import events, textures
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
    events.birds,
    events.car_horn,
    events.cat,
    events.children,
    events.church_bells,
    events.clock_tick,
    events.crow,
    events.dog,
    events.door_knock,
    events.footsteps,
    events.frogs,
    events.glass,
    events.gun_shot,
    events.keyboard_typing,
    events.rooster,
    events.siren,
    events.sneeze,
)

SOUNDS = MappingProxyType({generator.__name__: generator for generator in _GENERATORS})

"""The embedded corpus of the mini profile: a pretraining set and seven tasks made on the machine.

Music is mixed from notes of the General-MIDI SoundFont that pretty_midi carries, environmental
sounds are synthesised, all from one seed. Reading order: synthesis (noise, tones, envelopes),
instruments (sampled notes), phrases and grooves (what is played), textures, events, voices and
environment (what is not music), mixing (levels, room, noise floor), layout (splits and folds),
music, soundscapes and pretraining (the recipes' clips), recipes (the table of them), render (files
and manifests).
"""

from matpac.corpus.recipes import RECIPES
from matpac.corpus.render import example, pool, render

__all__ = ["RECIPES", "example", "pool", "render"]

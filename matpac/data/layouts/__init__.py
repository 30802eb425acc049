"""The data sets of Table I as their authors ship them: what their own tables say of every clip.

One module per data set. Each has a ``MARKER``, a pattern that is found in the folder that holds
the unpacked data set and in no other, and a function ``read`` from that folder to a
`layout.Layout`. No audio is opened here; `matpac.data.official` looks for it.
"""

from types import ModuleType

from matpac.data.layouts import esc50, fsd50k, gtzan, mtt, nsynth, openmic, us8k

LOADERS: dict[str, ModuleType] = {
    "openmic": openmic,
    "nsynth": nsynth,
    "gtzan": gtzan,
    "mtt": mtt,
    "fsd50k": fsd50k,
    "esc50": esc50,
    "us8k": us8k,
}

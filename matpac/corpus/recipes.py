"""The data sets of the embedded corpus: one recipe for pretraining, one for each column of
Table II, with the task type, metric and split scheme of the real data set."""

from types import MappingProxyType

from matpac.corpus.grooves import GROOVES
from matpac.corpus.layout import Recipe
from matpac.corpus.music import FAMILIES, INSTRUMENTS, TAGS, gtzan, mtt, nsynth, openmic
from matpac.corpus.pretraining import pretraining
from matpac.corpus.soundscapes import ESC50, FSD50K, US8K, esc50, fsd50k, us8k

_ALL = (
    Recipe("pretraining", "unlabelled", (), pretraining),
    Recipe("openmic", "multilabel", tuple(INSTRUMENTS), openmic, metric="map"),
    Recipe("nsynth", "multiclass", tuple(FAMILIES), nsynth, metric="accuracy"),
    Recipe("gtzan", "multiclass", tuple(GROOVES), gtzan, metric="accuracy"),
    Recipe("mtt", "multilabel", TAGS, mtt, metric="map"),
    Recipe("fsd50k", "multilabel", FSD50K, fsd50k, metric="map"),
    Recipe("esc50", "multiclass", ESC50, esc50, metric="accuracy", num_folds=5),
    Recipe("us8k", "multiclass", US8K, us8k, metric="accuracy", num_folds=10),
)
RECIPES = MappingProxyType({recipe.name: recipe for recipe in _ALL})


def recipe_of(name: str) -> Recipe:
    """The recipe with this name. Raises: ValueError if there is none."""
    if name not in RECIPES:
        raise ValueError(f"recipe: got {name!r}, allowed: {', '.join(RECIPES)}")
    return RECIPES[name]

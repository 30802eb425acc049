"""The data sets of ``params.yaml``: what one may be, and how those of the paper are fetched."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from matpac.audio.config import LogmelConfig
from matpac.core import paths
from matpac.core.section import Common, Name, Natural, Positive, PositiveFloat, Section

Official = Literal["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"]
"""The data sets of Table I, as ``source`` names them."""
RECIPES = {
    "pretraining": ("unlabelled", 1),
    "openmic": ("multilabel", 200),
    "nsynth": ("multiclass", 110),
    "gtzan": ("multiclass", 100),
    "mtt": ("multilabel", 200),
    "fsd50k": ("multilabel", 200),
    "esc50": ("multiclass", 100),
    "us8k": ("multiclass", 100),
}
"""Kind and fewest clips of `matpac.corpus.RECIPES`, which would take seconds to import."""


class Dataset(Section):
    """What all data sets have in common."""

    @property
    def places(self) -> list[tuple[str, str]]:
        """Key and text of every path that names files of the user."""
        return []

    @property
    def unlabelled(self) -> str:
        """Why it can be no task; "" if it can."""
        return ""


class EmbeddedDataset(Dataset):
    """A data set rendered by `matpac.corpus` on this machine."""

    source: Literal["embedded"]
    recipe: Name
    """Which of `matpac.corpus.RECIPES`."""
    num_clips: Positive
    """Clips in all, over all splits or folds."""
    seed: Natural
    """Decides every sample of every clip."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe: got {self.recipe!r}, allowed: {', '.join(RECIPES)}")
        _, smallest = RECIPES[self.recipe]
        if self.num_clips < smallest:
            raise ValueError(
                f"num_clips: got {self.num_clips}, allowed for {self.recipe}: {smallest} or more"
            )
        return self

    @property
    def unlabelled(self) -> str:
        kind, _ = RECIPES[self.recipe]
        return f"the recipe {self.recipe} has none" if kind == "unlabelled" else ""


class OfficialDataset(Dataset):
    """A data set of Table I as its authors ship it: splits, classes and groups are known."""

    source: Official
    path: str | None
    """Folder with the unpacked data set, or the one above it; ``~`` and ``$VARIABLES`` expand;
    relative to the root. None: downloaded into the bulk folder."""
    subset: bool = False
    """True: only a part is meant to be there. False: anything missing is an error."""

    @property
    def places(self) -> list[tuple[str, str]]:
        return [] if self.path is None else [("path", self.path)]


class FolderDataset(Dataset):
    """One or several folders of audio files, and perhaps a CSV that names them."""

    source: Literal["folder"]
    audio: str | Annotated[list[str], Field(min_length=1)]
    """Folder of wav/flac/ogg/mp3; ``~`` and ``$VARIABLES`` expand; relative to the root.

    Without ``csv``, also a list of such folders.
    """
    csv: str | None = None
    """The table, same rules. None: every audio file in ``audio`` and below is a clip."""
    filename: str = "filename"
    """Column with the file name, relative to ``audio``."""
    labels: str | list[str] | None = None
    """Column with the class name; or several 0/1 columns (blank: not observed); or none."""
    separator: str | None = None
    """Splits a single label column into several labels, e.g. ``","``."""
    kind: Literal["multiclass", "multilabel"] | None = None
    """What the labels are; None: the data set is only a pretraining corpus."""
    fold: str | None = None
    """Column with the fold, 1 to the number of folds."""
    split: str | None = None
    """Column with train, valid or test."""
    group: str | None = None
    """Column with the source recording: a validation part never shares one with training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.kind and self.labels is None:
            problems.append("kind is given, so labels (a column name) is needed")
        if self.kind == "multiclass" and (isinstance(self.labels, list) or self.separator):
            problems.append(
                f"kind multiclass with labels {self.labels!r} and separator {self.separator!r}, "
                "allowed: one column, no separator"
            )
        if self.kind == "multilabel" and isinstance(self.labels, list) and self.separator:
            problems.append("both a separator and several 0/1 columns are given, allowed: one")
        if self.kind and self.fold is None and self.split is None:
            problems.append("a labelled data set needs either fold or split (a column name)")
        if self.fold is not None and self.split is not None:
            problems.append("both fold and split are given, allowed: one of them")
        about_table = ("filename", "labels", "separator", "kind", "fold", "split", "group")
        fields = type(self).model_fields
        columns = [c for c in about_table if getattr(self, c) != fields[c].default]
        if self.csv is None and columns:
            problems.append(f"{', '.join(columns)} given without csv, the table that has columns")
        if self.csv is not None and isinstance(self.audio, list):
            problems.append("several audio folders with a csv, allowed: one folder, or no csv")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def places(self) -> list[tuple[str, str]]:
        folders = [self.audio] if isinstance(self.audio, str) else self.audio
        table = [] if self.csv is None else [("csv", self.csv)]
        return [("audio", folder) for folder in folders] + table

    @property
    def unlabelled(self) -> str:
        return "" if self.kind else "its key kind is not given"


class PackedDataset(Dataset):
    """Audio inside WebDataset tars or parquet shards, which stay packed: a pretraining corpus."""

    source: Literal["packed"]
    shards: str | Annotated[list[str], Field(min_length=1)]
    """Folder with .tar or .parquet files in it or below, one such file, or a pattern such as
    ``$DATASETS/audioset/train-*.tar``; or a list of these. ``~`` and ``$VARIABLES`` expand;
    relative to the root. Every audio file in a tar, and every row of a parquet file, is a clip."""

    @property
    def places(self) -> list[tuple[str, str]]:
        shards = [self.shards] if isinstance(self.shards, str) else self.shards
        return [("shards", text) for text in shards]

    @property
    def unlabelled(self) -> str:
        return "packed audio has none"


def named(text: str) -> tuple[Path, list[Path]]:
    """A folder, and what an entry of `PackedDataset.shards` names in it: folders and files."""
    path = paths.expand(text)
    if path.is_dir():
        return path, [path]
    wild = [i for i, part in enumerate(path.parts) if set("*?[") & set(part)]
    if not wild or path.exists():
        return path.parent, [path] if path.exists() else []
    folder = Path(*path.parts[: wild[0]])
    return folder, sorted(folder.glob("/".join(path.parts[wild[0] :])))


DatasetConfig = Annotated[
    EmbeddedDataset | FolderDataset | OfficialDataset | PackedDataset,
    Field(discriminator="source"),
]


class DownloadsConfig(Section):
    """How data sets without a ``path`` are downloaded; decides no result."""

    mirror: str | None = None
    """Folder, ``file://`` or ``http://`` address that stands in for every host."""
    keep_archives: bool = True
    """False: an archive is deleted once it is unpacked."""


class LogmelParams(Common):
    """Sections of the ``logmel`` stage."""

    datasets: dict[Name, DatasetConfig]
    corpora: Annotated[dict[Name, PositiveFloat], Field(min_length=1)]
    """Pretraining data sets and how often each of their clips is seen per epoch."""
    tasks: Annotated[list[Name], Field(min_length=1)]
    """Data sets that are probed."""
    logmel: LogmelConfig


class FetchParams(LogmelParams):
    """Sections of the ``fetch`` stage."""

    idle: ClassVar[frozenset[str]] = frozenset({"downloads"})

    downloads: DownloadsConfig = DownloadsConfig()

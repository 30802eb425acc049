"""Parameters: valid ones load, overlays resolve, and one error names everything that is wrong."""

import copy
import re
import shutil
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from matpac.core import fingerprints, paths, yaml_file
from matpac.core.section import Common
from matpac.corpus import RECIPES
from matpac.data.config import RECIPES as OWN_RECIPES
from matpac.data.config import FetchParams
from matpac.params import Params, load, parse
from matpac.pretraining import config
from matpac.pretraining.config import PretrainParams, ResolvedRun
from matpac.probing.config import ProbeParams

import command
import smoke

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PARAMETER_FILES = [smoke.SMOKE_YAML, *sorted(TESTS.parent.glob("params*.yaml"))]


def problems_of(sections: dict[str, Any], stage: type = Params) -> list[str]:
    """The lines of the error, without its heading."""
    with pytest.raises(ValueError, match=r"^parameters:\n") as error:
        parse(stage, sections)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


# -------------------------------------------------------------------------------- valid files


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.name)
def test_shipped_files_load_and_every_overlay_resolves(path: Path) -> None:
    params = load(path)
    assert "base" in params.runs
    for run, overlay in params.runs.items():
        resolved = config.resolve(params, run)
        for section in ResolvedRun.model_fields:
            base = getattr(params, section).model_dump()
            ours = getattr(resolved, section).model_dump()
            differing = {key: ours[key] for key in base if ours[key] != base[key]}
            assert differing == getattr(overlay, section), "an overlay holds only what differs"
        assert config.seeds(params, run)


def test_an_overlay_changes_only_what_it_names() -> None:
    params = parse(Params, smoke.sections())
    base = config.resolve(params, "base").deciding()
    assert base == {name: getattr(params, name).deciding() for name in base}
    assert list(base) == ["model", "objective", "pretrain"]
    base["objective"]["centering"] = "none"
    base["objective"]["sharpening"] = False
    assert config.resolve(params, "neither").deciding() == base
    base = config.resolve(params, "base").model_dump()
    base["pretrain"]["seed"] = 7
    assert config.resolve(params, "base", seed=7).model_dump() == base


def test_seeds() -> None:
    sections = smoke.sections()
    sections["runs"]["base"] = {"seeds": [5, 3]}
    sections["runs"]["k8"]["pretrain"] = {"seed": 9}
    params = parse(Params, sections)
    assert [config.seeds(params, run) for run in ("base", "k8", "alpha1")] == [[5, 3], [9], [0]]
    with pytest.raises(ValueError, match="run: got 'bse', allowed: base, "):
        config.seeds(params, "bse")


def test_a_stage_reads_its_sections_alone() -> None:
    sections = smoke.sections()
    fetch = {name: sections[name] for name in FetchParams.model_fields}
    assert list(parse(FetchParams, fetch).datasets) == list(sections["datasets"])
    assert problems_of(sections, FetchParams) == [
        f"{name}: unknown key" for name in sections if name not in FetchParams.model_fields
    ]


def test_valid_parameters_pass_through_and_are_frozen() -> None:
    params = parse(Params, smoke.sections())
    assert parse(PretrainParams, params) is params
    with pytest.raises(ValidationError, match="frozen"):
        params.model.mask_ratio = 0.5


# -------------------------------------------------------------------------------- errors


def test_one_error_names_everything() -> None:
    sections = smoke.sections()
    del sections["model"]["patch_size"]
    sections["model"]["patchsize"] = 16
    sections["objective"]["alpha"] = 1.5
    sections["pretrain"]["learning_rate"] = "1e-3"
    sections["pretrain"]["epochs"] = True
    sections["pretrain"]["precision"] = "half"
    sections["logmel"]["mean"] = -7.0
    sections["probe"]["epochs"] = 2.5
    sections["tasks"] += ["esc5"]
    sections["encoders"]["k8"] = {"kind": "random", "label": "two things"}
    sections["runs"]["Big-Run"] = {}
    sections["surplus"] = {}
    found = "\n".join(problems_of(sections))
    for line in (
        "model.patch_size: missing",
        "model.patchsize: unknown key",
        "objective.alpha: .*got 1.5",
        "pretrain.learning_rate: .*got '1e-3', which is text",
        "pretrain.epochs: .*got True",
        "pretrain.precision: .*got 'half'",
        "logmel: mean and std are both numbers or both null",
        "probe.epochs: .*got 2.5",
        f"tasks: got 'esc5', {LISTED}",
        "'k8' is both in runs and in encoders",
        "surplus: unknown key",
        "runs.Big-Run",
    ):
        assert re.search(line, found), line
    assert len(found.splitlines()) == 12


OWN = {"source": "folder", "audio": "a", "csv": "b"}


def own(**keys: Any) -> dict[str, Any]:
    return {"datasets.own": OWN | keys}


def encoder(**keys: Any) -> dict[str, Any]:
    return {"encoders.x": {"label": "X"} | keys}


LISTED = r"allowed: names of datasets \(embedded, nsynth, fsd50k, esc50\)"
NO_CSV = "given without csv, the table that has columns"
IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"model.crop_frames": 100}, ["model: crop_frames is not a multiple of patch_size"]),
    (
        {"model.encoder_width": 30, "model.encoder_heads": 4},
        [
            "model: encoder_width 30 is not a multiple of encoder_heads 4; "
            r"encoder_width 30 is not a multiple of 4 \(2-D positions\)"
        ],
    ),
    ({"model.mask_ratio": 1.0}, ["model.mask_ratio: .*got 1.0"]),
    ({"model.num_prototypes": 0}, ["model.num_prototypes: .*got 0"]),
    ({"pretrain.warmup_epochs": 5.0}, ["pretrain: warmup_epochs is larger than epochs"]),
    ({"pretrain.betas": [0.9]}, ["pretrain.betas: "]),
    ({"pretrain.eps": float("nan")}, ["pretrain.eps: .*got nan"]),
    ({"pretrain.epochs": 0.0, "pretrain.warmup_epochs": 0.0}, ["pretrain.epochs: .*got 0.0"]),
    ({"logmel.fmax_hz": 9000.0}, ["logmel: fmin_hz < fmax_hz <= sample_rate / 2"]),
    ({"logmel.hop_ms": 10.01}, ["logmel: hop_ms 10.01 is 160.16 samples at 16000 Hz, allowed"]),
    ({"logmel.window_ms": 0.01}, ["logmel: window_ms 0.01 is 0.16 samples at 16000 Hz, allowed"]),
    ({"objective.centering": "both"}, ["objective.centering: .*got 'both'"]),
    # A bad base is told once, and not for every run.
    ({"objective.alpha": -1.0}, ["objective.alpha: .*got -1.0"]),
    # Overlays, before anything runs.
    ({"runs.k8": {"objective": {"alfa": 0.5}}}, ["runs.k8.objective.alfa: unknown key"]),
    ({"runs.k8": {"objctive": {}}}, ["runs.k8.objctive: unknown key"]),
    ({"runs.k8": {"seeds": []}}, ["runs.k8.seeds: "]),
    ({"runs.k8": {"seeds": [1, 1]}}, [r"runs.k8: seeds: got \[1, 1\], allowed: each once"]),
    ({"runs.k8": {"model": {"crop_frames": 100}}}, ["runs.k8.model: crop_frames is not a mult"]),
    (
        {"runs.k8": {"model": {"encoder_heads": 5}, "pretrain": {"seed": -1, "eps": "1e-6"}}},
        [
            "runs.k8.model: encoder_width 32 is not a multiple of encoder_heads 5",
            "runs.k8.pretrain.eps: .*got '1e-6', which is text",
            "runs.k8.pretrain.seed: .*got -1",
        ],
    ),
    (
        {"model.patch_size": 12, "runs.k8": {"model": {"mask_ratio": 0.99, "num_prototypes": 8}}},
        [
            "model.patch_size: got 12, allowed: divisors of num_mels 80",
            "runs.k8.model.mask_ratio: got 0.99, which leaves 0 of 48 patches visible; "
            "allowed: at least one visible and one masked",
        ],
    ),
    # Names.
    ({"runs": {"first": {}}}, ["runs: no 'base', the reference of every comparison"]),
    ({"runs.base": {"model": {"encoder_depth": 1}}}, ["runs.base.model: got an overlay"]),
    ({"corpora": {"audioset": 1.0}}, [f"corpora: got 'audioset', {LISTED}"]),
    ({"tasks": ["nsynth", "nsynth"]}, ["tasks: 'nsynth' is named twice"]),
    ({"runs.2048": {}, "runs.nan": {}}, ["runs.2048", "'nan' in runs, encoders or datasets"]),
    ({"tasks": ["mean"]}, ["tasks: got 'mean', allowed", "'mean', which is another column"]),
    # Data sets.
    ({"tasks": ["embedded"]}, ["'embedded', which has no labels: the recipe pretraining has none"]),
    (own() | {"tasks": ["own"]}, ["got 'own', which has no labels: its key kind is not given"]),
    (
        {"datasets.own": {"source": "packed", "shards": "a"}, "tasks": ["own"]},
        ["tasks: got 'own', which has no labels: packed audio has none"],
    ),
    (
        {"datasets.nsynth.num_clips": 109},
        ["datasets.nsynth.embedded: num_clips: got 109, allowed for nsynth: 110 or more"],
    ),
    (
        {"datasets.tasks": {"source": "embedded", "recipe": "drum", "num_clips": 1, "seed": 0}},
        [
            f"datasets.tasks.embedded: recipe: got 'drum', allowed: {', '.join(OWN_RECIPES)}",
            "datasets: got 'tasks', which is no name for a data set",
        ],
    ),
    (own(source="web"), ["datasets.own: "]),
    (
        own(kind="multiclass"),
        [r"own.*: kind is given, so labels \(a column name\) is n", "needs either fold or split"],
    ),
    (
        own(kind="multiclass", labels=["owl", "crow"], fold="part", split="part"),
        [
            r"own.*: kind multiclass with labels \['owl', 'crow'\] and separator None, "
            "allowed: one column, no separator",
            "both fold and split are given, allowed: one of them",
        ],
    ),
    (
        own(kind="multilabel", labels=["x", "y"], separator=",", fold="f"),
        ["both a separator and several 0/1 columns are given, allowed: one"],
    ),
    (own(audio=["a", "b"]), ["several audio folders with a csv, allowed: one folder, or no csv"]),
    (own(csv=None, audio=[]), ["datasets.own.folder.audio.str", "datasets.own.folder.audio.list"]),
    (
        own(csv=None, labels="x", kind="multiclass", fold="y"),
        [f"own.folder: labels, kind, fold {NO_CSV}"],
    ),
    (own(csv=None, filename="x", separator=","), [f"own.folder: filename, separator {NO_CSV}"]),
    # Encoders.
    (
        encoder(kind="passt", module="a:b"),
        ["module: got 'a:b', needed for the kinds module and hear"],
    ),
    (encoder(kind="module"), ["module: got None, needed for the kinds module and hear"]),
    (encoder(kind="module", module="mine"), ["got 'mine', allowed: package.module:function"]),
    (encoder(kind="hear", module="a:b"), ["module: got 'a:b', allowed: package.module"]),
    (encoder(kind="random", weights="w.pt"), ["weights: got 'w.pt', and the kind random has none"]),
    (encoder(kind="pretrained"), ["weights: missing, a folder or a name on the Hugging Face Hub"]),
    (encoder(kind="m2d", reported="M2E"), ["encoders.x.reported: got 'M2E', allowed: 'MATPAC, "]),
    (encoder(kind="vggish"), ["encoders.x.kind: .*got 'vggish'"]),
]
"""Entries by their dotted names, and all that is then said."""


@pytest.mark.parametrize(
    ("changes", "lines"),
    IMPOSSIBLE,
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_named(changes: dict[str, Any], lines: list[str]) -> None:
    sections = smoke.sections()
    for name, value in changes.items():
        *owners, key = name.split(".")
        reduce(getitem, owners, sections)[key] = value
    found = problems_of(sections)
    assert len(found) == len(lines), found
    assert all(any(re.search(line, each) for each in found) for line in lines), found


def test_recipes_are_those_of_the_corpus() -> None:
    recipes = {recipe.name: (recipe.kind, recipe.smallest) for recipe in RECIPES.values()}
    assert recipes == OWN_RECIPES


def entries(value: object, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Paths of all entries below a value, and what stands there."""
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key), below
            yield from entries(below, (*path, key))


def test_no_mistyped_entry_passes_or_crashes() -> None:
    """Any entry replaced by something of a wrong type gives the error that lists problems."""
    valid = smoke.sections()
    for (*owners, key), _ in entries(valid):
        for wrong in ([[1]], {"a": [None]}, object()):
            sections = copy.deepcopy(valid)
            reduce(getitem, owners, sections)[key] = wrong
            with pytest.raises(ValueError, match=r"^parameters:\n"):
                parse(Params, sections)


# -------------------------------------------------------------------------------- files


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(FileNotFoundError, match=r"params\.yaml: no such parameter file"):
        load(path)
    for text, problem in (
        ("a: [1\n", r"params\.yaml: line 2: not valid YAML"),
        ("- a\n", r"params\.yaml: got list, allowed: a mapping"),
        ("profile: mini\n", r"(?s)params\.yaml:\n.*  model: missing"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            load(path)


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert command.matpac("check", smoke.SMOKE_YAML) == 0
    bad = tmp_path / "params.yaml"
    bad.write_text("profile: Mini\n")
    assert command.matpac("check", bad) == 1
    assert "  profile: String should match pattern" in capsys.readouterr().err
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path / "nowhere"))
    assert command.matpac("check") == 1


def test_missing_audio_of_the_active_file_is_named_until_its_log_mels_are_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sections = smoke.sections()
    own = {"source": "folder", "audio": "$OWN/audio", "csv": "$OWN/own.csv"}
    sections["datasets"] |= {"own": own, "unused": own}
    sections["corpora"] = {"own": 1.0}
    params = project / "params.yaml"
    params.write_text(yaml.safe_dump(sections))
    monkeypatch.setenv("OWN", str(project / "own"))
    assert load().corpora == {"own": 1.0}  # loading asks for no file
    assert command.matpac("check") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{params}:",
        f"  datasets.own.audio: no folder {project}/own/audio",
        f"  datasets.own.csv: no file {project}/own/own.csv",
    ]
    index = project / "data" / sections["profile"] / "logmel" / "own" / "index.json"
    index.parent.mkdir(parents=True)
    index.touch()
    assert command.matpac("check") == 0
    index.unlink()
    (project / "own" / "audio").mkdir(parents=True)
    (project / "own" / "own.csv").touch()
    assert command.matpac("check") == 0


# -------------------------------------------------------------------------------- where things lie


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without any variable set; the working directory lies deep inside."""
    for name in ("MATPAC_ROOT", "MATPAC_DATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project/notebooks").mkdir(parents=True)
    (tmp_path / "project/dvc.yaml").touch()
    monkeypatch.chdir(tmp_path / "project/notebooks")
    return tmp_path / "project"


def common(storage: str | None = None) -> Common:
    return Common(profile="mini", storage=storage)


def test_root(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.root() == project
    monkeypatch.setenv("MATPAC_ROOT", str(tmp_path / "else" / ".." / "other"))
    assert paths.root() == tmp_path / "other"
    monkeypatch.delenv("MATPAC_ROOT")
    (project / "dvc.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"no dvc\.yaml in .* set MATPAC_ROOT"):
        paths.root()


def test_small_and_bulk(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert paths.small(common("/bulk")) == project / "data/mini"
    for storage, expected in (
        (None, project / "data/mini"),
        ("big", project / "big/mini"),
        ("/bulk", Path("/bulk/mini")),
        ("~/bulk", tmp_path / "home/bulk/mini"),
        ("$SCRATCH/bulk", tmp_path / "scratch/bulk/mini"),
        ("${SCRATCH}", tmp_path / "scratch/mini"),
    ):
        assert paths.bulk(common(storage)) == expected
    for variable, expected in (("/fast", Path("/fast/mini")), ("~/x", tmp_path / "home/x/mini")):
        monkeypatch.setenv("MATPAC_DATA", variable)
        assert paths.bulk(common("/bulk")) == expected
    monkeypatch.setenv("MATPAC_DATA", "")
    assert paths.bulk(common("/bulk")) == Path("/bulk/mini")


def test_digest() -> None:
    assert fingerprints.digest({"a": 1, "b": [1.5, None]}) == fingerprints.digest(
        {"b": [1.5, None], "a": 1}
    )
    params = parse(ProbeParams, {n: smoke.sections()[n] for n in ProbeParams.model_fields})
    assert params.model.deciding() == params.model.model_dump()
    values = [1, 1.5, "1", [1], {"a": 1}, {"a": 2}, None]
    assert len({fingerprints.digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("form", ["{!r}", "{:.17e}", "{:.17E}", "{:.20f}"])
def test_numbers_as_dvc_exp_run_takes_them(form: str, tmp_path: Path) -> None:
    """`dvc exp run -S name=number`, which writes the file anew, in every spelling of a number."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    found = {
        ".".join(names): value
        for names, value in entries(yaml_file.read(path))
        if type(value) is float and type(names[-1]) is str
    }
    assert {"pretrain.learning_rate", "logmel.max_bad_fraction", "corpora.embedded"} <= set(found)
    rates = f"probe.learning_rate=[{form.format(1e-5)},{form.format(0.003)}]"
    changed = [f"{name}={form.format(value)}" for name, value in found.items()]
    hydra.apply_overrides(path, [each for each in changed if "probe.learning_rate" not in each])
    hydra.apply_overrides(path, [rates])
    wanted = load(ROOT / "params.yaml").model_dump()
    wanted["probe"]["learning_rate"] = [1e-5, 0.003]
    assert load(path).model_dump() == wanted


BITS = ["[", "{", ": ", "- ", "&a ", "*a", "<<: ", "!!set ", "~", "1:30", "1e400", "9" * 400, "? "]
BITS += ["no: ", "1: ", "'", '"', "#", "\t", "\0", "\ufeff", "|", "%YAML 1.1\n", "---\n", "- " * 50]


def test_no_mutant_of_a_file_ends_in_a_traceback(tmp_path: Path) -> None:
    """Cut, repeated, and with what means something in YAML put in: one error, or parameters."""
    text, random = (ROOT / "params.yaml").read_text(), Random(0)
    path, refused = tmp_path / "params.yaml", 0
    for _ in range(100):
        mutant = text
        for _ in range(random.randint(1, 3)):
            first, last = sorted(random.sample(range(len(mutant)), 2))
            last = min(last, first + 40)
            change = random.choice([*BITS, "", 3 * mutant[first:last]])
            mutant = mutant[:first] + change + mutant[random.choice([first, last]) :]
        path.write_text(mutant)
        try:
            load(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and len(str(error)) < 1e5
            refused += 1
    assert 50 < refused < 100

"""Parameters: valid ones load, overlays resolve, and one error names everything that is wrong."""

import copy
import shutil
from collections.abc import Iterator
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


def test_base_is_the_sections_themselves() -> None:
    params = parse(Params, smoke.sections())
    base = config.resolve(params, "base").deciding()
    assert base == {name: getattr(params, name).deciding() for name in base}
    assert list(base) == ["model", "objective", "pretrain"]


def test_an_overlay_changes_only_what_it_names() -> None:
    params = parse(Params, smoke.sections())
    base = config.resolve(params, "base").deciding()
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


def test_valid_parameters_pass_through() -> None:
    params = parse(Params, smoke.sections())
    assert parse(PretrainParams, params) is params


def test_parameters_are_frozen() -> None:
    params = parse(Params, smoke.sections())
    with pytest.raises(ValidationError, match="frozen"):
        params.model.mask_ratio = 0.5
    with pytest.raises(ValidationError, match="frozen"):
        params.profile = "other"


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
        "objective.alpha: Input should be less than or equal to 1, got 1.5",
        "pretrain.learning_rate: Input should be a valid number, got '1e-3', which is text",
        "pretrain.epochs: Input should be a valid number, got True",
        "pretrain.precision: Input should be 'float32', 'bfloat16' or 'float16', got 'half'",
        "logmel: mean and std are both numbers or both null",
        "probe.epochs: Input should be a valid integer, got 2.5",
        "tasks: got 'esc5', allowed: names of datasets (embedded, nsynth, fsd50k, esc50)",
        "'k8' is both in runs and in encoders",
        "surplus: unknown key",
    ):
        assert line in found
    assert "runs.Big-Run" in found and len(found.splitlines()) == 12


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("model", {"crop_frames": 100}, "model: crop_frames is not a multiple of patch_size"),
        (
            "model",
            {"encoder_width": 30, "encoder_heads": 4},
            "model: encoder_width 30 is not a multiple of encoder_heads 4; "
            "encoder_width 30 is not a multiple of 4 (2-D positions)",
        ),
        ("model", {"mask_ratio": 1.0}, "model.mask_ratio: Input should be less than 1, got 1.0"),
        ("model", {"num_prototypes": 0}, "model.num_prototypes: Input should be greater than 0"),
        ("pretrain", {"warmup_epochs": 5.0}, "pretrain: warmup_epochs is larger than epochs"),
        ("pretrain", {"betas": [0.9]}, "pretrain.betas: List should have at least 2 items"),
        ("pretrain", {"eps": float("nan")}, "pretrain.eps: Input should be"),
        ("pretrain", {"epochs": 0.0, "warmup_epochs": 0.0}, "pretrain.epochs: Input should be gre"),
        ("logmel", {"fmax_hz": 9000.0}, "logmel: fmin_hz < fmax_hz <= sample_rate / 2"),
        ("logmel", {"hop_ms": 10.01}, "logmel: hop_ms 10.01 is 160.16 samples at 16000 Hz, allow"),
        ("logmel", {"window_ms": 0.01}, "logmel: window_ms 0.01 is 0.16 samples at 16000 Hz, all"),
        (
            "objective",
            {"centering": "both"},
            "objective.centering: Input should be '",
        ),
    ],
)
def test_impossible_values(section: str, change: dict, line: str) -> None:
    sections = smoke.sections()
    sections[section] |= change
    found = problems_of(sections)
    assert len(found) == 1 and found[0].startswith(line)


@pytest.mark.parametrize(
    ("overlay", "lines"),
    [
        ({"objective": {"alfa": 0.5}}, ["runs.k8.objective.alfa: unknown key"]),
        ({"objctive": {}}, ["runs.k8.objctive: unknown key"]),
        ({"seeds": []}, ["runs.k8.seeds: List should have at least 1 item"]),
        ({"seeds": [1, 1]}, ["runs.k8: seeds: got [1, 1], allowed: each once"]),
        ({"model": {"crop_frames": 100}}, ["runs.k8.model: crop_frames is not a multiple"]),
        (
            {"model": {"encoder_heads": 5}, "pretrain": {"seed": -1, "eps": "1e-6"}},
            [
                "runs.k8.model: encoder_width 32 is not a multiple of encoder_heads 5",
                "runs.k8.pretrain.eps: Input should be a valid number, got '1e-6', which",
                "runs.k8.pretrain.seed: Input should be greater than or equal to 0",
            ],
        ),
    ],
)
def test_overlays_are_checked_before_anything_runs(overlay: dict, lines: list[str]) -> None:
    sections = smoke.sections()
    sections["runs"]["k8"] = overlay
    found = sorted(problems_of(sections))
    assert len(found) == len(lines)
    assert all(ours.startswith(line) for ours, line in zip(found, lines, strict=True))


def test_a_bad_base_is_told_once_and_not_for_every_run() -> None:
    sections = smoke.sections()
    sections["objective"]["alpha"] = -1.0
    assert problems_of(sections) == [
        "objective.alpha: Input should be greater than or equal to 0, got -1.0"
    ]


def test_names() -> None:
    sections = smoke.sections()
    sections["runs"]["first"] = sections["runs"].pop("base")
    sections["corpora"] = {"audioset": 1.0}
    sections["tasks"] = ["nsynth", "nsynth"]
    sections["datasets"]["own"] = {"source": "folder", "audio": "a", "csv": "b"}
    allowed = "allowed: names of datasets (embedded, nsynth, fsd50k, esc50, own)"
    assert problems_of(sections) == [
        f"corpora: got 'audioset', {allowed}",
        "tasks: 'nsynth' is named twice",
        "runs: no 'base', the reference of every comparison",
    ]
    sections = smoke.sections()
    sections["datasets"]["own"] = {"source": "folder", "audio": "a", "csv": "b"}
    sections["tasks"] = ["own"]
    reason = "tasks: got 'own', which has no labels: its key kind is not given"
    assert problems_of(sections) == [reason]


def test_names_start_with_a_letter_and_are_no_numbers() -> None:
    sections = smoke.sections()
    sections["runs"] |= {"2048": {}, "nan": {}}
    pattern, number = problems_of(sections)
    assert pattern.startswith("runs.2048") and "String should match pattern" in pattern
    assert number.startswith("'nan' in runs or encoders")


def test_embedded_datasets() -> None:
    sections = smoke.sections()
    sections["datasets"]["tasks"] = {
        "source": "embedded", "recipe": "pretraning", "num_clips": 1, "seed": 0
    }  # fmt: skip
    sections["datasets"]["nsynth"]["num_clips"] = 109
    sections["tasks"] += ["embedded"]
    assert sorted(problems_of(sections)) == [
        "datasets.nsynth.embedded: num_clips: got 109, allowed for nsynth: 110 or more",
        f"datasets.tasks.embedded: recipe: got 'pretraning', allowed: {', '.join(OWN_RECIPES)}",
        "datasets: got 'tasks', which is no name for a data set",
        "tasks: got 'embedded', which has no labels: the recipe pretraining has none",
    ]
    recipes = {recipe.name: (recipe.kind, recipe.smallest) for recipe in RECIPES.values()}
    assert recipes == OWN_RECIPES


def test_folder_datasets() -> None:
    sections = smoke.sections()
    own = {"source": "folder", "audio": "a", "csv": "b", "kind": "multiclass"}
    sections["datasets"]["own"] = own
    assert "kind is given, so labels (a column name) is needed" in problems_of(sections)[0]
    own["labels"] = "class"
    assert "needs either fold or split" in problems_of(sections)[0]
    own["fold"] = own["split"] = "part"
    own["labels"] = ["owl", "crow"]
    multiclass, both = problems_of(sections)
    assert multiclass.startswith("datasets.own") and multiclass.endswith(
        "kind multiclass with labels ['owl', 'crow'] and separator None, "
        "allowed: one column, no separator"
    )
    assert both.endswith("both fold and split are given, allowed: one of them")
    own["labels"] = "class"
    del own["split"]
    assert parse(Params, sections).datasets["own"].fold == "part"
    own["source"] = "web"
    assert problems_of(sections)[0].startswith("datasets.own: ")


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all entries below a value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in entries:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places(below, (*path, key))


def test_no_mistyped_entry_passes_or_crashes() -> None:
    """Any entry replaced by something of a wrong type gives the error that lists problems."""
    valid = smoke.sections()
    for path in places(valid):
        for wrong in ([[1]], {"a": [None]}, object()):
            sections = copy.deepcopy(valid)
            owner: Any = sections
            for key in path[:-1]:
                owner = owner[key]
            owner[path[-1]] = wrong
            with pytest.raises(ValueError, match=r"^parameters:\n"):
                parse(Params, sections)


# -------------------------------------------------------------------------------- files


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(FileNotFoundError, match=r"params\.yaml: no such parameter file"):
        load(path)
    path.write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"params\.yaml: line 2: not valid YAML"):
        load(path)
    path.write_text("- a\n")
    with pytest.raises(ValueError, match=r"params\.yaml: got list, allowed: a mapping"):
        load(path)
    path.write_text("profile: mini\n")
    with pytest.raises(ValueError, match=r"(?s)params\.yaml:\n.*  model: missing"):
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


def test_expand(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert paths.expand("data/x") == project / "data/x"
    assert paths.expand("$SCRATCH/x") == Path("/scratch/me/x")
    assert paths.expand("~/x") == Path("~/x").expanduser()


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


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    """YAML itself would let the second run of a name replace the first in silence."""
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  k512:", "  k32:"))
    with pytest.raises(ValueError, match=r"line \d+: the key 'k32' a second time"):
        load(tmp_path / "params.yaml")


def test_sizes_that_do_not_fit_are_found_in_the_base_and_in_runs() -> None:
    sections = smoke.sections()
    sections["model"]["patch_size"] = 12
    sections["runs"]["k8"] = {"model": {"mask_ratio": 0.99, "num_prototypes": 8}}
    lines = problems_of(sections)
    assert "model.patch_size: got 12, allowed: divisors of num_mels 80" in lines
    left = "which leaves 0 of 48 patches visible; allowed: at least one visible and one masked"
    assert f"runs.k8.model.mask_ratio: got 0.99, {left}" in lines
    assert not [line for line in lines if line.startswith("runs.base")]


@pytest.mark.parametrize(
    ("encoder", "problem"),
    [
        ({"kind": "passt", "module": "a:b"}, "module: got 'a:b', needed for the kinds module"),
        ({"kind": "module"}, "module: got None, needed for the kinds module and hear"),
        ({"kind": "module", "module": "mine"}, "got 'mine', allowed: package.module:function"),
        ({"kind": "hear", "module": "a:b"}, "module: got 'a:b', allowed: package.module"),
        ({"kind": "random", "weights": "w.pt"}, "weights: got 'w.pt', and the kind random has"),
        ({"kind": "pretrained"}, "weights: missing, a folder or a name on the Hugging Face Hub"),
        ({"kind": "m2d", "reported": "M2E"}, "encoders.x.reported: got 'M2E', allowed: 'MATPAC, "),
        ({"kind": "vggish"}, "encoders.x.kind: Input should be 'random', 'logmel_statistics'"),
    ],
)
def test_encoders_that_cannot_be(encoder: dict, problem: str) -> None:
    sections = smoke.sections()
    sections["encoders"]["x"] = {"label": "X", **encoder}
    assert problem in "\n".join(problems_of(sections))


def numbers(value: Any, path: tuple = ()) -> Iterator[tuple[str, float]]:
    """Every floating-point number in mappings of mappings, by its dotted name."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from numbers(below, (*path, key))
    elif isinstance(value, float):
        yield ".".join(path), value


@pytest.mark.parametrize("form", ["{!r}", "{:.17e}", "{:.17E}", "{:.20f}"])
def test_numbers_as_dvc_exp_run_takes_them(form: str, tmp_path: Path) -> None:
    """`dvc exp run -S name=number`, which writes the file anew, in every spelling of a number."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    found = dict(numbers(yaml_file.read(path)))
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

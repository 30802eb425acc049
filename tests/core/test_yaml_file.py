"""The YAML reader: numbers as DVC writes them, and nothing that surprises."""

from pathlib import Path

import pytest

from matpac.core import yaml_file

import command

HOSTILE = Path(__file__).parents[3] / "shared" / "cases" / "hostile" / "params"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-05", 1e-5),
        ("1e-5", 1e-5),
        ("-2.5E3", -2500.0),
        (".5", 0.5),
        ("40", 40),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        # YAML 1.1 reads these as 90, 32, False, NaN, 255, 1000 and a date.
        *((text, text) for text in ("1:30", "040", "no", ".nan", "0xff", "1_000", "2026-01-01")),
        ("0.1.2", "0.1.2"),
    ],
)
def test_values(text: str, value: object) -> None:
    found = yaml_file.parse(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


def test_merges_and_aliases() -> None:
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nsame: *b\n"
    expected = {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}
    assert yaml_file.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' a second time"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("a: !own 1", "line 1: the tag '!own'"),
        ("1: a", "line 1: a key that is no text: 1"),
        ("[a]: b", "line 1: a key that is no text: a list or mapping"),
        ("a: &x [*x]", "line 1: the alias 'x' of what it stands in"),
        ("[" * 100 + "]" * 100, "more than 20 lists or mappings in each other"),
        ("[" * 5000, "in each other"),
        ("a: 1" + "0" * 400, "a number of 401 digits"),
        ("a: 1e999", "the number 1e999, which is too large"),
        ("a: [1", "line 1: not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
            "more than 10,000 keys and values, aliases written out",
        ),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        yaml_file.parse(text)
    assert reason in str(error.value)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("\ufeffname: Grün\n".encode())
    assert yaml_file.read(path) == {"name": "Grün"}
    path.write_bytes("name: Grün\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"params\.yaml: not UTF-8"):
        yaml_file.read(path)
    path.write_bytes(b"#" * 2**17)
    with pytest.raises(ValueError, match=r"params\.yaml: 131,072 bytes, allowed: 65,536"):
        yaml_file.read(path)


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the recorded cases are not there")
def test_recorded_hostile_files_are_one_error_each(capsys: pytest.CaptureFixture) -> None:
    paths = sorted(HOSTILE.glob("*.yaml"))
    assert paths
    for path in paths:
        assert command.matpac("check", path) == 1, path
        said = capsys.readouterr().err
        assert "Traceback" not in said and len(said) < 20_000, path

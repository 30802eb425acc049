"""The table of sources agrees with itself, with Table I, and with the facts that were gathered."""

import re
from itertools import chain
from pathlib import Path

import pytest

from matpac.data.catalogue import SOURCES, File
from matpac.reporting import paper

FACTS = Path(__file__).parents[3] / "shared" / "datasets.md"
FILES = [file for source in SOURCES.values() for each in source.archives for file in each.files]


def checksums(file: File) -> list[str]:
    return [*file.checksums, *file.doubtful]


def test_every_data_set_of_table_1_has_a_source() -> None:
    assert set(SOURCES) == set(paper.TABLE1)
    full = {"MTT": "MagnaTagATune", "US8K": "UrbanSound8K"}  # the paper abbreviates two
    for name, dataset in paper.TABLE1.items():
        title = full.get(dataset["name"], dataset["name"])
        assert SOURCES[name].title.startswith(title)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_well_formed(file: File) -> None:
    assert file.size > 0 and (file.num_bytes is None or file.about_bytes is None)
    for checksum in checksums(file):
        assert re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)
    for url in file.urls:
        assert re.match("https?://[^/]+[.][a-z]+/", url)
        # GitHub names the file after the repository.
        assert url.removesuffix("?download=1").endswith(file.name.removeprefix("ESC-50-"))


def test_nothing_stands_there_twice_and_parts_are_in_order() -> None:
    names = [file.name for file in FILES]
    values = list(chain.from_iterable(map(checksums, FILES)))
    assert len(set(names)) == len(names) and len(set(values)) == len(values)
    for archive in chain.from_iterable(source.archives for source in SOURCES.values()):
        parts = [file.name for file in archive.files]
        assert parts == sorted(parts), "1, 2 and so on; of a split zip .zip is the last"


GIGABYTES = {  # as published, and as an estimate from lengths and formats
    "openmic": (2.62, 3.0),
    "nsynth": (25.23, 305_979 * 128_044 / 1e9),
    "gtzan": (1.23, 1_000 * 30 * 22_050 * 2 / 1e9),
    "mtt": (3.0, 3.0),
    "fsd50k": (24.68, 108.3 * 3600 * 44_100 * 2 / 1e9),
    "esc50": (0.6, 2_000 * 5 * 44_100 * 2 / 1e9),
    "us8k": (6.02, 7.0),
}


def test_sizes_add_up() -> None:
    for name, (packed, unpacked) in GIGABYTES.items():
        archives = SOURCES[name].archives
        assert round(sum(each.size for each in archives) / 1e9, 2) == packed
        assert sum(each.unpacked_bytes for each in archives) / 1e9 == pytest.approx(unpacked, 0.03)


@pytest.mark.skipif(not FACTS.exists(), reason="the gathered facts are not beside the project")
def test_every_number_is_one_of_the_gathered_facts() -> None:
    text = FACTS.read_text()
    for file in FILES:
        assert all(checksum.split(":")[1] in text for checksum in checksums(file)), file.name
        assert file.num_bytes is None or f"{file.num_bytes:,} " in text, file.name
    tables = text[text.index("## 3.") : text.index("## 10.")]
    known = {c.split(":")[1] for c in chain.from_iterable(map(checksums, FILES))}
    joined = {c.split(":")[1] for a in SOURCES["mtt"].archives for c in a.doubtful}
    elsewhere = {
        # Of tables inside the archives of OpenMIC and GTZAN, and of an older GTZAN.
        "a6852c930ee3a282ae9e55114ca17533",
        "15b0ce5ab96b0654e3c35d546acc55eb",
        "fe37942310e589be16b04b6d631790de",
    }
    assert set(re.findall(r"`([0-9a-f]{32})`", tables)) == {
        value for value in known | joined | elsewhere if len(value) == 32
    }

"""Where the data sets come from: addresses, checksums, sizes, licences, as a table.

Nothing here opens a file or an address; `matpac.data.download` does. A checksum is *doubtful* when only
one third party gives it, or when the host builds the archive on request: a file with another one is
reported, not refused. ``None`` stands for what is not known.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "tar", "zip", "sliced zip", "split zip"]
"""How files become data: as they are, unpacked, joined byte by byte first, or a multi-part zip."""


@dataclass(frozen=True)
class File:
    """One file to download."""

    name: str
    urls: tuple[str, ...]
    """Tried in order."""
    num_bytes: int | None = None
    """Exactly; a server that announces another number is not asked further."""
    about_bytes: int | None = None
    """Roughly, where the exact number is unknown or doubtful."""
    checksums: tuple[str, ...] = ()
    """``algorithm:hexadecimal``; all of them have to be right."""
    doubtful: tuple[str, ...] = ()
    """Other values are only reported."""

    @property
    def size(self) -> int:
        """Bytes to reckon with."""
        return self.num_bytes or self.about_bytes or 0


@dataclass(frozen=True)
class Archive:
    """What is unpacked at once: one file or several parts, in order."""

    name: str
    kind: Kind
    files: tuple[File, ...]
    unpacked_bytes: int
    """Estimate; much more is taken for a hostile archive."""
    doubtful: tuple[str, ...] = ()
    """Checksums of the joined parts."""

    @property
    def size(self) -> int:
        """Packed bytes to reckon with."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Source:
    """A data set."""

    title: str
    page: str
    licence: str
    citation: str
    archives: tuple[Archive, ...]
    by_hand: str
    """What the user can do where no address answers."""


def _zenodo(record: int, name: str) -> str:
    return f"https://zenodo.org/record/{record}/files/{name}?download=1"


def _single(kind: Kind, file: File, unpacked_bytes: int) -> Archive:
    """An archive that is one file."""
    return Archive(file.name, kind, (file,), unpacked_bytes)


def _nsynth(split: str, num_bytes: int, notes: int, md5: str, sha256: str) -> Archive:
    name = f"nsynth-{split}.jsonwav.tar.gz"
    host = "download.magenta.tensorflow.org/datasets/nsynth"  # its own https fails
    urls = (f"https://storage.googleapis.com/{host}/{name}", f"http://{host}/{name}")
    file = File(name, urls, num_bytes, None, (f"md5:{md5}",), (f"sha256:{sha256}",))
    # 4 s of 16 kHz, 16 bit, and a header; the JSON has room in the margin of the estimate.
    return _single("tar", file, notes * 128_044)


def _mtt(name: str, about_bytes: int, md5: str) -> File:
    hosts = ("https://mirg.city.ac.uk", "http://mi.soi.city.ac.uk")
    urls = tuple(f"{host}/datasets/magnatagatune/{name}" for host in hosts)
    return File(name, urls, None, about_bytes, (f"md5:{md5}",))


def _fsd50k(name: str, num_bytes: int, md5: str) -> File:
    return File(name, (_zenodo(4060432, name),), num_bytes, None, (f"md5:{md5}",))


def _fsd50k_audio(part: str, unpacked_bytes: int, last_bytes: int, *md5s: str) -> Archive:
    stem, last = f"FSD50K.{part}_audio", len(md5s) - 1
    names = [f"{stem}.z{i + 1:02}" for i in range(last)] + [f"{stem}.zip"]
    sizes = [3_221_225_472] * last + [last_bytes]
    parts = tuple(_fsd50k(*each) for each in zip(names, sizes, md5s, strict=True))
    return Archive(f"{stem}.zip", "split zip", parts, unpacked_bytes)


SOURCES: dict[str, Source] = {
    "openmic": Source(
        title="OpenMIC-2018",
        page="https://zenodo.org/record/1432913",
        licence="CC BY 4.0; each track has a Creative Commons licence of its own, mostly "
        "NonCommercial",
        citation="E. Humphrey, S. Durand and B. McFee, OpenMIC-2018: an open data-set for multiple "
        "instrument recognition, ISMIR 2018",
        archives=(
            _single(
                "tar",
                File(
                    "openmic-2018-v1.0.0.tgz",
                    (_zenodo(1432913, "openmic-2018-v1.0.0.tgz"),),
                    about_bytes=2_623_376_754,  # of one source only
                    checksums=("md5:e4ccf187e2bb5ab2e115416e8aafe7f4",),
                ),
                unpacked_bytes=3_000_000_000,
            ),
        ),
        by_hand="Download openmic-2018-v1.0.0.tgz from the data set's page.",
    ),
    "nsynth": Source(
        title="NSynth",
        page="https://magenta.tensorflow.org/datasets/nsynth",
        licence="CC BY 4.0",
        citation="J. Engel et al., Neural audio synthesis of musical notes with WaveNet "
        "autoencoders, ICML 2017",
        archives=(
            _nsynth(
                "train",
                23_815_298_079,
                289_205,
                "fde6665a93865503ba598b9fac388660",
                "15c5100fc40c3a262f9b42707c15ffed30b8fec58c0d9b88d4136f6cb1fddefe",
            ),
            _nsynth(
                "valid",
                1_068_767_009,
                12_678,
                "87e94a00a19b6dbc99cf6d4c0c0cae87",
                "00dea2645fbe0069258567da30807a90825e0bab54c077d6481f253096c4e2a0",
            ),
            _nsynth(
                "test",
                349_501_546,
                4_096,
                "5e6f8719bf7e16ad0a00d518b78af77d",
                "0f9ba5d62beba9ec4612f918d19f5e87a681822f1c566124f05fe8b27a51934c",
            ),
        ),
        by_hand="Download the three json/wav archives from the data set's page.",
    ),
    "gtzan": Source(
        title="GTZAN",
        page="http://marsyas.info/downloads/datasets.html",
        licence="none stated",
        citation="G. Tzanetakis and P. Cook, Musical genre classification of audio signals, IEEE "
        "Trans. Speech Audio Process. 10(5), 2002; faults: B. L. Sturm, arXiv:1306.1461",
        archives=(
            _single(
                "tar",
                File(
                    "genres.tar.gz",
                    (
                        "https://huggingface.co/datasets/marsyas/gtzan/resolve/main/data/"
                        "genres.tar.gz",
                        "https://web.archive.org/web/20220328223413id_/"
                        "http://opihi.cs.uvic.ca/sound/genres.tar.gz",
                        "http://opihi.cs.uvic.ca/sound/genres.tar.gz",  # dead since 2022
                    ),
                    about_bytes=1_230_000_000,
                    # Nobody has compared the two, or a mirror's copy, with one file.
                    doubtful=(
                        "md5:5b3d6dddb579ab49814ab86dba69e7c7",
                        "sha256:24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6",
                    ),
                ),
                unpacked_bytes=1_330_000_000,  # 1,000 x 30 s of 22.05 kHz, 16 bit
            ),
        ),
        by_hand="The original host died in 2022. Copies: the file data/genres.tar.gz of "
        "huggingface.co/datasets/marsyas/gtzan; the snapshot of 28 March 2022 of "
        "http://opihi.cs.uvic.ca/sound/genres.tar.gz at web.archive.org; or, on Kaggle, "
        "carlthome/gtzan-genre-collection and "
        "andradaolteanu/gtzan-dataset-music-genre-classification (folder Data/genres_original; "
        "its jazz.00054 cannot be read). From Kaggle, unpack: the folder wanted is the one that "
        "holds genres/<genre>/<genre>.<5 digits>.wav.",
    ),
    "mtt": Source(
        title="MagnaTagATune",
        page="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
        licence="CC BY-NC-SA 3.0",
        citation="E. Law, K. West, M. Mandel, M. Bay and J. S. Downie, Evaluation of algorithms "
        "using games: the case of music tagging, ISMIR 2009",
        archives=(
            Archive(
                "mp3.zip",
                "sliced zip",
                (
                    _mtt("mp3.zip.001", 1_000_000_000, "179c91c8c2a6e9b3da3d4e69d306fd3b"),
                    _mtt("mp3.zip.002", 1_000_000_000, "acf8265ff2e35c6ff22210e46457a824"),
                    _mtt("mp3.zip.003", 970_000_000, "582dc649cabb8cd991f09e14b99349a5"),
                ),
                unpacked_bytes=3_000_000_000,
                doubtful=("md5:f12add0eb4cd6c2a3ab7e4afaf7b7467",),
            ),
            _single(
                "file",
                _mtt("annotations_final.csv", 21_500_000, "f04fa01752a8cc64f6e1ca142a0fef1d"),
                unpacked_bytes=21_500_000,
            ),
            _single(
                "file",
                _mtt("clip_info_final.csv", 8_600_000, "03ef3cb8ddcfe53fdcdb8e0cda005be2"),
                unpacked_bytes=8_600_000,
            ),
        ),
        by_hand="Download mp3.zip.001 to .003, annotations_final.csv and clip_info_final.csv from "
        "the data set's page.",
    ),
    "fsd50k": Source(
        title="FSD50K",
        page="https://zenodo.org/record/4060432",
        licence="CC BY 4.0; each clip is CC0, CC BY, CC BY-NC or CC Sampling+",
        citation="E. Fonseca, X. Favory, J. Pons, F. Font and X. Serra, FSD50K: an open dataset of "
        "human-labeled sound events, IEEE/ACM TASLP 30, 2022",
        archives=(
            # Together 108.3 h of 44.1 kHz, 16 bit: 34.4 GB.
            _fsd50k_audio(
                "dev",
                26_000_000_000,
                2_306_663_327,
                "faa7cf4cc076fc34a44a479a5ed862a3",
                "8f9b66153e68571164fb1315d00bc7bc",
                "1196ef47d267a993d30fa98af54b7159",
                "d088ac4e11ba53daf9f7574c11cccac9",
                "81356521aa159accd3c35de22da28c7f",
                "c480d119b8f7a7e32fdb58f3ea4d6c5a",
            ),
            _fsd50k_audio(
                "eval",
                9_000_000_000,
                3_037_675_767,
                "3090670eaeecc013ca1ff84fe4442aeb",
                "6fa47636c3a3ad5c7dfeba99f2637982",
            ),
            _single(
                "zip",
                _fsd50k("FSD50K.ground_truth.zip", 334_701, "ca27382c195e37d2269c4c866dd73485"),
                unpacked_bytes=10_000_000,
            ),
            _single(
                "zip",
                _fsd50k("FSD50K.metadata.zip", 6_700_838, "b9ea0c829a411c1d42adb9da539ed237"),
                unpacked_bytes=100_000_000,
            ),
            _single(
                "zip",
                _fsd50k("FSD50K.doc.zip", 6_984, "3516162b82dc2945d3e7feba0904e800"),
                unpacked_bytes=1_000_000,
            ),
        ),
        by_hand="Download every file of the data set's page.",
    ),
    "esc50": Source(
        title="ESC-50",
        page="https://github.com/karolpiczak/ESC-50",
        licence="CC BY-NC 3.0; the ESC-10 part CC BY",
        citation="K. J. Piczak, ESC: dataset for environmental sound classification, ACM "
        "Multimedia 2015",
        archives=(
            _single(
                "zip",
                File(
                    "ESC-50-master.zip",
                    (
                        "https://github.com/karoldvl/ESC-50/archive/master.zip",
                        "https://github.com/karolpiczak/ESC-50/archive/master.zip",
                    ),
                    about_bytes=600_000_000,
                    doubtful=("md5:7771e4b9d86d0945acce719c7a59305a",),  # built on request
                ),
                unpacked_bytes=900_000_000,  # 2,000 x 5 s of 44.1 kHz, 16 bit
            ),
        ),
        by_hand="Download the data set's page as a zip (Code, Download ZIP).",
    ),
    "us8k": Source(
        title="UrbanSound8K",
        page="https://urbansounddataset.weebly.com/urbansound8k.html",
        licence="CC BY-NC (3.0 in its own notes); the authors ask you to fill in the form on the "
        "data set's page",
        citation="J. Salamon, C. Jacoby and J. P. Bello, A dataset and taxonomy for urban sound "
        "research, ACM Multimedia 2014",
        archives=(
            _single(
                "tar",
                File(
                    "UrbanSound8K.tar.gz",
                    (_zenodo(1203745, "UrbanSound8K.tar.gz"),),
                    num_bytes=6_023_741_708,
                    checksums=("md5:9aa69802bbf37fb986f71ec1483a196e",),
                ),
                unpacked_bytes=7_000_000_000,
            ),
        ),
        by_hand="Fill in the form on the data set's page and download UrbanSound8K.tar.gz.",
    ),
}


def source(name: str) -> Source:
    """The entry of a data set. Raises: ValueError naming the known ones."""
    if name not in SOURCES:
        raise ValueError(f"data set: got {name!r}, allowed: {', '.join(SOURCES)}")
    return SOURCES[name]

"""The published rows of Table II: where their weights are, and what makes an encoder of them.

Nothing here opens a file or imports a package. An address is given where the project itself, or
several that use it, write it; ``None`` and ``()`` stand for what is not known. A checksum is
*doubtful* where only others than the publisher state it.
"""

from dataclasses import dataclass, field
from typing import Any

from matpac.data.catalogue import Archive, File, Source

MATPAC_PAGE = "https://github.com/aurianworld/matpac"
MATPAC_RELEASES = f"{MATPAC_PAGE}/releases/download"
M2D_PAGE = "https://github.com/nttcslab/m2d"
BEATS_PAGE = "https://github.com/microsoft/unilm/tree/master/beats"
ATST_PAGE = "https://github.com/Audio-WestlakeU/audiossl"
HUB = "https://huggingface.co"
NO_LICENCE = "none stated"


@dataclass(frozen=True)
class Row:
    """A published encoder."""

    module: str
    """Of `matpac.encoders`; its ``make`` gives the encoder."""
    source: Source
    """Its first archive's first file holds the weights."""
    width: int
    options: dict[str, Any] = field(default_factory=dict)
    """Of ``make``."""
    extra: str = ""
    """Of this package, to be installed; "": none."""
    member: str = ""
    """Of a zip archive, the file with the weights."""
    reported: str | None = None
    """Name of its row in `matpac.reporting.paper.TABLE2`, where that is certain."""

    @property
    def file(self) -> File:
        """What is downloaded."""
        return self.source.archives[0].files[0]

    @property
    def page(self) -> str:
        """Where the weights are to be had."""
        return self.source.page


def _source(title: str, page: str, licence: str, citation: str, file: File) -> Source:
    by_hand = f"Download {file.name} from the page of {title}."
    kind = "zip" if file.name.endswith(".zip") else "file"
    archive = Archive(file.name, kind, (file,), unpacked_bytes=2_000_000_000)
    return Source(title, page, licence, citation, (archive,), by_hand)


def _matpac(title: str, citation: str, file: File) -> Source:
    # Earlier versions of the project stated none.
    return _source(title, f"{MATPAC_PAGE}/releases", "Apache 2.0", citation, file)


def _atst(title: str, method: str, file: File) -> Source:
    page = f"{ATST_PAGE}/tree/main/audiossl/methods/{method}"
    return _source(title, page, "MIT, the checkpoints too", ATST_CITATION, file)


def _beats(title: str, file: File) -> Source:
    citation = "S. Chen et al., BEATs: audio pre-training with acoustic tokenizers, ICML 2023"
    return _source(title, BEATS_PAGE, "MIT", citation, file)


MATPAC_CITATION = (
    "A. Quelennec, P. Chouteau, G. Peeters and S. Essid, Masked latent prediction and "
    "classification for self-supervised audio representation learning, ICASSP 2025"
)
MATPAC_PLUS_CITATION = (
    "A. Quelennec, P. Chouteau, G. Peeters and S. Essid, MATPAC++: enhanced masked latent "
    "prediction for self-supervised audio representation learning, arXiv:2508.12709, 2025"
)
ATST_CITATION = (
    "X. Li, N. Shao and X. Li, Self-supervised audio teacher-student transformer for both "
    "clip-level and frame-level tasks, IEEE/ACM TASLP 32, 2024"
)
PASST_PAGE = "https://github.com/kkoutini/PaSST"
PASST_NAME = "passt-s-f128-p16-s10-ap.476-swa.pt"
MAE_AST_NAME = "chunk_patch_75_12LayerEncoder.pt"
M2D_NAME = "m2d_vit_base-80x608p16x16-221006-mr7_enconly"

ROWS: dict[str, Row] = {
    "matpac": Row(
        "vit",
        _matpac(
            "MATPAC",
            MATPAC_CITATION,
            File("matpac_10_2048.pt", (f"{MATPAC_RELEASES}/Initial_release/matpac_10_2048.pt",)),
        ),
        width=3840,
        # Not certain which of the two rows the paper reports, whose ramp lengths were lost: the
        # first, if Table III, where that row's 74.9 stands, has the released configuration's ramp.
    ),
    "matpac_plus": Row(
        "vit",
        _matpac(
            "MATPAC++",
            MATPAC_PLUS_CITATION,
            File(
                "matpac_plus_6s_2048_enconly.pt",
                (f"{MATPAC_RELEASES}/MATPAC%2B%2B/matpac_plus_6s_2048_enconly.pt",),
            ),
        ),
        width=3840,
    ),
    "matpac_plus_as": Row(
        "vit",
        _matpac(
            "MATPAC++, fine-tuned on AudioSet",
            MATPAC_PLUS_CITATION,
            File(
                "matpac_plus_as_48_1_map_enconly.pt",
                (),
                doubtful=(
                    "sha256:e8cec6847b2d918c8f77f82d79d90adf7dd82f99e80fa12eb3444f87f24bb998",
                ),
            ),
        ),
        width=3840,
        options={"crop_frames": 992},
    ),
    "m2d": Row(
        "vit",
        _source(
            "M2D",
            M2D_PAGE,
            "NTT's own, for evaluation",
            "D. Niizumi, D. Takeuchi, Y. Ohishi, N. Harada and K. Kashino, Masked modeling duo: "
            "learning representations by encouraging both networks to model the input, ICASSP 2023",
            File(f"{M2D_NAME}.zip", (f"{M2D_PAGE}/releases/download/v0.1.0/{M2D_NAME}.zip",)),
        ),
        width=3840,
        options={"release": "m2d"},
        member=f"{M2D_NAME}/checkpoint-300.pth",
        reported="M2D",
    ),
    "atst_clip": Row(
        "atst",
        _atst(
            "ATST-Clip",
            "atst",
            File(
                "base.ckpt",
                ("https://checkpointstorage.oss-cn-beijing.aliyuncs.com/atst/base.ckpt",),
                about_bytes=1_459_530_207,
                doubtful=(
                    "sha256:7b20168cae0d1488a0e3334f17ca1cefb9365cbaa2401c11aa98d6ffaa668496",
                ),
            ),
        ),
        width=1536,
        options={"model": "clip"},
        reported="ATST-Clip",
    ),
    "atst_frame": Row(
        "atst",
        # On Google Drive, which needs a browser.
        _atst("ATST-Frame", "atstframe", File("atstframe_base.ckpt", ())),
        width=9216,
        options={"model": "frame"},
        reported="ATST-Frame",
    ),
    "beats_iter3": Row(
        "beats",
        _beats("BEATs iter3", File("BEATs_iter3.pt", ())),
        width=768,
        extra="beats",
        reported="BEATs iter3",
    ),
    "beats_iter3_plus": Row(
        "beats",
        _beats(
            "BEATs iter3+ (AS2M)",
            File(
                "BEATs_iter3_plus_AS2M.pt",
                (
                    f"{HUB}/magcil/deepaudiox-backbones/resolve/main/BEATs_iter3_plus_AS2M.pt",
                    f"{HUB}/datasets/Bencr/beats-checkpoints/resolve/main/BEATs_iter3_plus_AS2M.pt",
                ),
                about_bytes=361_499_833,
                doubtful=(
                    "sha256:d43cbfad4d7b56381c061d7a24774f908d4d94c72961f6eb1d9090ff18cd8d34",
                ),
            ),
        ),
        width=768,
        extra="beats",
        reported="BEATs iter3+",
    ),
    "mae_ast": Row(
        "mae_ast",
        _source(
            "MAE-AST",
            "https://github.com/AlanBaade/MAE-AST-Public",
            NO_LICENCE,
            "A. Baade, P. Peng and D. Harwath, MAE-AST: masked autoencoding audio spectrogram "
            "transformer, Interspeech 2022",
            File(
                MAE_AST_NAME,
                (
                    f"https://saltlab.cs.utexas.edu/downloads/model_checkpoints/mae_ast/{MAE_AST_NAME}",
                    f"https://www.cs.utexas.edu/~harwath/model_checkpoints/mae_ast/{MAE_AST_NAME}",
                ),
            ),
        ),
        width=6144,
        extra="mae-ast",
        reported="MAE-AST",
    ),
    "passt": Row(
        "passt",
        _source(
            "PaSST",
            f"{PASST_PAGE}/releases",
            "Apache 2.0",
            "K. Koutini, J. Schlüter, H. Eghbal-zadeh and G. Widmer, Efficient training of audio "
            "transformers with patchout, Interspeech 2022",
            File(
                PASST_NAME,
                (f"{PASST_PAGE}/releases/download/v0.0.1-audioset/{PASST_NAME}",),
                doubtful=(
                    "sha256:302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
                ),
            ),
        ),
        width=768,
        extra="passt",
        reported="PaSST",
    ),
    "htsat": Row(
        "htsat",
        _source(
            "HTS-AT",
            "https://github.com/RetroCirce/HTS-Audio-Transformer",
            "MIT",
            "K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick and S. Dubnov, HTS-AT: a "
            "hierarchical token-semantic audio transformer for sound classification and "
            "detection, ICASSP 2022",
            File(
                "HTSAT_AudioSet_Saved_1.ckpt",
                (),  # on Google Drive, which needs a browser
                doubtful=(
                    "sha256:49804bf7767809be5d5bfe9dc25f401442e0d24f242dded6b6dabea56bb645b0",
                ),
            ),
        ),
        width=768,
        extra="htsat",
        reported="HTS-AT",
    ),
}

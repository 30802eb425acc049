"""Encoders for everyone: `load` one, from a folder, the Hugging Face Hub, or by a published name.

    encoder = matpac.load("data/mini/pretrain/base/seed_0")
    encoder.embed("recording.wav")

An encoder of ours is a folder with ``model.safetensors`` and ``config.json``, as the ``pretrain``
stage writes it and as `huggingface_hub.ModelHubMixin` has it, so that
`Pretrained.from_pretrained`, ``save_pretrained`` and ``push_to_hub`` work as for other models.
"""

import os
import re
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from matpac.core import files
from matpac.encoders import heads, vit
from matpac.encoders import weights as published
from matpac.encoders.frozen import CONFIG, WEIGHTS, load_encoder, save_encoder
from matpac.encoders.interface import PRECISIONS, Precision, WaveEncoder
from matpac.encoders.published import ROWS
from matpac.encoders.vit import ViTEncoder

CARD = "README.md"
MINI = Path(__file__).with_name("mini")
"""The encoder that comes with the library: run base, seed 0, of the profile best (docs/real.md)."""
VARIABLE = "MATPAC_ENCODER"
"""Environment variable that names an encoder where none is given."""
HUB_NAME = re.compile(r"(\w[\w.-]*)/(\w[\w.-]*)(?:@([\w./-]+))?")
"""Owner and name, and a branch, tag or commit. No path: those begin with a dot or a slash."""


class Pretrained(
    ViTEncoder, ModelHubMixin, library_name="matpac", tags=["audio", "self-supervised-learning"]
):
    """An encoder of ours, with the methods of a model on the Hub; args: see `ViTEncoder`."""

    card: str = ""
    """Content of the model card in the folder that it was loaded from, which goes where it goes."""

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card of its folder, or huggingface_hub's if it has none."""
        return ModelCard(self.card) if self.card else super().generate_model_card(*args, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_encoder(self.net, save_directory, reflect=self.reflect)
        for name, head in self.heads.items():
            head.save(save_directory / heads.FOLDER / f"{name}.safetensors")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> "Pretrained":
        folder = Path(model_id)
        if not folder.is_dir():
            asked = {
                "revision": revision,
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "token": token,
            }
            wanted = [CONFIG, WEIGHTS, f"{heads.FOLDER}/*.safetensors"]
            folder = Path(snapshot_download(model_id, allow_patterns=wanted, **asked))
        told = files.read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if "model_type" in told or "auto_map" in told:  # transformers', as the authors' own are
            theirs = vit.of_tensors(folder / WEIGHTS)
            encoder = cls(theirs.net, reflect=theirs.reflect)
            encoder.heads = theirs.heads
            return encoder
        net = load_encoder(folder)
        try:
            encoder = cls(net, reflect=told.get("reflect", 0))
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{folder / CONFIG}: front_end: {error}") from error
        for name, head in heads.load_all(folder).items():
            encoder.add_head(name, head)
        if (folder / CARD).is_file():
            encoder.card = (folder / CARD).read_text("utf-8")
        return encoder


def load(
    source: str | PathLike[str],
    *,
    weights: str | PathLike[str] | None = None,
    head: str | PathLike[str] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    revision: str | None = None,
) -> WaveEncoder:
    """A frozen encoder that is ready to `embed`.

    Args:
        source: a folder with ``model.safetensors`` and ``config.json``; "mini", the small encoder
            that comes with the library; a name on the Hugging Face Hub, "owner/name" or
            "owner/name@revision"; or a published row of Table II (`matpac.encoders.published`).
        weights: of a published row, its file; None: fetched once and kept.
        head: for `WaveEncoder.label`, besides those in the encoder's folder: a file that the
            ``probe`` stage or ``release`` wrote, a published probe (a file named as its task), or
            the name of one that was published for this row (``docs/labels.md``).
        device: None: the first GPU if there is one, else the CPU.
        precision: of its products; float32 gives the same numbers everywhere, to rounding.
        revision: of a model on the Hub: branch, tag or commit.
    Raises: FileNotFoundError saying where it was looked for; ValueError naming what does not fit;
        ImportError naming the extra to install.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, allowed: {', '.join(PRECISIONS)}")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if _usable(device).type == "cpu" and not _computes_in(precision):
        warnings.warn(
            f"precision: this processor has no instructions for {precision} and emulates it, which "
            "is several times slower than float32",
            stacklevel=2,
        )
    encoder = _load(source, weights, revision)
    if head is not None:
        encoder.add_head(*read_head(str(source), head))
    encoder.precision = precision
    return encoder.to(device)


def _usable(given: str | torch.device) -> torch.device:
    """A device that holds numbers. Raises: ValueError for any other."""
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).item()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"device: got {str(given)!r}, allowed: cpu, or a GPU here: {why}"
        ) from None
    return device


def read_head(source: str, head: str | PathLike[str]) -> tuple[str, heads.Head]:
    """A head and its name. Args: as of `load`. Raises: as `load`."""
    path = Path(head)
    if source in ROWS and str(head) in ROWS[source].probes:
        path = published.obtain_probe(source, str(head))
    read = heads.load if path.suffix == ".safetensors" else heads.of_probe
    return path.stem, read(path)


def chosen(given: str | None) -> str:
    """What to `load`: what was given, else what the environment variable MATPAC_ENCODER says.

    Raises: ValueError saying what can be given if neither is.
    """
    if source := given or os.environ.get(VARIABLE):
        return source
    raise ValueError(
        f"encoder: missing; give a folder of {WEIGHTS} and {CONFIG}, a name on the Hugging Face "
        f"Hub or a published row, or set {VARIABLE} to one"
    )


def absolute(source: str) -> str:
    """The same source from every working directory: of a folder its absolute path."""
    return source if source in ROWS or not Path(source).is_dir() else str(Path(source).absolute())


def _load(
    source: str | PathLike[str], weights: str | PathLike[str] | None, revision: str | None
) -> WaveEncoder:
    path, name, allowed = Path(source), str(source), ", ".join(ROWS)
    if name == "mini" and not path.is_dir():
        path = MINI
    if name in ROWS:
        return published.make(name, None if weights is None else Path(weights))
    if weights is not None:
        raise ValueError(f"weights: {name!r} brings its own; allowed: with {allowed}")
    # The method of the mixin reads config.json itself, and fails without the name of a damaged one.
    if path.is_dir() and name:
        return Pretrained._from_pretrained(model_id=str(path))
    if path.is_file():
        raise ValueError(
            f"{path}: got a file, allowed: the folder of {WEIGHTS} and {CONFIG}, or a published "
            f"row with weights={str(path)!r}: {allowed}"
        )
    found = HUB_NAME.fullmatch(name) if isinstance(source, str) else None
    # A mistyped path of two parts looks like a name of the Hub; its first part is there.
    if found is None or Path(found[1]).is_dir():
        raise FileNotFoundError(
            f"{name}: no such folder, no name of the form owner/name, not mini, no published row; "
            f"those are: {allowed}"
        )
    try:
        of_hub = f"{found[1]}/{found[2]}"
        return Pretrained._from_pretrained(model_id=of_hub, revision=revision or found[3])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{name}: no such folder, and the Hugging Face Hub does not give it: {error}"
        ) from error


def _computes_in(precision: Precision) -> bool:
    """Whether this processor has instructions for products in it, of whatever vendor's name."""
    short = {"float32": "", "bfloat16": "bf16", "float16": "fp16"}[precision]
    return any(there for name, there in torch.cpu.get_capabilities().items() if short in name)

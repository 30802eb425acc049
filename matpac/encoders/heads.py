"""From embeddings to labels: linear layers that were trained on a frozen encoder.

A head's logits are ``weight @ ((embedding - mean) * scale) + bias`` of a clip's embedding, or of a
time column's. It is a file: of the linear probes that `matpac.probing` keeps, or one published with
an encoder (``docs/labels.md``).

Shapes: D embedding size, C classes, R patch rows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from matpac.core import files
from matpac.encoders import statedicts

FOLDER = "heads"
"""Of an encoder's folder: a file for each of its heads."""
Activation = Literal["softmax", "sigmoid"]
BATCH_NORM_EPS = 1e-5
"""Of the published AudioSet head."""


@dataclass(frozen=True)
class Head:
    """A linear layer with its classes.

    Attributes:
        weight, bias: (C, D) and (C,).
        mean, scale: what an embedding is standardised by, (D,) each.
        activation: from logits to probabilities. Those of softmax sum to 1 over the classes.
        thresholds: probabilities from which a label is taken to be there, (C,); None: the most
            probable one is.
        about: what is known of it besides, such as what it was trained on.
    """

    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    activation: Activation
    thresholds: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(..., D) -> (..., C)."""
        return (embeddings - self.mean) * self.scale @ self.weight.T + self.bias

    def probabilities(self, embeddings: Tensor, activation: Activation | None = None) -> Tensor:
        """(..., D) -> (..., C). Args: activation: None: the head's own."""
        logits = self.logits(embeddings)
        wanted = activation or self.activation
        return logits.softmax(dim=-1) if wanted == "softmax" else logits.sigmoid()

    def present(self, probabilities: Tensor) -> Tensor:
        """Which labels are there, as the head has it: (..., C) -> bool."""
        if self.thresholds is None:
            return probabilities == probabilities.amax(dim=-1, keepdim=True)
        return probabilities >= self.thresholds

    def labels(
        self,
        embedding: Tensor,
        *,
        top: int | None = None,
        present: bool = False,
        activation: Activation | None = None,
    ) -> dict[str, float]:
        """What an embedding (D,) is: labels with their probabilities, the most probable first.

        Args:
            top: how many; None: all.
            present: True: only those that are there, as the head has it.
            activation: None: the head's own.
        """
        found = self.probabilities(embedding, activation)
        # Thresholds are of the head's own activation, whichever is shown.
        own = self.probabilities(embedding)
        there = self.present(own) if present else torch.ones_like(found, dtype=torch.bool)
        order = found.argsort(descending=True, stable=True)
        order = order[there[order]][:top]
        return {self.classes[i]: float(found[i]) for i in order.tolist()}

    def save(self, path: Path) -> None:
        """Writes it as safetensors: the tensors, and the rest as JSON in the file's metadata."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if self.thresholds is not None:
            tensors["thresholds"] = self.thresholds
        told = {"classes": self.classes, "activation": self.activation, "about": dict(self.about)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            described = {"head": json.dumps(told, sort_keys=True)}
            kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
            temporary.write_bytes(save(kept, described))  # save_file's is for its owner alone


_TENSORS = ("weight", "bias", "mean", "scale")


def load(path: Path) -> Head:
    """Reads what `Head.save` wrote. Raises: FileNotFoundError; ValueError naming file and fault."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such head")
    try:
        with safe_open(path, "pt") as opened:
            told = json.loads((opened.metadata() or {})["head"])
        told["classes"] = tuple(told["classes"])
        head = Head(**told, **load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a head that this project wrote: {error}") from error
    _check(head, str(path))
    return head


def load_all(folder: Path) -> dict[str, Head]:
    """The heads in an encoder's folder, by name."""
    return {path.stem: load(path) for path in sorted((folder / FOLDER).glob("*.safetensors"))}


def of_probe(path: Path) -> Head:
    """A published linear probe: the paper's clip embedding, a linear layer, softmax.

    Softmax is what was released, for tasks of several labels, too: it says how likely a label is
    against the others, not whether it is there. Ask for ``activation="sigmoid"`` for that.

    Args: path: a ``torch.save`` file named as its task, which gives it its classes.
    Raises: FileNotFoundError; ValueError naming what does not fit.
    """
    state = statedicts.read_state(path)
    return _published(path.stem, state, "probe.", 1, str(path))


def of_audioset(state: Mapping[str, Tensor], rows: int, source: str) -> Head:
    """The published AudioSet head: the mean over frequency rows, batch norm, linear, softmax.

    Args: state: ``head_norm`` and ``head``, and whatever else; rows: R.
    """
    return _published("audioset", state, "head.", rows, source)


def _published(name: str, state: Mapping[str, Tensor], prefix: str, rows: int, source: str) -> Head:
    """A mean over rows is a part of the layer: each row has its R-th of the weights."""
    every = yaml.safe_load(Path(__file__).with_name("classes.yaml").read_text("utf-8"))
    if name not in every:
        raise ValueError(f"{source}: got the task {name!r}, allowed: {', '.join(every)}")
    wanted = [f"{prefix}weight", f"{prefix}bias"]
    if prefix == "head.":
        wanted += ["head_norm.running_mean", "head_norm.running_var"]
    if missing := [each for each in wanted if each not in state]:
        raise ValueError(f"{source}: does not fit: missing: {', '.join(missing)}")
    weight, bias, *norm = (state[each].float() for each in wanted)
    mean, variance = norm or (torch.zeros(weight.shape[1]), torch.ones(weight.shape[1]))
    scale = (variance + BATCH_NORM_EPS).rsqrt() if norm else variance
    head = Head(
        tuple(every[name]),
        weight.repeat(1, rows) / rows,
        bias,
        mean.repeat(rows),
        scale.repeat(rows),
        "softmax",
        about={"task": name, "published": True},
    )
    _check(head, source)
    return head


def _check(head: Head, source: str) -> None:
    """Raises ValueError for tensors that do not belong together or are not finite."""
    num_classes, width = len(head.classes), head.weight.shape[-1]
    wanted = {"weight": (num_classes, width), "bias": (num_classes,)}
    wanted |= {"mean": (width,), "scale": (width,)}
    if head.thresholds is not None:
        wanted["thresholds"] = (num_classes,)
    for name, shape in wanted.items():
        tensor = getattr(head, name)
        if tuple(tensor.shape) != shape:
            got = tuple(tensor.shape)
            raise ValueError(f"{source}: shape of {name}: got {got}, allowed: {shape}")
        if not tensor.isfinite().all():
            raise ValueError(f"{source}: NaN or infinite numbers in {name}")
    if head.activation not in ("softmax", "sigmoid"):
        raise ValueError(f"{source}: activation: got {head.activation!r}")

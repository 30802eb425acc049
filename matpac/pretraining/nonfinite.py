"""Why an update was not finite: which tensor, of which clips.

The update changed nothing (`matpac.pretraining.trainer`), so it can be looked at again.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from matpac.core import distributed
from matpac.method.losses import Comparison, total_loss
from matpac.method.student import Prediction
from matpac.method.teacher import Target
from matpac.pretraining.batches import Batch, Batches
from matpac.pretraining.schedules import Scheduled
from matpac.pretraining.trainer import Trainer, split

SHOWN = 20
"""Clips and tensors named in a message."""


def describe(trainer: Trainer, batches: Batches, step: int, at: Scheduled) -> str:
    """What was not finite in update ``step``; all processes ask together and get the same text."""
    names = batches.names(step)
    own = [
        f"  {tensor}" + (f" of {names[row]}" if row is not None else "")
        for tensor, row in look(trainer, batches[step], at)
    ]
    lines = list(dict.fromkeys(each for part in distributed.gather(own) for each in part))
    if not lines:
        return "  when computed again everything is finite: a fault of the machine, perhaps"
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"  ... and {len(lines) - SHOWN} more"]
    return "\n".join(lines)


def look(trainer: Trainer, batch: Batch, at: Scheduled) -> Iterator[tuple[str, int | None]]:
    """For each clip the first tensor on its way that is not finite; else gradients.

    Yields: name of the tensor and index in the batch (None: a gradient).
    """
    trainer.optimizer.zero_grad(set_to_none=True)
    first, finite = 0, True
    for part in split(batch, trainer.run.pretrain.micro_batch_size):
        # Without gradients' exchange: this process's own part is looked at.
        with distributed.no_sync(trainer.replica):
            forward = trainer.forward(part, at)
        sound = torch.ones(len(part.logmel), dtype=torch.bool)
        for name, tensor in _parts(part, *forward).items():
            good = tensor.detach().flatten(1).isfinite().all(dim=1).cpu()
            yield from ((name, first + row) for row in (sound & ~good).nonzero()[:, 0].tolist())
            sound &= good
        finite &= bool(sound.all())
        if finite:
            found, alpha = forward[2], trainer.run.objective.alpha
            total = total_loss(found.prediction.mean(), found.classification.mean(), alpha)
            with distributed.no_sync(trainer.replica):
                total.backward()
        first += len(part.logmel)
    if finite:
        for name, parameter in trainer.student.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                yield f"gradient of {name}", None
    trainer.optimizer.zero_grad(set_to_none=True)


def _parts(
    batch: Batch, predicted: Prediction, target: Target, compared: Comparison
) -> dict[str, Tensor]:
    """Tensors with a row per clip, in the order in which one depends on another."""
    return {
        "log-mel": batch.logmel,
        "teacher's latents": target.latents,
        "teacher's logits": target.logits,
        "student's latents": predicted.latents,
        "student's logits": predicted.logits,
        "prediction loss": compared.prediction,
        "classification loss": compared.classification,
    }

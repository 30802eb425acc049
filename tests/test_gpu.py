"""One update on a GPU against the same on the CPU: ``MATPAC_TEST_GPU=1 pytest -m gpu tests``."""

import pytest
import tiny
import torch

from matpac import distributed
from matpac.batches import Batch
from matpac.schedules import Scheduled
from matpac.trainer import Measured, Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or MATPAC_TEST_GPU is unset"),
]


def two_updates(device: str, monkeypatch: pytest.MonkeyPatch, **pretrain: str) -> list[Measured]:
    monkeypatch.setattr(distributed, "device", lambda: torch.device(device))
    torch.backends.cuda.matmul.allow_tf32 = False
    trainer = Trainer(tiny.run(pretrain=pretrain), 16, mean=-8.0, std=4.0)
    random = torch.Generator().manual_seed(0)
    logmel = -8 + 4 * torch.randn(4, 16, tiny.CROP, generator=random)
    batch = Batch(logmel.half(), torch.rand(4, 8, generator=random))
    at = Scheduled(4e-3, 0.97, 0.97, 0.05)
    return [trainer.step(batch, step, at, measure=True) for step in (1, 2)]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 5e-2)])
def test_updates_on_a_gpu_are_those_on_the_cpu(monkeypatch, precision, tolerance) -> None:
    """The first update is compared through the second's losses; bfloat16 has three digits."""
    gpu = two_updates("cuda", monkeypatch, precision=precision)
    cpu = two_updates("cpu", monkeypatch)
    for ours, expected in zip(gpu, cpu, strict=True):
        assert ours.losses.device.type == "cuda"
        torch.testing.assert_close(ours.losses.cpu(), expected.losses, rtol=tolerance, atol=0)

"""The GPU kit: right first, then fast, on one GPU within six minutes.

    python -m benchmarks.gpu --out gpu.jsonl              # on a machine with a GPU
    python -m benchmarks.gpu --out gpu.jsonl --toy        # anywhere, in seconds: does it run?

Each result is a line of JSON, written when it is found, the most wanted first; what fails or comes
too late says so in its line, and the next goes on. It needs torch, NumPy, pydantic, PyYAML,
safetensors, pyarrow and tqdm, and for the tests of the first part pytest and soundfile.
"""

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import measure
from benchmarks.loader import CLIP_FRAMES, open_batches, tiled_store
from benchmarks.plain import Plain
from benchmarks.step import AT, make_step, make_trainer
from matpac.audio.logmel import LogMel
from matpac.core import distributed
from matpac.encoders.frozen import frozen
from matpac.params import load
from matpac.pretraining import config, sizes
from matpac.pretraining.batches import loader
from matpac.pretraining.config import ResolvedRun

ROOT = Path(__file__).parents[1]


class Kit:
    """One run of the kit.

    Args:
        out: file of results, one JSON object per line.
        toy: sizes for a CPU, and nothing compiled: everything runs, nothing is measured.
        limit_s: no part is begun later than this.
    """

    def __init__(self, out: Path, *, toy: bool, limit_s: float) -> None:
        self.out, self.toy, self.limit_s, self.begin = out, toy, limit_s, time.monotonic()
        self.cuda = torch.cuda.is_available()
        self.device = distributed.device()
        params = load(ROOT / "params.paper.yaml")
        self.run, self.num_mels = config.resolve(params, "base"), params.logmel.num_mels
        if toy:
            self.run = _smaller(self.run)
            torch.compiler.set_stance("force_eager")
            torch.set_num_threads(1)
        self.sizes = (2, 3) if toy else (256, 512)
        self.seconds = 0.01 if toy else 1.5
        self.bare = measure.product_rate(
            torch.nn.functional.linear,
            (64,) * 3 if toy else (8192,) * 3,
            device=self.device,
            dtype=torch.bfloat16,
        )
        self.work = sizes.per_clip(self.run, self.num_mels)
        self.rates: dict[str, float] = {}

    def write(self, part: str, **found: Any) -> None:
        """Adds a result."""
        line = {"part": part, "at_s": round(time.monotonic() - self.begin, 1)} | found
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(json.dumps(line), flush=True)

    def part(
        self, name: str, work: Callable[[], dict[str, Any]], *, with_trainer: bool = False
    ) -> None:
        """One part: its result, or why there is none. Args: with_trainer: of the part before."""
        if not name.startswith(self.only):
            return
        if time.monotonic() - self.begin > self.limit_s:
            self.write(name, problem="not begun: time was up")
            return
        if not with_trainer:
            self.trainer = self.update = None
            gc.collect()  # networks refer to themselves: their memory would count for this part
            torch.compiler.reset()  # or a second size would be compiled for any size
            if self.cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        try:
            found = work()
        except Exception as error:  # whatever it is, the other parts must not be lost
            found = {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
        self.write(name, **found)

    # ------------------------------------------------------------------------------ correctness

    def tests(self, *chosen: str) -> dict[str, Any]:
        """Tests of the suite with the GPU visible. Args: chosen: arguments of pytest."""
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *chosen]
        variables = os.environ | {"MATPAC_TEST_GPU": "1"}
        log = self.out.with_suffix(".tests.log")  # a test that hangs is found in there
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                command, cwd=ROOT, env=variables, stdout=file, stderr=file, timeout=60
            )
        return {"rc": done.returncode, "last": log.read_text("utf-8").splitlines()[-1:]}

    # ------------------------------------------------------------------------------ kernels

    def products(self) -> dict[str, Any]:
        """Rates of bare products of the shapes that the networks have, TFLOP/s."""
        clips, model = self.sizes[0], self.run.model
        wide, narrow = model.encoder_width, model.predictor_width
        shapes = {
            "square": (64,) * 3 if self.toy else (8192,) * 3,
            "student, qkv": (clips * 58, wide, 3 * wide),
            "student, fc1": (clips * 58, wide, 4 * wide),
            "student, fc2": (clips * 58, 4 * wide, wide),
            "teacher, fc1": (clips * 134, wide, 4 * wide),
            "predictor, qkv": (clips * 191, narrow, 3 * narrow),
            "predictor, fc1": (clips * 191, narrow, 4 * narrow),
            "predictor, fc2": (clips * 191, 4 * narrow, narrow),
            "head, fc2": (clips * 133, model.head_hidden, model.head_hidden),
            "head, prototypes": (clips * 133, model.head_bottleneck, model.num_prototypes),
        }
        found = {}
        for name, shape in shapes.items():
            rate = measure.product_rate(
                torch.nn.functional.linear, shape, device=self.device, dtype=torch.bfloat16
            )
            rate()
            found[name] = [list(shape), measure.median([rate() / 1e12 for _ in range(3)])]
        return {"tflop_per_s": found}

    def attention(self) -> dict[str, Any]:
        """Milliseconds of attention by torch's backends, forward and with the backward pass."""
        clips, model = self.sizes[0], self.run.model
        wide, narrow = model.encoder_width, model.predictor_width
        shapes = {
            "student": (58, model.encoder_heads, wide),
            "teacher": (134, model.encoder_heads, wide),
            "predictor": (191, model.predictor_heads, narrow),
        }
        backends = ["FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"]
        found: dict[str, Any] = {}
        for (name, (tokens, heads, width)), backend in itertools.product(shapes.items(), backends):
            size = (clips, tokens, 3, heads, width // heads)
            qkv = torch.randn(size, device=self.device, dtype=torch.bfloat16, requires_grad=True)

            def forward(qkv: torch.Tensor = qkv) -> torch.Tensor:
                query, key, value = qkv.permute(2, 0, 3, 1, 4)
                return torch.nn.functional.scaled_dot_product_attention(query, key, value)

            def both(forward: Callable[[], torch.Tensor] = forward) -> None:
                forward().sum().backward()

            try:
                with sdpa_kernel(getattr(SDPBackend, backend)):
                    for work in (forward, both):
                        measure.seconds(work)
                    times = [
                        measure.seconds(lambda: [work() for _ in range(10)])  # noqa: B023
                        for work in (forward, both)
                    ]
                found[f"{name}, {backend}"] = [round(100 * each, 4) for each in times]
            except RuntimeError as error:
                found[f"{name}, {backend}"] = str(error).split("\n")[0][:80]
        return {"ms": found}

    # ------------------------------------------------------------------------------ speed

    def start(self, size: int, *, compiled: bool, precision: str = "bfloat16") -> dict[str, Any]:
        """Makes the trainer of the next parts, and times its update on one batch."""
        self.trainer = make_trainer(
            self.run, self.num_mels, batch_size=size, precision=precision, compiled=compiled
        )
        self.size, self.update = size, make_step(self.trainer, self.num_mels, size)
        first_s = measure.seconds(self.update)
        return self.timed(self.update, size) | {"first_step_s": round(first_s, 1)}

    def accumulated(self, times: int) -> dict[str, Any]:
        """An update of as many micro-batches of the size begun with."""
        pretrain = self.trainer.run.pretrain
        micro = pretrain.model_copy(update={"micro_batch_size": self.size})
        self.trainer.run = self.trainer.run.model_copy(update={"pretrain": micro})
        size = times * self.size
        return self.timed(make_step(self.trainer, self.num_mels, size), size)

    def plain(self, size: int, *, fused: bool, compiled: bool = False) -> dict[str, Any]:
        """The step without this library."""
        sizes = self.run.model.model_dump()
        model = Plain(sizes, self.num_mels, precision=torch.bfloat16, fused=fused).to(self.device)
        if compiled:
            for each in (model.encoder, model.predictor, model.head, model.teacher_encoder):
                each.compile()
        optimizer = model.make_optimizer()
        logmel = torch.randn(size, self.num_mels, self.run.model.crop_frames, device=self.device)
        return self.timed(partial(model.step, optimizer, (4 * logmel - 7).half()), size)

    def timed(self, update: Callable[[], object], size: int) -> dict[str, Any]:
        """Rate of an update, beside bare products before and after it."""
        once = [measure.seconds(update) for _ in range(3)][-1]
        times = min(500, max(2, round(self.seconds / once)))
        before = self.bare()
        rounds = [measure.seconds(lambda: [update() for _ in range(times)]) for _ in range(3)]
        product = (before + self.bare()) / 2
        rates = sorted(size * times / each for each in rounds)
        flops_per_s = self.work * rates[1]
        return {
            "samples_per_s": measure.median(rates),
            "lowest": round(rates[0], 1),
            "highest": round(rates[-1], 1),
            "tflop_per_s": measure.median([flops_per_s / 1e12]),
            "product_tflop_per_s": measure.median([product / 1e12]),
            "fraction_of_product": measure.median([flops_per_s / product]),
            "peak_memory_gib": self.peak(),
        }

    def peak(self) -> float | None:
        """Largest memory on the GPU since the part began, GiB."""
        return round(torch.cuda.max_memory_allocated() / 2**30, 1) if self.cuda else None

    def fed(self) -> dict[str, Any]:
        """The same update fed by loader processes from a store, beside it on one batch, and what
        the processes give when nobody trains."""
        workers = 1 if self.toy else min(12, len(os.sched_getaffinity(0)) - 2)
        count = 3 if self.toy else 60
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "tiled"
            tiled_store(folder, 20_000, num_mels=self.num_mels, clip_frames=CLIP_FRAMES)
            crop, patches = self.run.model.crop_frames, self.trainer.student.patches.num_patches
            batches = open_batches(
                folder, batch_size=self.size, crop_frames=crop, num_patches=patches
            )
            feed = loader(batches, first=0, last=4 * workers + 2 * count, workers=workers)

            def steps(count: int) -> None:
                for _ in range(count):
                    self.trainer.step(next(feed), 1, AT, measure=False)

            for _ in range(2 * workers):
                next(feed)
            only = measure.seconds(lambda: [next(feed) for _ in range(count)])
            steps(2 * workers)  # so that what was read ahead does not count
            from_loader = measure.seconds(lambda: steps(count))
            alone = measure.seconds(lambda: [self.update() for _ in range(count)])
        rates = {"samples_per_s": from_loader, "without_loader": alone, "loader_alone": only}
        found = {name: measure.median([self.size * count / took]) for name, took in rates.items()}
        return {"workers": workers} | found

    def trace(self) -> dict[str, Any]:
        """The kernels that take most of the update, in percent of the GPU's time."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities, acc_events=True) as profiled:
            took = measure.seconds(lambda: [self.update() for _ in range(3)])
        kind = getattr(torch.autograd.DeviceType, "CUDA" if self.cuda else "CPU")
        times = {
            each.key: (
                each.self_device_time_total if self.cuda else each.self_cpu_time_total,
                each.count,
            )
            for each in profiled.key_averages()
            if each.device_type == kind and not (self.cuda and each.is_user_annotation)
        }
        total = sum(time for time, _ in times.values())
        largest = sorted(times.items(), key=lambda item: -item[1][0])
        return {
            "busy_percent": round(total / 1e4 / took, 1),
            "kernels": [
                [name[:160], round(100 * time / total, 2), count // 3]
                for name, (time, count) in largest[:40]
            ],
        }

    def embedding(self, size: int, *, compiled: bool) -> dict[str, Any]:
        """Waveforms on the GPU -> clip embeddings of the frozen encoder; crops of 6.1 s."""
        trainer = make_trainer(self.run, self.num_mels, batch_size=size, precision="bfloat16")
        front_end = {"sample_rate": 16000, "num_mels": self.num_mels}
        encoder = frozen(trainer.student, front_end, mean=-7.0, std=4.0).to(self.device)
        logmel = LogMel().to(self.device)
        samples = 400 + 160 * (self.run.model.crop_frames - 1)
        waves = 0.1 * torch.randn(size, samples, device=self.device)
        del trainer

        def embed(waves: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                return encoder.columns(logmel(waves)).mean(dim=1)

        embed = torch.compile(embed) if compiled else embed

        @torch.inference_mode()
        def work() -> torch.Tensor:
            return embed(waves)

        once = [measure.seconds(work) for _ in range(3)][-1]
        times = max(2, round(self.seconds / once))
        rates = [size * times / measure.seconds(lambda: [work() for _ in range(times)])]
        seconds = samples / 16000
        return {
            "clips_per_s": measure.median(rates),
            "times_real_time": measure.median([rates[0] * seconds]),
            "peak_memory_gib": self.peak(),
        }

    def same_loss(self, size: int) -> dict[str, Any]:
        """Losses of three updates: eager in float32, eager and compiled in bfloat16."""
        found = {}
        for name, precision, compiled in (
            ("float32", "float32", False),
            ("bfloat16", "bfloat16", False),
            ("bfloat16, compiled", "bfloat16", True),
        ):
            trainer = make_trainer(
                self.run, self.num_mels, batch_size=size, precision=precision, compiled=compiled
            )
            update = make_step(trainer, self.num_mels, size)
            found[name] = [
                [round(value, 5) for value in update().losses.tolist()] for _ in range(3)
            ]
            del trainer, update
        return found


def _smaller(run: ResolvedRun) -> ResolvedRun:
    changes = {"encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "predictor_width": 16}
    changes |= {"predictor_depth": 1, "predictor_heads": 2, "head_hidden": 16}
    changes |= {"head_bottleneck": 8, "num_prototypes": 12, "crop_frames": 64}
    return run.model_copy(update={"model": run.model.model_copy(update=changes)})


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--toy", action="store_true", help="toy sizes, on a CPU too")
    parser.add_argument("--only", default="", help="parts whose names begin so, after |")
    parser.add_argument("--limit-s", type=float, default=330.0, help="no part begins later")
    given = parser.parse_args(arguments)
    if not (given.toy or torch.cuda.is_available()):
        parser.error("no GPU here; --toy runs every part at toy sizes")
    kit = Kit(given.out, toy=given.toy, limit_s=given.limit_s)
    kit.only = tuple(given.only.split("|"))
    kit.write("machine", **measure.machine(), toy=given.toy, cuda=torch.version.cuda)
    small, large = kit.sizes
    if not kit.toy:
        kit.part("tests", partial(kit.tests, "tests/pretraining/test_gpu.py", "-k", "not compile"))
        kit.part("parity", partial(kit.tests, "tests/method/test_parity.py"))
    for size in kit.sizes:
        kit.part(f"step, eager, {size}", partial(kit.start, size, compiled=False))
        if size == small:
            kit.part(f"trace, eager, {size}", kit.trace, with_trainer=True)
    kit.part(f"plain, {small}", partial(kit.plain, small, fused=True))
    kit.part(f"plain, attention written out, {small}", partial(kit.plain, small, fused=False))
    for size in kit.sizes:
        kit.part(f"step, compiled, {size}", partial(kit.start, size, compiled=True))
        kit.part(f"trace, compiled, {size}", kit.trace, with_trainer=True)
        if size == small:
            kit.part(f"fed, compiled, {size}", kit.fed, with_trainer=True)
    name = f"step, compiled, {4 * large} as 4 x {large}"
    kit.part(name, partial(kit.accumulated, 4), with_trainer=True)
    kit.part("products", kit.products)
    kit.part("attention", kit.attention)
    kit.part(f"embedding, eager, {small}", partial(kit.embedding, small, compiled=False))
    kit.part(f"embedding, compiled, {small}", partial(kit.embedding, small, compiled=True))
    half = partial(kit.start, small, compiled=True, precision="float16")
    kit.part(f"step, compiled, float16, {small}", half)
    kit.part("losses", partial(kit.same_loss, small))
    kit.part(f"plain, compiled, {small}", partial(kit.plain, small, fused=True, compiled=True))
    kit.write("end")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Results of the benchmarks as the Markdown table of docs/performance.md."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matpac.core import files

BEGIN, END = "<!-- make bench -->", "<!-- until here -->"
"""Between them stands the table in a text."""
Row = tuple[str, str, str]
"""What, the figure, and what it is compared with."""


def table(results: Sequence[dict[str, Any]]) -> str:
    """One table of all parts, and where each was measured.

    Args: results: what `results` gives.
    """
    lines = ["| what | measured | to compare |", "| --- | --- | --- |"]
    machines: dict[str, list[str]] = {}
    for result in results:
        for row in ROWS[result["part"]](result["settings"], result["figures"]):
            lines.append("| " + " | ".join(row) + " |")
        machines.setdefault(_where(result["machine"]), []).append(result["part"])
    lines.append("")
    lines += [f"- {', '.join(parts)}: {where}" for where, parts in machines.items()]
    if left := [part for part in ROWS if part not in {result["part"] for result in results}]:
        lines.append(f"- not measured yet: {', '.join(left)}")
    return "\n".join(lines)


def results(folder: Path) -> list[dict[str, Any]]:
    """What was measured, in the order of `ROWS`: part, machine, settings, figures."""
    found = [files.read_json(path) for p in PARTS if (path := folder / f"{p}.json").exists()]
    if (path := folder / "gpu.jsonl").exists():
        found.append(of_gpu(path.read_text("utf-8")))
    return found


def of_gpu(text: str) -> dict[str, Any]:
    """The lines of `benchmarks.gpu`: of each part the last that was measured on the last card."""
    lines = [json.loads(line) for line in text.splitlines()]
    machine = [line for line in lines if line["part"] == "machine"][-1]
    figures: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["part"] == "machine":
            same_card = line["gpu"] == machine["gpu"]
        elif same_card and "problem" not in line:
            figures[line["part"]] = line
    return {"part": "gpu", "machine": machine, "settings": {}, "figures": figures}


def insert(text: str, of: str) -> str:
    """A text with a new table in the place of its old one.

    Raises: ValueError if the text has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the table: got none, allowed: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{of}\n{END}{after}"


def _where(machine: dict[str, Any]) -> str:
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{gpu}{machine['processor']} ({machine['cores']} cores), torch {machine['torch']}, "
        f"{machine['date']}, commit {machine['commit']}"
    )


def _step(settings: dict[str, Any], figures: dict[str, Any]) -> Iterator[Row]:
    rates, fractions = figures["product_gflop_per_s"], figures["fraction_of_product"]
    yield (
        f"training step, ViT-Base, batch {settings['batch_size']}, float32, "
        f"{settings['threads']} CPU threads",
        f"{figures['samples_per_s']:.2f} samples/s",
        "1.2–1.3, the authors' code",
    )
    yield (
        "its largest memory",
        f"{figures['peak_memory_gib'] or 0:.1f} GiB",
        "4.4 GiB, the authors'",
    )
    for who in ("torch", "oneDNN"):
        of = [f"{fractions[f'{who}, {kind}']:.0%}" for kind in ("MLP", "square")]
        bare = [f"{rates[f'{who}, {kind}']:.0f}" for kind in ("MLP", "square")]
        yield (
            f"its {figures['gflop_per_s']:.0f} GFLOP/s as a part of bare products by {who}",
            " and ".join(of),
            f"{' and '.join(bare)} GFLOP/s: the MLP's shape, a square",
        )


def _logmel(settings: dict[str, Any], figures: dict[str, Any]) -> Iterator[Row]:
    rates, ratios = figures["clips_per_s"], figures["ratio"]
    theirs = {"files": "80, the authors' script; ", "wav": ""}
    for kind, name in (("files", settings["files"].upper()), ("wav", "WAV")):
        yield (
            f"audio to stored log-mels, {settings['clips']} {name} files of ESC-10, "
            f"{settings['workers']} processes",
            f"{rates[f'store, {kind}']:.0f} clips/s",
            f"{theirs[kind]}{rates[f'usual, {kind}']:.0f} with a kernel per file "
            f"({ratios[f'to usual, {kind}']:.1f} ×)",
        )
        repeats = settings["repeats"][kind]
        yield (
            "the same, 1 process" if repeats == 1 else f"each of them {repeats} times, 1 process",
            f"{rates[f'alone, {kind}']:.0f} clips/s",
            f"{settings['workers']} processes are {ratios[f'to alone, {kind}']:.2f} × as fast",
        )


def _loader(settings: dict[str, Any], figures: dict[str, Any]) -> Iterator[Row]:
    rates, speed, ratios = figures["samples_per_s"], figures["crops_mb_per_s"], figures["ratio"]
    for workers in (0, settings["workers"]):
        name = f"store, {workers} workers"
        yield (
            "crops of 6.1 s from 10 s, "
            + (f"loader processes: {workers}" if workers else "in the training process"),
            f"{rates[name]:,.0f} samples/s, {speed[name]:,.0f} MB/s",
            f"{rates[f'files, {workers} workers']:,.0f} from a file per clip "
            f"({ratios[f'{workers} workers']:.1f} ×)",
        )
    growth = [(int(clips), each) for clips, each in figures["growth"].items()]
    yield (
        f"processor time per crop, {growth[0][0]:,} to {growth[-1][0]:,} clips",
        " / ".join(f"{each['us_per_sample']:.0f}" for _, each in growth) + " µs",
        "opened in "
        + " / ".join(f"{each['open_s']:.2f}" for _, each in growth)
        + " s, "
        + " / ".join(f"{each['opened_mib'] + each['read_mib']:.0f}" for _, each in growth)
        + " MiB of memory",
    )


def _gpu(_: dict[str, Any], figures: dict[str, Any]) -> Iterator[Row]:
    plain = next((each for part, each in figures.items() if part.startswith("plain, ")), None)
    for part, each in figures.items():
        kind, _, rest = part.partition(", ")
        memory = f"{each.get('peak_memory_gib')} GiB"
        if kind in ("step", "plain"):
            ratio = each["samples_per_s"] / plain["samples_per_s"] if plain else None
            yield (
                f"{'training step' if kind == 'step' else 'plain torch.nn'} on a GPU, {rest} clips",
                f"{each['samples_per_s']:,.0f} samples/s, {memory}, "
                f"{each['fraction_of_product']:.0%} of bare products",
                f"{ratio:.2f} × plain" if kind == "step" and ratio else "",
            )
        elif kind == "fed":
            yield (
                f"the same, {rest} clips, from {each['workers']} loader processes",
                f"{each['samples_per_s']:,.0f} samples/s",
                f"{each['without_loader']:,.0f} on one batch again and again",
            )
        elif kind == "embedding":
            yield (
                f"waveforms of 6.1 s to embeddings on a GPU, {rest} clips",
                f"{each['clips_per_s']:,.0f} clips/s, {memory}",
                f"{each['times_real_time']:,.0f} × real time",
            )


Rows = Callable[[dict[str, Any], dict[str, Any]], Iterator[Row]]
PARTS: dict[str, Rows] = {"step": _step, "logmel": _logmel, "loader": _loader}
"""What `python -m benchmarks` measures."""
ROWS = PARTS | {"gpu": _gpu}

"""The subcommands of ``matpac`` about encoders that are trained already."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)
OUTPUT = click.Path(path_type=Path, dir_okay=False)
"""A folder of that name is refused at once: the work may take hours."""
ENCODER = (
    click.option(
        "--encoder",
        help="Folder, name on the Hugging Face Hub, or published row; default: $MATPAC_ENCODER.",
    ),
    click.option("--weights", type=FILE, help="File with a published row's weights."),
    click.option("--device", help="cpu, cuda, ...; default: a GPU if there is one."),
)
"""Which one."""
OF_FOLDER = (
    click.argument("folder", type=FILE),
    click.option("-o", "--output", type=FILE, required=True, help="The table, .parquet."),
    *ENCODER,
    click.option("--frames", is_flag=True, help="A row per time column."),
)
"""Of every command that makes a table of a folder's audio."""


def taking(arguments: Sequence[Callable]) -> Callable[[Callable], Callable]:
    """Gives a command some arguments, in their order."""

    def decorate(command: Callable) -> Callable:
        for each in reversed(arguments):
            command = each(command)
        return command

    return decorate


def unread(found: Any) -> None:
    """Says which files could not be read. Args: found: `matpac.cli.embed.Summary`."""
    from matpac.cli.embed import listed

    if bad := found.problems:
        click.echo(f"{len(bad)} of {found.num_files} files could not be read:", err=True)
        click.echo(listed(bad), err=True)


def told(output: Path, found: Any) -> None:
    """Says what came of a folder, as `unread`."""
    unread(found)
    click.echo(f"{output}: {found.num_files - len(found.problems)} files")


def write_csv(rows: Any, path: Path | None) -> None:
    """Writes a pandas table, where a file is wanted; its folder is made if needed."""
    from matpac.core import files

    if path is not None:
        with files.replacing(path) as temporary:
            rows.to_csv(temporary, index=False)


@click.command(short_help="Writes a table of embeddings, a row per file of a FOLDER.")
@taking(OF_FOLDER)
@click.option("--layer", type=int, default=-1, help="0 is the first; default: the last.")
@click.option("--precision", default="float32", help="Of matrix products; or bfloat16, float16.")
@click.option("--batch-size", type=int, default=16, help="Pieces encoded at once.")
def embed(
    folder: Path,
    output: Path,
    encoder: str | None,
    weights: Path | None,
    device: str | None,
    precision: str,
    **options: Any,
) -> None:
    """Writes the embeddings of all audio files in FOLDER and below to a Parquet table.

    Files that cannot be read are listed, in the table, too.
    """
    from matpac.cli.embed import embed_folder
    from matpac.encoders import hub

    name = hub.chosen(encoder)
    loaded = hub.load(name, weights=weights, device=device, precision=precision)
    # The table may be asked from another working directory.
    stored = hub.absolute(name)
    found = embed_folder(loaded, folder, output, name=stored, **options)
    told(output, found)


@click.command(short_help="Names what is heard in each file of a FOLDER; needs a head.")
@taking(OF_FOLDER)
@click.option("--head", help="Of the encoder; or a file, or the name of a published probe.")
@click.option("--top", type=click.IntRange(1), default=5, help="Labels per file; default: 5.")
@click.option("--present", is_flag=True, help="Only labels above the head's thresholds.")
@click.option(
    "--activation", type=click.Choice(["softmax", "sigmoid"]), help="Default: the head's."
)
def label(
    folder: Path,
    output: Path,
    encoder: str | None,
    weights: Path | None,
    device: str | None,
    head: str | None,
    **options: Any,
) -> None:
    """Writes what is to be heard in all audio files in FOLDER and below to a Parquet table."""
    from matpac.cli.label import label_folder
    from matpac.encoders import hub
    from matpac.encoders.published import ROWS

    name = hub.chosen(encoder)
    loaded = hub.load(name, weights=weights, device=device)
    released = ROWS[name].probes if name in ROWS else ()
    own = ", ".join([*loaded.heads, *released]) or "none; `--encoder mini` has some"
    if head is None and not loaded.heads:
        raise ValueError(f"{name}: --head is missing, a file or one of its own: {own}")
    if head is not None and head not in loaded.heads:
        try:
            loaded.add_head(*hub.read_head(name, head))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; heads of {name}: {own}") from None
        head = Path(head).stem
    found = label_folder(loaded, folder, output, head=head, **options)
    told(output, found)


@click.command(short_help="Lists the sounds of a FOLDER that are nearest to a FILE.")
@click.argument("file", type=FILE)
@click.argument("folder", type=FILE)
@taking(ENCODER)
@click.option("-n", "--number", type=click.IntRange(1), default=10, help="How many; default: 10.")
def similar(**arguments: Any) -> None:
    """Lists the sounds in FOLDER and below that are nearest to a FILE: rank, similarity, path.

    FOLDER may be a table that `matpac embed` wrote of it, or what `matpac pretrain` made of it;
    ENCODER is then the table's.
    """
    from matpac.cli.similar import similar

    nearest, found = similar(**arguments)
    unread(found)
    for rank, (cosine, path) in enumerate(nearest, start=1):
        click.echo(f"{rank:>4}  {cosine:6.3f}  {path}")


@click.command(short_help="Writes an ENCODER of ours as torch.export or ONNX.")
@click.argument("encoder")
@click.option("-o", "--output", type=FILE, required=True, help="The program, .pt2 or .onnx.")
@click.option("--samples", type=int, help="Length of a waveform; default: a piece.")
def export(encoder: str, output: Path, samples: int | None) -> None:
    """Writes an ENCODER of ours as a program: torch.export or ONNX."""
    import json

    from matpac.cli.export import details, save
    from matpac.encoders import hub

    loaded = hub.load(encoder, device="cpu")
    save(loaded, output, samples)
    click.echo(f"{output}: {json.dumps(details(loaded, samples) | {'times_s': '...'})}")


@click.command()
@click.argument("run")
@click.option("-o", "--output", type=FILE, required=True, help="Folder to write.")
@click.option("--seed", type=int, help="Of the pretraining; default: the first.")
@click.option("--licence", default="", help='Of the weights, as the Hub has it: "mit".')
def release(run: str, output: Path, seed: int | None, licence: str) -> None:
    """Writes a trained RUN as a folder for others, with its card."""
    from matpac.cli.release import release
    from matpac.params import load

    facts = release(run, load(), output, seed=seed, licence=licence)
    click.echo(f"{output}: {facts['title']}, {facts['num_parameters']:,} parameters")
    if facts["not_probed"]:
        click.echo(f"not probed, which the card says: {', '.join(facts['not_probed'])}")


@click.command(short_help="Reads a torch.save FILE, executing nothing; safetensors.")
@click.argument("file", type=FILE)
@click.argument("target", type=FILE)
def convert(file: Path, target: Path) -> None:
    """Reads the tensors of a torch.save FILE, executing nothing, and writes them.

    TARGET ends in .safetensors.
    """
    from matpac.encoders.statedicts import convert

    left_out = convert(file, target)
    click.echo(f"{target}: written; left out: {', '.join(left_out) or 'nothing'}")


COLUMNS = {
    "filename": "of the files, relative to the folder; default: filename.",
    "label": "of the class; default: label.",
    "fold": "of the fold, from 1.",
    "split": "of train, valid and test.",
    "group": "of what belongs together, as a speaker.",
}


@click.command(short_help="Scores an encoder on labels of yours, with an interval.")
@click.argument("target", metavar="TABLE.csv|ENCODER")
@click.option("--audio", type=FILE, help="Of a TABLE: the folder with its files.")
@taking(ENCODER[:2])
@taking([click.option(f"--{name}", help=f"Column {text}") for name, text in COLUMNS.items()])
@click.option("--separator", help="Between a clip's labels; with --fold or --split.")
def probe(
    target: str,
    audio: Path | None,
    encoder: str | None,
    weights: Path | None,
    **columns: str | None,
) -> None:
    """Prints what an encoder is worth on a labelled folder: a score with its interval.

    TABLE.csv names the files of --audio and their labels; with neither --fold nor --split it is
    dealt into five folds. Without --audio: probes one ENCODER of params.yaml on every task, as the
    stage does.
    """
    if audio is None:
        from matpac.params import load
        from matpac.probing.probe import probe

        # A name of params.yaml has no dot.
        if encoder or weights or any(columns.values()) or Path(target).suffix:
            raise click.UsageError("--audio is missing, the folder with the files of the table")
        probe(target, load())
        return
    from matpac.cli.probe_table import probe_table
    from matpac.encoders import hub

    loaded = hub.load(hub.chosen(encoder), weights=weights, device="cpu")  # moved where it computes
    named = {"filename": "filename", "label": "label"}
    given = {name: value for name, value in columns.items() if value}
    click.echo(probe_table(Path(target), audio, loaded, **named | given))


@click.command()
@click.argument("encoder")
@click.option("--csv", type=OUTPUT, help="Also writes a row per probe there.")
@click.option("--png", type=OUTPUT, help="Also draws the scores there.")
def layers(encoder: str, csv: Path | None, png: Path | None) -> None:
    """Prints the linear probe on every layer of one ENCODER."""
    from matpac.core import files
    from matpac.params import load
    from matpac.probing.layers import probe_layers, table
    from matpac.reporting import layers

    rows = probe_layers(encoder, load())
    click.echo(table(rows))
    write_csv(rows, csv)
    if png:
        figure = layers.draw(rows)
        with files.replacing(png) as temporary:
            figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None})


COMMANDS = (embed, label, similar, probe, layers, export, release, convert)

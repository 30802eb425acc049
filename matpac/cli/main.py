"""One command, ``matpac``, with a subcommand per verb.

What a subcommand needs is imported when it runs: ``matpac --help`` loads neither torch nor pandas.
"""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from matpac.cli import encoders

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(1)
ABOVE_0 = click.FloatRange(min=0, min_open=True)


OWN = ("pretrain", "embed", "similar", "label", "probe", "export", "convert")
"""Commands that need no project."""


class Commands(click.Group):
    """Subcommands in the order of definition, whose errors are one message and exit code 1."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a program in UTF-8, whatever the machine's language: names in tables are files'."""
        if sys.getfilesystemencoding() != "utf-8" and "PYTHONUTF8" not in os.environ:
            os.environ["PYTHONUTF8"] = "1"
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        return super().__call__(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they are defined."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of one's own sounds first: who knows the paper finds the others."""
        pipeline = [name for name in self.commands if name not in OWN]
        for title, names in (("Your own sounds", OWN), ("The paper's pipeline", pipeline)):
            with formatter.section(title):
                formatter.write_dl([(n, self.commands[n].get_short_help_str(60)) for n in names])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a subcommand; what the user can mend is told without a traceback, and what is only
        to be known without the place in the code."""
        before = warnings.formatwarning
        warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, ImportError) as error:
            click.echo(error, err=True)
            ctx.exit(1)
        finally:
            warnings.formatwarning = before


@contextmanager
def going_on() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what can be started again in one line that says so."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        click.echo(f"{str(stopped) or 'stopped'}; the same command goes on from there", err=True)
        sys.exit(getattr(stopped, "exit_code", 130))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="matpac")
def main() -> None:
    """MATPAC: self-supervised audio representations, the paper as a pipeline.

    A folder of sounds is enough to begin: matpac pretrain FOLDER, then matpac similar FILE
    NAME-matpac.
    """


# ------------------------------------------------------------------------------- the pipeline


@main.command()
@click.argument("file", type=FILE, required=False)
def check(file: Path | None) -> None:
    """Validates params.yaml, or another parameter FILE.

    Only for the project's own is the audio looked for, too; once its log-mels are made, it may be
    removed.
    """
    from matpac.core import paths
    from matpac.data.sources import missing_files, used_folders
    from matpac.params import load

    params = load(file)
    if file is not None:
        with suppress(FileNotFoundError):  # outside a project, too
            paths.bulk(params)
        click.echo(f"{file}: valid")
        return
    stores = paths.bulk(params) / "logmel"
    new = [n for n in used_folders(params) if not (stores / n / "index.json").exists()]
    if problems := missing_files(params, names=new):
        raise FileNotFoundError("\n".join([f"{paths.root() / 'params.yaml'}:", *problems]))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("profile")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def use(profile: str, command: tuple[str, ...]) -> None:
    """Makes PROFILE the active one; with -- COMMAND, only while that runs."""
    from matpac.core import paths
    from matpac.params import profiles

    if command:
        sys.exit(profiles.run_under(profile, list(command), paths.root()))
    click.echo(profiles.use(profile, paths.root()))


@main.command()
def sources() -> None:
    """Notes what lies in the folders that params.yaml names."""
    from matpac.data import sources
    from matpac.params import load
    from matpac.probing.sources import write_weights

    params = load()
    write_weights(params)
    if sources.write(params) and (names := ", ".join(sources.used_folders(params))):
        click.echo(f"new or changed since the last look: {names}")


@main.command()
@click.argument("notebook")
@click.argument("name", required=False)
def run(notebook: str, name: str | None) -> None:
    """Executes a stage's NOTEBOOK; dvc.yaml calls this."""
    with going_on():
        from matpac.cli.run import run

        run(notebook, name)


@main.command()
def plan() -> None:
    """Prints what `make repro` would run, its hours and disk."""
    from matpac.cli import plan

    plan.main()


@main.command()
@click.option("--throughput", type=ABOVE_0, help="Clips per second of one device.")
@click.option("--measure", is_flag=True, help="Measure it, whatever is known.")
@click.option("--gpus", type=COUNT, default=1, help="Devices that share the batch.")
def cost(throughput: float | None, measure: bool, gpus: int) -> None:
    """Prints parameters, work, memory and hours of the runs."""
    from matpac.cli import cost

    cost.main(clips_per_s=throughput, measure=measure, gpus=gpus)


@main.command()
def minutes() -> None:
    """Prints how long each stage took when it last ran."""
    from matpac.cli import plan

    plan.print_minutes()


def _is_folder(target: str, *, meant: bool) -> bool:
    """Whether it is a folder of sounds and no run of the project that one stands in.

    Args: meant: no run takes the options that were given.
    Raises: FileNotFoundError if it can be neither.
    """
    from matpac.core import paths
    from matpac.params import load

    there, name_like = Path(target).is_dir(), re.fullmatch("[a-z][a-z0-9_]*", target)
    if not there and (meant or not name_like):
        what = "is a file; give its folder" if Path(target).is_file() else "no such folder"
        raise FileNotFoundError(f"{target}: {what}")
    if meant or not name_like:
        return True
    try:
        paths.root()
    except FileNotFoundError as error:
        if not there:
            raise FileNotFoundError(f"{target}: no such folder, and no run: {error}") from None
        return True
    return there and target not in load().runs


@main.command()
@click.argument("target", metavar="FOLDER|RUN")
@click.option("-o", "--output", type=FILE, help="For a FOLDER: where to; default: NAME-matpac.")
@click.option("--minutes", type=float, help="For a FOLDER: of training; default: 10.")
@click.option(
    "--size",
    type=click.Choice(["mini", "fine", "small", "base"]),
    help="For a FOLDER: the encoder's; fine: mini with patches of 8 x 8, for speech.",
)
@click.option("--checkpoint", type=FILE, help="For a RUN: the training state to go on from.")
def pretrain(target: str, checkpoint: Path | None, **options: Any) -> None:
    """Trains an encoder on a FOLDER of sounds, or a RUN.

    A FOLDER is all that is needed: what it makes has an encoder, a score and a picture. The name of
    a RUN in the project's params.yaml goes before a folder of that name, which ./NAME is;
    torchrun and batch systems start this.

    The same command goes on where it was stopped. The exit code is 75 after SIGTERM and 130 after
    Ctrl-C, the state saved.
    """
    from matpac.core.signals import raising
    from matpac.params import load

    # Before torch is loaded: with other work beside it, long spinning is ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if _is_folder(target, meant=any(value is not None for value in options.values())):
        from matpac.cli.pretrain_folder import pretrain_folder

        if checkpoint is not None:
            raise click.UsageError("--checkpoint goes with a RUN; a FOLDER goes on by itself")
        with going_on(), raising():
            pretrain_folder(Path(target), options.pop("output"), **options)
        return
    from matpac.pretraining import config
    from matpac.pretraining.pretrain import pretrain

    params = load()
    config.seeds(params, target)
    with going_on(), raising():
        pretrain(target, params, checkpoint=checkpoint)


@main.command()
@click.argument("encoder")
@click.option("--params", "file", type=FILE, help="Default: params.yaml.")
@click.option("--rate", "rates", type=ABOVE_0, multiple=True, help="May be repeated.")
@click.option("--epochs", type=COUNT, multiple=True, default=[100], help="May be repeated.")
@click.option("--csv", type=encoders.OUTPUT, help="Also writes the rows of the table there.")
def study(
    encoder: str,
    file: Path | None,
    rates: tuple[float, ...],
    epochs: tuple[int, ...],
    csv: Path | None,
) -> None:
    """Prints what rates and epochs do to an ENCODER's probes."""
    from matpac.params import load
    from matpac.probing.study import RATES, study, table

    rows = study(encoder, load(file), learning_rates=rates or RATES, epochs=epochs)
    click.echo(table(rows))
    encoders.write_csv(rows, csv)


@main.command()
def verify() -> None:
    """Reads all log-mel stores again; compares checksums."""
    from matpac.core import paths
    from matpac.features.store import verify
    from matpac.params import load

    damaged = False
    stores = paths.bulk(load()) / "logmel"
    if not (found := sorted(stores.glob("*/index.json"))):
        raise FileNotFoundError(f"{stores}: no log-mel store; run the stage logmel")
    for path in found:
        try:
            index = verify(path.parent, again=True)
            click.echo(f"{path.parent}: as written, {index['num_clips']:,} clips")
        except (FileNotFoundError, ValueError) as error:
            click.echo(error, err=True)
            damaged = True
    sys.exit(int(damaged))


@main.command()
def clean() -> None:
    """Removes all training states of the profile."""
    import shutil

    from matpac.core import paths
    from matpac.params import load

    folder = paths.bulk(load()) / "checkpoints"
    if there := folder.exists():
        shutil.rmtree(folder)
    click.echo(f"removed {folder}" if there else f"{folder}: no training states")


for command in encoders.COMMANDS:
    main.add_command(command)

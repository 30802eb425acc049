"""Runs a stage's notebook; the executed copy is kept for people.

The cells run in this process, in IPython's shell without a kernel: a stage starts one interpreter,
which is that of the command, prints straight to the terminal and gets Ctrl-C from it.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from matpac.core import files, paths
from matpac.params import load


def run(notebook: str, key: str | None) -> Path:
    """Executes ``notebooks/<notebook>.ipynb`` on ``params.yaml``, which is checked before.

    Args:
        notebook: its name without ending.
        key: the name in ``runs`` or ``encoders`` that it is for.
    Returns: the executed copy, ``data/<profile>/executed/<notebook>[-<key>].ipynb``.
    Raises: ValueError, FileNotFoundError for bad parameters; whatever a cell raises, which the copy
        shows, too.
    """
    root = paths.root()
    executed = paths.small(load()) / "executed" / f"{notebook}-{key}.ipynb"
    if key is None:
        executed = executed.with_name(f"{notebook}.ipynb")
    # Waiting threads spin shortly, then sleep: on a busy machine long spinning is ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("MATPAC_PROGRESS", "lines")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    document = json.loads((root / "notebooks" / f"{notebook}.ipynb").read_text("utf-8"))
    inject(document, {"params": "params.yaml"} | ({"run": key} if key else {}))
    with chdir(root):
        execute(document, executed)
    return executed


def inject(document: dict[str, Any], parameters: dict[str, str]) -> None:
    """Adds a cell with other values below that which is tagged ``parameters``."""
    tags = [cell["metadata"].get("tags", []) for cell in document["cells"]]
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell = {"cell_type": "code", "id": "injected", "metadata": {"tags": ["injected-parameters"]}}
    index = next(i for i, names in enumerate(tags) if "parameters" in names)
    document["cells"].insert(index + 1, cell | {"source": source})


def execute(document: dict[str, Any], path: Path) -> None:
    """Runs the cells of a notebook and keeps what they show; saved after each of them.

    Args:
        document: a notebook of format 4.5, changed in place.
        path: where it is saved.
    Raises: what a cell raises; the cells behind it are not run.
    """
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        cell |= {"execution_count": None, "outputs": []}
    start, started = time.monotonic(), datetime.now().astimezone()
    shell = Shell.instance()
    for number, cell in enumerate(cells, start=1):
        cell["execution_count"] = number
        error = shell.run(cell)
        timing = {"start_time": started.isoformat(), "duration": time.monotonic() - start}
        document["metadata"]["matpac"] = timing | {"python": sys.executable}
        with files.replacing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1, default=_text) + "\n", "utf-8")
        if isinstance(error, Exception):
            print(f"{path}: the notebook up to the error, with its traceback", file=sys.stderr)
        if error is not None:
            raise error


class Shell(InteractiveShell):
    """IPython without a terminal and without a kernel: what is shown becomes a cell's output."""

    kernel = None
    """A shell without this is a terminal to pandas, which would cut its tables to its width."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        config = Config({"HistoryManager": {"enabled": False}})
        super().__init__(config=config, display_pub_class=Publisher, displayhook_class=Results)

    def run(self, cell: dict[str, Any]) -> BaseException | None:
        """Runs a cell into its own ``outputs``. Returns: the exception that ended it."""
        self.outputs = cell["outputs"]
        streams = [Stream(name, getattr(sys, name), self.show) for name in ("stdout", "stderr")]
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            result = self.run_cell("".join(cell["source"]), store_history=True)
        return result.error_before_exec or result.error_in_exec

    def show(self, output_type: str, **content: Any) -> None:
        """Adds an output; texts of a stream that follow each other become one."""
        last = self.outputs[-1] if self.outputs else {}
        if output_type == "stream" and last.get("name") == content["name"]:
            last["text"] += content["text"]
        else:
            self.outputs.append({"output_type": output_type} | content)

    def init_virtualenv(self) -> None:
        """This process's packages, whatever VIRTUAL_ENV says."""

    def enable_gui(self, gui: str | None = None) -> None:
        """There is none."""

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        self.show("error", ename=etype.__name__, evalue=str(evalue), traceback=stb)


class Results(DisplayHook):
    """The value of a cell's last line."""

    def write_output_prompt(self) -> None:
        """The cell has its number."""

    def write_format_data(self, format_dict: dict, md_dict: dict | None = None) -> None:
        """Into the document."""
        count = self.shell.execution_count
        self.shell.show(
            "execute_result", execution_count=count, data=format_dict, metadata=md_dict or {}
        )

    def finish_displayhook(self) -> None:
        """Nothing stands below it."""
        self._is_active = False


class Publisher(DisplayPublisher):
    """What a cell displays besides, such as figures."""

    def publish(self, data: dict, metadata: dict | None = None, **_: Any) -> None:
        """Into the document."""
        self.shell.show("display_data", data=data, metadata=metadata or {})


class Stream:
    """A stream of the terminal whose text also goes into the document."""

    def __init__(self, name: str, stream: TextIO, show: Callable[..., None]) -> None:
        self.name, self.stream, self.show = name, stream, show

    def write(self, text: str) -> int:
        """At once: a log is read while it grows."""
        self.show("stream", name=self.name, text=text)
        written = self.stream.write(text)
        self.stream.flush()
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _text(value: Any) -> str:
    """Bytes of an image as notebooks have them."""
    return base64.b64encode(value).decode()

"""Runs a stage's notebook with papermill; the executed copy is kept for people.

The cells run in this process, in IPython's shell without a kernel: a stage starts one interpreter,
which is that of the command, prints straight to the terminal and gets Ctrl-C from it.
"""

import base64
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

# What jsonschema checks addresses and durations with, which no notebook has: two seconds to import.
for unused in ("rfc3987_syntax", "rfc3986_validator", "isoduration"):
    sys.modules.setdefault(unused, None)  # type: ignore[arg-type]

import papermill
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from traitlets.config import Config

from matpac.core import paths
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
    folder = paths.small(load()) / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / (f"{notebook}-{key}.ipynb" if key else f"{notebook}.ipynb")
    # Waiting threads spin shortly, then sleep: on a busy machine long spinning is ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("MATPAC_PROGRESS", "lines")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    papermill_engines.register("here", Here)
    papermill.execute_notebook(
        root / "notebooks" / f"{notebook}.ipynb",
        executed,
        parameters={"params": "params.yaml"} | ({"run": key} if key else {}),
        engine_name="here",
        cwd=root,
        kernel_name="python3",
        language="python",
        progress_bar=False,
    )
    return executed


class Here(Engine):
    """Papermill's engine without another process."""

    @classmethod
    def execute_managed_notebook(
        cls, manager: NotebookExecutionManager, kernel_name: str, **_: Any
    ) -> None:
        """Runs the cells one by one; the notebook is saved around each of them."""
        shell, cells = Shell.instance(), manager.nb.cells
        for index, cell in enumerate(cells):
            manager.cell_start(cell, index)
            error = shell.run(cell) if cell.cell_type == "code" else None
            if error is not None:
                manager.cell_exception(cell, index)
            manager.cell_complete(cell, index)
            if error is not None:
                raise error


class Shell(InteractiveShell):
    """IPython without a terminal and without a kernel: what is shown becomes a cell's output."""

    kernel = None
    """A shell without this is a terminal to pandas, which would cut its tables to its width."""

    def __init__(self) -> None:
        self.outputs: list[NotebookNode] = []
        config = Config({"HistoryManager": {"enabled": False}})
        super().__init__(config=config, display_pub_class=Publisher, displayhook_class=Results)

    def run(self, cell: NotebookNode) -> BaseException | None:
        """Runs a cell into its own ``outputs``. Returns: the exception that ended it."""
        self.outputs, cell.execution_count = cell.outputs, self.execution_count
        streams = [Stream(name, getattr(sys, name), self.show) for name in ("stdout", "stderr")]
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            result = self.run_cell(cell.source, store_history=True)
        return result.error_before_exec or result.error_in_exec

    def show(self, output_type: str, **content: Any) -> None:
        """Adds an output; texts of a stream that follow each other become one."""
        last = self.outputs[-1] if self.outputs else {}
        if output_type == "stream" and last.get("name") == content["name"]:
            last["text"] += content["text"]
        else:
            self.outputs.append(new_output(output_type, **content))

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
        self.shell.show(
            "execute_result",
            execution_count=self.shell.execution_count,
            data=plain(format_dict),
            metadata=md_dict or {},
        )

    def finish_displayhook(self) -> None:
        """Nothing stands below it."""
        self._is_active = False


class Publisher(DisplayPublisher):
    """What a cell displays besides, such as figures."""

    def publish(self, data: dict, metadata: dict | None = None, **_: Any) -> None:
        """Into the document."""
        self.shell.show("display_data", data=plain(data), metadata=metadata or {})


def plain(data: dict[str, Any]) -> dict[str, Any]:
    """Images as notebooks have them."""
    return {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for kind, value in data.items()
    }


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

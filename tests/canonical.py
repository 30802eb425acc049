"""The form in which notebooks are committed, and the command that brings them into it.

``python tests/canonical.py [NAME ...]`` re-executes notebooks (default: all) in a fresh smoke root
and saves them: a fixed kernel name, no timings, no paths, execution counts from 1. A test fails
when a notebook was saved in another form.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

import smoke

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def canonical(notebook: NotebookNode) -> NotebookNode:
    """A copy without what differs from machine to machine or run to run."""
    notebook = nbformat.from_dict(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                if "metadata" in output:
                    output.metadata = nbformat.from_dict({})
                if output.output_type == "execute_result":
                    output.execution_count = count
    return notebook


def merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Texts that were printed one after another, however they came, as one."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if kept and output.get("name") and output.get("name") == kept[-1].get("name"):
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def text(notebook: NotebookNode) -> str:
    """The bytes a canonical notebook has on disk."""
    return nbformat.writes(canonical(notebook), version=4) + "\n"


def execute(path: Path) -> None:
    """Runs a notebook where nbval runs it, in its own folder, and saves it in canonical form."""
    notebook = nbformat.read(path, as_version=4)
    beside = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=beside).execute()
    path.write_text(text(notebook))


def main() -> None:
    """Re-executes the named notebooks, or all."""
    names = sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as root:
        smoke.prepare(Path(root))
        for name in names:
            print(name, flush=True)
            execute(NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    main()

"""Execute docs/tutorial.ipynb and store its outputs: `python tests/tutorial.py`.

Stored are text and images only, without the progress on stderr and without times of execution.
"""

import copy
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"
TIMEOUT_S = 300  # of one cell, on a busy machine
KEPT_TYPES = ("text/plain", "image/png")
OBJECT = re.compile(r"<[^>]* at 0x[0-9a-f]+>")  # the address changes in every run


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Return a copy of a notebook with new outputs; its files are written to `folder`."""
    executed = copy.deepcopy(notebook)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    client = NotebookClient(
        executed,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := _keep(output))]
    return executed


def _keep(output: NotebookNode) -> NotebookNode | None:
    """Return what is stored of an output; None of progress and of the name of an object."""
    if output.output_type == "stream":
        is_log = output.name == "stderr" or output.text.startswith("INFO:tensorflow")
        return None if is_log else output
    output.data = {kind: output.data[kind] for kind in KEPT_TYPES if kind in output.data}
    if "image/png" in output.data or OBJECT.search(output.data.get("text/plain", "")):
        output.data.pop("text/plain", None)
    return output if output.data else None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = execute(nbformat.read(NOTEBOOK, as_version=4), Path(name))
    nbformat.write(found, NOTEBOOK)
    print(NOTEBOOK, f"{NOTEBOOK.stat().st_size / 1e3:.0f} kB")

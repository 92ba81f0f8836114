"""Runs the simulated notebooks of this folder and keeps their outputs for the documentation: `make notebooks`."""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image

ANALYSIS = Path(__file__).parent
NOTEBOOKS = ("staleness_and_n_sync", "where_time_goes", "paper/paper")


def smaller(png: str) -> str:
    """The same picture in at most 128 colours, which is enough for curves."""
    picture, written = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.convert("RGB").quantize(128).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def execute(name: str) -> None:
    """Run one notebook in a temporary folder, and write it to executed/."""
    notebook = jupytext.read(ANALYSIS / f"{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": str(ANALYSIS.parent if name == "paper/paper" else folder)}}
        nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # times
        cell["id"] = f"cell-{number}"
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
    path = ANALYSIS / "executed" / f"{Path(name).name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NOTEBOOKS:
        execute(chosen)

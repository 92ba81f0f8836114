"""Runs the notebooks of this folder and keeps their outputs for the documentation: `make notebooks`.

Two of them run real processes, so nothing else should run meanwhile.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image

ANALYSIS = Path(__file__).parent
NOTEBOOKS = ("staleness_and_n_sync", "where_time_goes", "paper/paper", "your_own_model", "simulated_against_measured")
MADE = re.compile(re.escape(f"{tempfile.gettempdir()}/") + r"asgd-lab-\w+")  # a notebook's own folder


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
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
            for kind in data.keys() & {"text/plain", "text/html"}:
                data[kind] = MADE.sub("FOLDER", data[kind])
            if "text" in output:
                output["text"] = MADE.sub("FOLDER", output["text"])
    path = ANALYSIS / "executed" / f"{Path(name).name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NOTEBOOKS:
        execute(chosen)

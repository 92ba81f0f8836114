"""Pages of the notebooks in `analysis/`: their prose and code, and the outputs that `make notebooks` has kept."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import jupytext

ANALYSIS = Path(__file__).parents[2] / "analysis"
EXECUTED = ANALYSIS / "executed"
CODE = '??? example "Code"\n\n'
MEASURED = "Their outputs are of one execution; measured times are those of a machine with two cores."


class Cell(NamedTuple):
    """A cell with its kept outputs."""

    kind: str
    source: str
    outputs: list[dict[str, Any]]


@functools.cache
def read() -> dict[str, list[Cell]]:
    """The notebooks by their names."""
    files = {path.stem: path for path in sorted(ANALYSIS.rglob("*.py")) if "# %%" in path.read_text(encoding="utf-8")}
    return {name: _cells(path) for name, path in files.items()}


def kept(name: str) -> list[dict[str, Any]]:
    """The cells of the executed copy."""
    found: list[dict[str, Any]] = json.loads((EXECUTED / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return found


def _cells(path: Path) -> list[Cell]:
    cells = jupytext.read(path).cells
    outputs = [copy.get("outputs", []) for copy in kept(path.stem)]
    return [Cell(cell.cell_type, cell.source, shown) for cell, shown in zip(cells, outputs, strict=True)]


def titles() -> dict[str, str]:
    """The title of each notebook's page, by the page's place."""
    return {f"notebooks/{name}.md": _title(cells) for name, cells in read().items()}


def pages() -> dict[str, str]:
    """The pages of all notebooks, and one that lists them."""
    lines = ["# Notebooks", "", "Jupyter opens these files of `analysis/` by jupytext, and the tests run them."]
    lines += [MEASURED, ""]
    lines += [f"- [{_title(cells)}]({name}.md)" for name, cells in read().items()]
    found = {"notebooks/index.md": "\n".join(lines) + "\n"}
    return found | {f"notebooks/{name}.md": _page(name, cells) for name, cells in read().items()}


def images() -> dict[str, bytes]:
    """The figures of all notebooks, by their places."""
    return {
        f"notebooks/{_image(name, number, index)}": base64.b64decode(output["data"]["image/png"])
        for name, cells in read().items()
        for number, cell in enumerate(cells)
        for index, output in enumerate(cell.outputs)
        if "image/png" in output.get("data", {})
    }


def _title(cells: list[Cell]) -> str:
    return cells[0].source.splitlines()[0].removeprefix("# ")


def _page(name: str, cells: list[Cell]) -> str:
    parts = []
    for number, cell in enumerate(cells):
        if cell.kind == "markdown":
            parts.append(cell.source)
        else:
            parts.append(CODE + _indented(f"```python\n{cell.source}\n```"))
        parts += [_shown(_image(name, number, index), output) for index, output in enumerate(cell.outputs)]
    return "\n\n".join(parts) + "\n"


def _shown(image: str, output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![]({image})"
    if "text/markdown" in data:
        return _text(data["text/markdown"])
    if "text/html" in data:
        return '<div class="frame" markdown="0">' + _text(data["text/html"]).replace("\n", "") + "</div>"
    return "```text\n" + _text(output.get("text") or data["text/plain"]).rstrip() + "\n```"


def _image(name: str, number: int, index: int) -> str:
    return f"{name}-{number}-{index}.png"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)

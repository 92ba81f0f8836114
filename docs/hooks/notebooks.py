"""Pages of the notebooks in `analysis/`, from the executed copies that `python analysis/execute.py` keeps."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

ANALYSIS = Path(__file__).parents[2] / "analysis"
EXECUTED = ANALYSIS / "executed"
CODE = '??? example "Code"\n\n'


@functools.cache
def read() -> dict[str, dict[str, Any]]:
    """The executed notebooks by their names."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(EXECUTED.glob("*.ipynb"))}


def titles() -> dict[str, str]:
    """The title of each notebook's page, by the page's place."""
    return {f"notebooks/{name}.md": _title(notebook) for name, notebook in read().items()}


def pages() -> dict[str, str]:
    """The pages of all notebooks, and one that lists them."""
    lines = [
        "# Notebooks",
        "",
        "Each is a file in `analysis/` that Jupyter opens with jupytext, and that the tests run.",
        "",
    ]
    lines += [f"- [{_title(notebook)}]({name}.md)" for name, notebook in read().items()]
    found = {"notebooks/index.md": "\n".join(lines) + "\n"}
    return found | {f"notebooks/{name}.md": _page(name, notebook) for name, notebook in read().items()}


def images() -> dict[str, bytes]:
    """The figures of all notebooks, by their places."""
    return {
        f"notebooks/{_image(name, index)}": base64.b64decode(output["data"]["image/png"])
        for name, notebook in read().items()
        for index, output in enumerate(_outputs(notebook))
        if "image/png" in output.get("data", {})
    }


def _title(notebook: dict[str, Any]) -> str:
    return _text(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")


def _page(name: str, notebook: dict[str, Any]) -> str:
    numbers = {id(output): index for index, output in enumerate(_outputs(notebook))}
    parts = []
    for cell in notebook["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(CODE + _indented(f"```python\n{source}\n```"))
        parts += [_shown(name, numbers[id(output)], output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _shown(name: str, index: int, output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![]({_image(name, index)})"
    if "text/markdown" in data:
        return _text(data["text/markdown"])
    if "text/html" in data:
        return '<div class="frame" markdown="0">' + _text(data["text/html"]).replace("\n", "") + "</div>"
    return "```text\n" + _text(output.get("text") or data["text/plain"]).rstrip() + "\n```"


def _outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def _image(name: str, index: int) -> str:
    return f"{name}-{index}.png"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)

"""The notebooks of `analysis/` run from top to bottom, with smaller constants, in a directory of their own."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import pytest
from jupyter_client.kernelspec import get_kernel_spec

from tests.whole import sample

ANALYSIS = Path(__file__).parents[1] / "analysis"
SMALL = {
    "simulated_against_measured": """
COMPARED = None
SCENARIO = "does-the-server-saturate"
OVERRIDES = {"budget.seconds": 0.5, "algorithm.n_sync": 2}
REPEATS = 2
""",
    "staleness_and_n_sync": """
SEEDS = (0, 1)
UPDATES = 1000
WORKERS = (2, 8)
N_SYNC = (10, 30, 100)
SECONDS = 16.0
TARGET = 1e-5
""",
    "where_time_goes": """
WORKERS = (8, 32)
N_SYNC = (1, 10)
UPDATES = 1200
STEPS_S = (0.04, 0.02)
FIGURES = None
""",
    "your_own_model": """
MINIBATCHES = 200
N_SYNC = (1, 5)
COMPARED_S = 0.3
""",
    "paper/paper": """
TABLES = None
OUT = None
""",
}
FIGURES = {
    "simulated_against_measured": 1,
    "staleness_and_n_sync": 3,
    "where_time_goes": 4,
    "your_own_model": 1,
    "paper/paper": 5,
}


def execute(name: str, folder: Path) -> Any:
    """The notebook after its run; its first failing cell is the test's failure."""
    notebook = jupytext.read(ANALYSIS / f"{name}.py")
    (constants,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    defined = {line.split(" = ")[0] for line in constants.source.splitlines()}
    assert defined == {line.split(" = ")[0] for line in SMALL[name].strip().splitlines()}
    constants.source = SMALL[name]
    client = nbclient.NotebookClient(
        notebook, timeout=200, startup_timeout=100, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_the_kernel_is_this_environment() -> None:
    python = Path(get_kernel_spec("python3").argv[0])
    assert python.name == str(python) or python.parent == Path(sys.executable).parent


@pytest.mark.xdist_group("process")
@pytest.mark.parametrize(
    ("name", "figures"),
    sample(FIGURES.items(), 3, seed=5),
)
def test_a_notebook_runs_without_a_warning_and_draws(
    name: str, figures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shown = outputs(execute(name, tmp_path))
    complaints = [output.text for output in shown if output.get("name") == "stderr"]
    assert complaints == []
    images = [output.data["image/png"] for output in shown if "image/png" in output.get("data", {})]
    assert len(images) == figures
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert any("text/html" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_is_prose_first(name: str) -> None:
    cells = jupytext.read(ANALYSIS / f"{name}.py").cells
    assert cells[0].cell_type == "markdown"
    words = {kind: sum(len(c.source.split()) for c in cells if c.cell_type == kind) for kind in ("markdown", "code")}
    assert words["markdown"] > 0.8 * words["code"]
    assert "What this does not show" in cells[-1].source


def test_every_notebook_is_run_here() -> None:
    found = {
        str(path.relative_to(ANALYSIS).with_suffix("")) for path in ANALYSIS.rglob("*.py") if "# %%" in path.read_text()
    }
    assert found == set(SMALL) == set(FIGURES)

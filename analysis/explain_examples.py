"""Records the three runs of the pages on `explain`, explains them, and keeps tables and figures: docs/explain*.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import asgd_lab as lab
from asgd_lab.record import atomic_files

KEPT, FIGURES = Path(__file__).parent / "explained", Path(__file__).parent / "figures"
DIGITS = {"name": "classification", "dataset": "digits", "model": "mlp", "batch_size": 16}
SIMULATED = {"backend": "sim", "hardware": {"compute": {"distribution": "lognormal", "cv": 0.3, "step_s": 0.01}}}
QUADRATIC = {"name": "quadratic", "curvature": [1.0, 0.3, 0.1, 0.03] * 64, "noise": 1.0}
EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "costs-nothing": (
        {
            "task": {**DIGITS, "optimizer": {"name": "SGD", "lr": 0.05}},
            "algorithm": {"name": "asgd", "n_sync": 1}, "workers": 8, "budget": {"minibatches": 1600},
        },
        {"doses": (1.0, 0.5, 0.0), "seeds": 10},
    ),
    "costs-most": (
        {
            "task": {**QUADRATIC, "optimizer": {"name": "SGD", "lr": 0.1}},
            "algorithm": {"name": "asgd", "n_sync": 1, "rule": ["add"]}, "workers": 16, "budget": {"minibatches": 400},
        },
        {"doses": (1.0, 0.75, 0.5, 0.25, 0.0), "seeds": 10, "causes": ("staleness", "lock-step", "drift")},
    ),
    "turns-with-the-rate": (
        {
            "task": {**DIGITS, "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9}},
            "algorithm": {"name": "asgd", "n_sync": 1}, "workers": 8, "budget": {"minibatches": 800},
        },
        {"doses": (1.0, 0.0), "rates": (0.25, 1.0, 4.0, 8.0), "seeds": 10},
    ),
}  # fmt: skip


def keep(name: str) -> None:
    """Record and explain one example, and keep its findings."""
    stated, asked = EXAMPLES[name]
    with tempfile.TemporaryDirectory() as folder:
        run = lab.run({"name": name, **SIMULATED, **stated}, out=Path(folder) / "run")
        found = lab.explain(run, **asked)
    KEPT.mkdir(exist_ok=True)
    rows = [
        f"| {each.cause} | {each.rate:g} | {each.dose:g} | {each.staleness:.2f} | {each.estimate.mean:.5g} | "
        f"{each.estimate.half_width:.2g} |"
        for each in found.points
    ]
    head = [f"| cause | rate | dose | staleness | {found.metric} | ± 95% |", "| --- " + "| --: " * 5 + "|"]
    lines = [f"- {line}" for line in found.lines]
    (KEPT / f"{name}.md").write_text("\n".join([*head, *rows, "", *lines, ""]), encoding="utf-8")
    with atomic_files.replacing(FIGURES / f"explain-{name}.png") as file:
        found.plot().savefig(file, format="png", dpi=200)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or EXAMPLES:
        keep(chosen)

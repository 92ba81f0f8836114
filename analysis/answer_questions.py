"""Runs the simulated sweeps of `scenarios/`, and keeps tables and figures for the documentation: `make questions`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "analysis" / "questions"
SIMULATED = ["--backend", "sim"]
SWEEPS: dict[str, list[str]] = {
    "does-the-server-saturate": [*SIMULATED, "--set", "backend.device=cpu"],
    "up-to-32-workers": [*SIMULATED, "--set", "backend.device=cpu"],
    "where-does-time-go": [],
    "can-a-slower-server-be-faster": [],
    "how-stale": [],
    "how-much-n_sync": [],
    "fetch-and-push-apart": [],
    "which-server-rule": [],
    "cold-or-warm-start": [],
    "bring-your-own": [*SIMULATED, "--trust"],
    "paper/one-minibatch": [],
}


def keep(name: str) -> None:
    """Run one scenario, and keep its table, and its figure if it has one."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / name
        command = [sys.executable, "-m", "asgd_lab", "run", f"scenarios/{name}.yaml", *SWEEPS[name], "--out", str(out)]
        subprocess.run(command, cwd=ROOT, check=True)
        (KEPT / name).parent.mkdir(exist_ok=True)
        if (out / "sweep.csv").exists():
            shutil.copy(out / "sweep.csv", KEPT / f"{name}.csv")
        else:
            import pandas as pd

            from asgd_lab.record.replications import metrics
            from asgd_lab.record.run import read_summary

            rows = [{"metric": metric, "mean": mean} for metric, mean in metrics(read_summary(out)).items()]
            pd.DataFrame(rows).to_csv(KEPT / f"{name}.csv", index=False)
        for figure in out.glob("*.png"):
            shutil.copy(figure, KEPT / f"{name}.png")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SWEEPS:
        keep(chosen)

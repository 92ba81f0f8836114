"""A recorded run as scalars for TensorBoard: losses and errors of each worker, staleness, and held-out metrics.

Needs the extra `tensorboard` (the package tensorboardX, which writes the files without TensorBoard itself).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables

if TYPE_CHECKING:
    import pandas as pd


def write(run_dir: Path, folder: Path) -> int:
    """Write the run's scalars into `folder`; how many. Wall times are the run's own clock, from its start on."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        message = "tensorboard: needs the package tensorboardX; pip install 'asgd-lab[tensorboard]'"
        raise ScenarioError(message) from None
    began_s = _began_s(run_dir)
    effects = tables.read(run_dir, "effects")
    pushes = effects[(effects["kind"] == "push") & (effects["version"] > 0)].sort_values("end_s")
    written = 0
    with SummaryWriter(str(folder)) as writer:

        def scalars(tag: str, rows: pd.DataFrame, step: str, time: str, value: str) -> None:
            nonlocal written
            rows = rows.dropna(subset=[value])
            for at, when, what in zip(rows[step], rows[time], rows[value], strict=True):
                writer.add_scalar(tag, float(what), int(at), began_s + float(when))
            written += len(rows)

        for worker, rows in tables.read(run_dir, "minibatches").groupby("worker"):
            for value in ("loss", "error"):
                scalars(f"{value}/worker {worker}", rows, "step", "time_s", value)
        scalars("staleness", pushes, "version", "end_s", "staleness")
        for (whose, split, metric), rows in tables.read(run_dir, "evals").groupby(["parameters", "split", "metric"]):
            scalars(f"{split} {metric}/{whose}", rows, "minibatches", "time_s", "value")
    return written


def _began_s(run_dir: Path) -> float:
    """Seconds of the epoch when a real run began; 0 for one whose clock is its own."""
    try:
        summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{run_dir}: is not a finished run: {error}") from None
    return float(summary.get("started_unix_s") or 0.0)

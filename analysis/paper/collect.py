"""Recorded runs of scenarios/paper as two small tables: `python analysis/paper/collect.py RUNS TABLES`.

RUNS holds a directory a scenario. `runs.parquet` has a row a run: its settings, and what the verdicts need of it;
`curves.parquet` has the errors of 96 spans of each run's time. Errors are shares of 1; minibatches, passes and steps
are those of the system that is studied.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import signal

from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document, Scenario

SPANS = 96  # of a run: a quarter of an hour each in 24 hours
LAST = 0.05  # the share of a run at its end over which its final errors are averaged
WINDOW = 400  # minibatches over which the paper smooths its curves


def main(runs: Path, out: Path) -> None:
    """Every finished run below the folder."""
    rows, curves = [], []
    for number, manifest in enumerate(sorted(runs.rglob("manifest.json"))):
        (point,) = Document.read(manifest.parent / "scenario.yaml").points()
        settings = {"run": number, **settings_of(point.scenario)}
        summary = read_summary(manifest.parent)
        if summary["status"] != "done":
            sys.exit(f"{manifest.parent} is {summary['status']}; go on with it first")
        scale = getattr(point.scenario.task, "scale", 1)
        rows.append({**settings, **of_summary(summary, scale)})
        if point.scenario.task.name == "classification":
            seen = Seen(manifest.parent, point.scenario, summary["makespan_s"])
            rows[-1] |= seen.features()
            curves.append(seen.curves().assign(**settings))
            if point.scenario.workers == 8 and point.scenario.seed == 0:
                curves.append(seen.smoothed().assign(**settings))
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(out / "runs.parquet", compression="zstd", index=False)
    pd.concat(curves).to_parquet(out / "curves.parquet", compression="zstd", index=False)
    print(f"{len(rows)} runs in {out}")


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """The settings that distinguish runs."""
    algorithm, task = scenario.algorithm, scenario.task
    preset = scenario.hardware.preset
    names = [preset] if isinstance(preset, str) else list(preset or [])
    options = task.optimizer.options if task.name == "classification" else {}
    return {
        "experiment": scenario.name,
        "workers": scenario.workers,
        "n_sync": algorithm.n_push,
        "lr": options.get("lr", np.nan),
        "momentum": options.get("momentum", 0.0),
        "at_fetch": algorithm.momentum_at_fetch,
        "algorithm": algorithm.name,
        "rule": "+".join(f"{link.name} {getattr(link, 'lr', '')}".strip() for link in algorithm.rule),
        "dataset": getattr(task, "dataset", ""),
        "costs": names[-1] if names else "",
        "seed": scenario.seed,
    }


def of_summary(summary: dict[str, Any], scale: int) -> dict[str, Any]:
    """The numbers of the run's course."""
    return {
        "hours": summary["makespan_s"] / 3600,
        "minibatches": summary["minibatches"] * scale,
        "updates": summary["updates"],
        "staleness": summary["staleness"]["mean"],
        "computing": summary["time"]["mean"].get("compute", 0.0) / summary["makespan_s"],
        "server_busy": summary["utilisation"]["server"],
    }


class Seen:
    """One run's errors, its own minibatches' as its replicas saw them, and the server's on held-out samples."""

    def __init__(self, path: Path, scenario: Scenario, makespan_s: float) -> None:
        self.scenario, self.end_s = scenario, makespan_s
        self.scale = scenario.task.scale
        self.n = scenario.algorithm.n_push // self.scale
        minibatches = tables.read(path, "minibatches").sort_values(["worker", "step"])
        self.own = minibatches[minibatches["time_s"] <= makespan_s]
        evals = tables.read(path, "evals")
        evals = evals[evals["metric"] == "error"]
        evals["whose"] = np.where(evals["parameters"] == "server", "server ", "replicas' ") + evals["split"]
        self.evals = evals.drop_duplicates(["parameters", "split", "time_s"])

    def curves(self) -> pd.DataFrame:
        """The mean error of each span; for the server, the mean of the evaluations in it."""
        own = self.own.assign(whose="replicas own")
        rows = pd.concat([own[["time_s", "whose", "error"]], self._errors()])
        span = np.minimum((rows["time_s"] / self.end_s * SPANS).astype(int), SPANS - 1)
        means = rows.groupby(["whose", span.rename("span")], observed=True)["error"].mean().reset_index()
        means["hours"] = (means["span"] + 0.5) / SPANS * self.end_s / 3600
        per_client = len(self.own) * self.scale / self.scenario.workers  # steps of a client, at a constant rate
        means["steps"] = (means["span"] + 0.5) / SPANS * per_client
        return means.drop(columns="span").astype({"error": np.float32, "hours": np.float32, "steps": np.float32})

    def smoothed(self) -> pd.DataFrame:
        """One client's curve as the paper smooths it, four points a window."""
        rows = self.own[self.own["worker"] == 0]
        window = max(1, WINDOW // self.scale)
        means = rows.assign(error=rows["error"].rolling(window).mean())[window - 1 :: max(1, window // 4)]
        return pd.DataFrame({
            "whose": "client 0, smoothed", "error": means["error"], "hours": means["time_s"] / 3600,
            "steps": means["step"] * self.scale,
        }).astype({"error": np.float32, "hours": np.float32, "steps": np.float32})  # fmt: skip

    def features(self) -> dict[str, float]:
        """Final errors, and the components of the curves' jags."""
        late = self.end_s * (1 - LAST)
        own = self.own[self.own["time_s"] > late]
        if own.empty:  # a budget of minibatches was spent, and all that is left is queueing
            own = self.own.nlargest(max(1, round(LAST * len(self.own))), "time_s")
        found = {"own": own["error"].mean()}
        for whose, rows in self._errors().groupby("whose"):
            last = rows[rows["time_s"] > late]
            found[whose] = (last if len(last) else rows.tail(1))["error"].mean()
        return found | self._jags() | self._ringing()

    def _errors(self) -> pd.DataFrame:
        return self.evals.rename(columns={"value": "error"})[["time_s", "whose", "error"]]

    def _jags(self) -> dict[str, float]:
        """`drift`: own error in the last quarter of a round less that in the first, over the run's second half.

        `variance_own`: the mean over clients of `variance` of their curves, smoothed as the paper does;
        `variance_server`: that of the server's test error, which is neither smoothed nor noisy.
        """
        half = self.own[self.own["time_s"] > self.end_s / 2]
        place = half["step"] % self.n / self.n
        drift = half.loc[place >= 0.75, "error"].mean() - half.loc[place < 0.25, "error"].mean()
        window, batch_size = WINDOW // self.scale, self.scenario.task.batch_size
        own = [variance(rows["error"].to_numpy(), window, batch_size) for _, rows in half.groupby("worker")]
        server = self.evals[(self.evals["whose"] == "server test") & (self.evals["time_s"] > self.end_s / 2)]
        return {
            "drift": drift,
            "variance_own": float(np.mean(own)) if own else np.nan,
            "variance_server": float(np.var(_detrended(server["value"].to_numpy()))) if len(server) > 8 else np.nan,
        }

    def _ringing(self) -> dict[str, float]:
        """`ringing` of the server's error; {} where fewer than four evaluations a round were made, or too few."""
        server = self.evals[self.evals["whose"] == "server train"].sort_values("version")
        rounds = server["version"].to_numpy() / self.scenario.workers
        late = rounds > rounds[-1] / 4  # before that the error still falls
        if late.sum() < max(3 * rounds[-1], 100):
            return {}
        return ringing(rounds[late], server["value"].to_numpy()[late])


def variance(errors: np.ndarray[Any, Any], window: int, batch_size: int) -> float:
    """Variance of means over `window` minibatches about a cubic trend, less the part of chance; it may be below 0.

    Errors of `batch_size` samples are binomial, and of the variance of a mean over a window four windows' share is in
    the trend already. NaN of fewer than eight windows.
    """
    if len(errors) < 8 * window:
        return np.nan
    smooth = np.convolve(errors, np.ones(window) / window, "valid")
    chance = errors.mean() * (1 - errors.mean()) / (window * batch_size)
    return float(np.var(_detrended(smooth)) - chance * (1 - 4 * window / len(errors)))


def ringing(rounds: np.ndarray[Any, Any], errors: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean power at periods of 3.6 to 5.6 rounds, and at 2.4 to 3.6 and 5.6 to 8.4, of so many frequencies each."""
    at = np.arange(rounds[0], rounds[-1], 0.25)
    frequency, power = signal.periodogram(_detrended(np.interp(at, rounds, errors)), fs=4.0)
    period = 1 / np.maximum(frequency, 1e-9)
    near = (period >= 3.6) & (period < 5.6)
    beside = ((period >= 2.4) & (period < 8.4)) & ~near
    return {
        "ring_near": float(power[near].mean()), "ring_beside": float(power[beside].mean()),
        "ring_near_bins": int(near.sum()), "ring_beside_bins": int(beside.sum()),
    }  # fmt: skip


def _detrended(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    place = np.linspace(-1, 1, len(values))
    return np.asarray(values - np.polynomial.Polynomial.fit(place, values, 3)(place))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(str(__doc__))
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""MLflow: each run is a run of the tool, where MLFLOW_TRACKING_URI says (else mlflow.db here, as is its default)."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from asgd_lab.loggers.base import End, LoggedRun, Logger
from asgd_lab.record.scalar_curves import Point

MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 500  # of one request, and of a parameter's text
_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflow(Logger):
    """runs of MLflow, with its own variables MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME"""

    called = "mlflow"
    needs = ("mlflow", "sqlalchemy", "alembic")
    packages = "mlflow-skinny sqlalchemy alembic"
    most_points = 500

    def begin(self, run: LoggedRun) -> str:
        """Begin a run in the experiment of the scenario's name; no active run of the caller's is touched."""
        is_new = "mlflow" not in sys.modules
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        if is_new:
            for name in ("mlflow", "alembic"):  # nothing is shown between the lines of the run
                logging.getLogger(name).setLevel(logging.WARNING)
        self._metric, self._began_s, self._time_s = Metric, run.began_s, 0.0
        self._client: Any = MlflowClient()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", run.scenario))
        tags = {"run_dir": str(run.path.absolute()), **({} if run.group is None else {"sweep": run.group})}
        self._id: str = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        params = [Param(_named(key), str(value)[:LONGEST]) for key, value in run.hparams.items()]
        for begin in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[begin : begin + MOST_PARAMS])
        self._client.log_batch(self._id, tags=[RunTag("clock", "virtual" if not run.began_s else "wall")])
        return f"{self._client.tracking_uri} run {self._id}"

    def log(self, points: Sequence[Point]) -> None:
        found = [self._point(point) for point in points]
        for begin in range(0, len(found), MOST_METRICS):
            self._client.log_batch(self._id, metrics=found[begin : begin + MOST_METRICS])

    def end(self, status: End, final: Mapping[str, float]) -> None:
        self.log([Point(tag, "", 0, self._time_s, value) for tag, value in final.items()])
        self._client.set_terminated(self._id, _STATUS[status])

    def _point(self, point: Point) -> Any:
        self._time_s = max(self._time_s, point.time_s)
        milliseconds = int((self._began_s + point.time_s) * 1e3)
        return self._metric(_named(point.tag), point.value, milliseconds, point.step)

    def _experiment(self, name: str) -> str:
        """The experiment of that name, made if there is none; another process may make it meanwhile."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _named(key: str) -> str:
    """The key with only those characters that MLflow takes."""
    return re.sub(r"[^\w.\-:/ ]", "_", key)

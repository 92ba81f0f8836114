"""TensorBoard's event files: one writer for the log of a run while it runs and for an export of its tables.

The package tensorboardX writes them without TensorBoard itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asgd_lab.loggers.base import End, LoggedRun, Logger
from asgd_lab.record import removal
from asgd_lab.record.scalar_curves import Point

FOLDER = "tensorboard"


class EventFile:
    """One event file; `began_s` is the Unix time at which the run's clock began."""

    def __init__(self, path: Path, began_s: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar

        self._event, self._scalar, self._began_s = Event, scalar, began_s
        self._writer = RecordWriter(str(path))
        self._write(Event(wall_time=began_s, file_version="brain.Event:2"))

    def add(self, point: Point) -> None:
        summary = self._scalar(point.tag, point.value)
        self.summary(summary, point.step, point.time_s)

    def summary(self, summary: Any, step: int = 0, time_s: float = 0.0) -> None:
        """Add a summary of any kind."""
        self._write(self._event(wall_time=self._began_s + time_s, step=step, summary=summary))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


class TensorBoard(Logger):
    """event files in the run directory's folder tensorboard"""

    called = "tensorboard"
    needs = ("tensorboardX",)
    packages = "tensorboardX"

    def begin(self, run: LoggedRun) -> str:
        """Begin a file, in the place of an earlier attempt's, with the scenario's values for the HParams page."""
        removal.clear(run.path, FOLDER)
        folder = run.path / FOLDER
        folder.mkdir(exist_ok=True)
        # TensorBoard goes on to a file whose name comes later; it would not notice that one has changed from its start.
        self._file = EventFile(folder / f"events.out.tfevents.{int(time.time()):010d}.asgd-lab", run.began_s)
        self._hparams, self._time_s, self._step = run.hparams, 0.0, 0
        _, begins, _ = self._summaries({})
        self._file.summary(begins)
        self._file.flush()
        return FOLDER

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._file.add(point)
            self._time_s = max(self._time_s, point.time_s)
        self._file.flush()

    def end(self, status: End, final: Mapping[str, float]) -> None:
        """Add the final numbers, which are the columns of the HParams page."""
        experiment, _, ends = self._summaries(final)
        for tag, value in final.items():
            self._file.add(Point(tag, "", 0, self._time_s, value))
        self._file.summary(experiment)
        with contextlib.suppress(KeyError):
            ends = _ended(ends, {"done": 1, "failed": 2, "interrupted": 2}[status])
        self._file.summary(ends)
        self._file.close()

    def _summaries(self, final: Mapping[str, float]) -> tuple[Any, Any, Any]:
        from tensorboardX.summary import hparams

        found: tuple[Any, Any, Any] = hparams(dict(self._hparams), dict(final))
        return found


def _ended(summary: Any, status: int) -> Any:
    """The summary of a session's end with another status: tensorboardX says success of any."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    (value,) = summary.value
    content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    content.session_end_info.status = status
    value.metadata.plugin_data.content = content.SerializeToString()
    return summary

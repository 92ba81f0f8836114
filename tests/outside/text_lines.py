"""A logger of one's own: each new point is a line of a text file in the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asgd_lab.loggers.base import End, LoggedRun, Logger, Point


class TextLines(Logger):
    """lines of tag, step and value in lines.txt"""

    def begin(self, run: LoggedRun) -> str:
        path = run.path / "lines.txt"
        self.file = path.open("w", encoding="utf-8")
        print("workers", run.hparams["workers"], "sweep", run.group, file=self.file)
        return str(path)

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            print(point.tag, point.step, f"{point.value:.6g}", file=self.file)
        self.file.flush()

    def end(self, status: End, final: Mapping[str, float]) -> None:
        for tag, value in final.items():
            print(tag, f"{value:.6g}", file=self.file)
        print(status, file=self.file)
        self.file.close()

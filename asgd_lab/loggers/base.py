"""The base of all loggers: a logger takes the points of a run's curves while it runs. No row of a table is known here.

A logger's methods are called in one thread, which is not the run's; their errors end the logger, not the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from asgd_lab.errors import ScenarioError
from asgd_lab.record.scalar_curves import Point

Value = bool | int | float | str
End = Literal["done", "interrupted", "failed"]


class LoggedRun(NamedTuple):
    """The facts of a run that its loggers know at its beginning."""

    path: Path
    """The run directory."""
    scenario: str
    """The scenario's name."""
    name: str
    """The name of the sweep's point, or of the run directory."""
    group: str | None
    """The sweep's name; None for a single run."""
    hparams: Mapping[str, Value]
    """The scenario's values by dotted key, without nulls."""
    began_s: float
    """The Unix time at which the run's clock began; 0 in virtual time."""


class Logger(ABC):
    """A logger of one run: `begin`, then `log` about once a second, then `end`."""

    called: ClassVar[str]
    """The logger's name, if it is one of this package's."""
    needs: ClassVar[Sequence[str]] = ()
    """Modules that must be importable."""
    packages: ClassVar[str] = ""
    """The packages that have these modules, as pip install takes them."""
    most_points: ClassVar[int | None] = None
    """About the number of points of one curve; means of several points take the place of more. None: all."""

    @abstractmethod
    def begin(self, run: LoggedRun) -> str | None:
        """Begin the log; return where it is (a path or an address) for the run's summary."""

    @abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Log new points; those of one tag are in order, if their worker did not die."""

    @abstractmethod
    def end(self, status: End, final: Mapping[str, float]) -> None:
        """End the log of a run, with its final numbers by tag."""

    @classmethod
    def check(cls) -> None:
        """ScenarioError if a needed package is not installed; nothing is imported."""
        if any(find_spec(each) is None for each in cls.needs):
            what = "the packages" if " " in cls.packages else "the package"
            raise ScenarioError(f"needs {what} {cls.packages}: pip install {cls.packages}")


class UnreadLogger(Logger):
    """A logger whose code may not be imported: it is refused when it would run."""

    def begin(self, run: LoggedRun) -> None:
        """Do nothing."""

    def log(self, points: Sequence[Point]) -> None:
        """Do nothing."""

    def end(self, status: End, final: Mapping[str, float]) -> None:
        """Do nothing."""

"""The rows of a run's processes while they write them, in order of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab.backends.real.plan import EFFECT_ROW, MINIBATCH_ROW, Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.record.rowfile import NewRows

Row = tuple[Any, ...]


class LiveRows:
    """A source of new rows; `keeps` says which rounds are recorded."""

    def __init__(self, plan: Plan, keeps: Callable[[int], bool]) -> None:
        self._plan, self._keeps = plan, keeps
        self._files: dict[str, NewRows] = {}

    def began_s(self) -> float | None:
        """The Unix time at which the run's clock began; that of a resumed run began before its checkpoint."""
        start_ns = int(self._plan.transport.words.server[Words.START_NS])
        return time.time() - (now_ns() - start_ns) * 1e-9 if start_ns else None

    def new(self) -> dict[str, list[Row]]:
        """The rows since the last call, as rows of the tables `effects` and `minibatches`."""
        effects = [row for row in self._read(".effects", EFFECT_ROW) if self._keeps(row[1])]
        minibatches = [row[1:] for row in self._read(".minibatches", MINIBATCH_ROW) if self._keeps(row[0])]
        return {"effects": sorted(effects, key=lambda row: row[4]), "minibatches": minibatches}

    def _read(self, suffix: str, format: str) -> list[Row]:
        rows: list[Row] = []
        for path in sorted(self._plan.parts.glob("*" + suffix)):
            if path.name not in self._files:
                self._files[path.name] = NewRows(path, format)
            rows += self._files[path.name].read()
        return rows

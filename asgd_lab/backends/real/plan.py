"""The arguments of a run's processes: the scenario and the transport, nothing live."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from asgd_lab import interrupts, trust
from asgd_lab.backends import devices, event_log
from asgd_lab.backends.real import orphans
from asgd_lab.backends.real.orphans import SharedHold
from asgd_lab.backends.real.transport import Transport
from asgd_lab.record.columns import KINDS
from asgd_lab.scenario import Scenario

EFFECT_ROW = "13q"  # the columns of effects, times in nanoseconds
DISTANCE_ROW = "2qd"  # the worker, its push's number, and the server's movement since that push's fetch
MINIBATCH_ROW = "4q2d"  # the round, then the columns of minibatches
SNAPSHOT_ROW = "4q"  # time_ns, version, minibatches, and the number of the vector in the snapshots' folder
FATAL = 3  # the exit status of a process whose end fails the run in any case
KIND = {kind: index for index, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Plan:
    """The facts of a run for its processes."""

    scenario: Scenario
    size: int  # P, elements of the flat vector
    size_bytes: int
    transport: Transport
    run_dir: Path
    resumed: Path | None  # the checkpoint that the run resumes from
    elapsed_ns: int  # at that checkpoint, on the run's own clock
    parts: Path  # the folder of the processes' rows, for the parent to join
    logs: Path
    path: tuple[str, ...]  # the parent's module search path: a user's model may be on it
    trusted: bool  # whether all names of the scenario may be imported
    hold: SharedHold
    stand_in: int  # the number of GPUs that the CPU stands in for

    @property
    def events(self) -> Path:
        """The path of the event log."""
        return self.run_dir / event_log.FILE

    @property
    def distances(self) -> Path:
        """The path of the server's measured distances."""
        return self.parts / "server.distances"

    def close(self) -> None:
        """Release the parent's part of the transport."""
        self.transport.close()


def settle(plan: Plan, name: str) -> None:
    """Set up a process of a run: its own log, one thread, and signals that end a run left to the parent."""
    orphans.follow_fork_server(signal.SIGKILL)
    interrupts.ignore()
    log = os.open(plan.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.path[:] = plan.path
    trust.decide(plan.trusted)
    devices.imagine(plan.stand_in)
    torch.set_num_threads(1)

"""A worker's part of a checkpoint, written and read; and a run put back to where a checkpoint has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from asgd_lab.backends.build import Worker
from asgd_lab.backends.process.ledger import Ledger
from asgd_lab.backends.process.plan import Plan
from asgd_lab.record import checkpoints, removal
from asgd_lab.record.rowfile import cut

LEARNER, KEPT = "learner.", "kept."


def save(plan: Plan, worker: Worker, fetches: int, checkpoint: int) -> bool:
    """Between two rounds: its place, the local optimizer, and work that is not pushed yet. False if nobody wants it."""
    replica = worker.replica
    whole, sums = replica.place()
    kept = replica.vectors.kept() if replica.vectors is not None and replica.unpushed else []
    arrays = {"place": np.array([*whole, fetches], np.int64), "sums": np.array(sums)}
    arrays |= {f"{KEPT}{index}": vector.cpu().numpy() for index, vector in enumerate(kept)}
    arrays |= {f"{LEARNER}{name}": value.cpu().numpy() for name, value in worker.learner.state().items()}
    return checkpoints.write(plan.run_dir, checkpoint, f"worker-{replica.worker}", arrays)


def restore(plan: Plan, worker: Worker) -> int | None:
    """Put a new worker where the checkpoint has it; its last fetch, or None if it was not in, or nothing is resumed."""
    number = worker.replica.worker
    if plan.resumed is None or number not in checkpoints.state_of(plan.resumed).workers:
        return None
    arrays = checkpoints.read(plan.resumed, f"worker-{number}")
    *whole, fetches = arrays["place"].tolist()
    worker.replica.resume(whole, arrays["sums"].tolist())
    kept = sorted((name for name in arrays if name.startswith(KEPT)), key=lambda name: int(name.removeprefix(KEPT)))
    if worker.replica.vectors is not None:
        worker.replica.vectors.restore([torch.from_numpy(arrays[name]) for name in kept])
    worker.learner.load(
        {name.removeprefix(LEARNER): torch.from_numpy(value) for name, value in arrays.items() if LEARNER in name}
    )
    return int(fetches)


def go_back(plan: Plan, checkpoint: Path) -> None:
    """Forget what came after the checkpoint, and put its versions where the server expects them.

    All that is read of it is read before anything is changed.
    """
    state = checkpoints.state_of(checkpoint)
    arrays = checkpoints.read(checkpoint, "server", state)
    for path in sorted(plan.parts.iterdir()):
        if path.name in state.rows:
            cut(path, state.rows[path.name])
        elif path.suffix in checkpoints.ROW_FILES and path != plan.distances:  # a push's last measurement counts
            removal.remove_file(plan.run_dir, f"parts/{path.name}")
    cut(plan.events, state.events)
    ledger = Ledger(plan)
    ledger.close()
    parameters = ledger.server.parameters
    if parameters is not None:
        parameters.current.copy_(torch.from_numpy(arrays["params"]))
        for index, vector in enumerate(parameters.state):
            vector.copy_(torch.from_numpy(arrays[f"state.{index}"]))

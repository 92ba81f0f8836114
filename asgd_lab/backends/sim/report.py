"""Who waited for what when nothing went on, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.backends.sim.worker import SimWorker


def deadlock(waiting: Sequence[SimWorker], now: int) -> str:
    """One line: who waits, for what, since when."""
    whats = sorted({"nothing" if each.awaits is None else each.awaits.waits_for for each in waiting})
    return f"deadlock at {now * 1e-9:.6g} s: workers {_listed(waiting)} wait for {' or '.join(whats) or 'nothing'}"


def starvation(waiting: Sequence[SimWorker], now: int) -> str | None:
    """One line, if the run has come to its end past somebody whose request the server has had and not answered."""
    starved = [worker for worker in waiting if worker.awaits is not None and worker.awaits.collected]
    if not starved:
        return None
    return f"starvation until {now * 1e-9:.6g} s: workers {_listed(starved)} wait for a grant that never comes"


def _listed(workers: Sequence[SimWorker]) -> str:
    return (
        ", ".join(map(str, [worker.number for worker in workers][:20])) + (", ..." if len(workers) > 20 else "")
        or "none"
    )
